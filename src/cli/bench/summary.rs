//! What a run of `imks bench` found: for people, for programs, and for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::histogram::Percentiles;
use super::phase::PhaseSummary;
use super::picture::{picture, short};
use super::timeline::Point;
use crate::cli::terminal::text::counted;

/// The findings of a run. A number that is absent was not measured, and `notes` says why.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Summary {
    /// The version of imks that measured.
    pub(crate) version: &'static str,
    /// The server, without credentials.
    pub(crate) url: String,
    /// What was done.
    pub(crate) scenario: &'static str,
    /// The transports that were allowed.
    pub(crate) transport: &'static str,
    pub(crate) clients: usize,
    /// The size of the text of an event; absent where nothing is sent, or a file says the size of each.
    pub(crate) message_bytes: Option<usize>,
    /// How long it was measured.
    pub(crate) seconds: f64,
    /// Whether it was ended by Ctrl-C before its end.
    pub(crate) is_interrupted: bool,
    /// Events that were sent, or connections that were attempted.
    pub(crate) sent: u64,
    /// Answers, deliveries or connections: what the rate and the latencies are about.
    pub(crate) completed: u64,
    /// What `completed` counts: `answers`, `deliveries`, `messages` or `connections`.
    pub(crate) unit: &'static str,
    pub(crate) per_second: f64,
    /// The time from the event to its answer or delivery, or to a joined namespace; with `--rate` from the moment
    /// at which the event was due.
    pub(crate) latency_ms: Option<Percentiles>,
    /// The time from `message:send` to the `message:new` of each reader, in the scenario `chat`.
    pub(crate) delivery_ms: Option<Percentiles>,
    pub(crate) faults: Faults,
    pub(crate) connections: Connections,
    /// The phases of a scenario from a file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::cli::bench) phases: Vec<PhaseSummary>,
    pub(crate) timeline: Vec<Point>,
    /// What could not be measured and why, and what to know about the numbers.
    pub(crate) notes: Vec<String>,
}

/// What went wrong. The first group makes the run fail.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Faults {
    /// Without an answer or delivery although the connection was there; in `chat`: acknowledged and not in the history.
    pub(crate) lost: Option<u64>,
    pub(crate) duplicates: Option<u64>,
    pub(crate) out_of_order: Option<u64>,
    /// Answers that do not contain what was sent.
    pub(crate) wrong: Option<u64>,
    /// Deliveries to clients that were away and whose session the server did not restore.
    pub(crate) missed_away: Option<u64>,
    /// On their way when a connection was cut: nobody knows whether they were handled.
    pub(crate) unsure: Option<u64>,
    /// Deliveries that came after they were counted as lost.
    pub(crate) late: Option<u64>,
    /// Refused for a cause that passes, and sent again.
    pub(crate) refused_retryable: Option<u64>,
    /// Refused for good.
    pub(crate) refused: Option<u64>,
    /// Failures to connect or to join.
    pub(crate) failed: u64,
}

/// What became of the connections.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Connections {
    /// Namespaces that were joined, again after a loss included.
    pub(crate) joined: u64,
    /// Connections that ended although nobody closed them.
    pub(crate) disconnects: u64,
    /// Losses after which the server restored the session.
    pub(crate) recovered: u64,
    /// Losses after which the session was new.
    pub(crate) renewed: u64,
    /// `recovered` as a part of all returns; absent without one.
    pub(crate) recovered_share: Option<f64>,
    /// Connections that `--chaos` cut.
    pub(crate) cuts: u64,
    /// Connections by the transport that carried them, after an upgrade the better one.
    pub(crate) by_transport: BTreeMap<&'static str, u64>,
    /// The time from the first attempt to a joined namespace.
    pub(crate) connect_ms: Option<Percentiles>,
    /// The time from the loss of a connection until the namespace was joined again.
    pub(crate) away_ms: Option<Percentiles>,
}

impl Summary {
    /// Whether something was measured, nothing was lost, doubled, out of order or wrong, and everybody could connect.
    pub(crate) fn is_clean(&self) -> bool {
        self.completed > 0 && !self.has_faults()
    }

    /// Whether it was ended before there was anything to find.
    pub(crate) fn ended_too_early(&self) -> bool {
        self.is_interrupted && self.completed == 0 && !self.has_faults()
    }

    fn has_faults(&self) -> bool {
        let Faults { lost, duplicates, out_of_order, wrong, refused, failed, .. } = &self.faults;
        let none = |count: &Option<u64>| count.unwrap_or_default() == 0;
        !([lost, duplicates, out_of_order, wrong, refused].into_iter().all(none) && *failed == 0)
    }

    /// Returns the findings for people: the facts, the picture and the notes.
    pub(crate) fn text(&self) -> String {
        let mut text = self.facts();
        text.push_str(&picture(&self.timeline, PICTURE_COLUMNS));
        self.notes.iter().for_each(|note| {
            let _ = writeln!(text, "  note: {note}");
        });
        text.trim_end().to_owned()
    }

