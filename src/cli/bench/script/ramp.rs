//! The clients of a scenario from a file connect in turn: so many begin per second, and a bounded number is on its way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use tokio::time::{Instant, sleep_until};

use crate::cli::bench::plan::due;

/// How many clients begin to connect per second, and how many began late.
#[derive(Debug)]
pub(super) struct Ramp {
    /// `None` for all at once, as far as they may be on their way.
    pub(super) per_second: Option<f64>,
    late: AtomicU64,
}

impl Ramp {
    pub(super) fn new(per_second: Option<f64>) -> Self {
        Self { per_second, late: AtomicU64::new(0) }
    }

    /// Begins `one` for each number up to `count` when it is due, and returns what becomes of them as they end. A client that
    /// takes long holds up nobody until [`JOINING_MAX`] do.
    #[allow(clippy::disallowed_methods, reason = "whoever takes long must not hold up the others")]
    pub(super) fn begin<'a, T, F>(
        &'a self,
        count: usize,
        one: impl Fn(usize) -> F + 'a,
    ) -> impl Stream<Item = T> + 'a
    where
        T: 'a,
        F: Future<Output = T> + 'a,
    {
        let start = Instant::now();
        let due_ones = stream::iter(0..count).then(move |number| async move {
            if let Some(rate) = self.per_second {
                let due = due(start, rate, (0, 1), number as u64);
                sleep_until(due).await;
                let is_late = due.elapsed() > LATE;
                self.late.fetch_add(u64::from(is_late), Ordering::Relaxed);
            }
            number
        });
        due_ones.map(one).buffer_unordered(JOINING_MAX)
    }

    /// Returns the sentence that says how many of `count` clients began late, if any did.
    pub(super) fn note(&self, count: usize) -> Option<String> {
        let late = self.late.load(Ordering::Relaxed);
        (late > 0).then(|| {
            format!(
                "connecting: {late} of {count} clients began later than per_second says, because {JOINING_MAX} were on \
                 their way"
            )
        })
    }
}

/// The maximum number of clients of a scenario from a file that connect at the same time.
const JOINING_MAX: usize = 100;

/// How late a client may begin without a word.
const LATE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    /// How long it takes until the last of 300 clients has begun, and what is said about it.
    async fn last_of_300(per_second: f64, takes: fn(usize) -> Duration) -> (Duration, Option<String>) {
        let (ramp, start) = (Ramp::new(Some(per_second)), Instant::now());
        let one = |number| async move {
            let begun = start.elapsed();
            tokio::time::sleep(takes(number)).await;
            (number, begun)
        };
        let ended: Vec<_> = ramp.begin(300, one).collect().await;
        let (_, last) = ended.into_iter().find(|(number, _)| *number == 299).unwrap();
        (last, ramp.note(300))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_long_holds_up_nobody_and_a_rate_that_is_not_kept_is_told() {
        let slow_first = |number| Duration::from_secs(if number == 0 { 100 } else { 0 });
        let (last, note) = last_of_300(100.0, slow_first).await;
        assert!(last < Duration::from_secs(3) && note.is_none(), "{last:?} {note:?}");
        let (last, note) = last_of_300(1_000.0, |_| Duration::from_secs(1)).await;
        assert!(last >= Duration::from_secs(2), "100 at a time: {last:?}");
        assert!(note.unwrap().starts_with("connecting: 200 of 300 clients began later"));
    }
}
