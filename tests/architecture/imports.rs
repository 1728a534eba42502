//! Who imports whom: the table in docs/architecture.md, circles, and the order of `use` lines.

use std::collections::{BTreeMap, BTreeSet};

use super::modules::{Arrow, Module, Modules, all_source_files};
use super::{markdown, read, report, rust};

const ARCHITECTURE: &str = "docs/architecture.md";

/// Words of the import table that stand for several modules.
const LEAVES: &str = "leaves";
const EVERYTHING: &str = "everything";

/// Files of one folder that may import each other in a circle.
const CIRCLE_FILES_MAX: usize = 3;

#[test]
fn a_module_imports_only_what_the_table_allows() {
    let (modules, rules) = (Modules::read(), Rules::read());
    let mut problems = BTreeSet::new();
    for arrow in modules.arrows() {
        if !rules.allow(&arrow) {
            let (from, named) = (arrow.from.join("::"), arrow.named.join("::"));
            problems.insert(format!("{}: `{from}` imports `crate::{named}`", modules.files[&arrow.from]));
        }
    }
    for (module, file, code) in modules.code() {
        let Some(rule) = rules.of(module) else { continue };
        let banned = rust::path_heads(code).into_iter().filter(|head| rule.banned_crates.contains(head));
        problems
            .extend(banned.map(|head| format!("{file}: `{}` names the crate `{head}`", module.join("::"))));
    }
    let problems: Vec<String> = problems.into_iter().collect();
    let advice = "Move the code to where both sides may be seen, or hand the value in as an argument. If the arrow is \
                  right, add it to the table \"Who may import whom\" in docs/architecture.md and say why there.";
    report(&problems, advice);
}

#[test]
fn every_module_stands_in_the_import_table() {
    let (modules, rules) = (Modules::read(), Rules::read());
    let top_level = modules.files.keys().filter(|module| module.len() == 1);
    let without = top_level.filter(|module| rules.of(module).is_none());
    let mut problems: Vec<String> =
        without.map(|module| format!("`{}` has no row in the import table", module[0])).collect();
    let gone = rules.0.keys().filter(|module| !modules.files.contains_key(*module));
    problems.extend(
        gone.map(|it| format!("the import table has a row for `{}`, which does not exist", it.join("::"))),
    );
    report(&problems, "Edit the table \"Who may import whom\" in docs/architecture.md.");
}

#[test]
fn imports_run_in_circles_only_between_few_files_of_one_folder() {
    let modules = Modules::read();
    let arrows = modules.arrows();
    let mut problems = Vec::new();
    for folder in modules.files.keys() {
        for circle in circles(folder, &arrows) {
            if circle.len() > CIRCLE_FILES_MAX || passes_through_a_folder(&circle, &arrows) {
                let parts = circle.iter().map(|part| part.join("::")).collect::<Vec<_>>();
                problems.push(format!("{} import each other", parts.join(", ")));
            }
        }
    }
    let advice = "Code that both sides need belongs below both, and a call back up is a value or a closure that is handed in.";
    report(&problems, advice);
}

#[test]
fn imports_are_flat_and_in_three_groups() {
    let mut problems = Vec::new();
    for path in all_source_files() {
        problems.extend(out_of_order(&read(&path)).into_iter().map(|line| format!("{path}: {line}")));
    }
    report(
        &problems,
        "First `std`, then other crates, then `crate`, `self` and `super`, with an empty line between the groups and none \
         inside; one `use` for each module.",
    );
}

#[test]
fn imports_out_of_order_are_found() {
    let good =
        "use std::fmt;\n\nuse bytes::Bytes;\nuse serde::{\n    A,\n};\n\nuse super::a;\nuse crate::b;\n";
    assert_eq!(out_of_order(good), Vec::<String>::new());
    assert_eq!(out_of_order("use bytes::Bytes;\n\nuse std::fmt;\n"), ["use std::fmt;"]);
    assert_eq!(out_of_order("use std::fmt;\nuse bytes::Bytes;\n"), ["use bytes::Bytes;"]);
    assert_eq!(out_of_order("use std::fmt;\n\nuse std::io;\n"), ["use std::io;"]);
    assert_eq!(out_of_order("mod a;\nuse std::{fmt, io};\n"), ["use std::{fmt, io};"]);
    assert_eq!(out_of_order("fn f() {\n    use super::A;\n}\nuse std::io;\n"), Vec::<String>::new());
}