    /// Returns the findings as lines for people.
    pub(crate) fn facts(&self) -> String {
        let mut text = self.headline();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<14}{value}");
        };
        line("latency", percentiles(self.latency_ms));
        if self.scenario == "chat" {
            line("delivery", percentiles(self.delivery_ms));
        }
        line("connecting", percentiles(self.connections.connect_ms));
        for (name, count) in self.faults.rows() {
            line(name, count.map_or("not measured".to_owned(), |count| count.to_string()));
        }
        line("connections", self.connections.text());
        if self.connections.away_ms.is_some() {
            line("away", percentiles(self.connections.away_ms));
        }
        self.phases.iter().for_each(|phase| line("phase", phase.text()));
        text
    }

    fn headline(&self) -> String {
        let verdict = match (self.has_faults(), self.completed) {
            (true, _) => "FAULTS FOUND",
            (false, 0) => "NOTHING WAS MEASURED",
            (false, _) => "clean",
        };
        let early = if self.is_interrupted { ", ended early" } else { "" };
        let bytes = self.message_bytes.map(|bytes| format!(", {}", counted(bytes as u64, "byte", "bytes")));
        format!(
            "{scenario} on {url}: {verdict}{early}\n  {clients}{bytes}, {transport}: {sent} sent, \
             {completed} {unit} in {seconds} s, {rate} per second\n",
            scenario = self.scenario,
            url = self.url,
            clients = counted(self.clients as u64, "client", "clients"),
            bytes = bytes.unwrap_or_default(),
            transport = self.transport,
            sent = self.sent,
            completed = self.completed,
            unit = self.unit,
            seconds = short(self.seconds),
            rate = short(self.per_second),
        )
    }

    /// Returns the findings in the Prometheus text format, version 0.0.4.
    pub(crate) fn prometheus(&self) -> String {
        let labels = format!("scenario=\"{}\",transport=\"{}\"", self.scenario, self.transport);
        let mut text = String::new();
        let mut metric = |name: &str, help: &str, rows: Vec<(String, f64)>| {
            if rows.is_empty() {
                return;
            }
            let _ = writeln!(text, "# HELP imks_bench_{name} {help}\n# TYPE imks_bench_{name} gauge");
            for (label, value) in rows {
                let _ = writeln!(text, "imks_bench_{name}{{{labels}{label}}} {value}");
            }
        };
        let one = |value: f64| vec![(String::new(), value)];
        metric("sent", "Events that were sent.", one(self.sent as f64));
        metric("completed", "Answers, deliveries or connections.", one(self.completed as f64));
        metric("per_second", "Completed per second.", one(self.per_second));
        metric("seconds", "Length of the run.", one(self.seconds));
        metric("clean", "1 if there were answers and no fault.", one(f64::from(u8::from(self.is_clean()))));
        let faults = self.faults.rows().into_iter().filter_map(|(name, count)| {
            Some((format!(",fault=\"{}\"", name.replace([' ', '-'], "_")), count? as f64))
        });
        metric("faults", "Faults by kind; a kind that was not measured is absent.", faults.collect());
        let Connections { disconnects, recovered, renewed, .. } = &self.connections;
        metric("disconnects", "Connections that were lost.", one(*disconnects as f64));
        metric("recovered", "Sessions that were restored.", one(*recovered as f64));
        metric("renewed", "Sessions that were not restored.", one(*renewed as f64));
        metric("latency_seconds", "Time to the answer or delivery.", quantiles(self.latency_ms));
        metric("delivery_seconds", "Time to the delivery of a message.", quantiles(self.delivery_ms));
        metric("connect_seconds", "Time to connect.", quantiles(self.connections.connect_ms));
        metric("away_seconds", "Time without a connection.", quantiles(self.connections.away_ms));
        text.trim_end().to_owned()
    }
}

impl Faults {
    /// Returns each kind of fault with its count; those that are of no interest without one are left out.
    pub(crate) fn rows(&self) -> Vec<(&'static str, Option<u64>)> {
        let mut rows = vec![
            ("lost", self.lost),
            ("duplicates", self.duplicates),
            ("out of order", self.out_of_order),
            ("wrong", self.wrong),
            ("failed", Some(self.failed)),
        ];
        let rare = [
            ("missed away", self.missed_away),
            ("unsure", self.unsure),
            ("late", self.late),
            ("retried", self.refused_retryable),
            ("refused", self.refused),
        ];
        rows.extend(rare.into_iter().filter(|(_, count)| count.is_some_and(|count| count > 0)));
        rows
    }
}

impl Connections {
    fn text(&self) -> String {
        let Self { joined, disconnects, recovered, renewed, cuts, .. } = self;
        let mut text = format!("{joined} joined, {disconnects} lost");
        if let Some(share) = self.recovered_share {
            let percent = short(share * 100.0);
            let _ = write!(text, ", {recovered} restored and {renewed} new ({percent} % restored)");
        }
        if *cuts > 0 {
            let _ = write!(text, "; {cuts} cut by --chaos");
        }
        if self.by_transport.len() > 1 {
            let carried: Vec<String> = self
                .by_transport
                .iter()
                .map(|(transport, count)| format!("{count} by {transport}"))
                .collect();
            let _ = write!(text, "; {}", carried.join(", "));
        }
        text
    }
}

