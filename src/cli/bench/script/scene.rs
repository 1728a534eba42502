//! A phase of a scenario that is under way, and what it has given so far.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cli::bench::histogram::Histogram;
use crate::cli::bench::phase::PhaseSummary;

/// A phase that is under way.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) start: Instant,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    rounds: u64,
    failed: u64,
    latency: Histogram,
    last: Option<Instant>,
}

impl Scene {
    pub(super) fn begin() -> Self {
        Self { start: Instant::now(), counts: Mutex::default() }
    }

    pub(super) fn round(&self, is_complete: bool) {
        let mut counts = self.counts.lock();
        counts.rounds += 1;
        counts.failed += u64::from(!is_complete);
    }

    pub(super) fn record(&self, now: Instant, took: Duration) {
        let mut counts = self.counts.lock();
        counts.latency.record(took);
        counts.last = counts.last.max(Some(now));
    }

    pub(super) fn end(&self, name: &str) -> PhaseSummary {
        let counts = self.counts.lock();
        let completed = counts.latency.count();
        let measured =
            counts.last.map_or(0.0, |last| last.saturating_duration_since(self.start).as_secs_f64());
        PhaseSummary {
            name: name.to_owned(),
            seconds: self.start.elapsed().as_secs_f64(),
            rounds: counts.rounds,
            failed_rounds: counts.failed,
            completed,
            per_second: if measured > 0.0 { completed as f64 / measured } else { 0.0 },
            latency_ms: counts.latency.percentiles(),
        }
    }
}
