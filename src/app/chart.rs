//! A test that the chart for Kubernetes knows every setting of this program, by which it refuses others.
//!
//! `IMKS_UPDATE_DOCS=1 cargo test --lib document_of_the_chart` updates the file.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::{Config, Listing, source};

/// What the templates read.
#[derive(Serialize)]
struct Settings {
    written_by: &'static str,
    /// The keys of the file, and their names in the environment.
    variables: BTreeMap<&'static str, &'static str>,
    /// The keys whose values can be secrets.
    secrets: Vec<&'static str>,
    /// Other variables that count.
    aliases: Vec<&'static str>,
}

#[test]
fn the_document_of_the_chart_lists_every_setting() {
    let rows = Listing::of(&mut Config::default()).rows;
    let settings = Settings {
        written_by: "IMKS_UPDATE_DOCS=1 cargo test --lib document_of_the_chart",
        variables: rows.iter().map(|row| (row.field.key, row.field.env)).collect(),
        secrets: rows.iter().filter(|row| row.secret).map(|row| row.field.key).collect(),
        aliases: source::ALIASES.iter().map(|(name, _)| *name).collect(),
    };
    let wanted = serde_json::to_string_pretty(&settings).unwrap() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/helm/imks/files/settings.json");
    if std::env::var_os("IMKS_UPDATE_DOCS").is_some() {
        std::fs::write(path, &wanted).unwrap();
    }
    let current = std::fs::read_to_string(path).unwrap_or_default();
    assert!(current == wanted, "{path} is stale, run: {}", settings.written_by);
}
