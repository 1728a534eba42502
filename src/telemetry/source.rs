//! The interface between metrics and exporters: the kind of a metric and its numbers.

use std::fmt;

use super::histogram::BUCKETS_MAX;
use super::traceparent::TraceId;
use crate::clock::Micros;

/// The kind of an instrument.
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

/// A source of the numbers of an instrument.
pub trait Source: fmt::Debug + Sync {
    /// Returns the kind of the instrument.
    fn kind(&self) -> Kind;

    /// Returns the current numbers: one, or one for each value of the label.
    fn points(&self) -> Vec<Point>;
}

/// One number of an instrument at one moment.
#[derive(Debug)]
pub struct Point {
    /// The value of the label, if there is one.
    pub label: Option<&'static str>,
    /// The number.
    pub value: Value,
}

/// A number at one moment.
#[derive(Debug)]
pub enum Value {
    /// The count since the start of the process.
    Counter(u64),
    /// The current value.
    Gauge(i64),
    /// The distribution since the start of the process.
    Histogram(Box<Snapshot>),
}

/// A single number, without a label.
pub trait Metric: fmt::Debug + Send + Sync {
    /// The kind of the metric.
    const KIND: Kind;

    /// Returns the current number.
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

/// The state of a histogram at one moment, in the exposed unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The upper bounds of the buckets, ascending. A value equal to a bound belongs to that bucket.
    pub bounds: Vec<f64>,
    /// The number of observations in each bucket, not cumulative. The last one is for those above all bounds.
    pub counts: Vec<u64>,
    /// The sum of all observations.
    pub sum: f64,
    /// The last traced observation of each bucket, if there was one.
    pub exemplars: [Option<Exemplar>; BUCKETS_MAX],
}

/// An observation that is a part of a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exemplar {
    /// The trace.
    pub trace_id: TraceId,
    /// What was observed.
    pub value: f64,
    /// When.
    pub at: Micros,
}

impl Snapshot {
    /// Returns the number of all observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}
