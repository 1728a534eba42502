//! Every number an operator can scrape. Hot-path numbers are plain atomics: recording one costs a
//! nanosecond or two, reading them happens at scrape time.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use super::histogram::{Histogram, HistogramFamily};

/// A number that only grows. Each thread adds to a cell of its own cache line, so that threads which count the
/// same thing do not slow each other down.
#[derive(Debug, Default)]
pub struct Counter([Cell; CELLS]);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Cell(AtomicU64);

impl Counter {
    /// Starts at zero.
    pub const fn new() -> Self {
        Self([const { Cell(AtomicU64::new(0)) }; CELLS])
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        let cell = MY_CELL.with(|cell| *cell);
        self.0[cell % CELLS].0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.iter().map(|cell| cell.0.load(Ordering::Relaxed)).sum()
    }
}

/// Threads beyond this number share cells.
const CELLS: usize = 8;

static NEXT_CELL: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static MY_CELL: usize = NEXT_CELL.fetch_add(1, Ordering::Relaxed);
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Starts at zero.
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// Changes by `delta`.
    pub fn add(&self, delta: i64) {
        self.0.fetch_add(delta, Ordering::Relaxed);
    }

    /// Changes to `value`.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Time from the start of an event's handler to its answer, by event name.
pub static EVENT_SECONDS: HistogramFamily = HistogramFamily::new(Histogram::LATENCY);
/// Events answered with an error that is the caller's fault.
pub static EVENTS_REFUSED: Counter = Counter::new();
/// Events answered with `rate_limited`.
pub static EVENTS_RATE_LIMITED: Counter = Counter::new();
/// Events answered with an error that is ours: unavailable, timeout, internal.
pub static EVENTS_FAILED: Counter = Counter::new();
/// CONNECT packets that made a session.
pub static CONNECTS_ACCEPTED: Counter = Counter::new();
/// CONNECT packets that were answered with CONNECT_ERROR.
pub static CONNECTS_REFUSED: Counter = Counter::new();
/// Time from the commit of a batch until it is in all local outboxes.
pub static DISPATCH_SECONDS: Histogram = Histogram::new(Histogram::LATENCY);
/// Handlers that panicked; each cost one connection.
pub static HANDLER_PANICS: Counter = Counter::new();
/// Connections closed because of a malformed or misplaced Socket.IO packet.
pub static PROTOCOL_ERRORS: Counter = Counter::new();

