//! What a query of Prometheus is about: its metrics, and the labels that it names.

use crate::telemetry::Instrument;
use crate::telemetry::source::Kind;

/// Labels that Prometheus itself gives to what it scrapes, or that belong to histograms.
const FOREIGN_LABELS: [&str; 3] = ["job", "instance", "le"];

/// Returns the names of metrics in a query, with the suffixes of histograms.
pub(super) fn metrics(query: &str) -> Vec<&str> {
    let words = query.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    words.filter(|word| word.starts_with("imks_")).collect()
}

/// Returns what in a query does not exist: metrics, labels, and values of labels.
pub(super) fn problems(query: &str, catalog: &[&[Instrument]]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut known: Vec<&Instrument> = Vec::new();
    for metric in metrics(query) {
        match find(metric, catalog) {
            Some(instrument) => known.push(instrument),
            None => problems.push(format!("no metric {metric}")),
        }
    }
    let has = |label: &str| {
        FOREIGN_LABELS.contains(&label) || known.iter().any(|instrument| instrument.label == Some(label))
    };
    for label in grouped(query) {
        if !known.is_empty() && !has(label) {
            problems.push(format!("no label {label}"));
        }
    }
    for (metric, label, value) in matchers(query) {
        let Some(instrument) = find(metric, catalog) else { continue };
        let is_own = instrument.label == Some(label);
        let values: Vec<&str> = instrument.source.points().iter().filter_map(|point| point.label).collect();
        if !is_own && !FOREIGN_LABELS.contains(&label) {
            problems.push(format!("{metric} has no label {label}"));
        } else if is_own && !values.contains(&value) {
            problems.push(format!("{metric} has no {label} {value:?}"));
        }
    }
    problems
}

/// Returns the instrument that a sample belongs to.
fn find<'a>(metric: &str, catalog: &[&'a [Instrument]]) -> Option<&'a Instrument> {
    let is_it = |instrument: &&Instrument| {
        let is_histogram = matches!(instrument.source.kind(), Kind::Latency | Kind::Size);
        let suffix = metric.strip_prefix(instrument.name);
        match is_histogram {
            true => matches!(suffix, Some("_bucket" | "_sum" | "_count")),
            false => suffix == Some(""),
        }
    };
    catalog.iter().copied().flatten().find(is_it)
}

/// Returns the labels in `by (…)` and `on (…)`.
fn grouped(query: &str) -> Vec<&str> {
    let lists = ["by (", "on ("].into_iter().flat_map(|word| query.split(word).skip(1));
    lists
        .flat_map(|rest| rest.split(')').next().unwrap_or_default().split(", "))
        .filter(|it| !it.is_empty())
        .collect()
}

/// Returns metric, label and value of each `metric{label="value"}`. Values that Grafana fills in are left out.
fn matchers(query: &str) -> Vec<(&str, &str, &str)> {
    let mut found = Vec::new();
    let mut pieces = query.split('{');
    let mut before = pieces.next().unwrap_or_default();
    for piece in pieces {
        let metric = metrics(before).pop().unwrap_or_default();
        let inside = piece.split('}').next().unwrap_or_default();
        for matcher in inside.split(',') {
            let (label, value) = matcher.split_once('=').expect("label=\"value\"");
            let value = value.trim_start_matches('~').trim_matches('"');
            if !value.contains('$') {
                found.push((metric, label.trim_end_matches('!').trim(), value));
            }
        }
        before = piece;
    }
    found
}
