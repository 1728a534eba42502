//! Documents: their links, the files they name, and the form of decision records.

use super::{files, markdown, read, report, root};

/// Lines of docs/architecture.md that promise something to all of the code.
const INVARIANTS_MAX: usize = 10;

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
    // A decision that no longer holds names files of its time.
    for path in documents().into_iter().filter(|path| !status(&read(path)).contains("superseded by")) {
        let text = markdown::prose(&read(&path));
        let present = text.split("## Not built yet").next().unwrap_or_default();
        for name in markdown::code(present).into_iter().filter(|name| is_project_path(name)) {
            if !root().join(name.trim_end_matches('/')).exists() {
                problems.push(format!("{path}: `{name}`"));
            }
        }
    }
    report(
        &problems,
        "The document names a file that is not there: correct it, or say under \"Not built yet\" that it is planned.",
    );
}

#[test]
fn files_of_the_source_are_named_from_the_root() {
    let mut problems = Vec::new();
    for path in documents().iter().filter(|path| !path.starts_with("AGENTS")) {
        let text = markdown::prose(&read(path));
        let short = markdown::code(&text).into_iter().filter(|name| {
            let is_file =
                name.ends_with(".rs") && name.contains('/') && !name.contains(|it: char| it.is_whitespace());
            is_file && root().join("src").join(name).exists()
        });
        problems.extend(short.map(|name| format!("{path}: `{name}`")));
    }
    report(&problems, "Write the path from the root of the repository: `src/…`.");
}

#[test]
fn the_invariants_are_few_enough_to_be_known() {
    let text = read("docs/architecture.md");
    let invariants = text.lines().filter(|line| line.starts_with("- **Invariant**")).count();
    assert!(
        invariants <= INVARIANTS_MAX,
        "docs/architecture.md has {invariants} invariants: what holds inside one part of the code is a **Rule**"
    );
    let loose = text.lines().filter(|line| line.starts_with("**Invariant**") || line.starts_with("**Rule**"));
    assert_eq!(loose.count(), 0, "invariants and rules are items of a list");
}

#[test]
fn decision_records_are_numbered_without_holes_and_listed() {
    let index = read("docs/adr/README.md");
    let mut problems = Vec::new();
    for (at, path) in records().iter().enumerate() {
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

/// Whoever reads an old record must find the new one, and the other way round.
#[test]
fn decision_records_that_change_each_other_say_so_with_links() {
    let mut problems = Vec::new();
    let index = read("docs/adr/README.md");
    for path in records() {
        let number = &path["docs/adr/".len()..][..4];
        let status = status(&read(&path));
        for (here, there) in [("superseded by", "supersedes"), ("amended by", "amends")] {
            for newer in numbers_after(&status, here) {
                let link = format!("[{newer}]({newer}-");
                let record = records().into_iter().find(|it| it.contains(&format!("/{newer}-")));
                let answered = record.is_some_and(|it| {
                    numbers_after(&self::status(&read(&it)), there).contains(&number.to_owned())
                });
                let row =
                    index.lines().find(|line| line.contains(&format!("[{number}]("))).unwrap_or_default();
                if !status.contains(&link) || !answered || !numbers_after(row, here).contains(&newer) {
                    problems.push(format!("{path}: {here} {newer}"));
                }
            }
            for older in numbers_after(&status, there) {
                let record = records().into_iter().find(|it| it.contains(&format!("/{older}-")));
                if !record.is_some_and(|it| {
                    numbers_after(&self::status(&read(&it)), here).contains(&number.to_owned())
                }) {
                    problems.push(format!("{path}: {there} {older}, which does not say so"));
                }
            }
        }
    }
    let advice = "The status of the older record links to the newer one (`amended by [0016](0016-…)`), that of the newer one \
                  links back (`amends [0008](0008-…)`), and the index says it too.";
    report(&problems, advice);
}

#[test]
fn numbers_in_a_status_belong_to_the_words_before_them() {
    let status =
        "accepted; amended by [0016](0016-a.md) (TLS) and\n[0019](0019-b.md); supersedes [0001](0001-c.md)";
    assert_eq!(numbers_after(status, "amended by"), ["0016", "0019"]);
    assert_eq!(numbers_after(status, "supersedes"), ["0001"]);
    assert_eq!(numbers_after("| amended by 0016, 0019 |", "amended by"), ["0016", "0019"]);
    assert!(numbers_after(status, "superseded by").is_empty());
}

fn records() -> Vec<String> {
    files("docs/adr", &[".md"]).into_iter().filter(|path| !path.ends_with("README.md")).collect()
}

/// The paragraph that begins with `Status: `.
fn status(record: &str) -> String {
    let lines = record.lines().skip_while(|line| !line.starts_with("Status: "));
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Numbers of records between `words` and the end of the clause; targets of links do not count.
fn numbers_after(status: &str, words: &str) -> Vec<String> {
    let mut numbers = Vec::new();
    for (_, clause) in status.split(';').filter_map(|clause| clause.split_once(words)) {
        let mut parts = clause.split("](");
        let texts =
            parts.next().into_iter().chain(parts.filter_map(|it| it.split_once(')')).map(|(_, it)| it));
        let digits = texts.flat_map(|it| it.split(|it: char| !it.is_ascii_digit()));
        numbers.extend(digits.filter(|it| it.len() == 4 && it.starts_with('0')).map(str::to_owned));
    }
    numbers
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

/// `src/socket/parser.rs`, but not `src/message_X.rs` or a command line.
fn is_project_path(name: &str) -> bool {
    let directories = ["src/", "docs/", "tests/", "migrate/", "proto/", "benches/", "examples/", "web/"];
    let plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || "/._-".contains(it);
    directories.iter().any(|it| name.starts_with(it)) && name.chars().all(plain)
}

/// The commands that a document names below a heading: the first word of each row, and the lines of its blocks without what
/// they say about them.
fn commands(document: &str, heading: &str) -> Vec<String> {
    let text = read(document);
    let below = text.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_default();
    let section = below.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let blocks = section.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    let lines = blocks.flat_map(str::lines).filter_map(|line| line.split(" #").next());
    rows.chain(lines).map(|command| command.trim().to_owned()).collect()
}

#[test]
fn the_guide_for_changing_the_code_names_the_same_commands_in_both_languages_and_every_word_of_make() {
    let english = commands("AGENTS.md", "Commands");
    assert_eq!(english, commands("AGENTS.zh-CN.md", "命令"));
    let makefile = read("Makefile");
    let words = english.iter().filter_map(|command| command.strip_prefix("make "));
    let missing: Vec<String> =
        words.filter(|word| !makefile.contains(&format!("\n{word}: "))).map(str::to_owned).collect();
    assert!(english.len() > 20 && missing.is_empty(), "{missing:?} {english:?}");
}
