//! Latencies over time: a bounded number of slots, which grow wider as the run grows longer.

use std::time::Duration;

use serde::Serialize;

use super::histogram::{Histogram, millis};

/// Latencies by the moment at which they were measured.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    width: Duration,
    slots: Vec<Histogram>,
}

/// What one slot of a timeline shows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Point {
    /// The seconds from the start of the run to the start of the slot.
    pub(crate) at: f64,
    /// Measured events per second.
    pub(crate) rate: f64,
    /// The latency that half of them did not exceed, in milliseconds; absent without events.
    pub(crate) p50: Option<f64>,
    /// The latency that 99 of 100 did not exceed, in milliseconds; absent without events.
    pub(crate) p99: Option<f64>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { width: FIRST_WIDTH, slots: Vec::new() }
    }
}

impl Timeline {
    /// Counts a latency that was measured `at` after the start.
    pub(crate) fn record(&mut self, at: Duration, latency: Duration) {
        while self.slot(at) >= SLOTS_MAX {
            self.fold();
        }
        let slot = self.slot(at);
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, Histogram::default);
        }
        if let Some(histogram) = self.slots.get_mut(slot) {
            histogram.record(latency);
        }
    }

    /// Returns a point for each slot. The rate of the last one is that of the part that has passed by `end`.
    pub(crate) fn points(&self, end: Duration) -> Vec<Point> {
        let point = |(index, histogram): (usize, &Histogram)| {
            let start = self.width.saturating_mul(u32::try_from(index).unwrap_or(u32::MAX));
            let width = end.saturating_sub(start).min(self.width);
            let width = if width.is_zero() { self.width } else { width };
            Point {
                at: start.as_secs_f64(),
                rate: histogram.count() as f64 / width.as_secs_f64(),
                p50: histogram.quantile(0.5).map(millis),
                p99: histogram.quantile(0.99).map(millis),
            }
        };
        self.slots.iter().enumerate().map(point).collect()
    }

    fn slot(&self, at: Duration) -> usize {
        usize::try_from(at.as_nanos() / self.width.as_nanos().max(1)).unwrap_or(usize::MAX)
    }

    /// Makes each two slots one of twice the width.
    fn fold(&mut self) {
        let merge = |pair: &[Histogram]| {
            let mut merged = Histogram::default();
            pair.iter().for_each(|histogram| merged.merge(histogram));
            merged
        };
        self.slots = self.slots.chunks(2).map(merge).collect();
        self.width = self.width.saturating_mul(2);
    }
}

/// The width of a slot at the start.
const FIRST_WIDTH: Duration = Duration::from_millis(100);

/// The maximum number of slots of a timeline. One more, and each two become one.
const SLOTS_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pause_in_the_middle_is_shown_as_slots_without_latency() {
        let mut timeline = Timeline::default();
        timeline.record(Duration::from_millis(50), Duration::from_millis(1));
        timeline.record(Duration::from_millis(250), Duration::from_millis(3));
        let points = timeline.points(Duration::from_millis(250));
        assert_eq!(points.iter().map(|point| point.p50).collect::<Vec<_>>(), [Some(1.0), None, Some(3.0)]);
        assert_eq!(points.iter().map(|point| point.rate).collect::<Vec<_>>(), [10.0, 0.0, 20.0]);
    }

    proptest! {
        #[test]
        fn however_long_a_run_is_its_timeline_is_bounded_and_loses_no_event(
            moments in prop::collection::vec(0_u64..100_000_000, 1..300),
        ) {
            let mut timeline = Timeline::default();
            for ms in &moments {
                timeline.record(Duration::from_millis(*ms), Duration::from_millis(2));
            }
            prop_assert!(timeline.slots.len() <= SLOTS_MAX);
            let counted: u64 = timeline.slots.iter().map(Histogram::count).sum();
            prop_assert_eq!(counted, moments.len() as u64);
            let last = *moments.iter().max().unwrap();
            let points = timeline.points(Duration::from_millis(last + 1));
            prop_assert!(points.last().unwrap().at * 1_000.0 <= last as f64);
        }
    }
}
