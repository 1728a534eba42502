//! The memory budget of large answers: bounded per connection, per user and for the whole server.
//!
//! A handler of a large answer reserves its size before the database is read, and the reservation is released
//! after the answer has left. This bounds the memory of all answers, however many requests users send.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use uuid::Uuid;

use super::metrics;
use crate::models::message::ANSWER_BYTES_MAX;
use crate::{ImksError, ImksResult};

/// Limits on the memory that large answers may take.
#[derive(Debug, Clone)]
pub struct AnswerLimits {
    /// The bytes of one connection.
    pub connection_bytes: usize,
    /// The bytes of all connections of one user, including their HTTP requests.
    pub user_bytes: usize,
    /// The bytes of the whole server.
    pub server_bytes: usize,
    /// How long a request waits for other answers to finish before it is refused with `overloaded`.
    pub wait: Duration,
}

impl Default for AnswerLimits {
    fn default() -> Self {
        Self {
            connection_bytes: 4 << 20,
            user_bytes: 8 << 20,
            server_bytes: 64 << 20,
            wait: Duration::from_secs(10),
        }
    }
}

/// The largest size that an answer may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerSize {
    /// The most bytes it takes in memory.
    bytes: usize,
    /// Whether it waits until no other large answer of its connection is in flight.
    alone: bool,
}

impl AnswerSize {
    /// Returns the size of an answer of up to `bytes`.
    pub const fn up_to(bytes: usize) -> Self {
        Self { bytes, alone: false }
    }

    /// Returns the size of an answer with up to `count` messages, capped at [`ANSWER_BYTES_MAX`].
    pub fn of_messages(count: usize) -> Self {
        Self::up_to(count.saturating_mul(MESSAGE_BYTES_MAX).min(ANSWER_BYTES_MAX) * COPIES)
    }

    /// Returns the size of the events that start a session with `count` channels.
    pub fn of_channels(count: usize) -> Self {
        Self::up_to(count.saturating_mul(CHANNEL_BYTES_MAX) * COPIES)
    }

    /// Returns the size of an answer that waits for every other large answer of its connection.
    pub const fn alone(bytes: usize) -> Self {
        Self { bytes, alone: true }
    }
}

/// The budget of the whole server and of each user.
#[derive(Debug)]
pub(super) struct AnswerBudget {
    limits: AnswerLimits,
    server: Arc<Semaphore>,
    users: Mutex<HashMap<Uuid, Arc<Semaphore>>>,
}

/// The budget of one connection. Allocates nothing until the first large answer.
#[derive(Debug, Default)]
pub(super) struct ConnectionBudget(OnceLock<Arc<Semaphore>>);

impl AnswerBudget {
    pub(super) fn new(limits: AnswerLimits) -> Self {
        let server = Arc::new(Semaphore::new(limits.server_bytes));
        Self { limits, server, users: Mutex::default() }
    }

    /// Reserves room for an answer. Requests are served in order on each of the three levels.
    ///
    /// # Errors
    /// [`ImksError::Overloaded`] when there is no room before the timeout.
    pub(super) async fn reserve(
        &self,
        connection: &ConnectionBudget,
        user: Uuid,
        size: AnswerSize,
    ) -> ImksResult<Reservation> {
        match timeout(self.limits.wait, self.acquire(connection, user, size)).await {
            Ok(Ok(reservation)) => Ok(reservation),
            Ok(Err(_closed)) => Err(ImksError::Internal("an answer budget is closed")),
            Err(_elapsed) => Err(ImksError::Overloaded { retry_after: RETRY_AFTER }),
        }
    }

    /// Takes the three shares from the narrowest to the widest. A waiter therefore holds only narrower
    /// shares, which rules out deadlock, and a user with many requests exhausts their own budget before the
    /// server's.
    async fn acquire(
        &self,
        connection: &ConnectionBudget,
        user: Uuid,
        size: AnswerSize,
    ) -> Result<Reservation, AcquireError> {
        let limits = &self.limits;
        let of_connection = if size.alone { limits.connection_bytes } else { size.bytes };
        let connection = connection.0.get_or_init(|| Arc::new(Semaphore::new(limits.connection_bytes)));
        let connection = take(connection.clone(), of_connection, limits.connection_bytes).await?;
        let user = take(self.user(user), size.bytes, limits.user_bytes).await?;
        let server = take(self.server.clone(), size.bytes, limits.server_bytes).await?;
        Ok(Reservation::new([connection, user, server]))
    }

