//! The `server_stats` event, sent every two seconds.
//!
//! It has no counters of its own. It reads the metrics once a second, so the numbers are those of the
//! process.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Admin;
use crate::clock::{Micros, now_micros};
use crate::engine::metrics::{self, Direction};
use crate::engine::{CloseReason, Transport};
use crate::node::host_name;
use crate::socket::codec::parser::One;
use crate::socket::server::server::Server;

/// Sends statistics until the server stops.
pub(super) async fn run(admin: Arc<Admin>) {
    let (started, host) = (Instant::now(), host_name());
    let mut samples = Samples::new(Totals::read());
    let mut ticks = interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 0_u64.. {
        tokio::select! {
            () = admin.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(server) = admin.server() else { return };
        samples.add(now_micros(), Totals::read());
        admin.look_for_upgrades();
        if tick % SAMPLES_PER_REPORT == 0 {
            let stats = Stats::new(&admin, &server, &host, started, samples.take());
            admin.tell("server_stats", &One(&stats));
        }
    }
}

/// The payload of `server_stats`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats<'a> {
    server_id: String,
    hostname: &'a str,
    pid: u32,
    /// The uptime in seconds.
    uptime: f64,
    clients_count: usize,
    polling_clients_count: usize,
    aggregated_events: Vec<Bucket>,
    namespaces: Vec<NamespaceCount>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NamespaceCount {
    name: String,
    sockets_count: usize,
}

/// The events of one type within one second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Bucket {
    /// The start of the second, in milliseconds since 1970.
    timestamp: i64,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_type: Option<&'static str>,
    count: u64,
}

impl<'a> Stats<'a> {
    fn new(admin: &Admin, server: &Server, host: &'a str, started: Instant, events: Vec<Bucket>) -> Self {
        let node = server.node();
        let clients_count = server.connections();
        let polling = usize::try_from(metrics::SESSIONS.of(Transport::Polling).get()).unwrap_or(0);
        Self {
            server_id: admin.server_id.clone().unwrap_or_else(|| format!("{host}#{node}")),
            hostname: host,
            pid: std::process::id(),
            uptime: started.elapsed().as_secs_f64(),
            clients_count,
            polling_clients_count: polling.min(clients_count),
            aggregated_events: events,
            namespaces: server
                .every_namespace()
                .iter()
                .take(NAMESPACES_SHOWN_MAX)
                .map(|namespace| NamespaceCount {
                    name: namespace.path().to_owned(),
                    sockets_count: namespace.len(),
                })
                .collect(),
        }
    }
}

/// The totals of the metrics, by type and subtype.
struct Totals(Vec<(&'static str, Option<&'static str>, u64)>);

impl Totals {
    fn read() -> Self {
        let mut totals = vec![
            ("rawConnection", None, metrics::SESSIONS_OPENED.total()),
            ("packetsIn", None, metrics::MESSAGES.of(Direction::In).get()),
            ("bytesIn", None, metrics::MESSAGE_BYTES.of(Direction::In).get()),
            ("packetsOut", None, metrics::MESSAGES.of(Direction::Out).get()),
            ("bytesOut", None, metrics::MESSAGE_BYTES.of(Direction::Out).get()),
        ];
        for reason in CloseReason::ALL {
            let (count, reason) = (metrics::SESSIONS_CLOSED.of(reason).get(), Some(reason.as_str()));
            match totals.iter_mut().find(|(_, known, _)| *known == reason) {
                // Several of our reasons map to one of the reference's.
                Some((_, _, known)) => *known += count,
                None => totals.push(("rawDisconnection", reason, count)),
            }
        }
        Self(totals)
    }
}

/// The counts per second since the last report: at most [`SAMPLES_PER_REPORT`] times the number of types.
struct Samples {
    last: Totals,
    /// The start of the current second.
    since: Option<Micros>,
    buckets: Vec<Bucket>,
}

impl Samples {
    fn new(totals: Totals) -> Self {
        Self { last: totals, since: None, buckets: Vec::new() }
    }

    /// Records the increase since the last call.
    fn add(&mut self, now: Micros, totals: Totals) {
        let timestamp = self.since.replace(now).unwrap_or(now).div_euclid(1_000_000) * 1_000;
        for ((kind, sub_type, count), (.., before)) in totals.0.iter().zip(&self.last.0) {
            let count = count.saturating_sub(*before);
            if count > 0 {
                self.buckets.push(Bucket { timestamp, kind, sub_type: *sub_type, count });
            }
        }
        self.last = totals;
    }

    fn take(&mut self) -> Vec<Bucket> {
        std::mem::take(&mut self.buckets)
    }
}

const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// The samples per report, which makes a report every two seconds. A page considers a server unhealthy after
/// ten.
const SAMPLES_PER_REPORT: u64 = 2;
/// The maximum number of namespaces in a report. There may be many dynamic ones.
const NAMESPACES_SHOWN_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_within_a_second_is_one_bucket_per_kind() {
        let totals = |packets, gone| {
            Totals(vec![("packetsIn", None, packets), ("rawDisconnection", Some("transport close"), gone)])
        };
        let mut samples = Samples::new(totals(5, 0));
        samples.add(1_000_500_000, totals(5, 0));
        samples.add(1_001_500_000, totals(8, 0));
        samples.add(1_002_500_000, totals(8, 2));
        let bucket = |timestamp, kind, sub_type, count| Bucket { timestamp, kind, sub_type, count };
        let expected = [
            bucket(1_000_000, "packetsIn", None, 3),
            bucket(1_001_000, "rawDisconnection", Some("transport close"), 2),
        ];
        assert_eq!(samples.take(), expected);
        assert!(samples.take().is_empty());
        let json = serde_json::to_value(expected).unwrap();
        assert_eq!(json[0], serde_json::json!({ "timestamp": 1_000_000, "type": "packetsIn", "count": 3 }));
        assert_eq!(json[1]["subType"], "transport close");
    }

    #[test]
    fn disconnections_are_told_in_the_words_of_the_reference() {
        let totals = Totals::read();
        let reasons: Vec<_> = totals.0.iter().filter_map(|(_, reason, _)| *reason).collect();
        let words = [
            "transport error",
            "transport close",
            "forced close",
            "ping timeout",
            "parse error",
            "server shutting down",
        ];
        assert_eq!(reasons, words);
    }
}
