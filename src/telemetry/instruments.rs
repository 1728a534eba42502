//! Names of all numbers on `/metrics`: which atomics of [`metrics`] they show.

use super::histogram::{Histogram, HistogramFamily};
use super::metrics::{self, Counter, Gauge};

/// One metric of `/metrics`.
#[derive(Debug)]
pub struct Instrument {
    /// OpenTelemetry name; on `/metrics` dots become underscores, counters end in `_total` and
    /// latencies in `_seconds`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Where the numbers are.
    pub source: Source,
}

/// Where the numbers of an instrument are.
#[derive(Debug)]
pub enum Source {
    /// Grows only; one row per value of the label.
    Counters(Option<&'static str>, &'static [(&'static str, &'static Counter)]),
    /// Goes up and down; one row per value of the label.
    Gauges(Option<&'static str>, &'static [(&'static str, &'static Gauge)]),
    /// How long something takes.
    Latency(&'static Histogram),
    /// How long something takes, by a label.
    Latencies(&'static str, &'static HistogramFamily),
    /// How many at once.
    Sizes(&'static Histogram),
}

impl Instrument {
    /// The name as it stands on `/metrics`.
    pub fn exposed_name(&self) -> String {
        let name = self.name.replace('.', "_");
        match self.source {
            Source::Counters(..) => format!("{name}_total"),
            Source::Gauges(..) | Source::Sizes(_) => name,
            Source::Latency(_) | Source::Latencies(..) => format!("{name}_seconds"),
        }
    }

    /// The label, if there is one.
    pub fn label(&self) -> Option<&'static str> {
        match self.source {
            Source::Counters(label, _) | Source::Gauges(label, _) => label,
            Source::Latencies(label, _) => Some(label),
            Source::Latency(_) | Source::Sizes(_) => None,
        }
    }
}

/// The table of `docs/operations.md`.
pub fn markdown() -> String {
    let mut text = String::from("| metric | label | meaning |\n| --- | --- | --- |\n");
    for instrument in INSTRUMENTS {
        let label = instrument.label().map(|label| format!("`{label}`")).unwrap_or_default();
        text.push_str(&format!("| `{}` | {label} | {} |\n", instrument.exposed_name(), instrument.help));
    }
    text
}

/// Sessions opened since the start of this process, for `GET /health`.
pub fn sessions_opened() -> u64 {
    metrics::SESSIONS_OPENED_POLLING.get()
        + metrics::SESSIONS_OPENED_WEBSOCKET.get()
        + metrics::SESSIONS_OPENED_WEBTRANSPORT.get()
}

/// Every metric but `imks_build_info`.
pub static INSTRUMENTS: &[Instrument] = &[
    Instrument {
        name: "imks.event.duration",
        help: "Time from the start of an event's handler to its answer",
        source: Source::Latencies("event", &metrics::EVENT_SECONDS),
    },
    Instrument {
        name: "imks.event.errors",
        help: "Events that were answered with an error, by what kind",
        source: Source::Counters(
            Some("kind"),
            &[
                ("refused", &metrics::EVENTS_REFUSED),
                ("rate_limited", &metrics::EVENTS_RATE_LIMITED),
                ("failed", &metrics::EVENTS_FAILED),
            ],
        ),
    },
    Instrument {
        name: "imks.connects",
        help: "Socket.IO CONNECT packets to the users' namespace, by outcome",
        source: Source::Counters(
            Some("outcome"),
            &[("accepted", &metrics::CONNECTS_ACCEPTED), ("refused", &metrics::CONNECTS_REFUSED)],
        ),
    },
    Instrument {
        name: "imks.handler.panics",
        help: "Handlers that panicked; each cost one connection",
        source: Source::Counters(None, &[("", &metrics::HANDLER_PANICS)]),
    },
    Instrument {
        name: "imks.protocol.errors",
        help: "Connections closed because of a malformed or misplaced Socket.IO packet",
        source: Source::Counters(None, &[("", &metrics::PROTOCOL_ERRORS)]),
    },
    Instrument {
        name: "imks.bus.messages.dropped",
        help: "Messages of other nodes that could not be read or served",
        source: Source::Counters(None, &[("", &metrics::BUS_MESSAGES_DROPPED)]),
    },
    Instrument {
        name: "imks.messages.stored",
        help: "Messages committed to the store",
        source: Source::Counters(None, &[("", &metrics::MESSAGES_STORED)]),
    },
    Instrument {
        name: "imks.database.query",
        help: "Time of one query by its name, waiting for a connection included",
        source: Source::Latencies("query", &metrics::DATABASE_SECONDS),
    },
    Instrument {
        name: "imks.append.batch.size",
        help: "Sends, edits and deletions in one transaction",
        source: Source::Sizes(&metrics::APPEND_BATCH_SIZE),
    },
    Instrument {
        name: "imks.append.commit",
        help: "Time of one transaction of the append path, begin to commit",
        source: Source::Latency(&metrics::APPEND_COMMIT_SECONDS),
    },
    Instrument {
        name: "imks.append.problems",
        help: "Writes refused because their lane was full, transactions tried again, writes that failed",
        source: Source::Counters(
            Some("kind"),
            &[
                ("refused", &metrics::APPEND_REFUSED),
                ("retried", &metrics::APPEND_RETRIES),
                ("failed", &metrics::APPEND_FAILED),
            ],
        ),
    },
    Instrument {
        name: "imks.dispatch",
        help: "Time from the commit of a batch until it is in all local outboxes",
        source: Source::Latency(&metrics::DISPATCH_SECONDS),
    },
    Instrument {
        name: "imks.sessions",
        help: "Live Engine.IO sessions by what carries them now",
        source: Source::Gauges(
            Some("transport"),
            &[
                ("polling", &metrics::SESSIONS_POLLING),
                ("websocket", &metrics::SESSIONS_WEBSOCKET),
                ("webtransport", &metrics::SESSIONS_WEBTRANSPORT),
            ],
        ),
    },
    Instrument {
        name: "imks.sessions.opened",
        help: "Engine.IO sessions opened, by what they started on",
        source: Source::Counters(
            Some("transport"),
            &[
                ("polling", &metrics::SESSIONS_OPENED_POLLING),
                ("websocket", &metrics::SESSIONS_OPENED_WEBSOCKET),
                ("webtransport", &metrics::SESSIONS_OPENED_WEBTRANSPORT),
            ],
        ),
    },
    Instrument {
        name: "imks.sessions.closed",
        help: "Engine.IO sessions ended, by reason",
        source: Source::Counters(
            Some("reason"),
            &[
                ("transport_error", &metrics::ENGINE_CLOSED[0]),
                ("transport_close", &metrics::ENGINE_CLOSED[1]),
                ("forced_close", &metrics::ENGINE_CLOSED[2]),
                ("ping_timeout", &metrics::ENGINE_CLOSED[3]),
                ("parse_error", &metrics::ENGINE_CLOSED[4]),
                ("server_shutdown", &metrics::ENGINE_CLOSED[5]),
                ("slow_consumer", &metrics::ENGINE_CLOSED[6]),
                ("too_large", &metrics::ENGINE_CLOSED[7]),
            ],
        ),
    },
    Instrument {
        name: "imks.upgrades",
        help: "WebSockets and WebTransport streams that wanted to take over from polling, by outcome",
        source: Source::Counters(
            Some("outcome"),
            &[("succeeded", &metrics::UPGRADES_SUCCEEDED), ("failed", &metrics::UPGRADES_FAILED)],
        ),
    },
    Instrument {
        name: "imks.requests.refused",
        help: "Engine.IO requests refused, by error",
        source: Source::Counters(
            Some("error"),
            &[
                ("transport_unknown", &metrics::ENGINE_REFUSED[0]),
                ("session_unknown", &metrics::ENGINE_REFUSED[1]),
                ("bad_method", &metrics::ENGINE_REFUSED[2]),
                ("bad_request", &metrics::ENGINE_REFUSED[3]),
                ("forbidden", &metrics::ENGINE_REFUSED[4]),
                ("bad_protocol", &metrics::ENGINE_REFUSED[5]),
            ],
        ),
    },
    Instrument {
        name: "imks.messages",
        help: "Engine.IO messages by direction",
        source: Source::Counters(
            Some("direction"),
            &[("in", &metrics::ENGINE_MESSAGES_RECEIVED), ("out", &metrics::ENGINE_MESSAGES_SENT)],
        ),
    },
    Instrument {
        name: "imks.message.bytes",
        help: "Bytes of Engine.IO messages by direction; outgoing ones with their framing",
        source: Source::Counters(
            Some("direction"),
            &[("in", &metrics::ENGINE_BYTES_RECEIVED), ("out", &metrics::ENGINE_BYTES_SENT)],
        ),
    },
    Instrument {
        name: "imks.outbox.waiting.sessions",
        help: "Sessions with packets that wait for the client: its wire takes nothing more, or it does not poll",
        source: Source::Gauges(None, &[("", &metrics::OUTBOX_WAITING_SESSIONS)]),
    },
    Instrument {
        name: "imks.outbox.waiting.bytes",
        help: "Bytes of these packets; at the bound a session is closed as `slow_consumer`",
        source: Source::Gauges(None, &[("", &metrics::OUTBOX_WAITING_BYTES)]),
    },
    Instrument {
        name: "imks.volatile.dropped",
        help: "Volatile events that were dropped because a client could not take them right then",
        source: Source::Counters(None, &[("", &metrics::VOLATILE_DROPPED)]),
    },
    Instrument {
        name: "imks.deflate.bytes",
        help: "Bytes of WebSocket messages that were compressed (once for all receivers) and inflated: before and after",
        source: Source::Counters(
            Some("step"),
            &[
                ("to_compress", &metrics::DEFLATE_TAKEN),
                ("compressed", &metrics::DEFLATE_MADE),
                ("to_inflate", &metrics::INFLATE_TAKEN),
                ("inflated", &metrics::INFLATE_MADE),
            ],
        ),
    },
    Instrument {
        name: "imks.http.connections",
        help: "Open connections of the listener that have not become WebSockets",
        source: Source::Gauges(None, &[("", &metrics::HTTP_CONNECTIONS)]),
    },
    Instrument {
        name: "imks.http.connections.refused",
        help: "Connections refused because too many are open",
        source: Source::Counters(None, &[("", &metrics::HTTP_CONNECTIONS_REFUSED)]),
    },
    Instrument {
        name: "imks.http.accept.failures",
        help: "Failures of accept, for example for want of file descriptors",
        source: Source::Counters(None, &[("", &metrics::HTTP_ACCEPT_FAILED)]),
    },
    Instrument {
        name: "imks.webtransport.connections",
        help: "Open QUIC connections, with a session or on the way to one",
        source: Source::Gauges(None, &[("", &metrics::WEBTRANSPORT_CONNECTIONS)]),
    },
    Instrument {
        name: "imks.webtransport.handshakes",
        help: "QUIC connections that were asked to prove their address first, refused, or did not become a session",
        source: Source::Counters(
            Some("outcome"),
            &[
                ("retried", &metrics::WEBTRANSPORT_RETRIED),
                ("refused", &metrics::WEBTRANSPORT_REFUSED),
                ("abandoned", &metrics::WEBTRANSPORT_ABANDONED),
            ],
        ),
    },
    Instrument {
        name: "imks.tls.not_after.timestamp",
        help: "End of validity of the certificate in use, in seconds since 1970; 0 without TLS",
        source: Source::Gauges(None, &[("", &metrics::TLS_NOT_AFTER)]),
    },
    Instrument {
        name: "imks.tls.handshake.failures",
        help: "TLS handshakes over TCP that failed or took too long",
        source: Source::Counters(None, &[("", &metrics::TLS_HANDSHAKES_FAILED)]),
    },
    Instrument {
        name: "imks.core.calls",
        help: "Calls to the core: all, and those without a usable answer",
        source: Source::Counters(
            Some("kind"),
            &[("all", &metrics::CORE_CALLS), ("failed", &metrics::CORE_FAILURES)],
        ),
    },
    Instrument {
        name: "imks.tokens.refused",
        help: "Tokens that were refused, for whatever reason",
        source: Source::Counters(None, &[("", &metrics::TOKENS_REFUSED)]),
    },
    Instrument {
        name: "imks.permission.misses",
        help: "Permission checks that had to ask the core, and those answered with an old answer because it was silent",
        source: Source::Counters(
            Some("kind"),
            &[("asked", &metrics::PERMISSION_QUESTIONS), ("stale", &metrics::PERMISSION_STALE)],
        ),
    },
    Instrument {
        name: "imks.engine.elsewhere",
        help: "Requests for a session that another node made: without sticky sessions the load balancer sent them to the wrong one",
        source: Source::Counters(None, &[("", &metrics::SESSIONS_ELSEWHERE)]),
    },
    Instrument {
        name: "imks.socket.recoveries",
        help: "Clients that wanted to go on with their session after a short absence, and how that ended",
        source: Source::Counters(
            Some("outcome"),
            &[("recovered", &metrics::RECOVERIES), ("new_session", &metrics::RECOVERIES_REFUSED)],
        ),
    },
    Instrument {
        name: "imks.socket.away",
        help: "Sessions whose client is away and may come back",
        source: Source::Gauges(None, &[("", &metrics::RECOVERY_AWAY)]),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What the other tables of this crate may expose in another way.
    const NOT_IN_THE_TABLE: &[&str] = &[];

    #[test]
    fn every_number_that_is_recorded_can_be_scraped() {
        let recorded = include_str!("metrics.rs").lines().filter_map(|line| line.strip_prefix("pub static "));
        let table = include_str!("instruments.rs");
        for name in recorded.filter_map(|line| line.split(':').next()) {
            let exposed = table.contains(&format!("&metrics::{name}"));
            assert!(exposed || NOT_IN_THE_TABLE.contains(&name), "{name} is in no instrument");
        }
    }

    #[test]
    fn the_operations_document_lists_every_metric() {
        let document = include_str!("../../docs/operations.md");
        let table = markdown();
        assert!(
            document.contains(&table),
            "docs/operations.md is stale, its table of metrics should be:\n{table}"
        );
    }
}
