//! Counters and gauges made of plain atomics. Recording costs a nanosecond or two, so they fit the hot path.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use super::source::{Kind, Metric, Value};

/// A number that only grows. Each cell has its own cache line, so that threads that increment the same
/// counter do not slow each other down.
#[derive(Debug, Default)]
pub struct Counter([Cell; CELLS]);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Cell(AtomicU64);

impl Counter {
    /// Creates a counter at zero.
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

    /// Returns the count so far.
    pub fn get(&self) -> u64 {
        self.0.iter().map(|cell| cell.0.load(Ordering::Relaxed)).sum()
    }
}

impl Metric for Counter {
    const KIND: Kind = Kind::Counter;

    fn value(&self) -> Value {
        Value::Counter(self.get())
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Creates a gauge at zero.
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// Changes the value by `delta`.
    pub fn add(&self, delta: i64) {
        self.0.fetch_add(delta, Ordering::Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Returns the current value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metric for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn value(&self) -> Value {
        Value::Gauge(self.get())
    }
}

/// A gauge that is always 1, for a label that describes the process.
#[derive(Debug, Default)]
pub struct One(());

impl One {
    /// Creates the gauge.
    pub const fn new() -> Self {
        Self(())
    }
}

impl Metric for One {
    const KIND: Kind = Kind::Gauge;

    fn value(&self) -> Value {
        Value::Gauge(1)
    }
}

/// The number of cells; more threads than this share cells.
const CELLS: usize = 8;

static NEXT_CELL: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static MY_CELL: usize = NEXT_CELL.fetch_add(1, Ordering::Relaxed);
}
