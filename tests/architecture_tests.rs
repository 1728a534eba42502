//! The documents are true: what they say about the code is compared with the code.
//!
//! Each failure says what to do. The map in `AGENTS.md` is written by the test itself:
//! `IMKS_UPDATE_DOCS=1 cargo test --test architecture_tests`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod architecture;

use std::collections::{BTreeMap, BTreeSet};

use architecture::rust::{Token, crate_paths, path_heads, tokens, without_tests};
use architecture::{files, markdown, read, report, root};
use imks::error::Code;

const ARCHITECTURE: &str = "docs/architecture.md";
const PROTOCOL: &str = "docs/protocol.md";

/// Longest file of `src/`, its unit tests not counted.
const FILE_LINES_MAX: usize = 500;

/// Files that may be longer, and why.
const LONG_FILES: &[(&str, &str)] = &[
    ("src/engine/connection/mod.rs", "the one place where session, wires, queue and timer meet"),
    ("src/auth/permission.rs", "the permissions with a line each, and the one cache that answers for them"),
    (
        "src/models/append/plan.rs",
        "one pure decision about one batch; its steps read and fill the same state",
    ),
];

/// Words of the import table that stand for several modules.
const LEAVES: &str = "leaves";
const EVERYTHING: &str = "everything";

#[test]
fn a_module_imports_only_what_the_table_allows() {
    let rules = import_rules();
    let modules = modules();
    let mut problems: Vec<String> = Vec::new();
    for path in files("src", &[".rs"]) {
        let module = module_of(&path);
        let Some(rule) = rules.get(module) else { continue };
        let source = product_code(&path);
        for import in crate_paths(&source, depth(&path)) {
            let Some(target) = owner(&import, &modules) else { continue };
            if target != module && !rule.allows(&target, &import) {
                problems.push(format!("{path}: `{module}` imports `crate::{}`", import.join("::")));
            }
        }
        for head in path_heads(&source) {
            if rule.banned_crates.contains(head) {
                problems.push(format!("{path}: `{module}` names the crate `{head}`"));
            }
        }
    }
    problems.dedup();
    let advice = "Move the code to where both sides may be seen, or hand the value in as an argument. If the arrow is \
                  right, add it to the table \"Who may import whom\" in docs/architecture.md and say why there.";
    report(&problems, advice);
}

#[test]
fn every_module_stands_in_the_import_table() {
    let (rules, modules) = (import_rules(), modules());
    let mut problems: Vec<String> = Vec::new();
    for module in modules.iter().filter(|module| !rules.contains_key(*module)) {
        problems.push(format!("src/{module} has no row in the import table"));
    }
    for module in rules.keys().filter(|module| !modules.contains(*module)) {
        problems.push(format!("the import table has a row for `{module}`, which does not exist"));
    }
    report(&problems, "Edit the table \"Who may import whom\" in docs/architecture.md.");
}

#[test]
fn the_map_in_agents_md_shows_every_file() {
    let (agents, map) = (read("AGENTS.md"), map());
    let current = markdown::section(&agents, "map").expect("AGENTS.md has `<!-- map` and `<!-- /map -->`");
    let updated = agents.replace(current, &map);
    if std::env::var_os("IMKS_UPDATE_DOCS").is_some() {
        std::fs::write(root().join("AGENTS.md"), updated).unwrap();
        return;
    }
    let (known, wanted): (BTreeSet<_>, BTreeSet<_>) = (current.lines().collect(), map.lines().collect());
    let missing = wanted.difference(&known).map(|line| format!("+ {line}"));
    let problems: Vec<String> =
        known.difference(&wanted).map(|line| format!("- {line}")).chain(missing).collect();
    report(&problems, "Run: IMKS_UPDATE_DOCS=1 cargo test --test architecture_tests");
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let sources = files("src", &[".rs"]);
    let silent = sources.iter().filter(|path| purpose(path).is_empty());
    let problems: Vec<String> = silent.cloned().collect();
    report(&problems, "Start the file with one `//!` sentence; the map in AGENTS.md shows it.");
}