    fn user(&self, user: Uuid) -> Arc<Semaphore> {
        let full = || Arc::new(Semaphore::new(self.limits.user_bytes));
        self.users.lock().entry(user).or_insert_with(full).clone()
    }

    /// Removes the budgets of users without an answer in flight. Called periodically.
    pub(super) fn sweep(&self) {
        // Every waiter and every reservation holds a clone.
        self.users.lock().retain(|_, budget| Arc::strong_count(budget) > 1);
    }

    /// Returns the number of bytes that are reserved now.
    #[cfg(test)]
    pub(super) fn reserved(&self) -> usize {
        self.limits.server_bytes - self.server.available_permits()
    }
}

/// Takes a share of a budget. An answer that exceeds the budget takes all of it, so it is alone in flight.
async fn take(
    budget: Arc<Semaphore>,
    bytes: usize,
    total: usize,
) -> Result<OwnedSemaphorePermit, AcquireError> {
    let bytes = u32::try_from(bytes.min(total)).unwrap_or(u32::MAX);
    budget.acquire_many_owned(bytes).await
}

/// Room for one large answer, released when the last clone is dropped.
///
/// [`Registry::on_read`](super::registry::Registry::on_read) reserves before it calls the handler, and keeps
/// the reservation until the answer has left. Code that reads many messages without one does not compile:
///
/// ```
/// # use imks::testing::messaging::{Channel, Read, Reservation};
/// # use imks::testing::models::message_page::Page;
/// async fn within_bounds(channel: Channel<Read>, room: Reservation, page: Page) {
///     let _ = channel.page(&room, page).await;
/// }
/// ```
///
/// ```compile_fail
/// # use imks::testing::messaging::{Channel, Read, Reservation};
/// # use imks::testing::models::message_page::Page;
/// async fn within_bounds(channel: Channel<Read>, room: Reservation, page: Page) {
///     let _ = channel.page(page).await;
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Reservation(Arc<Mutex<Shares>>);

/// The shares of one reservation: of its connection, its user, and the server.
#[derive(Debug)]
struct Shares([OwnedSemaphorePermit; 3]);

impl Reservation {
    fn new(shares: [OwnedSemaphorePermit; 3]) -> Self {
        let shares = Shares(shares);
        metrics::ANSWER_BYTES.add(shares.bytes());
        Self(Arc::new(Mutex::new(shares)))
    }

    /// Shrinks to what an encoded answer needs, and returns a guard for the owner of its bytes.
    pub(super) fn for_bytes(self, bytes: usize) -> Arc<dyn Any + Send + Sync> {
        self.shrink_to(bytes);
        self.0
    }

    /// Releases what the answer does not need, now that its size is known.
    fn shrink_to(&self, bytes: usize) {
        let shares = &mut *self.0.lock();
        let before = shares.bytes();
        for permit in &mut shares.0 {
            let spare = permit.num_permits().saturating_sub(bytes);
            drop(permit.split(spare));
        }
        metrics::ANSWER_BYTES.add(shares.bytes() - before);
    }
}

impl Shares {
    /// Returns the bytes taken from the server's budget.
    fn bytes(&self) -> i64 {
        i64::try_from(self.0[2].num_permits()).unwrap_or(i64::MAX)
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        metrics::ANSWER_BYTES.add(-self.bytes());
    }
}

