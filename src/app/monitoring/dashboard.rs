//! The dashboard of Grafana: what to look at first, then a panel for each metric.

use serde_json::{Value, json};

use crate::telemetry::Instrument;
use crate::telemetry::source::Kind;

/// A panel of the first row.
struct Panel {
    title: &'static str,
    unit: &'static str,
    help: &'static str,
    queries: &'static [(&'static str, &'static str)],
}

/// What to look at first. `$of` stands for the nodes that were chosen.
static FIRST: &[Panel] = &[
    Panel {
        title: "Open sessions",
        unit: "short",
        help: "By transport, on all nodes",
        queries: &[("{{transport}}", "sum by (transport) (imks_sessions{$of})")],
    },
    Panel {
        title: "Messages stored",
        unit: "cps",
        help: "Committed to the database, and acknowledged after it",
        queries: &[("stored", "sum(rate(imks_messages_stored_total{$of}[$__rate_interval]))")],
    },
    Panel {
        title: "Time to an answer",
        unit: "s",
        help: "From the start of an event's handler to its answer",
        queries: &[
            (
                "p50",
                "histogram_quantile(0.5, sum by (le) (rate(imks_event_duration_seconds_bucket{$of}[$__rate_interval])))",
            ),
            (
                "p99",
                "histogram_quantile(0.99, sum by (le) (rate(imks_event_duration_seconds_bucket{$of}[$__rate_interval])))",
            ),
        ],
    },
    Panel {
        title: "Errors answered",
        unit: "cps",
        help: "`failed` is the server's fault; `refused` and `rate_limited` are what clients asked for",
        queries: &[("{{kind}}", "sum by (kind) (rate(imks_event_errors_total{$of}[$__rate_interval]))")],
    },
    Panel {
        title: "Time to commit, time to dispatch",
        unit: "s",
        help: "p99 of a transaction of the append path, and of the way from its commit into all local outboxes",
        queries: &[
            (
                "commit",
                "histogram_quantile(0.99, sum by (le) (rate(imks_append_commit_seconds_bucket{$of}[$__rate_interval])))",
            ),
            (
                "dispatch",
                "histogram_quantile(0.99, sum by (le) (rate(imks_dispatch_seconds_bucket{$of}[$__rate_interval])))",
            ),
        ],
    },
    Panel {
        title: "Why sessions end",
        unit: "cps",
        help: "`transport_close` is a client that leaves; `ping_timeout` one that fell silent; `slow_consumer` one that reads too slowly",
        queries: &[(
            "{{reason}}",
            "sum by (reason) (rate(imks_sessions_closed_total{$of}[$__rate_interval]))",
        )],
    },
    Panel {
        title: "Bytes to and from clients",
        unit: "Bps",
        help: "Of Engine.IO messages",
        queries: &[(
            "{{direction}}",
            "sum by (direction) (rate(imks_message_bytes_total{$of}[$__rate_interval]))",
        )],
    },
    Panel {
        title: "Versions",
        unit: "short",
        help: "How many nodes run which version",
        queries: &[("{{version}}", "count by (version) (imks_build_info{$of})")],
    },
];

/// The nodes that were chosen at the top of the dashboard.
const CHOSEN: &str = "job=~\"$job\",instance=~\"$instance\"";
/// Width and height of a panel; a line of the grid is 24 wide.
const WIDTH: usize = 8;
const HEIGHT: usize = 8;

/// Returns the dashboard as Grafana imports it.
pub(super) fn json(catalog: &[&[Instrument]]) -> String {
    let mut board = json!({
        "uid": "imks",
        "title": "imks",
        "description": "Written by `IMKS_UPDATE_DOCS=1 cargo test --lib monitoring` from the table of metrics",
        "tags": ["imks"],
        "schemaVersion": 39,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": { "from": "now-3h", "to": "now" },
        "templating": { "list": [source(), variable("job", "imks_build_info"), variable("instance", "imks_build_info{job=~\"$job\"}")] },
    });
    board["panels"] = panels(catalog).into();
    format!("{board:#}\n")
}

/// Returns the title and text of every query.
pub(super) fn queries(catalog: &[&[Instrument]]) -> Vec<(String, String)> {
    let panels = panels(catalog);
    let inner = panels.iter().flat_map(|panel| panel["panels"].as_array().into_iter().flatten());
    let all = panels.iter().chain(inner);
    let of_panel = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets
            .map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
            .collect::<Vec<_>>()
    };
    all.flat_map(of_panel).collect()
}

/// Returns the panels: the first ones, then a folded row for each owner of metrics.
fn panels(catalog: &[&[Instrument]]) -> Vec<Value> {
    let mut grid = Grid::default();
    let mut panels = vec![grid.row("At a glance", Vec::new())];
    for first in FIRST {
        let targets = first.queries.iter().map(|(legend, query)| (*legend, query.replace("$of", CHOSEN)));
        panels.push(grid.panel(first.title, first.help, first.unit, targets.collect()));
    }
    for instruments in catalog {
        let mut row = Grid { id: grid.id + 1, y: grid.next_y() + 1, ..Grid::default() };
        let inner: Vec<Value> =
            instruments.iter().map(|instrument| of_instrument(&mut row, instrument)).collect();
        panels.push(grid.row(&title(instruments), inner));
        grid.id = row.id;
    }
    panels
}

