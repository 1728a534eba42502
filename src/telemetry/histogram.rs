//! Histograms of durations and sizes, made of plain atomics. Recording costs two additions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::source::{Exemplar, Kind, Metric, Snapshot, Value};
use super::traceparent::TraceId;
use crate::clock::{Micros, now_micros};

/// A histogram of durations: recorded in microseconds, exposed in seconds.
#[derive(Debug)]
pub struct Latency(Buckets);

impl Latency {
    /// Creates an empty histogram.
    pub const fn new() -> Self {
        Self(Buckets::new(LATENCY_BOUNDS))
    }

    /// Records one duration.
    pub fn record(&self, elapsed: Duration) {
        self.record_traced(elapsed, None);
    }

    /// Records one duration, and the trace that it is from as the example of its bucket.
    pub fn record_traced(&self, elapsed: Duration, trace: Option<TraceId>) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.0.observe(micros);
        if let Some(trace_id) = trace {
            self.0.keep(bucket, Example { trace_id, value: micros, at: now_micros() });
        }
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl Metric for Latency {
    const KIND: Kind = Kind::Latency;

    fn value(&self) -> Value {
        Value::Histogram(Box::new(self.0.snapshot(MICROS_PER_SECOND)))
    }
}

/// A histogram of sizes, for example of batches.
#[derive(Debug)]
pub struct Size(Buckets);

impl Size {
    /// Creates an empty histogram.
    pub const fn new() -> Self {
        Self(Buckets::new(SIZE_BOUNDS))
    }

    /// Records one size.
    pub fn observe(&self, value: u64) {
        self.0.observe(value);
    }
}

impl Default for Size {
    fn default() -> Self {
        Self::new()
    }
}

impl Metric for Size {
    const KIND: Kind = Kind::Size;

    fn value(&self) -> Value {
        Value::Histogram(Box::new(self.0.snapshot(1.0)))
    }
}

/// The buckets of a histogram. Bounds are in the unit of the observations.
#[derive(Debug)]
struct Buckets {
    bounds: &'static [u64],
    /// One count per bound, and one for observations above all bounds.
    counts: [AtomicU64; BUCKETS_MAX],
    sum: AtomicU64,
    /// The last traced observation of each bucket. Allocated with the first one.
    examples: Mutex<Option<Box<[Option<Example>; BUCKETS_MAX]>>>,
}

/// An observation that is a part of a trace.
#[derive(Debug, Clone, Copy)]
struct Example {
    trace_id: TraceId,
    value: u64,
    at: Micros,
}

impl Buckets {
    const fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.len() < BUCKETS_MAX, "too many bounds");
        let counts = [const { AtomicU64::new(0) }; BUCKETS_MAX];
        Self { bounds, counts, sum: AtomicU64::new(0), examples: Mutex::new(None) }
    }

    /// Returns the index of the bucket of `value`.
    fn observe(&self, value: u64) -> usize {
        let index = self.bounds.partition_point(|bound| *bound < value);
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
        index
    }

    fn keep(&self, bucket: usize, example: Example) {
        self.examples.lock().get_or_insert_default()[bucket] = Some(example);
    }

    #[allow(clippy::cast_precision_loss, reason = "both formats have only floating point numbers")]
    fn snapshot(&self, unit: f64) -> Snapshot {
        let counts = self.counts.iter().take(self.bounds.len() + 1);
        let examples = self.examples.lock().as_deref().copied().unwrap_or_default();
        let exemplar =
            |it: Example| Exemplar { trace_id: it.trace_id, value: it.value as f64 / unit, at: it.at };
        Snapshot {
            bounds: self.bounds.iter().map(|bound| *bound as f64 / unit).collect(),
            counts: counts.map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed) as f64 / unit,
            exemplars: examples.map(|example| example.map(exemplar)),
        }
    }
}

/// The bounds of durations in microseconds, from 50 µs to 10 s.
const LATENCY_BOUNDS: &[u64] = &[
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000,
];
const SIZE_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
/// The largest number of buckets: one for each of sixteen bounds, and one above them.
pub(super) const BUCKETS_MAX: usize = 17;
const MICROS_PER_SECOND: f64 = 1_000_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_to_it_and_one_above_all_is_only_counted() {
        let buckets = Buckets::new(&[10, 20]);
        for value in [1, 10, 11, 20, 21] {
            buckets.observe(value);
        }
        let (bounds, counts) = (vec![10.0, 20.0], vec![2, 2, 1]);
        let expected = Snapshot { bounds, counts, sum: 63.0, exemplars: Default::default() };
        assert_eq!(buckets.snapshot(1.0), expected);
        assert_eq!(expected.count(), 5);
    }

    #[test]
    fn the_last_traced_duration_of_a_bucket_is_its_example() {
        let trace = |byte| TraceId::new([byte; 16]);
        let latency = Latency::new();
        latency.record_traced(Duration::from_micros(40), trace(1));
        latency.record_traced(Duration::from_micros(30), trace(2));
        latency.record_traced(Duration::from_micros(20), None);
        let Value::Histogram(snapshot) = latency.value() else { panic!("not a histogram") };
        let exemplar = snapshot.exemplars[0].unwrap();
        assert_eq!((Some(exemplar.trace_id), exemplar.value), (trace(2), 0.000_03));
        assert_eq!((snapshot.counts[0], snapshot.exemplars[1]), (3, None));
    }

    #[test]
    fn durations_are_exposed_in_seconds() {
        let latency = Latency::new();
        latency.record(Duration::from_millis(3));
        latency.record(Duration::from_secs(3600));
        let Value::Histogram(snapshot) = latency.value() else { panic!("not a histogram") };
        assert_eq!((snapshot.bounds[0], snapshot.bounds[15]), (0.000_05, 10.0));
        assert_eq!((snapshot.counts[6], snapshot.counts[16], snapshot.sum), (1, 1, 3600.003));
    }
}