/// The largest message in an answer: a body of 8,000 characters that are all escaped, and the other fields.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// The largest entry of a channel in `session:ready`.
const CHANNEL_BYTES_MAX: usize = 1 << 10;
/// The copies of an answer that are in memory at once: its rows and its text.
pub(super) const COPIES: usize = 2;
const RETRY_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use proptest::prelude::*;

    use super::*;

    const LIMITS: AnswerLimits = AnswerLimits {
        connection_bytes: 40,
        user_bytes: 80,
        server_bytes: 200,
        wait: Duration::from_secs(1),
    };

    /// One operation on the budget.
    #[derive(Debug, Clone)]
    enum Step {
        Ask { connection: usize, bytes: usize, alone: bool },
        Shrink { index: usize, bytes: usize },
        GiveBack { index: usize },
        GiveUp { index: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..9_usize, 1..60_usize, any::<bool>())
                .prop_map(|(connection, bytes, alone)| Step::Ask { connection, bytes, alone }),
            1 => (any::<usize>(), 0..60_usize).prop_map(|(index, bytes)| Step::Shrink { index, bytes }),
            2 => any::<usize>().prop_map(|index| Step::GiveBack { index }),
            1 => any::<usize>().prop_map(|index| Step::GiveUp { index }),
        ]
    }

    type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Reservation, AcquireError>> + 'a>>;

    /// A model with three users who have three connections each.
    struct Model<'a> {
        budget: &'a AnswerBudget,
        connections: &'a [ConnectionBudget],
        waiting: Vec<(usize, Waiting<'a>)>,
        held: Vec<(usize, Reservation)>,
    }

    impl<'a> Model<'a> {
        fn apply(&mut self, step: Step) {
            match step {
                Step::Ask { connection, bytes, alone } => {
                    let (budget, user) = (self.budget, Uuid::from_u128(connection as u128 / 3));
                    let size = AnswerSize { bytes, alone };
                    let asking = budget.acquire(&self.connections[connection], user, size);
                    self.waiting.push((connection, Box::pin(asking)));
                }
                Step::Shrink { index, bytes } if !self.held.is_empty() => {
                    self.held[index % self.held.len()].1.shrink_to(bytes);
                }
                Step::GiveBack { index } if !self.held.is_empty() => {
                    drop(self.held.remove(index % self.held.len()));
                }
                Step::GiveUp { index } if !self.waiting.is_empty() => {
                    drop(self.waiting.remove(index % self.waiting.len()));
                }
                _ => {}
            }
        }

        /// Polls every waiter until none makes progress. Earlier requests of a connection are served first.
        fn settle(&mut self) {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let mut still_waiting = Vec::new();
            for (connection, mut asking) in std::mem::take(&mut self.waiting) {
                match asking.as_mut().poll(&mut cx) {
                    Poll::Ready(reservation) => self.held.push((connection, reservation.unwrap())),
                    Poll::Pending => still_waiting.push((connection, asking)),
                }
            }
            self.waiting = still_waiting;
        }

        fn sum(&self, level: usize, of: impl Fn(usize) -> bool) -> usize {
            let held = self.held.iter().filter(|(connection, _)| of(*connection));
            held.map(|(_, reservation)| reservation.0.lock().0[level].num_permits()).sum()
        }

        fn is_within_bounds(&self) -> bool {
            let connections = (0..9).all(|one| self.sum(0, |held| held == one) <= LIMITS.connection_bytes);
            let users = (0..3).all(|user| self.sum(1, |held| held / 3 == user) <= LIMITS.user_bytes);
            connections && users && self.sum(2, |_| true) <= LIMITS.server_bytes
        }
    }

    proptest! {
        #[test]
        fn no_sequence_of_requests_passes_a_bound_and_nobody_waits_for_ever(
            steps in proptest::collection::vec(step(), 1..120),
        ) {
            let budget = AnswerBudget::new(LIMITS);
            let connections: Vec<ConnectionBudget> = (0..9).map(|_| ConnectionBudget::default()).collect();
            let mut model =
                Model { budget: &budget, connections: &connections, waiting: Vec::new(), held: Vec::new() };
            for step in steps {
                model.apply(step);
                model.settle();
                prop_assert!(model.is_within_bounds());
                prop_assert!(budget.reserved() <= LIMITS.server_bytes);
            }
            while !model.waiting.is_empty() {
                let before = model.waiting.len();
                model.held.clear();
                model.settle();
                prop_assert!(model.waiting.len() < before, "somebody waits although nothing is held");
            }
            model.held.clear();
            prop_assert_eq!(budget.reserved(), 0);
            budget.sweep();
            prop_assert!(budget.users.lock().is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_finds_no_room_in_time_is_refused_and_leaves_nothing_reserved() {
        let budget = AnswerBudget::new(LIMITS);
        let (one, two) = (ConnectionBudget::default(), ConnectionBudget::default());
        let user = Uuid::from_u128(1);
        let first = budget.reserve(&one, user, AnswerSize::alone(30)).await.unwrap();
        let error = budget.reserve(&one, user, AnswerSize::up_to(1)).await.unwrap_err();
        assert_eq!((error.code().as_str(), error.is_retryable()), ("overloaded", true));
        let elsewhere = budget.reserve(&two, user, AnswerSize::alone(30)).await.unwrap();
        assert_eq!(budget.reserved(), 60);
        first.shrink_to(5);
        assert_eq!(budget.reserved(), 35);
        drop((first, elsewhere));
        assert_eq!(budget.reserved(), 0);
        budget.reserve(&one, user, AnswerSize::up_to(1)).await.unwrap();
    }
}
