//! A run of a scenario: what its clients share, and what they have measured so far.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::crowd::Crowd;
use super::histogram::{Histogram, Percentiles, millis};
use super::pacer::Pacer;
use super::phase::PhaseSummary;
use super::picture::short;
use super::plan::Plan;
use super::progress::Progress;
use super::summary::Faults;
use super::timeline::{Point, Timeline};

/// A run.
#[derive(Debug)]
pub(in crate::cli) struct Run {
    pub(in crate::cli) plan: Plan,
    /// How long events are sent, if the number of messages does not end the run before.
    pub(in crate::cli) duration: Option<Duration>,
    /// How long events are sent before that, of which nothing is measured.
    pub(in crate::cli) warm_up: Duration,
    pub(in crate::cli) crowd: Crowd,
    pub(in crate::cli) meter: Meter,
    pub(in crate::cli::bench) pacer: Pacer,
    pub(in crate::cli) progress: Progress,
    pub(in crate::cli) tasks: TaskTracker,
    /// Cancelled when nothing more shall be sent.
    pub(in crate::cli) stop: CancellationToken,
}

/// What a scenario has found beside the measurements.
#[derive(Debug, Default)]
pub(in crate::cli) struct Outcome {
    pub(in crate::cli) faults: Faults,
    /// The number of events that were sent, where the meter does not count them.
    pub(in crate::cli) sent: Option<u64>,
    pub(in crate::cli) notes: Vec<String>,
    pub(in crate::cli) delivery_ms: Option<Percentiles>,
    /// What each phase of a scenario from a file has given.
    pub(in crate::cli::bench) phases: Vec<PhaseSummary>,
}

/// What was measured.
#[derive(Debug, Default)]
pub(in crate::cli) struct Meter(Mutex<Measured>);

#[derive(Debug, Default)]
struct Measured {
    start: Option<Instant>,
    last: Option<Instant>,
    sent: u64,
    latency: Histogram,
    timeline: Timeline,
}

impl Run {
    /// Starts to send, measures after the warm-up, and ends the sending when its time is over.
    pub(in crate::cli) fn begin(self: &Arc<Self>) -> Instant {
        let now = Instant::now();
        self.meter.0.lock().start = Some(now + self.warm_up);
        if let Some(duration) = self.duration {
            let run = self.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = run.last(duration) => run.stop.cancel(),
                    () = run.stop.cancelled() => {}
                }
            });
        }
        now
    }

    async fn last(&self, duration: Duration) {
        if !self.warm_up.is_zero() {
            tokio::time::sleep(self.warm_up).await;
            self.progress.line("measuring");
        }
        tokio::time::sleep(duration).await;
    }
}

impl Meter {
    /// Counts an event that was sent.
    pub(in crate::cli) fn sent(&self) {
        let mut measured = self.0.lock();
        if measured.start.is_some_and(|start| start <= Instant::now()) {
            measured.sent += 1;
        }
    }

    /// Counts an answer or a delivery that took so long. What comes during the warm-up does not count, and what is under way
    /// when it ends does.
    pub(in crate::cli) fn record(&self, now: Instant, took: Duration) {
        let mut measured = self.0.lock();
        let Some(start) = measured.start.filter(|start| *start <= now) else { return };
        measured.last = measured.last.max(Some(now));
        measured.latency.record(took);
        measured.timeline.record(now.saturating_duration_since(start), took);
    }

    /// Returns the number of events that were sent, and of what was measured.
    pub(in crate::cli) fn counts(&self) -> (u64, u64) {
        let measured = self.0.lock();
        (measured.sent, measured.latency.count())
    }

    /// Returns the time from the start to the last answer or delivery; nothing before both.
    pub(in crate::cli) fn time(&self) -> Duration {
        let measured = self.0.lock();
        match (measured.start, measured.last) {
            (Some(start), Some(last)) => last.saturating_duration_since(start),
            _ => Duration::ZERO,
        }
    }

    /// Returns the percentiles of the latency, and the latency over time.
    pub(in crate::cli) fn latencies(&self) -> (Option<Percentiles>, Vec<Point>) {
        let time = self.time();
        let measured = self.0.lock();
        (measured.latency.percentiles(), measured.timeline.points(time))
    }

    /// Returns the state of the run in a few words.
    pub(in crate::cli) fn status(&self, unit: &str) -> String {
        let measured = self.0.lock();
        let Some(start) = measured.start else { return "connecting".into() };
        if start > Instant::now() {
            return "warming up".into();
        }
        let (count, seconds) = (measured.latency.count(), start.elapsed().as_secs_f64());
        let p99 = measured.latency.quantile(0.99).map_or("-".into(), |p99| short(millis(p99)));
        let rate = if seconds > 0.0 { short(count as f64 / seconds) } else { "-".into() };
        format!("{:>5} s  {count} {unit}, {rate} per second, p99 {p99} ms", short(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_about_the_time_in_which_something_came_not_about_the_wait_for_what_did_not() {
        let meter = Meter::default();
        let start = Instant::now();
        meter.record(start, Duration::from_millis(1));
        assert_eq!(meter.counts().1, 0, "nothing counts before the start");
        meter.0.lock().start = Some(start + Duration::from_millis(1));
        meter.sent();
        meter.record(start, Duration::from_millis(1));
        assert_eq!(meter.counts(), (0, 0), "nothing counts during the warm-up");
        tokio::time::advance(Duration::from_millis(1)).await;
        meter.0.lock().start = Some(start);
        for ms in [100, 200] {
            meter.sent();
            meter.record(start + Duration::from_millis(ms), Duration::from_millis(1));
        }
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!((meter.counts(), meter.time()), ((2, 2), Duration::from_millis(200)));
    }
}
