//! Tests that the dashboard and the alerts in `deploy/` are up to date, and only about what exists.
//!
//! `IMKS_UPDATE_DOCS=1 cargo test --lib monitoring` updates the files.

mod alerts;
mod dashboard;
mod query;

use std::collections::BTreeSet;

use super::INSTRUMENTS;

#[test]
fn the_dashboard_and_the_alerts_in_deploy_are_those_of_the_table_of_metrics() {
    let files = [
        ("deploy/grafana/imks.json", dashboard::json(INSTRUMENTS)),
        ("deploy/prometheus/imks.rules.yml", alerts::yaml()),
    ];
    for (name, wanted) in files {
        let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("IMKS_UPDATE_DOCS").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let current = std::fs::read_to_string(&path).unwrap();
        assert!(current == wanted, "{name} is stale, run: IMKS_UPDATE_DOCS=1 cargo test --lib monitoring");
    }
}

#[test]
fn queries_use_only_metrics_labels_and_values_that_exist() {
    let alerts = alerts::ALERTS.iter().map(|alert| (alert.name, alert.expr.to_owned()));
    let panels: Vec<(String, String)> = dashboard::queries(INSTRUMENTS);
    let panels = panels.iter().map(|(panel, query)| (panel.as_str(), query.clone()));
    let problems: Vec<String> = alerts
        .chain(panels)
        .flat_map(|(name, query)| {
            let found = query::problems(&query, INSTRUMENTS).into_iter();
            found.map(move |problem| format!("{name}: {problem} in {query}"))
        })
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_query_about_something_that_does_not_exist_is_found() {
    let found = |query: &str| query::problems(query, INSTRUMENTS).len();
    assert_eq!(
        found("sum by (job, reason) (rate(imks_sessions_closed_total{reason=\"slow_consumer\"}[5m]))"),
        0
    );
    assert_eq!(found("sum(rate(imks_sessions_lost_total[5m]))"), 1, "no such metric");
    assert_eq!(found("rate(imks_sessions_closed_total{reason=\"slow\"}[5m])"), 1, "no such value");
    assert_eq!(found("rate(imks_sessions_closed_total{cause=\"slow_consumer\"}[5m])"), 1, "no such label");
    assert_eq!(found("sum by (cause) (imks_sessions)"), 1, "no such label");
    assert_eq!(found("rate(imks_dispatch_seconds[5m])"), 1, "a histogram has no samples of its own name");
    assert_eq!(found("imks_sessions_bucket"), 1, "only a histogram has buckets");
}

#[test]
fn every_metric_has_a_panel() {
    let queries = dashboard::queries(INSTRUMENTS);
    let shown: BTreeSet<&str> = queries.iter().flat_map(|(_, query)| query::metrics(query)).collect();
    for instrument in INSTRUMENTS.iter().copied().flatten() {
        let name = instrument.name;
        let bucket = format!("{name}_bucket");
        assert!(shown.contains(name) || shown.contains(bucket.as_str()), "{name} has no panel");
    }
}

#[test]
fn every_alert_has_a_section_in_the_operations_document_and_no_section_is_left_over() {
    let document = include_str!("../../docs/operations.md");
    let (_, rest) =
        document.split_once("\n## Alerts\n").expect("docs/operations.md has a section \"Alerts\"");
    let section = rest.split_once("\n## ").map_or(rest, |(section, _)| section);
    let documented: BTreeSet<&str> = section.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let alerts: BTreeSet<&str> = alerts::ALERTS.iter().map(|alert| alert.name).collect();
    assert_eq!(alerts.len(), alerts::ALERTS.len(), "two alerts have one name");
    assert_eq!(alerts, documented, "alerts, and sections below \"Alerts\" in docs/operations.md");
}
