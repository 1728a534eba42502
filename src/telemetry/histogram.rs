//! Histograms of durations and sizes, made of plain atomics. Recording costs two additions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::source::{Kind, Metric, Snapshot, Value};

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
        self.0.observe(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
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
        Value::Histogram(self.0.snapshot(MICROS_PER_SECOND))
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
        Value::Histogram(self.0.snapshot(1.0))
    }
}

/// The buckets of a histogram. Bounds are in the unit of the observations.
#[derive(Debug)]
struct Buckets {
    bounds: &'static [u64],
    /// One count per bound, and one for observations above all bounds.
    counts: [AtomicU64; BUCKETS_MAX],
    sum: AtomicU64,
}

impl Buckets {
    const fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.len() < BUCKETS_MAX, "too many bounds");
        Self { bounds, counts: [const { AtomicU64::new(0) }; BUCKETS_MAX], sum: AtomicU64::new(0) }
    }

    fn observe(&self, value: u64) {
        let index = self.bounds.partition_point(|bound| *bound < value);
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    #[allow(clippy::cast_precision_loss, reason = "both formats have only floating point numbers")]
    fn snapshot(&self, unit: f64) -> Snapshot {
        let counts = self.counts.iter().take(self.bounds.len() + 1);
        Snapshot {
            bounds: self.bounds.iter().map(|bound| *bound as f64 / unit).collect(),
            counts: counts.map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed) as f64 / unit,
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
const BUCKETS_MAX: usize = 17;
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
        let expected = Snapshot { bounds: vec![10.0, 20.0], counts: vec![2, 2, 1], sum: 63.0 };
        assert_eq!(buckets.snapshot(1.0), expected);
        assert_eq!(expected.count(), 5);
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
