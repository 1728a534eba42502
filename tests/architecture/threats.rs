//! docs/threats.md: every test that it names is there.

use super::{files, markdown, read, report};

#[test]
fn every_test_that_the_table_of_threats_names_exists() {
    let sources = files("tests", &[".rs"]).into_iter().chain(files("src", &[".rs"]));
    let code: String = sources.map(|path| read(&path)).collect();
    let table = read("docs/threats.md");
    let rows: String =
        table.lines().filter(|line| line.starts_with("| ")).map(|line| format!("{line}\n")).collect();
    let names: Vec<&str> =
        markdown::code(&rows).into_iter().filter(|name| name.matches('_').count() > 2).collect();
    assert!(names.len() > 40, "the table was not read");
    let missing = names.into_iter().filter(|name| !code.contains(&format!("fn {name}(")));
    let missing: Vec<String> = missing.map(str::to_owned).collect();
    report(&missing, "Name the test that shows it, or write it.");
}
