//! How long and how many: a histogram of plain atomics. Recording costs two additions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

/// Counts observations by size. Bounds are given once, in the unit of the observations.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One per bound and one for what is above all of them; not cumulative.
    buckets: [AtomicU64; BUCKETS_MAX],
    sum: AtomicU64,
}

impl Histogram {
    /// Bounds of latencies, in microseconds: 50 µs to 10 s.
    pub const LATENCY: &'static [u64] = &[
        50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000, 10_000_000,
    ];
    /// Bounds of batch sizes.
    pub const SIZE: &'static [u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

    /// Empty. At most 16 bounds count.
    pub const fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, buckets: [const { AtomicU64::new(0) }; BUCKETS_MAX], sum: AtomicU64::new(0) }
    }

    /// Records a size.
    pub fn observe(&self, value: u64) {
        let index = self.bounds.partition_point(|bound| *bound < value).min(BUCKETS_MAX - 1);
        if let Some(bucket) = self.buckets.get(index) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Records a latency, in microseconds.
    pub fn record(&self, elapsed: Duration) {
        self.observe(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
    }

    /// What was seen so far.
    pub fn snapshot(&self) -> Snapshot {
        let mut count = 0;
        let buckets = self.bounds.iter().zip(&self.buckets).map(|(bound, bucket)| {
            count += bucket.load(Ordering::Relaxed);
            (*bound, count)
        });
        let buckets: Vec<_> = buckets.collect();
        let above = self.buckets.get(self.bounds.len()).map_or(0, |bucket| bucket.load(Ordering::Relaxed));
        Snapshot { buckets, count: count + above, sum: self.sum.load(Ordering::Relaxed) }
    }
}

/// A histogram at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Upper bound and how many observations were at most that.
    pub buckets: Vec<(u64, u64)>,
    /// All observations.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
}

/// One histogram per value of one label. Values come from the code, never from a peer.
#[derive(Debug)]
pub struct HistogramFamily {
    bounds: &'static [u64],
    children: RwLock<BTreeMap<&'static str, Arc<Histogram>>>,
}

impl HistogramFamily {
    /// Empty.
    pub const fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, children: RwLock::new(BTreeMap::new()) }
    }

    /// The histogram of `label`. Hot paths keep it: looking it up takes a lock.
    pub fn child(&self, label: &'static str) -> Arc<Histogram> {
        if let Some(child) = self.children.read().get(label) {
            return child.clone();
        }
        self.children.write().entry(label).or_insert_with(|| Arc::new(Histogram::new(self.bounds))).clone()
    }

    /// All histograms at this moment.
    pub fn snapshots(&self) -> Vec<(&'static str, Snapshot)> {
        self.children.read().iter().map(|(label, child)| (*label, child.snapshot())).collect()
    }
}

/// Sixteen bounds, and one bucket above them.
const BUCKETS_MAX: usize = 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_to_it_and_one_above_all_is_only_counted() {
        let histogram = Histogram::new(&[10, 20]);
        for value in [1, 10, 11, 20, 21] {
            histogram.observe(value);
        }
        let expected = Snapshot { buckets: vec![(10, 2), (20, 4)], count: 5, sum: 63 };
        assert_eq!(histogram.snapshot(), expected);
    }

    #[test]
    fn no_list_of_bounds_is_longer_than_the_buckets() {
        assert!(Histogram::LATENCY.len() < BUCKETS_MAX && Histogram::SIZE.len() < BUCKETS_MAX);
    }
}