#[test]
fn files_stay_short_enough_to_be_read() {
    let mut problems = Vec::new();
    for path in files("src", &[".rs"]) {
        let lines = lines_without_tests(&read(&path));
        if lines > FILE_LINES_MAX && !LONG_FILES.iter().any(|(long, _)| *long == path) {
            problems.push(format!("{path}: {lines} lines without its tests"));
        }
    }
    let advice = "Split the file where a person would name the parts, or add it with a reason to LONG_FILES in \
                  tests/architecture_tests.rs.";
    report(&problems, advice);
}

#[test]
fn comments_have_no_rulers() {
    let mut problems = Vec::new();
    for path in ["src", "tests", "benches", "examples"].iter().flat_map(|it| files(it, &[".rs"])) {
        for token in tokens(&read(&path)) {
            if let Token::Comment(text, line) = token
                && is_ruler(text.trim_start_matches(['/', '!']))
            {
                problems.push(format!("{path}:{line}: {text}"));
            }
        }
    }
    for (directory, ending, sign) in [("migrate", ".sql", "--"), ("proto", ".proto", "//")] {
        for path in files(directory, &[ending]) {
            let text = read(&path);
            let comments = text.lines().filter_map(|line| line.trim_start().strip_prefix(sign));
            problems.extend(comments.filter(|it| is_ruler(it)).map(|it| format!("{path}: {it}")));
        }
    }
    report(&problems, "Delete the line. If a file needs sections, it wants to be two files.");
}

#[test]
fn events_in_the_code_are_the_events_in_the_protocol() {
    let Some(protocol) = read_if_there(PROTOCOL) else { return };
    let documented: BTreeSet<String> =
        markdown::code(&markdown::prose(&protocol)).into_iter().map(str::to_owned).collect();
    let (mut named, mut literals) = (BTreeSet::new(), BTreeSet::new());
    for path in files("src/messaging", &[".rs"]).iter().chain(&["src/app.rs".to_owned()]) {
        let code = product_code(path);
        named.extend(event_names(&code).into_iter().map(|name| (name, path.clone())));
        literals.extend(texts(&code));
    }
    assert!(named.len() > 10, "found hardly any events: did the way they are registered change?");
    let unknown = named.iter().filter(|(name, _)| !documented.contains(name));
    let mut problems: Vec<String> =
        unknown.map(|(name, path)| format!("{path}: `{name}` is not in {PROTOCOL}")).collect();
    let gone = documented.iter().filter(|name| is_event_name(name) && !literals.contains(*name));
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
    for path in files("src", &[".rs"]).iter().filter(|path| !path.starts_with("src/error/")) {
        let by_hand = codes_by_hand(&product_code(path));
        problems.extend(by_hand.into_iter().map(|text| format!("{path}: {text} is written without `Code`")));
    }
    report(&problems, "Correct the table \"Error codes\" in docs/protocol.md, or take the text from `Code`.");
}

#[test]
fn both_databases_have_the_same_migrations() {
    let names = |database: &str| -> Vec<String> {
        let files = files(&format!("migrate/{database}"), &[".sql"]);
        files.iter().map(|path| path.rsplit('/').next().unwrap().to_owned()).collect()
    };
    let (postgres, sqlite) = (names("postgres"), names("sqlite"));
    assert_eq!(postgres, sqlite, "add the missing migration; one without effect is a file with a comment");
    let numbers: BTreeSet<&str> = postgres.iter().map(|name| name.split('_').next().unwrap()).collect();
    let numbered = |number: &str| number.len() == 4 && number.parse::<u16>().is_ok();
    let all_numbered = numbers.iter().copied().all(numbered);
    assert!(all_numbered, "migrations are named NNNN_what.sql: {postgres:?}");
    assert_eq!(numbers.len(), postgres.len(), "two migrations have the same number: {postgres:?}");
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut problems = Vec::new();
    for path in documents() {
        let text = markdown::prose(&read(&path));
        for link in markdown::links(&text).iter().filter(|link| !is_elsewhere(link)) {
            if let Some(problem) = broken(&path, link) {
                problems.push(format!("{path}: ({link}) {problem}"));
            }
        }
    }
    report(&problems, "Correct the link, or write what it should lead to.");
}

