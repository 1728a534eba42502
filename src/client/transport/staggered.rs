//! Attempts that begin one after the other, each with a head start before the next.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;

/// Attempts, some of which run. Dropping it ends them.
pub(super) struct Staggered<I, F> {
    waiting: I,
    running: FuturesUnordered<F>,
    head_start: Duration,
}

impl<F: Future, I: Iterator<Item = F>> Staggered<I, F> {
    pub(super) fn new(attempts: impl IntoIterator<IntoIter = I>, head_start: Duration) -> Self {
        Self { waiting: attempts.into_iter(), running: FuturesUnordered::new(), head_start }
    }

    /// Returns the result of the next attempt that ends, or `None` after the last. One more attempt begins with each
    /// call, because those before it have failed, and one whenever those that run are late.
    pub(super) async fn next(&mut self) -> Option<F::Output> {
        loop {
            let next = self.waiting.next();
            let patience = if next.is_some() { self.head_start } else { Duration::MAX };
            self.running.extend(next);
            if let Ok(ended) = timeout(patience, self.running.next()).await {
                return ended;
            }
        }
    }
}

/// Returns the first success, or the last failure, or `none` if there was no attempt.
pub(super) async fn first<T, E, F>(
    attempts: impl IntoIterator<Item = F>,
    head_start: Duration,
    none: E,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let (mut attempts, mut failure) = (Staggered::new(attempts, head_start), none);
    while let Some(ended) = attempts.next().await {
        match ended {
            Ok(success) => return Ok(success),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::{BoxFuture, pending, ready};
    use tokio::time::{Instant, sleep};

    use super::*;

    type Attempt = BoxFuture<'static, Result<&'static str, u32>>;

    fn refused(error: u32) -> Attempt {
        ready(Err(error)).boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_fails_or_does_not_end_costs_the_next_ones_little() {
        let start = Instant::now();
        let good: Attempt = ready(Ok("here")).boxed();
        let attempts = [refused(1), pending().boxed(), refused(2), pending().boxed(), good];
        assert_eq!(first(attempts, HEAD_START, 0).await, Ok("here"));
        assert!(start.elapsed() < 3 * HEAD_START, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_attempt_wins_where_the_later_ones_fail() {
        let late = async {
            sleep(4 * HEAD_START).await;
            Ok("here")
        };
        assert_eq!(first([late.boxed(), refused(1)], HEAD_START, 0).await, Ok("here"));
    }

    #[tokio::test]
    async fn where_all_attempts_fail_the_last_failure_is_told() {
        assert_eq!(first([refused(1), refused(2)], HEAD_START, 0).await, Err(2));
        assert_eq!(first(Vec::<Attempt>::new(), HEAD_START, 0).await, Err(0));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_head_start_all_attempts_begin_at_once() {
        let start = Instant::now();
        let slow: Attempt = pending().boxed();
        let quick = async {
            sleep(HEAD_START).await;
            Ok("here")
        };
        assert_eq!(first([slow, quick.boxed()], Duration::ZERO, 0).await, Ok("here"));
        assert!(start.elapsed() < HEAD_START + Duration::from_millis(10), "{:?}", start.elapsed());
    }

    const HEAD_START: Duration = Duration::from_millis(250);
}
