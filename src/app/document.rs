//! A test that the generated tables in `docs/operations.md` are up to date.
//!
//! `IMKS_UPDATE_DOCS=1 cargo test --lib operations_document` updates them.

use super::INSTRUMENTS;
use crate::config::{Config, Listing, source};
use crate::telemetry::instrument;

#[test]
fn the_operations_document_lists_every_variable_and_metric() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let document = std::fs::read_to_string(path).unwrap();
    let variables = Listing::of(&mut Config::default()).markdown();
    let updated = replaced(&document, "variables", &variables);
    let updated = replaced(&updated, "names", &source::aliases_markdown());
    let updated = replaced(&updated, "metrics", &instrument::markdown(INSTRUMENTS));
    if std::env::var_os("IMKS_UPDATE_DOCS").is_some() {
        std::fs::write(path, updated).unwrap();
        return;
    }
    let stale = "docs/operations.md is stale, run: IMKS_UPDATE_DOCS=1 cargo test --lib operations_document";
    assert!(document == updated, "{stale}");
}

/// Replaces the text between `<!-- name: … -->` and `<!-- /name -->` with `table`.
fn replaced(document: &str, name: &str, table: &str) -> String {
    let (head, rest) = document.split_once(&format!("<!-- {name}:")).expect("the section begins");
    let (marker, rest) = rest.split_once('\n').expect("the marker has a line of its own");
    let (_, tail) = rest.split_once(&format!("<!-- /{name} -->")).expect("the section ends");
    format!("{head}<!-- {name}:{marker}\n{table}<!-- /{name} -->{tail}")
}
