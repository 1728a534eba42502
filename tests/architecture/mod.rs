//! Reading the project: its files, its Rust as tokens, its documents as tables and links; and what must be true of it.

mod claims;
mod comments;
mod documents;
mod features;
mod imports;
mod limits;
mod map;
mod markdown;
mod modules;
mod names;
mod recipes;
mod rust;
mod threats;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The directory of `Cargo.toml`.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the project by its path from the root.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Paths from the root of all files below `directory` whose name ends with one of `endings`, sorted.
pub fn files(directory: &str, endings: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![root().join(directory)];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !FOREIGN.contains(&&*name) {
                directories.push(path);
            } else if path.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(from_root(&path));
            }
        }
    }
    found.sort();
    found
}

/// Fails with everything that is wrong, and what to do about it.
pub fn report(problems: &[String], advice: &str) {
    assert!(problems.is_empty(), "\n\n{}\n\n{advice}\n", problems.join("\n"));
}

/// Compares what stands between `<!-- name` and `<!-- /name -->` of a document with what the code says, or with
/// `IMKS_UPDATE_DOCS` writes it.
pub fn update_or_compare(document: &str, name: &str, wanted: &str) {
    let text = read(document);
    let current = markdown::section(&text, name).unwrap_or_else(|| panic!("{document} has `<!-- {name}`"));
    if std::env::var_os("IMKS_UPDATE_DOCS").is_some() {
        let start = current.as_ptr().addr() - text.as_ptr().addr();
        let updated = [&text[..start], wanted, &text[start + current.len()..]].concat();
        fs::write(root().join(document), updated).unwrap();
        return;
    }
    let (known, wanted): (BTreeSet<_>, BTreeSet<_>) = (current.lines().collect(), wanted.lines().collect());
    let missing = wanted.difference(&known).map(|line| format!("+ {line}"));
    let problems: Vec<String> =
        known.difference(&wanted).map(|line| format!("- {line}")).chain(missing).collect();
    report(&problems, "Run: IMKS_UPDATE_DOCS=1 cargo test --test architecture_tests");
}

fn from_root(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/")
}

/// Built or downloaded, not written here.
const FOREIGN: [&str; 4] = ["target", "node_modules", ".git", "data"];