#[test]
fn files_that_documents_name_exist() {
    let mut problems = Vec::new();
    for path in documents() {
        let text = markdown::prose(&read(&path));
        for name in markdown::code(&text).into_iter().filter(|name| is_project_path(name)) {
            if !root().join(name.trim_end_matches('/')).exists() {
                problems.push(format!("{path}: `{name}`"));
            }
        }
    }
    report(&problems, "The document names a file that is not there: correct it, or say that it is planned.");
}

#[test]
fn documents_that_comments_name_exist() {
    let mut problems = Vec::new();
    for path in ["src", "tests", "benches", "examples"].iter().flat_map(|it| files(it, &[".rs"])) {
        for token in tokens(&read(&path)) {
            let Token::Comment(text, line) = token else { continue };
            let words = text.split(|it: char| !(it.is_ascii_alphanumeric() || "/._-".contains(it)));
            let unknown = words.filter(|word| !is_known_document(word.trim_end_matches('.')));
            problems.extend(unknown.map(|word| format!("{path}:{line}: {word}")));
        }
    }
    report(
        &problems,
        "Name a document of this repository by its path, such as docs/protocol.md or docs/adr/0007.",
    );
}

#[test]
fn decision_records_are_numbered_without_holes_and_listed() {
    let index = read("docs/adr/README.md");
    let records = files("docs/adr", &[".md"]);
    let records = records.iter().filter(|path| !path.ends_with("README.md"));
    let mut problems = Vec::new();
    for (at, path) in records.enumerate() {
        let (name, text) = (path.rsplit('/').next().unwrap(), read(path));
        let number = format!("{:04}", at + 1);
        let title = text.lines().next().unwrap_or_default().trim_start_matches("# ");
        if !name.starts_with(&format!("{number}-")) || !title.starts_with(&format!("{number}. ")) {
            problems.push(format!("{path}: name and title should start with {number}"));
        }
        let row = format!("[{number}]({name}) | {} |", title.trim_start_matches(&format!("{number}. ")));
        if !index.contains(&row) {
            problems.push(format!("docs/adr/README.md has no row `{row} …`"));
        }
        for part in ["Status: ", "## Context", "## Decision", "## Consequences"] {
            if !text.lines().any(|line| line.starts_with(part)) {
                problems.push(format!("{path}: no `{part}`"));
            }
        }
    }
    report(&problems, "docs/adr/README.md shows the form of a record.");
}

#[test]
fn an_import_is_found_however_it_is_written() {
    let found = |source: &str, depth: usize| -> Vec<String> {
        let code = without_tests(tokens(source));
        crate_paths(&code, depth).into_iter().map(|path| path.join("::")).collect()
    };
    assert_eq!(found("use crate::{a::{b, c as d}, e};", 1), ["a::b", "a::c", "e"]);
    assert_eq!(found("fn f() { crate::a::b::<T>(); $crate::c!() }", 1), ["a::b", "c"]);
    assert_eq!(found("use super::super::a; use super::b;", 2), ["a"]);
    assert!(
        found("// crate::a\n/* crate::b */ const C: &str = r#\"crate::c\"#; let d = '\"'; //", 1).is_empty()
    );
    assert!(found("#[cfg(test)]\nmod tests { use crate::a; fn f() { {} } }", 1).is_empty());
    assert_eq!(path_heads(&tokens("use sqlx::{a}; b::c::d();")), ["sqlx", "b"]);
}

#[test]
fn a_ruler_is_told_from_a_sentence() {
    for ruler in [" ----", "=====", " --- helpers ---------", "━━━━"] {
        assert!(is_ruler(ruler), "{ruler}");
    }
    for sentence in [" | --- | --- |", " a -- b", " x ──▶ y", "", " what_is_this__"] {
        assert!(!is_ruler(sentence), "{sentence}");
    }
}

/// What one module may see.
#[derive(Default)]
struct Rule {
    everything: bool,
    /// `models`, or a part of it: `models::db`.
    paths: Vec<String>,
    banned_crates: BTreeSet<String>,
}