/// Messages committed to the store.
pub static MESSAGES_STORED: Counter = Counter::new();
/// Writes (sends, edits, deletes) per transaction of the append path.
pub static APPEND_BATCH_SIZE: Histogram = Histogram::new(Histogram::SIZE);
/// Time of such a transaction, begin to commit: what the database takes.
pub static APPEND_COMMIT_SECONDS: Histogram = Histogram::new(Histogram::LATENCY);
/// Writes refused because their lane was full.
pub static APPEND_REFUSED: Counter = Counter::new();
/// Transactions tried again after a failure of the database.
pub static APPEND_RETRIES: Counter = Counter::new();
/// Writes that failed because of the database.
pub static APPEND_FAILED: Counter = Counter::new();
/// Live sessions carried by HTTP long-polling.
pub static SESSIONS_POLLING: Gauge = Gauge::new();
/// Live sessions carried by WebSocket.
pub static SESSIONS_WEBSOCKET: Gauge = Gauge::new();
/// Live sessions carried by WebTransport.
pub static SESSIONS_WEBTRANSPORT: Gauge = Gauge::new();
/// Sessions that started on polling.
pub static SESSIONS_OPENED_POLLING: Counter = Counter::new();
/// Sessions that started on WebSocket.
pub static SESSIONS_OPENED_WEBSOCKET: Counter = Counter::new();
/// Sessions that started on WebTransport.
pub static SESSIONS_OPENED_WEBTRANSPORT: Counter = Counter::new();
/// Sessions that ended, by reason, in the order of `CloseReason::ALL`; `slow_consumer` is one of them.
pub static ENGINE_CLOSED: [Counter; 8] = [const { Counter::new() }; 8];
/// Polling sessions that went over to WebSocket or WebTransport.
pub static UPGRADES_SUCCEEDED: Counter = Counter::new();
/// WebSockets and WebTransport streams that wanted to take over and could not.
pub static UPGRADES_FAILED: Counter = Counter::new();
/// Refused requests by Engine.IO error code (0 to 5).
pub static ENGINE_REFUSED: [Counter; 6] = [const { Counter::new() }; 6];
/// Engine.IO messages received.
pub static ENGINE_MESSAGES_RECEIVED: Counter = Counter::new();
/// Engine.IO messages sent.
pub static ENGINE_MESSAGES_SENT: Counter = Counter::new();
/// Bytes of messages received, without framing.
pub static ENGINE_BYTES_RECEIVED: Counter = Counter::new();
/// Bytes of messages sent, with framing.
pub static ENGINE_BYTES_SENT: Counter = Counter::new();
/// Volatile events that were dropped because a client could not take them right then.
pub static VOLATILE_DROPPED: Counter = Counter::new();
/// Sessions with packets that wait for the client.
pub static OUTBOX_WAITING_SESSIONS: Gauge = Gauge::new();
/// Their bytes.
pub static OUTBOX_WAITING_BYTES: Gauge = Gauge::new();
/// Bytes of messages that permessage-deflate made smaller, once for all receivers.
pub static DEFLATE_TAKEN: Counter = Counter::new();
/// Bytes it made of them.
pub static DEFLATE_MADE: Counter = Counter::new();
/// Bytes of messages that arrived compressed.
pub static INFLATE_TAKEN: Counter = Counter::new();
/// Bytes that came out of them.
pub static INFLATE_MADE: Counter = Counter::new();
/// Open TCP connections of the public listener.
pub static HTTP_CONNECTIONS: Gauge = Gauge::new();
/// Connections refused because too many are open.
pub static HTTP_CONNECTIONS_REFUSED: Counter = Counter::new();
/// Failures of accept, for example for want of file descriptors.
pub static HTTP_ACCEPT_FAILED: Counter = Counter::new();
/// Open QUIC connections of the WebTransport listener.
pub static WEBTRANSPORT_CONNECTIONS: Gauge = Gauge::new();
/// QUIC connections that were asked to prove their address first.
pub static WEBTRANSPORT_RETRIED: Counter = Counter::new();
/// QUIC connections refused because too many are open.
pub static WEBTRANSPORT_REFUSED: Counter = Counter::new();
/// QUIC connections that did not become a session.
pub static WEBTRANSPORT_ABANDONED: Counter = Counter::new();
/// End of validity of the certificate in use, in seconds since 1970; 0 without TLS.
pub static TLS_NOT_AFTER: Gauge = Gauge::new();
/// TLS handshakes over TCP that failed or took too long.
pub static TLS_HANDSHAKES_FAILED: Counter = Counter::new();

/// Messages of other nodes that could not be read or served.
pub static BUS_MESSAGES_DROPPED: Counter = Counter::new();

/// Calls to the core.
pub static CORE_CALLS: Counter = Counter::new();
/// Calls to the core without a usable answer.
pub static CORE_FAILURES: Counter = Counter::new();
/// Tokens that were refused, for whatever reason.
pub static TOKENS_REFUSED: Counter = Counter::new();
/// Permission checks that had to ask the core.
pub static PERMISSION_QUESTIONS: Counter = Counter::new();
/// Permission checks answered with an old answer, because the core was silent.
pub static PERMISSION_STALE: Counter = Counter::new();
/// Time of one query of the database by its name, as seen by who asked: waiting for a connection included.
pub static DATABASE_SECONDS: HistogramFamily = HistogramFamily::new(Histogram::LATENCY);
/// Requests for a session that another node made: the load balancer sent them to the wrong one.
pub static SESSIONS_ELSEWHERE: Counter = Counter::new();
/// Clients that came back to their session after a short absence.
pub static RECOVERIES: Counter = Counter::new();
/// Clients that wanted to come back and got a new session.
pub static RECOVERIES_REFUSED: Counter = Counter::new();
/// Sessions whose client is away and may come back.
pub static RECOVERY_AWAY: Gauge = Gauge::new();
