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

/// `sqlx` takes statements that stand in the code, and others only where somebody vouches for them, or a builder adds text.
#[test]
fn statements_stand_in_the_code_and_are_never_made_of_what_somebody_says() {
    let made_of_names_in_the_code = ["src/models/rows.rs", "src/models/db/scratch.rs"];
    let mut problems = Vec::new();
    for path in files("src", &[".rs"]) {
        let code = read(&path);
        let code = code.split("#[cfg(test)]").next().unwrap();
        if code.contains("AssertSqlSafe(") && !made_of_names_in_the_code.contains(&path.as_str()) {
            problems.push(path.clone());
        }
        let built =
            code.lines().filter(|line| code.contains("QueryBuilder::new") && line.contains("query.push"));
        let added = built.flat_map(|line| line.split(".push(").skip(1));
        let wrong =
            added.filter(|text| !text.starts_with(|first: char| first == '"' || first.is_ascii_uppercase()));
        problems.extend(wrong.map(|text| format!("{path}: push({text}")));
    }
    report(&problems, "Bind what somebody says; a statement that has to be made is a decision to add here.");
}

/// What no running test can show: how the program is built and packed.
#[test]
fn what_is_shipped_is_locked_checked_and_runs_as_nobody() {
    let needed: [(&str, &[&str]); 6] = [
        ("Dockerfile", &["cargo build --release --locked --bin imks", "cc-debian12:nonroot\n"]),
        ("compose.yaml", &["read_only: true"]),
        (".github/workflows/ci.yml", &["make audit"]),
        (".github/workflows/release.yml", &["cargo auditable build --release --locked", "cargo-cyclonedx"]),
        ("Makefile", &["cargo deny check advisories", "check bans licenses sources"]),
        ("deny.toml", &["yanked = \"deny\"", "multiple-versions = \"deny\"", "wildcards = \"deny\""]),
    ];
    let lacks = |(path, parts): (&str, &[&str])| {
        let text = read(path);
        let missing = parts.iter().filter(|part| !text.contains(**part));
        missing.map(|part| format!("{path}: {part:?}")).collect::<Vec<_>>()
    };
    let mut problems: Vec<String> = needed.into_iter().flat_map(lacks).collect();
    if read("Cargo.toml").contains("panic = \"abort\"") {
        problems.push("Cargo.toml: a panic in one handler would end every connection".into());
    }
    report(&problems, "docs/threats.md promises this.");
}