/// Returns the title of a row: what the names of its metrics begin with.
fn title(instruments: &[Instrument]) -> String {
    let words = instruments.iter().filter_map(|instrument| instrument.name.split('_').nth(1));
    let mut distinct: Vec<&str> = Vec::new();
    for word in words {
        if !distinct.contains(&word) {
            distinct.push(word);
        }
    }
    distinct.join(", ")
}

/// Returns the panel of one metric.
fn of_instrument(grid: &mut Grid, instrument: &Instrument) -> Value {
    let (name, label) = (instrument.name, instrument.label);
    let by = |always: &str| match (always, label) {
        ("", None) => String::new(),
        ("", Some(label)) => format!(" by ({label}) "),
        (always, None) => format!(" by ({always}) "),
        (always, Some(label)) => format!(" by ({always}, {label}) "),
    };
    let legend = |always: &'static str| match label {
        Some(label) => format!("{always} {{{{{label}}}}}").trim().to_owned(),
        None => always.to_owned(),
    };
    let quantile = |of: &str| {
        let samples = format!("rate({name}_bucket{{{CHOSEN}}}[$__rate_interval])");
        format!("histogram_quantile({of}, sum{}({samples}))", by("le"))
    };
    let targets = match instrument.source.kind() {
        Kind::Counter => {
            let rate = format!("sum{}(rate({name}{{{CHOSEN}}}[$__rate_interval]))", by(""));
            vec![(legend(""), rate)]
        }
        Kind::Gauge if name.ends_with("_timestamp_seconds") => {
            vec![("{{instance}}".to_owned(), format!("({name}{{{CHOSEN}}} > 0) - time()"))]
        }
        Kind::Gauge => vec![(legend("{{instance}}"), format!("sum{}({name}{{{CHOSEN}}})", by("instance")))],
        Kind::Latency | Kind::Size => {
            vec![(legend("p50"), quantile("0.5")), (legend("p99"), quantile("0.99"))]
        }
    };
    let targets = targets.iter().map(|(legend, query)| (legend.as_str(), query.clone())).collect();
    grid.panel(name, instrument.help, unit(instrument), targets)
}

/// Returns the unit of a metric, as Grafana calls it.
fn unit(instrument: &Instrument) -> &'static str {
    let name = instrument.name;
    match instrument.source.kind() {
        Kind::Counter if name.ends_with("_bytes_total") => "Bps",
        Kind::Counter => "cps",
        Kind::Latency => "s",
        Kind::Gauge if name.ends_with("_timestamp_seconds") => "s",
        Kind::Gauge if name.ends_with("_seconds") => "s",
        Kind::Gauge if name.ends_with("_bytes") => "bytes",
        Kind::Gauge | Kind::Size => "short",
    }
}

fn source() -> Value {
    json!({ "name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus" })
}

fn variable(label: &str, of: &str) -> Value {
    json!({
        "name": label,
        "type": "query",
        "datasource": datasource(),
        "query": { "query": format!("label_values({of}, {label})"), "refId": label },
        "refresh": 2,
        "includeAll": true,
        "multi": true,
        "allValue": ".*",
        "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
    })
}

fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${source}" })
}

/// Where the next panel goes.
#[derive(Default)]
struct Grid {
    id: usize,
    x: usize,
    y: usize,
}

impl Grid {
    /// Returns the first line below everything.
    fn next_y(&self) -> usize {
        if self.x > 0 { self.y + HEIGHT } else { self.y }
    }

    /// Adds a row. One with panels of its own is folded.
    fn row(&mut self, title: &str, inner: Vec<Value>) -> Value {
        (self.id, self.x, self.y) = (self.id + 1, 0, self.next_y());
        let place = json!({ "x": 0, "y": self.y, "w": 24, "h": 1 });
        self.y += 1;
        json!({ "id": self.id, "type": "row", "title": title, "collapsed": !inner.is_empty(), "gridPos": place, "panels": inner })
    }

    fn panel(&mut self, title: &str, help: &str, unit: &str, targets: Vec<(&str, String)>) -> Value {
        self.id += 1;
        let place = json!({ "x": self.x, "y": self.y, "w": WIDTH, "h": HEIGHT });
        self.x += WIDTH;
        if self.x + WIDTH > 24 {
            (self.x, self.y) = (0, self.y + HEIGHT);
        }
        let target = |(at, (legend, query)): (usize, &(&str, String))| {
            let id = char::from(b'A' + u8::try_from(at).unwrap()).to_string();
            json!({ "refId": id, "datasource": datasource(), "expr": query, "legendFormat": legend })
        };
        json!({
            "id": self.id,
            "type": "timeseries",
            "title": title,
            "description": help,
            "datasource": datasource(),
            "gridPos": place,
            "fieldConfig": { "defaults": { "unit": unit, "min": if title.ends_with("_timestamp_seconds") { Value::Null } else { 0.into() } }, "overrides": [] },
            "options": { "legend": { "displayMode": "list", "placement": "bottom" }, "tooltip": { "mode": "multi", "sort": "desc" } },
            "targets": targets.iter().enumerate().map(target).collect::<Vec<_>>(),
        })
    }
}
