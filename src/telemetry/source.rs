//! What a metric gives to those who read it: its kind and its numbers.

use std::fmt;

/// What an instrument measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number that only grows.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// A histogram of durations in seconds.
    Latency,
    /// A histogram of sizes.
    Size,
}

/// The numbers of an instrument.
pub trait Source: fmt::Debug + Sync {
    /// Returns what is measured.
    fn kind(&self) -> Kind;

    /// Reads the numbers: one, or one for each value of the label.
    fn points(&self) -> Vec<Point>;
}

/// One number of an instrument at one moment.
#[derive(Debug)]
pub struct Point {
    /// Value of the label.
    pub label: Option<&'static str>,
    /// The number.
    pub value: Value,
}

/// A number at one moment.
#[derive(Debug)]
pub enum Value {
    /// Count since the start of the process.
    Counter(u64),
    /// Value now.
    Gauge(i64),
    /// Distribution since the start of the process.
    Histogram(Snapshot),
}

/// A single number, without a label.
pub trait Metric: fmt::Debug + Send + Sync {
    /// What is measured.
    const KIND: Kind;

    /// Reads the number.
    fn value(&self) -> Value;
}

impl<M: Metric> Source for M {
    fn kind(&self) -> Kind {
        M::KIND
    }

    fn points(&self) -> Vec<Point> {
        vec![Point { label: None, value: self.value() }]
    }
}

/// A histogram at one moment, in the unit in which it is exposed.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Upper bounds of the buckets, ascending. A value on a bound belongs to its bucket.
    pub bounds: Vec<f64>,
    /// Observations in each bucket, not cumulative; the last one counts those above all bounds.
    pub counts: Vec<u64>,
    /// Sum of all observations.
    pub sum: f64,
}

impl Snapshot {
    /// Returns the number of all observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}
