//! Questions of many callers, answered with few queries: whoever asks within [`PACE`] of the query before, or while as many run as
//! may at once, waits and shares the next one.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::task::TaskTracker;

use crate::{ImksError, ImksResult};

/// A kind of query that answers many questions `Q` with an answer `A` each. Cheap to clone. Those who wait are bounded by what
/// bounds the callers: each has one question.
pub(super) struct SharedQuery<Q, A>(Arc<Inner<Q, A>>);

struct Inner<Q, A> {
    weight_max: usize,
    waiting: Mutex<VecDeque<Question<Q, A>>>,
    turns: Arc<Semaphore>,
    /// When the next query may begin.
    next_at: Mutex<Instant>,
    /// The queries under way. Nobody waits for them at the end.
    tasks: TaskTracker,
}

/// What one caller asks. Nobody waits any more if the receiver is gone.
struct Question<Q, A> {
    asked: Q,
    weight: usize,
    answer: oneshot::Sender<A>,
}

impl<Q, A> Clone for SharedQuery<Q, A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Q: Clone + Send + 'static, A: Send + 'static> SharedQuery<Q, A> {
    /// Creates a kind of query of which so many run at the same time, each for questions of at most this weight together, unless
    /// one question alone has more.
    pub(super) fn new(at_once: usize, weight_max: usize) -> Self {
        Self(Arc::new(Inner {
            weight_max,
            waiting: Mutex::default(),
            turns: Arc::new(Semaphore::new(at_once)),
            next_at: Mutex::new(Instant::now()),
            tasks: TaskTracker::new(),
        }))
    }

    /// Returns the answer to a question of this weight. `query` answers questions in their order; it runs to its end, whatever
    /// becomes of the caller.
    ///
    /// # Errors
    /// What `query` returns.
    pub(super) async fn ask<F>(
        &self,
        (asked, weight): (Q, usize),
        query: impl Fn(Vec<Q>) -> F + Clone + Send + 'static,
    ) -> ImksResult<A>
    where
        F: Future<Output = ImksResult<Vec<A>>> + Send + 'static,
    {
        let (answer, mut answered) = oneshot::channel();
        self.0.waiting.lock().push_back(Question { asked: asked.clone(), weight, answer });
        // Every question brings a turn, and every turn answers at least one question that is still waited for.
        let shared = tokio::select! {
            biased;
            answer = &mut answered => answer,
            turn = Arc::clone(&self.0.turns).acquire_owned() => {
                // Its own task: others wait for the answer, whatever becomes of this caller.
                self.0.tasks.spawn(self.clone().answer_some(query.clone(), turn.ok()));
                answered.await
            }
        };
        match shared {
            Ok(answer) => Ok(answer),
            // The shared query failed. The caller's own one says why, or does not fail.
            Err(_) => {
                let own = self.0.tasks.spawn(query(vec![asked])).await;
                let answers = own.map_err(|_| ImksError::Internal("a query did not end"))??;
                answers.into_iter().next().ok_or(ImksError::Internal("a question without an answer"))
            }
        }
    }

    /// Answers the questions that have waited longest, with one query.
    async fn answer_some<F>(self, query: impl Fn(Vec<Q>) -> F + Send, _turn: Option<OwnedSemaphorePermit>)
    where
        F: Future<Output = ImksResult<Vec<A>>> + Send,
    {
        let at = self.next_at(Instant::now());
        sleep_until(at).await;
        let (asked, waiting) = self.next();
        if asked.is_empty() {
            return;
        }
        let answers = match query(asked).await {
            Ok(answers) => answers,
            // Those who wait see that no answer comes.
            Err(error) => return tracing::debug!(%error, "questions were not answered together"),
        };
        for (waiting, answer) in waiting.into_iter().zip(answers) {
            if waiting.send(answer).is_err() {
                tracing::trace!("who asked has gone");
            }
        }
    }

    /// Returns when the next query may begin, and takes that time.
    fn next_at(&self, now: Instant) -> Instant {
        let mut next_at = self.0.next_at.lock();
        let at = now.max(*next_at);
        *next_at = at + PACE;
        at
    }

    /// Takes the questions for one query, and those who wait for the answers.
    fn next(&self) -> (Vec<Q>, Vec<oneshot::Sender<A>>) {
        let (mut waiting, mut taken, mut all) = (self.0.waiting.lock(), (Vec::new(), Vec::new()), 0_usize);
        while let Some(question) = waiting.pop_front() {
            if question.answer.is_closed() {
                continue;
            }
            all = all.saturating_add(question.weight);
            if all > self.0.weight_max && !taken.0.is_empty() {
                waiting.push_front(question);
                break;
            }
            taken.0.push(question.asked);
            taken.1.push(question.answer);
        }
        taken
    }

    /// Whether nobody waits.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.0.waiting.lock().iter().all(|question| question.answer.is_closed())
    }

    /// Takes all turns, as queries do that do not end.
    #[cfg(test)]
    pub(super) fn stall(&self) -> OwnedSemaphorePermit {
        let free = u32::try_from(self.0.turns.available_permits()).unwrap();
        Arc::clone(&self.0.turns).try_acquire_many_owned(free).unwrap()
    }
}

/// The shortest time from the beginning of one query to that of the next.
const PACE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_share_queries_that_are_not_too_large() {
        let (shared, queries) = (SharedQuery::<usize, usize>::new(2, 100), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&queries);
        let double = move |asked: Vec<usize>| {
            assert!(asked.len() <= 10);
            counted.fetch_add(1, Ordering::Relaxed);
            async move { Ok(asked.into_iter().map(|number| number * 2).collect()) }
        };
        let ask = async |number: usize| {
            let question = shared.ask((number, 10), double.clone());
            match number % 3 {
                // Asks, and does not wait for the answer.
                0 => drop(timeout(Duration::ZERO, question).await),
                _ => assert_eq!(question.await.unwrap(), number * 2),
            }
        };
        join_all((0..300).map(ask)).await;
        assert!(shared.is_idle());
        assert!((20..60).contains(&queries.load(Ordering::Relaxed)), "{queries:?}");
        assert_eq!(shared.ask((7, 1_000), double).await.unwrap(), 14, "too heavy to share");
    }

    #[tokio::test(start_paused = true)]
    async fn each_of_those_whose_query_failed_hears_the_reason_of_their_own() {
        let shared = SharedQuery::<usize, usize>::new(1, 100);
        let query = |asked: Vec<usize>| async move {
            match asked.contains(&3) {
                true => Err(ImksError::Internal("three")),
                false => Ok(asked),
            }
        };
        let answers = join_all((0..9).map(|number| shared.ask((number, 1), query))).await;
        let failed: Vec<usize> = (0..9).filter(|number| answers[*number].is_err()).collect();
        assert_eq!(failed, [3]);
    }
}
