//! The states of channels that connecting users need, for many users with one query: whoever connects within
//! [`PACE`] of the query before, or while as many run as may at once, waits and shares the next one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::timed::timed;
use crate::error::ImksResult;
use crate::models::Db;
use crate::models::message_read_state::{Standing, standings};

/// The states of the channels of a user. Channels without a read position are missing.
pub(super) type ChannelStates = HashMap<Uuid, Standing>;

/// The reader of states. Cheap to clone.
#[derive(Clone)]
pub(super) struct Standings(Arc<Inner>);

struct Inner {
    waiting: Mutex<VecDeque<Question>>,
    turns: Arc<Semaphore>,
    /// When the next query may begin.
    next_at: Mutex<Instant>,
    /// The queries under way. They only read, so nobody waits for them at the end.
    tasks: TaskTracker,
}

/// What one user asks for. Nobody waits any more if the receiver is gone.
struct Question {
    user: Uuid,
    channels: Vec<Uuid>,
    answer: oneshot::Sender<ChannelStates>,
}

impl Default for Standings {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(QUERIES_AT_ONCE));
        let (waiting, next_at) = (Mutex::default(), Mutex::new(Instant::now()));
        Self(Arc::new(Inner { waiting, turns, next_at, tasks: TaskTracker::new() }))
    }
}

impl Standings {
    /// Returns the states of the channels of a user.
    ///
    /// # Errors
    /// `Database`.
    pub(super) async fn of(&self, db: &Db, user: Uuid, channels: Vec<Uuid>) -> ImksResult<ChannelStates> {
        if channels.is_empty() {
            return Ok(ChannelStates::new());
        }
        let (answer, mut answered) = oneshot::channel();
        self.0.waiting.lock().push_back(Question { user, channels: channels.clone(), answer });
        // Every question brings a turn, and every turn answers at least one question that is still waited for.
        let shared = tokio::select! {
            biased;
            answer = &mut answered => answer,
            turn = Arc::clone(&self.0.turns).acquire_owned() => {
                // Its own task: others wait for the answer, whatever becomes of this caller.
                self.0.tasks.spawn(self.clone().answer_some(db.clone(), turn.ok()));
                answered.await
            }
        };
        match shared {
            Ok(states) => Ok(states),
            // The shared query failed. The caller's own one says why, or does not fail.
            Err(_) => {
                let pairs: Vec<_> = channels.into_iter().map(|channel| (user, channel)).collect();
                Ok(by_channel(timed("standings", standings(db, &pairs)).await?))
            }
        }
    }

    /// Answers the questions that have waited longest, with one query.
    async fn answer_some(self, db: Db, _turn: Option<OwnedSemaphorePermit>) {
        let at = self.next_at(Instant::now());
        sleep_until(at).await;
        let questions = self.next();
        if questions.is_empty() {
            return;
        }
        let pairs: Vec<(Uuid, Uuid)> = questions
            .iter()
            .flat_map(|question| question.channels.iter().map(|channel| (question.user, *channel)))
            .collect();
        let found = match timed("standings", standings(&db, &pairs)).await {
            Ok(found) => found,
            // Those who wait see that no answer comes.
            Err(error) => return tracing::debug!(%error, "the states of channels were not read together"),
        };
        let all: HashMap<(Uuid, Uuid), Standing> =
            found.into_iter().map(|state| ((state.user_id, state.head.channel_id), state)).collect();
        for Question { user, channels, answer } in questions {
            let own = channels.iter().filter_map(|channel| all.get(&(user, *channel)).copied());
            if answer.send(by_channel(own)).is_err() {
                tracing::trace!("a user who connected has gone");
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

    /// Takes the questions for one query.
    fn next(&self) -> Vec<Question> {
        let (mut waiting, mut taken, mut pairs) = (self.0.waiting.lock(), Vec::new(), 0);
        while let Some(question) = waiting.pop_front() {
            if question.answer.is_closed() {
                continue;
            }
            pairs += question.channels.len();
            if pairs > PAIRS_MAX && !taken.is_empty() {
                waiting.push_front(question);
                break;
            }
            taken.push(question);
        }
        taken
    }
}

fn by_channel(states: impl IntoIterator<Item = Standing>) -> ChannelStates {
    states.into_iter().map(|state| (state.head.channel_id, state)).collect()
}

/// The shortest time from the beginning of one query to that of the next.
const PACE: Duration = Duration::from_millis(2);
/// The number of queries that run at the same time.
const QUERIES_AT_ONCE: usize = 4;
/// The number of pairs of user and channel in one query, unless one user alone has more.
const PAIRS_MAX: usize = 2_000;

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::time::timeout;

    use super::*;
    use crate::models::db::Config;
    use crate::models::message_read_state::baseline;

    #[tokio::test]
    async fn each_of_many_users_gets_their_own_states_whoever_else_has_gone() {
        let config = Config { url: Some("sqlite::memory:".into()), ..Config::default() };
        let db = Db::connect(&config).await.unwrap();
        db.migrate().await.unwrap();
        let (standings, users) = (Standings::default(), [(); 300].map(|()| Uuid::now_v7()));
        let channels = [(); 10].map(|()| Uuid::now_v7());
        for (number, user) in users.iter().enumerate() {
            let own: Vec<(Uuid, Option<i64>)> =
                channels.iter().take(number % 10).map(|channel| (*channel, None)).collect();
            baseline(&db, *user, &own).await.unwrap();
        }
        let ask = async |number: usize, user: Uuid| {
            let question = standings.of(&db, user, channels.to_vec());
            match number % 3 {
                // Asks, and does not wait for the answer.
                0 => drop(timeout(std::time::Duration::ZERO, question).await),
                _ => {
                    let states = question.await.unwrap();
                    assert_eq!(states.len(), number % 10, "user {number}");
                    assert!(states.values().all(|state| state.user_id == user));
                }
            }
        };
        join_all(users.iter().enumerate().map(|(number, user)| ask(number, *user))).await;
        assert!(standings.0.waiting.lock().iter().all(|question| question.answer.is_closed()));
        let Db::Sqlite(sqlite) = &db else { panic!("not SQLite") };
        sqlite.reader.close().await;
        let failed = join_all(users.iter().map(|user| standings.of(&db, *user, channels.to_vec()))).await;
        assert!(failed.iter().all(Result::is_err), "each hears the reason of a query of their own");
    }
}