#[test]
fn a_circle_is_found_however_long_it_is() {
    let module = |path: &str| path.split("::").map(str::to_owned).collect::<Module>();
    let arrow = |from, to| {
        let (from, to) = (module(from), module(to));
        Arrow { from, thing: to.clone(), named: to.clone(), to, exported: false }
    };
    let arrows = [
        ("a::x", "a::y"),
        ("a::y::deep", "a::z"),
        ("a::z", "a::x"),
        ("a::w", "a::x"),
        ("a", "a::w"),
        ("a::w", "a"),
    ];
    let arrows = arrows.iter().map(|(from, to)| arrow(from, to)).collect();
    assert_eq!(circles(&module("a"), &arrows), [["a::x", "a::y", "a::z"].map(module).to_vec()]);
    assert!(circles(&module("a::y"), &arrows).is_empty());
}

#[test]
fn an_import_is_found_however_it_is_written() {
    let found = |source: &str| -> Vec<String> {
        rust::paths(&rust::product_code(source)).into_iter().map(|path| path.segments.join("::")).collect()
    };
    assert_eq!(
        found("use crate::{a::{b, c as d}, e, f::{self, g}};"),
        ["crate::a::b", "crate::a::c", "crate::e", "crate::f", "crate::f::g"]
    );
    assert_eq!(
        found("fn f() { crate::a::b::<T>(); $crate::c!(super::d::E) }"),
        ["crate::a::b", "crate::c", "super::d::E"]
    );
    assert!(
        found("// crate::a\n/* crate::b */ const C: &str = r#\"crate::c\"#; const D: char = '\"'; //")
            .is_empty()
    );
    assert!(found("#[cfg(test)]\nmod tests { use crate::a; fn f() { {} } }").is_empty());
    assert!(found("#[cfg(any(test, feature = \"x\"))]\n#[allow(dead_code)]\npub use crate::a;").is_empty());
    assert_eq!(found("#[cfg(not(test))]\nuse crate::a;"), ["crate::a"]);
    assert_eq!(rust::path_heads(&rust::product_code("use sqlx::{a}; fn f() { b::c::d(); }")), ["sqlx", "b"]);
}

/// What one module may see.
struct Rule {
    everything: bool,
    /// `models`, or a part of it: `models::db`.
    paths: Vec<Module>,
    banned_crates: BTreeSet<String>,
}

/// Module → what the table in docs/architecture.md says about it and everything below it that has no row of its own.
struct Rules(BTreeMap<Module, Rule>);

impl Rules {
    fn read() -> Self {
        let text = read(ARCHITECTURE);
        let section = markdown::section(&text, "imports").expect("docs/architecture.md has `<!-- imports`");
        let rows = markdown::table(section);
        assert!(!rows.is_empty(), "the import table in docs/architecture.md is empty");
        let paths = |cell: &str| -> Vec<Module> {
            markdown::code(cell).iter().map(|it| it.split("::").map(str::to_owned).collect()).collect()
        };
        let leaves: Vec<Module> =
            rows.iter().filter(|row| row[0].contains(LEAVES)).flat_map(|row| paths(&row[0])).collect();
        let mut rules = BTreeMap::new();
        for row in &rows {
            for module in paths(&row[0]) {
                let also = if row[1].contains(LEAVES) { leaves.clone() } else { Vec::new() };
                let paths = [paths(&row[1]), also].concat();
                let banned_crates = markdown::code(&row[2]).into_iter().map(str::to_owned).collect();
                let everything = row[1].contains(EVERYTHING);
                assert!(
                    rules.insert(module, Rule { everything, paths, banned_crates }).is_none(),
                    "two rows"
                );
            }
        }
        Self(rules)
    }

