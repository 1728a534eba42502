//! What peers see by name: events and error codes are in docs/protocol.md, all of them and no others.

use std::collections::BTreeSet;

use imks::error::Code;
use proc_macro2::TokenTree;

use super::modules::Modules;
use super::{markdown, read, report, rust};

const PROTOCOL: &str = "docs/protocol.md";

/// Calls that register an event.
const REGISTRATIONS: [&str; 4] = ["on", "on_read", "on_write", "on_socket"];

/// Calls that send an event, or describe one that is sent.
const SENDS: [&str; 3] = ["emit", "with_event", "new"];

/// Modules whose events are those of an application or of the Admin UI, or that know no events.
const NOT_OURS: [&str; 4] = ["socket", "engine", "telemetry", "config"];

#[test]
fn events_in_the_code_are_the_events_in_the_protocol() {
    let protocol = read(PROTOCOL);
    let documented: BTreeSet<String> =
        markdown::code(&markdown::prose(&protocol)).into_iter().map(str::to_owned).collect();
    let (mut named, mut literals) = (BTreeSet::new(), BTreeSet::new());
    let modules = Modules::read();
    for (_, file, code) in
        modules.code().filter(|(module, ..)| !module.first().is_some_and(|it| NOT_OURS.contains(&&**it)))
    {
        let registered = rust::text_arguments(code, &REGISTRATIONS);
        let sent = rust::text_arguments(code, &SENDS).into_iter().filter(|it| it.contains(':'));
        let events = registered.into_iter().chain(sent).filter(|it| is_event_name(it));
        named.extend(events.map(|name| (name, file)));
        literals.extend(rust::texts(code));
    }
    assert!(named.len() > 10, "found hardly any events: did the way they are registered change?");
    let unknown = named.iter().filter(|(name, _)| !documented.contains(name));
    let mut problems: Vec<String> =
        unknown.map(|(name, path)| format!("{path}: `{name}` is not in {PROTOCOL}")).collect();
    let gone = documented
        .iter()
        .filter(|name| name.contains(':') && is_event_name(name) && !literals.contains(*name));
    problems.extend(gone.map(|name| format!("{PROTOCOL}: `{name}` is not in the code")));
    report(&problems, "Describe the event in docs/protocol.md, or remove what is no longer there.");
}

#[test]
fn error_codes_in_the_code_are_the_error_codes_in_the_protocol() {
    let protocol = read(PROTOCOL);
    let (_, codes) =
        protocol.split_once("### Error codes").expect("docs/protocol.md has a table of error codes");
    let documented: BTreeSet<(String, bool, String)> = markdown::table(codes)
        .iter()
        .flat_map(|row| {
            let is_retryable = row[1].starts_with("yes") || row[1].starts_with("once");
            let codes = markdown::code(&row[0]).into_iter();
            codes.map(move |code| (code.to_owned(), is_retryable, row[3].clone())).collect::<Vec<_>>()
        })
        .collect();
    let row = |code: &Code| (code.to_string(), code.is_retryable(), code.http_status().to_string());
    let decided: BTreeSet<_> = Code::ALL.iter().map(row).collect();
    let unknown = decided.difference(&documented).map(|row| format!("{row:?} is not in {PROTOCOL}"));
    let gone = documented.difference(&decided).map(|row| format!("{PROTOCOL}: {row:?} is not in the code"));
    let mut problems: Vec<String> = unknown.chain(gone).collect();
    for (_, file, code) in
        Modules::read().code().filter(|(module, ..)| !module.starts_with(&["error".to_owned()]))
    {
        let by_hand = codes_by_hand(code);
        problems.extend(by_hand.into_iter().map(|text| format!("{file}: {text} is written without `Code`")));
    }
    report(&problems, "Correct the table \"Error codes\" in docs/protocol.md, or take the text from `Code`.");
}

#[test]
fn a_code_that_is_written_by_hand_is_found() {
    let found = |source: &str| codes_by_hand(&rust::product_code(source));
    assert_eq!(found(r#"fn f() { json!({"code": "x", "message": "y"}) }"#), ["x"]);
    assert_eq!(
        found(r##"const A: &str = r#"{"code":"x"}"#; const B: &str = "{\"code\": \"y\"}";"##).len(),
        2
    );
    assert!(
        found(r##"fn f() { json!({"code": Code::X, "error": "code"}); let a = r#"{"code":"{code}"}"#; }"##)
            .is_empty()
    );
}

/// Error codes that JSON is given as text: `"code": "x"` of `json!`, or inside of a longer literal.
fn codes_by_hand(code: &[TokenTree]) -> Vec<String> {
    let is_text = |text: &String| {
        let text = text.replace(' ', "");
        text.split_once(r#""code":""#).is_some_and(|(_, value)| !value.starts_with('{'))
    };
    let literals = rust::texts(code).into_iter().filter(is_text);
    rust::text_values(code, "code").into_iter().chain(literals).collect()
}

/// `message:send`, `history`: what only events and limits are called.
fn is_event_name(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.chars().all(|it| it.is_ascii_lowercase() || it == '_');
    name.split(':').all(part) && name.matches(':').count() <= 1
}
