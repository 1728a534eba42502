//! What a phase of a scenario has given.

use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use super::super::histogram::{Histogram, Percentiles};

/// The findings of a phase.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli::bench) struct PhaseSummary {
    pub(in crate::cli::bench) name: String,
    /// How long it took, the wait for the last rounds included.
    pub(in crate::cli::bench) seconds: f64,
    /// Rounds that were begun, and those of them in which a step failed.
    pub(in crate::cli::bench) rounds: u64,
    pub(in crate::cli::bench) failed_rounds: u64,
    /// Acks and expected events that came.
    pub(in crate::cli::bench) completed: u64,
    pub(in crate::cli::bench) per_second: f64,
    pub(in crate::cli::bench) latency_ms: Option<Percentiles>,
}

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
