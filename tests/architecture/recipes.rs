//! The recipes in AGENTS.md for features, checked with the feature that needs all of them: reactions.

use std::collections::BTreeMap;

use super::modules::all_source_files;
use super::{markdown, read, report};

/// The files that know of reactions besides their own, and in how many lines. Only the list of permissions is
/// not in a recipe: it is the contract with the core.
const KNOWN: [(&str, usize); 9] = [
    ("src/auth/permission.rs", 4),
    ("src/messaging/mod.rs", 2),
    ("src/models/channel_change.rs", 1),
    ("src/models/message.rs", 3),
    ("src/models/message_children.rs", 2),
    ("src/models/message_page.rs", 3),
    ("src/models/message_row.rs", 1),
    ("src/models/mod.rs", 3),
    ("src/models/purge/user.rs", 2),
];
const OWN: [&str; 4] = [
    "src/messaging/reaction.rs",
    "src/models/message_reaction.rs",
    "src/models/message_reaction_row.rs",
    "src/models/message_reaction_total.rs",
];

/// What uses features over the wire, as any client does.
const CLIENTS: [&str; 3] = ["src/cli/chat/", "src/cli/demo/", "src/client/chat/"];

#[test]
fn a_feature_is_known_only_where_the_recipes_say() {
    let mut found = BTreeMap::new();
    let is_client = |file: &String| CLIENTS.iter().any(|folder| file.starts_with(folder));
    let is_other = |file: &String| !OWN.contains(&&**file) && !is_client(file);
    for file in all_source_files().into_iter().filter(is_other) {
        let lines = lines_naming(&read(&file), "reaction");
        if lines > 0 {
            found.insert(file, lines);
        }
    }
    let expected = KNOWN.map(|(file, lines)| (file.to_owned(), lines)).into();
    assert_eq!(found, expected, "a feature costs one line in each list (AGENTS.md, \"To add X\")");
}

#[test]
fn the_recipes_name_every_file_that_a_feature_touches() {
    let agents = read("AGENTS.md");
    let recipes = agents.lines().filter(|line| line.starts_with("| a feature "));
    let named: Vec<&str> = recipes.flat_map(markdown::code).collect();
    let missing = KNOWN.iter().filter(|(file, _)| file.starts_with("src/m") && !named.contains(file));
    let problems: Vec<String> =
        missing.map(|(file, _)| format!("AGENTS.md does not name `{file}`")).collect();
    report(&problems, "Name the file in the recipe for features.");
}

/// The number of lines of product code that contain `word`, in any case.
fn lines_naming(source: &str, word: &str) -> usize {
    let product = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code = product.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.filter(|line| line.to_lowercase().contains(word)).count()
}
