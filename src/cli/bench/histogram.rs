//! A histogram of durations: buckets that are 3 % wide, from one microsecond up, with no allocation per sample.

use std::time::Duration;

use serde::Serialize;

/// Counts of durations. Its size grows with the longest of them, to 16 KiB at most.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

/// The usual percentiles of durations, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    /// Half of the samples were not longer.
    pub(crate) p50: f64,
    /// 95 of 100 samples were not longer.
    pub(crate) p95: f64,
    /// 99 of 100 samples were not longer.
    pub(crate) p99: f64,
    /// The longest sample, exact.
    pub(crate) max: f64,
}

impl Histogram {
    /// Counts a duration.
    pub(crate) fn record(&mut self, duration: Duration) {
        let at = bucket(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        if at >= self.buckets.len() {
            self.buckets.resize(at + 1, 0);
        }
        if let Some(bucket) = self.buckets.get_mut(at) {
            *bucket += 1;
        }
        self.count += 1;
        self.max = self.max.max(duration);
    }

    /// Adds the samples of another histogram.
    pub(crate) fn merge(&mut self, other: &Self) {
        if other.buckets.len() > self.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, theirs)| *mine += theirs);
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// Returns the number of samples.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Returns the duration that `share` of the samples (0 to 1) do not exceed, at most 3 % too long; `None` without
    /// samples.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let reached = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        let edge = reached.map_or(self.max, |at| Duration::from_micros(edge(at)));
        Some(edge.min(self.max))
    }

    /// Returns the usual percentiles; `None` without samples.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let at = |share| self.quantile(share).map(millis);
        Some(Percentiles { p50: at(0.5)?, p95: at(0.95)?, p99: at(0.99)?, max: millis(self.max) })
    }
}

/// Returns a duration in milliseconds, rounded to microseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Returns the bucket of a number of microseconds: exact up to [`STEPS`], then that many for each power of two.
fn bucket(us: u64) -> usize {
    if us < STEPS {
        return us as usize;
    }
    let shift = us.ilog2() - STEP_BITS;
    (u64::from(shift + 1) * STEPS + ((us >> shift) - STEPS)) as usize
}

/// Returns the largest number of microseconds in a bucket.
fn edge(bucket: usize) -> u64 {
    let (group, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    match u32::try_from(group.saturating_sub(1)) {
        Ok(shift) if group > 0 => {
            let after = u128::from(STEPS + step + 1) << shift;
            u64::try_from(after - 1).unwrap_or(u64::MAX)
        }
        _ => step,
    }
}

/// The number of buckets for each power of two.
const STEPS: u64 = 32;
const STEP_BITS: u32 = STEPS.ilog2();

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_samples_there_is_nothing_to_say() {
        assert_eq!(Histogram::default().quantile(0.5), None);
        assert_eq!(Histogram::default().percentiles(), None);
    }

    #[test]
    fn the_longest_duration_is_exact_and_no_percentile_exceeds_it() {
        let mut histogram = Histogram::default();
        (1..=1_000).for_each(|ms| histogram.record(Duration::from_millis(ms)));
        let percentiles = histogram.percentiles().unwrap();
        assert_eq!(percentiles.max, 1_000.0);
        assert!((500.0..=516.0).contains(&percentiles.p50), "{percentiles:?}");
        assert!((990.0..=1_000.0).contains(&percentiles.p99), "{percentiles:?}");
        histogram.record(Duration::MAX);
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_micros(u64::MAX)));
    }

    proptest! {
        #[test]
        fn a_percentile_is_that_of_the_sorted_samples_within_three_percent(
            samples in prop::collection::vec(0_u64..10_000_000_000, 1..200),
            share in 0.01_f64..=1.0,
        ) {
            let mut histogram = Histogram::default();
            samples.iter().for_each(|us| histogram.record(Duration::from_micros(*us)));
            let mut sorted = samples;
            sorted.sort_unstable();
            let rank = ((sorted.len() as f64 * share).ceil() as usize).max(1);
            let (exact, found) = (sorted[rank - 1], histogram.quantile(share).unwrap().as_micros() as u64);
            prop_assert!(found >= exact && found <= exact + exact / 31, "{found} for {exact}");
        }

        #[test]
        fn histograms_that_are_merged_are_the_histogram_of_all_samples(
            one in prop::collection::vec(0_u64..1 << 40, 0..50),
            other in prop::collection::vec(0_u64..1 << 40, 0..50),
        ) {
            let of = |samples: &[u64]| {
                let mut histogram = Histogram::default();
                samples.iter().for_each(|us| histogram.record(Duration::from_micros(*us)));
                histogram
            };
            let mut merged = of(&one);
            merged.merge(&of(&other));
            let whole = of(&[one, other].concat());
            prop_assert_eq!(merged.percentiles(), whole.percentiles());
            prop_assert_eq!(merged.count(), whole.count());
        }
    }
}