impl Rule {
    fn allows(&self, target: &str, import: &[String]) -> bool {
        let import = import.join("::");
        let within = |path: &String| import == *path || import.starts_with(&format!("{path}::"));
        self.everything || self.paths.iter().any(|path| path == target || within(path))
    }
}

/// Module → what the table in docs/architecture.md says about it.
fn import_rules() -> BTreeMap<String, Rule> {
    let text = read(ARCHITECTURE);
    let section = markdown::section(&text, "imports").expect("docs/architecture.md has `<!-- imports`");
    let rows = markdown::table(section);
    assert!(!rows.is_empty(), "the import table in docs/architecture.md is empty");
    let leaves: Vec<String> = rows
        .iter()
        .filter(|row| row[0].contains(LEAVES))
        .flat_map(|row| markdown::code(&row[0]).into_iter().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let mut rules = BTreeMap::new();
    for row in &rows {
        for module in markdown::code(&row[0]) {
            let mut paths: Vec<String> = markdown::code(&row[1]).into_iter().map(str::to_owned).collect();
            if row[1].contains(LEAVES) {
                paths.extend(leaves.clone());
            }
            let banned_crates = markdown::code(&row[2]).into_iter().map(str::to_owned).collect();
            let rule = Rule { everything: row[1].contains(EVERYTHING), paths, banned_crates };
            rules.insert(module.to_owned(), rule);
        }
    }
    rules
}

/// Top-level modules of the crate.
fn modules() -> BTreeSet<String> {
    let sources = files("src", &[".rs"]);
    sources.iter().map(|path| module_of(path).to_owned()).filter(|it| it != "lib" && it != "main").collect()
}

/// `socket` of `src/socket/parser.rs`, `error` of `src/error.rs`.
fn module_of(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap();
    inside.split('/').next().unwrap().trim_end_matches(".rs")
}

/// How many `super::` lead from a file to the root.
fn depth(path: &str) -> usize {
    path.trim_end_matches("/mod.rs").split('/').count() - 1
}

/// The module a path leads to; what the root exports again belongs to `error`. Nothing for a path of `super::`
/// that stays inside its module.
fn owner(import: &[String], modules: &BTreeSet<String>) -> Option<String> {
    let first = import.first()?;
    let exported = matches!(&**first, "ImksError" | "ImksResult");
    let target = if exported { "error" } else { first };
    modules.contains(target).then(|| target.to_owned())
}

/// The string literals.
fn texts(code: &[Token]) -> Vec<String> {
    let texts = code.iter().filter_map(|token| match token {
        Token::Text(text) => Some(text.clone()),
        _ => None,
    });
    texts.collect()
}

/// Error codes that JSON is given as text: `"code": "x"` of `json!`, or inside of a longer literal.
fn codes_by_hand(code: &[Token]) -> Vec<String> {
    let entries = code.windows(3).filter_map(|window| match window {
        [Token::Text(key), Token::Sign(':'), Token::Text(value)] if key == "code" => Some(value.clone()),
        _ => None,
    });
    let is_text = |text: &String| {
        let value = text.replace([' ', '\\'], "");
        value.split_once(r#""code":""#).is_some_and(|(_, value)| !value.starts_with('{'))
    };
    entries.chain(texts(code).into_iter().filter(is_text)).collect()
}

/// Names that are registered (`.on("x"`) or sent (`Push::new("x"`, `emit("x"`, `with_event("x"`).
fn event_names(code: &[Token]) -> Vec<String> {
    let is = |token: &Token, word: &str| matches!(token, Token::Word(it) if it == word);
    let names = code.windows(3).enumerate().filter_map(|(at, window)| {
        let [word, Token::Sign('('), Token::Text(name)] = window else { return None };
        let push = is(word, "new") && at >= 3 && is(&code[at - 3], "Push");
        let call = ["on", "emit", "with_event"].iter().any(|it| is(word, it));
        (push || call).then(|| name.clone())
    });
    names.collect()
}

/// `message:send`: what only events and limits are called.
fn is_event_name(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.chars().all(|it| it.is_ascii_lowercase() || it == '_');
    name.split_once(':').is_some_and(|(what, happened)| part(what) && part(happened))
}

fn read_if_there(path: &str) -> Option<String> {
    std::fs::read_to_string(root().join(path)).ok()
}

fn product_code(path: &str) -> Vec<Token> {
    if path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let code = without_tests(tokens(&read(path)));
    code.into_iter().filter(|token| !matches!(token, Token::Comment(..))).collect()
}

/// The map of `src/`: one line per file, in its own words.
fn map() -> String {
    let paths = files("src", &[".rs"]);
    let width = paths.iter().map(|path| path.len()).max().unwrap_or_default() - "src/".len();
    let lines = paths.iter().map(|path| {
        let name = path.strip_prefix("src/").unwrap();
        format!("{name:width$}  {}\n", purpose(path))
    });
    format!("```text\n{}```\n", lines.collect::<String>())
}

/// The first sentence of a file.
fn purpose(path: &str) -> String {
    let text = read(path);
    let lines = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let paragraph = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let sentence = paragraph.split_once(". ").map_or(&*paragraph, |(sentence, _)| sentence);
    without_links(sentence).trim_end_matches('.').to_owned()
}

/// `[`Engine`](path)` and `[`Engine`]` become `Engine`.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("[`") {
        let (name, after) = after.split_once("`]").unwrap_or((after, ""));
        plain.push_str(before);
        plain.push_str(&format!("`{name}`"));
        rest = match after.strip_prefix('(') {
            Some(link) => link.split_once(')').map_or("", |(_, after)| after),
            None => after,
        };
    }
    plain + rest
}

fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "));
    let tests = tests.filter(|at| lines[at + 1].ends_with('{'));
    tests.unwrap_or(lines.len())
}

/// A comment of nothing but a drawn line, or a heading inside one.
fn is_ruler(comment: &str) -> bool {
    let is_drawn = |it: char| matches!(it, '-' | '=' | '*' | '#' | '~' | '_' | '+' | '─' | '━' | '═' | '/');
    let comment = comment.trim();
    let (start, end) = (comment.trim_start_matches(is_drawn), comment.trim_end_matches(is_drawn));
    let drawn = |left: &str| comment.chars().count() - left.chars().count() >= 4;
    !comment.starts_with('|') && (drawn(start) || drawn(end))
}

/// Documents of the project.
fn documents() -> Vec<String> {
    let names = ["README.md", "README.zh-CN.md", "AGENTS.md", "CONTRIBUTING.md"];
    names.iter().map(|name| (*name).to_owned()).chain(files("docs", &[".md"])).collect()
}

fn is_elsewhere(link: &str) -> bool {
    ["http://", "https://", "mailto:"].iter().any(|scheme| link.starts_with(scheme))
}

fn broken(document: &str, link: &str) -> Option<&'static str> {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let directory = root().join(document).parent().unwrap().to_owned();
    let target = if file.is_empty() { root().join(document) } else { directory.join(file) };
    if !target.exists() {
        return Some("does not exist");
    }
    if anchor.is_empty() || target.extension().is_none_or(|it| it != "md") {
        return None;
    }
    let text = markdown::prose(&std::fs::read_to_string(&target).unwrap());
    (!markdown::anchors(&text).iter().any(|it| it == anchor)).then_some("has no such heading")
}

/// True also for everything that does not look like a document at all.
fn is_known_document(word: &str) -> bool {
    match word.strip_prefix("docs/adr/") {
        Some(number) => files("docs/adr", &[".md"]).iter().any(|path| path[9..].starts_with(number)),
        None if word.ends_with(".md") && word.len() > 3 => root().join(word).exists(),
        None => true,
    }
}

/// `src/socket/parser.rs`, but not `src/message_X.rs` or a command line.
fn is_project_path(name: &str) -> bool {
    let directories = ["src/", "docs/", "tests/", "migrate/", "proto/", "benches/", "examples/", "web/"];
    let plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || "/._-".contains(it);
    directories.iter().any(|it| name.starts_with(it)) && name.chars().all(plain)
}
