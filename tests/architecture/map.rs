//! Files: the map in `AGENTS.md`, how long they are, the migrations.

use std::collections::BTreeSet;

use super::modules::{Modules, all_source_files};
use super::{files, markdown, read, report, update_or_compare};

/// Longest file of `src/`, its unit tests not counted.
const FILE_LINES_MAX: usize = 500;

#[test]
fn the_map_in_agents_md_shows_every_file() {
    update_or_compare("AGENTS.md", "map", &map());
}

#[test]
fn files_stay_short_enough_to_be_read() {
    let mut problems = Vec::new();
    for path in Modules::read().files.values() {
        let lines = lines_without_tests(&read(path));
        if lines > FILE_LINES_MAX {
            problems.push(format!("{path}: {lines} lines without its tests"));
        }
    }
    report(&problems, "Split the file where a person would name the parts.");
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

/// The first sentence of a file.
pub fn purpose(path: &str) -> String {
    let text = read(path);
    let lines = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let paragraph = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let sentence = paragraph.split_once(". ").map_or(&*paragraph, |(sentence, _)| sentence);
    markdown::without_item_links(sentence).trim_end_matches('.').to_owned()
}

/// The map of `src/`: one line per file, in its own words.
fn map() -> String {
    let paths = all_source_files();
    let width = paths.iter().map(|path| path.len()).max().unwrap_or_default() - "src/".len();
    let lines = paths.iter().map(|path| {
        let name = path.strip_prefix("src/").unwrap();
        format!("{name:width$}  {}\n", purpose(path))
    });
    format!("```text\n{}```\n", lines.collect::<String>())
}

fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "));
    let tests = tests.filter(|at| lines[at + 1].ends_with('{'));
    tests.unwrap_or(lines.len())
}
