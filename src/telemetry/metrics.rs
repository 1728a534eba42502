//! Every number an operator can scrape. Hot-path numbers are plain atomics: recording one costs a
//! nanosecond or two, reading them happens at scrape time.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::histogram::{Histogram, HistogramFamily};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Starts at zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
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
