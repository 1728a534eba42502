//! What documents claim about the code: names of settings, of metrics and of the library, and the texts of errors.

use std::collections::BTreeSet;

use super::{files, markdown, read, report};

#[test]
fn settings_and_metrics_that_documents_name_exist() {
    let known = words(&sources(&["src", "tests", "benches", "build.rs"]));
    let mut problems = Vec::new();
    for path in files("docs", &[".md"]).into_iter().chain(["README.md".into(), "README.zh-CN.md".into()]) {
        // A decision names things of its time.
        if path.starts_with("docs/adr/") {
            continue;
        }
        let named = words(&read(&path)).into_iter().filter(|word| is_setting(word) || is_metric(word));
        // A secret may come from a file.
        let unknown = named
            .filter(|word| ![word, word.trim_end_matches("_FILE")].iter().any(|name| known.contains(*name)));
        problems.extend(unknown.map(|word| format!("{path}: {word}")));
    }
    report(&problems, "The code knows no such setting or metric: correct the document.");
}

#[test]
fn the_tables_for_those_who_move_name_what_the_library_has() {
    let library = words(&sources(&["src/socket", "src/http", "src/engine"]));
    let mut problems = Vec::new();
    for document in ["docs/from-node.md", "docs/from-socketioxide.md"] {
        for cells in rows(&read(document)) {
            let claimed = markdown::code(&cells[1]).into_iter().flat_map(words);
            let unknown = claimed.filter(|word| !library.contains(word));
            problems.extend(unknown.map(|word| format!("{document}: {word}")));
        }
    }
    report(&problems, "The library has no such name: correct the table.");
}

#[test]
fn texts_of_errors_in_troubleshooting_are_those_of_the_code() {
    // Literals that go on in the next line.
    let code = sources(&["src"]).replace("\\\n", "");
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut problems = Vec::new();
    for cells in rows(&read("docs/troubleshooting.md")) {
        let texts = markdown::code(&cells[0]).into_iter().filter(|text| text.contains(' '));
        let pieces = texts
            .flat_map(|text| text.split(": "))
            .flat_map(|text| text.split(['…', '"', '{', '}', '[', ']']))
            .map(|piece| piece.trim_matches([' ', ':']));
        let pieces = pieces.filter(|piece| piece.len() >= PIECE_BYTES_MIN && piece.contains(' '));
        let unknown = pieces
            .filter(|piece| !code.contains(piece) && !TEXTS_OF_OTHERS.iter().any(|it| it.contains(piece)));
        problems.extend(unknown.map(|piece| format!("docs/troubleshooting.md: {piece}")));
    }
    report(
        &problems,
        "No text in the code contains this: correct the document, or add a text of somebody else to `TEXTS_OF_OTHERS`.",
    );
}

/// Everything that is written in some folders and files.
fn sources(places: &[&str]) -> String {
    let paths = places.iter().flat_map(|place| match place.ends_with(".rs") {
        true => vec![(*place).to_owned()],
        false => files(place, &[".rs"]),
    });
    paths.map(|path| read(&path)).collect::<Vec<_>>().join("\n")
}

/// The words of a text: letters, digits and underscores, at least three.
fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    words.filter(|word| word.len() > 2 && !word.ends_with('_')).map(str::to_owned).collect()
}

fn is_setting(word: &str) -> bool {
    word.starts_with("IMKS_")
}

fn is_metric(word: &str) -> bool {
    let of_histogram = ["_bucket", "_sum", "_count"].iter().any(|end| word.ends_with(end));
    word.starts_with("imks_") && !of_histogram && word != ROLE
}

/// The rows of all tables with two columns or more, without their headings.
fn rows(text: &str) -> Vec<Vec<String>> {
    let text = markdown::prose(text).replace("\\|", " ");
    let rows = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("| ---"));
    let cells =
        rows.map(|row| row.trim_matches('|').split('|').map(|it| it.trim().to_owned()).collect::<Vec<_>>());
    cells.filter(|cells| cells.len() > 1).collect()
}

/// The shortest text that is looked for.
const PIECE_BYTES_MIN: usize = 12;

/// A role of PostgreSQL in docs/publish.md.
const ROLE: &str = "imks_server";

/// Errors of browsers, of other programs and of the operating system, and what a handshake says.
const TEXTS_OF_OTHERS: [&str; 8] = [
    "Address already in use",
    "Connection refused",
    "Too many open files",
    "blocked by CORS policy: No 'Access-Control-Allow-Origin' header",
    "The value of the 'Access-Control-Allow-Origin' header … must not be the wildcard '*' when the request's credentials mode is 'include'",
    "upgrades:",
    "wrong version number",
    "xhr poll error",
];