    /// The module whose row judges this one.
    fn row<'a>(&self, module: &'a [String]) -> Option<&'a [String]> {
        (1..=module.len()).rev().map(|length| &module[..length]).find(|it| self.0.contains_key(*it))
    }

    fn of(&self, module: &[String]) -> Option<&Rule> {
        self.row(module).map(|row| &self.0[row])
    }

    /// A folder's own `mod.rs` and what is below it may know each other.
    fn allow(&self, arrow: &Arrow) -> bool {
        let Some(rule) = self.of(&arrow.from) else { return true };
        let related = is_below(&arrow.from, &arrow.to) || is_below(&arrow.to, &arrow.from);
        let listed = |path: &Module| arrow.thing.starts_with(path) || arrow.named.starts_with(path);
        rule.everything
            || related
            || self.row(&arrow.from) == self.row(&arrow.to)
            || rule.paths.iter().any(listed)
    }
}

fn is_below(module: &[String], other: &[String]) -> bool {
    module.len() > other.len() && module.starts_with(other)
}

/// Sets of children of a module, each a file or a folder, that reach each other by imports.
fn circles(folder: &Module, arrows: &BTreeSet<Arrow>) -> Vec<Vec<Module>> {
    let child = |module: &Module| is_below(module, folder).then(|| module[..=folder.len()].to_vec());
    let mut reach: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for arrow in arrows.iter().filter(|arrow| !arrow.exported) {
        if let (Some(from), Some(to)) = (child(&arrow.from), child(&arrow.to)) {
            reach.entry(from).or_default().insert(to);
        }
    }
    let direct = reach.clone();
    loop {
        let before: usize = reach.values().map(BTreeSet::len).sum();
        for targets in reach.values_mut() {
            let further = targets.iter().filter_map(|it| direct.get(it)).flatten().cloned();
            let further: Vec<Module> = further.collect();
            targets.extend(further);
        }
        if reach.values().map(BTreeSet::len).sum::<usize>() == before {
            break;
        }
    }
    let mutual =
        |a: &Module, b: &Module| reach[a].contains(b) && reach.get(b).is_some_and(|it| it.contains(a));
    let sets = reach.keys().map(|a| reach.keys().filter(|b| mutual(a, b)).cloned().collect::<Vec<_>>());
    sets.filter(|set| set.len() > 1).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether files inside one of the parts are in the circle; `socket.rs` alone is a file, though it keeps parts of
/// itself in `socket/`.
fn passes_through_a_folder(circle: &[Module], arrows: &BTreeSet<Arrow>) -> bool {
    let part = |module: &Module| circle.iter().find(|part| module.starts_with(part));
    let between = arrows.iter().filter(|arrow| !arrow.exported).filter_map(|arrow| {
        let (from, to) = (part(&arrow.from)?, part(&arrow.to)?);
        (from != to).then_some(arrow.from.len() > from.len() || arrow.to.len() > to.len())
    });
    between.into_iter().any(|inside| inside)
}

/// First lines of the file's own imports that are not where they should be, or are trees.
fn out_of_order(source: &str) -> Vec<String> {
    let mut problems = Vec::new();
    // The group of the last import, and whether an empty line followed it.
    let (mut last, mut gap) = (None, false);
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if let Some(start) = line.strip_prefix("use ") {
            let mut import = start.to_owned();
            while !import.ends_with(';') {
                import += lines.next().expect("the compiler reads it too");
            }
            let group = group(&import, source);
            let fits = last.is_none_or(|last| if group == last { !gap } else { group > last && gap });
            if !fits || is_tree(&import) {
                problems.push(line.to_owned());
            }
            (last, gap) = (Some(group), false);
        } else if line.is_empty() {
            gap = true;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            last = None;
        }
    }
    problems
}

/// `std::{fmt, io::Read}`: several modules in one import.
fn is_tree(import: &str) -> bool {
    import.starts_with("std::{") || import.split_once('{').is_some_and(|(_, names)| names.contains("::"))
}

fn group(import: &str, source: &str) -> u8 {
    match import.split("::").next().unwrap_or_default().trim_end_matches(';') {
        "std" | "core" | "alloc" => 0,
        "crate" | "self" | "super" => 2,
        child if source.contains(&format!("mod {child};")) => 2,
        _ => 1,
    }
}