impl PhaseSummary {
    fn text(&self) -> String {
        let Self { name, seconds, rounds, failed_rounds, completed, per_second, latency_ms } = self;
        let [seconds, rate] = [*seconds, *per_second].map(short);
        let rounds = counted(*rounds, "round", "rounds");
        format!(
            "{name}: {rounds} in {seconds} s, {failed_rounds} failed; {completed} answers, {rate} per second, {}",
            percentiles(*latency_ms)
        )
    }
}

fn percentiles(found: Option<Percentiles>) -> String {
    let Some(Percentiles { p50, p95, p99, max }) = found else { return "not measured".into() };
    let [p50, p95, p99, max] = [p50, p95, p99, max].map(short);
    format!("p50 {p50} ms, p95 {p95} ms, p99 {p99} ms, max {max} ms")
}

fn quantiles(found: Option<Percentiles>) -> Vec<(String, f64)> {
    let Some(Percentiles { p50, p95, p99, max }) = found else { return Vec::new() };
    let row = |(quantile, ms): (&str, f64)| (format!(",quantile=\"{quantile}\""), ms / 1_000.0);
    [("0.5", p50), ("0.95", p95), ("0.99", p99), ("1", max)].map(row).to_vec()
}

/// The width of the picture in a terminal.
const PICTURE_COLUMNS: usize = 60;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli::bench) fn example() -> Summary {
        let percentiles = Percentiles { p50: 1.0, p95: 2.5, p99: 4.0, max: 9.0 };
        let point = |at: f64, p50: f64| Point { at, rate: 100.0, p50: Some(p50), p99: Some(p50 * 2.0) };
        Summary {
            version: "0.1.0",
            url: "http://127.0.0.1:3000".into(),
            scenario: "echo",
            transport: "websocket",
            clients: 10,
            message_bytes: Some(1024),
            seconds: 2.0,
            sent: 1_000,
            completed: 1_000,
            unit: "answers",
            per_second: 500.0,
            latency_ms: Some(percentiles),
            faults: Faults { lost: Some(0), out_of_order: Some(0), wrong: Some(0), ..Faults::default() },
            timeline: vec![point(0.0, 1.0), point(1.0, 2.0)],
            notes: vec!["an answer reaches a client at most once".into()],
            ..Summary::default()
        }
    }

    #[test]
    fn what_was_not_measured_is_said_and_not_shown_as_nothing() {
        let text = example().text();
        assert!(text.starts_with("echo on http://127.0.0.1:3000: clean\n"), "{text}");
        assert!(text.contains("  duplicates    not measured\n"), "{text}");
        assert!(text.contains("  lost          0\n"), "{text}");
        assert!(text.contains("note: an answer reaches"), "{text}");
        let json = serde_json::to_value(example()).unwrap();
        assert_eq!(json["faults"]["duplicates"], serde_json::Value::Null);
        assert!(!example().prometheus().contains("duplicates"));
    }

    #[test]
    fn the_size_of_events_is_not_shown_where_there_is_not_one() {
        assert!(example().text().contains("  10 clients, 1024 bytes, websocket: "));
        let without = Summary { message_bytes: None, ..example() };
        assert!(without.text().contains("  10 clients, websocket: "), "{}", without.text());
    }

    #[test]
    fn one_lost_event_makes_a_run_fail() {
        let clean = example();
        assert!(clean.is_clean());
        for change in [
            |faults: &mut Faults| faults.lost = Some(1),
            |faults: &mut Faults| faults.duplicates = Some(1),
            |faults: &mut Faults| faults.out_of_order = Some(1),
            |faults: &mut Faults| faults.wrong = Some(1),
            |faults: &mut Faults| faults.refused = Some(1),
            |faults: &mut Faults| faults.failed = 1,
        ] {
            let mut summary = clean.clone();
            change(&mut summary.faults);
            assert!(!summary.is_clean(), "{summary:?}");
            assert!(summary.text().contains("FAULTS FOUND"));
        }
    }

    #[test]
    fn a_run_in_which_nothing_was_answered_is_not_clean() {
        let nothing = Summary { completed: 0, latency_ms: None, timeline: Vec::new(), ..example() };
        assert!(!nothing.is_clean() && !nothing.ended_too_early());
        assert!(nothing.text().contains("NOTHING WAS MEASURED"));
        let not_clean = "imks_bench_clean{scenario=\"echo\",transport=\"websocket\"} 0";
        assert!(nothing.prometheus().lines().any(|line| line == not_clean));
        let mut early = Summary { is_interrupted: true, ..nothing };
        assert!(early.ended_too_early());
        early.faults.lost = Some(1);
        assert!(!early.ended_too_early());
    }

    #[test]
    fn prometheus_gets_seconds_and_a_help_for_each_metric() {
        let text = example().prometheus();
        let wanted =
            "imks_bench_latency_seconds{scenario=\"echo\",transport=\"websocket\",quantile=\"0.95\"} 0.0025";
        assert!(text.lines().any(|line| line == wanted), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split('{').next().unwrap();
            assert!(text.contains(&format!("# HELP {name} ")), "{line}");
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
    }
}
