//! Comments: what each file is for, sentences that stand alone, no rulers, documents that exist.

use super::modules::all_source_files;
use super::{files, read, report, root};

#[test]
fn every_source_file_says_what_it_is_for() {
    let sources = all_source_files();
    let silent = sources.iter().filter(|path| super::map::purpose(path).is_empty());
    let problems: Vec<String> = silent.cloned().collect();
    report(&problems, "Start the file with one `//!` sentence; the map in AGENTS.md shows it.");
}

#[test]
fn doc_comments_stand_alone() {
    let mut problems = Vec::new();
    for path in all_source_files() {
        let comments =
            doc_comments(&read(&path)).into_iter().filter(|(_, text)| leans_on_its_neighbour(text));
        problems.extend(comments.map(|(line, text)| format!("{path}:{line}: {text:.100}")));
    }
    report(
        &problems,
        "Documentation and editors show a doc comment without the one above it: name the subject and say the whole thing.",
    );
}

#[test]
fn comments_have_no_rulers() {
    let mut problems = Vec::new();
    for path in rust_files() {
        let text = read(&path);
        let comments = comments(&text).filter(|(_, text)| is_ruler(text.trim_start_matches(['/', '!'])));
        problems.extend(comments.map(|(line, text)| format!("{path}:{line}: {text}")));
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
fn documents_that_comments_name_exist() {
    let mut problems = Vec::new();
    for path in rust_files() {
        for (line, text) in comments(&read(&path)) {
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
fn a_ruler_is_told_from_a_sentence() {
    for ruler in [" ----", "=====", " --- helpers ---------", "━━━━"] {
        assert!(is_ruler(ruler), "{ruler}");
    }
    for sentence in [" | --- | --- |", " a -- b", " x ──▶ y", "", " what_is_this__"] {
        assert!(!is_ruler(sentence), "{sentence}");
    }
}

#[test]
fn a_comment_that_leans_on_another_one_is_found() {
    for leaning in [
        "The same.",
        "The same, for two.",
        "As that.",
        "As [`a`], and more.",
        "Stops that.",
        "Their sum.",
        "A packet that is none.",
    ] {
        assert!(leans_on_its_neighbour(leaning), "{leaning}");
    }
    for alone in [
        "Stops the server.",
        "Messages that wait.",
        "Assigns it to the socket.",
        "A node, as others know it.",
    ] {
        assert!(!leans_on_its_neighbour(alone), "{alone}");
    }
    assert_eq!(
        doc_comments("/// A b\n/// c.\n  //! D.\nx // e\n"),
        [(1, "A b c.".to_owned()), (3, "D.".to_owned())]
    );
}

fn rust_files() -> Vec<String> {
    ["src", "tests", "benches", "examples"].iter().flat_map(|it| files(it, &[".rs"])).collect()
}

/// Comments that have a line of their own, and the number of that line.
fn comments(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = source.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    lines.filter(|(_, line)| line.starts_with("//"))
}

/// The documentation of each item in one line, and where it begins.
fn doc_comments(source: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, usize, &str, String)> = Vec::new();
    for (at, comment) in comments(source) {
        let Some(sign) = ["///", "//!"].into_iter().find(|sign| comment.starts_with(sign)) else { continue };
        let text = comment[sign.len()..].trim();
        match found.last_mut() {
            Some((_, end, before, whole)) if *end + 1 == at && *before == sign => {
                *end = at;
                whole.push(' ');
                whole.push_str(text);
            }
            _ => found.push((at, at, sign, text.to_owned())),
        }
    }
    found.into_iter().map(|(start, _, _, text)| (start, text.trim().to_owned())).collect()
}

/// `Stops that.` says nothing to a reader who does not see what stands above.
fn leans_on_its_neighbour(text: &str) -> bool {
    const STARTS: [&str; 10] =
        ["The same", "As that", "As this", "As it", "As before", "As [", "… ", "Their ", "And ", "Likewise"];
    const PRONOUNS: [&str; 5] = ["it", "this", "that", "them", "those"];
    let begins = |start: &&str| {
        let rest = text.strip_prefix(start);
        rest.is_some_and(|rest| {
            !start.ends_with(char::is_alphabetic) || !rest.starts_with(char::is_alphabetic)
        })
    };
    let sentence = text.split_once(". ").map_or(text, |(sentence, _)| sentence).trim_end_matches('.');
    let words: Vec<&str> = sentence.split_whitespace().collect();
    let points_elsewhere = words.len() <= 3 && words.last().is_some_and(|last| PRONOUNS.contains(last));
    let is_riddle =
        ["that is none", "that are none", "which is none", "who is none"].iter().any(|it| text.contains(it));
    STARTS.iter().any(begins) || points_elsewhere || is_riddle
}

/// A comment of nothing but a drawn line, or a heading inside one.
fn is_ruler(comment: &str) -> bool {
    let is_drawn = |it: char| matches!(it, '-' | '=' | '*' | '#' | '~' | '_' | '+' | '─' | '━' | '═' | '/');
    let comment = comment.trim();
    let (start, end) = (comment.trim_start_matches(is_drawn), comment.trim_end_matches(is_drawn));
    let drawn = |left: &str| comment.chars().count() - left.chars().count() >= 4;
    !comment.starts_with('|') && (drawn(start) || drawn(end))
}

/// True also for everything that does not look like a document at all.
fn is_known_document(word: &str) -> bool {
    match word.strip_prefix("docs/adr/") {
        Some(number) => files("docs/adr", &[".md"]).iter().any(|path| path[9..].starts_with(number)),
        None if word.ends_with(".md") && word.len() > 3 => root().join(word).exists(),
        None => true,
    }
}
