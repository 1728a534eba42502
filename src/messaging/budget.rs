//! The memory of large answers under way: bounded per connection, per user and for the whole server.
//!
//! Whoever may give a large answer reserves its size before the database is read, and the reservation is given back
//! when the answer has left. So the memory of answers has a bound, whatever one user, or a thousand users, ask for.

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

/// How much memory the large answers under way may take.
#[derive(Debug, Clone)]
pub struct AnswerLimits {
    /// Bytes of one connection.
    pub connection_bytes: usize,
    /// Bytes of all connections of one user, and of their HTTP requests.
    pub user_bytes: usize,
    /// Bytes of the whole server.
    pub server_bytes: usize,
    /// How long a request waits for others to finish before it is refused with `overloaded`.
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

/// How large an answer may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerSize {
    /// Bytes in memory at most.
    bytes: usize,
    /// Whether no other large answer may be under way on the connection.
    alone: bool,
}

impl AnswerSize {
    /// An answer of up to `bytes`.
    pub const fn up_to(bytes: usize) -> Self {
        Self { bytes, alone: false }
    }

    /// An answer of up to so many messages, which ends at [`ANSWER_BYTES_MAX`] before that.
    pub fn of_messages(count: usize) -> Self {
        Self::up_to(count.saturating_mul(MESSAGE_BYTES_MAX).min(ANSWER_BYTES_MAX) * COPIES)
    }

    /// What a session is told about so many channels when it begins.
    pub fn of_channels(count: usize) -> Self {
        Self::up_to(count.saturating_mul(CHANNEL_BYTES_MAX) * COPIES)
    }

    /// An answer of up to `bytes` that waits for every other large answer of its connection.
    pub const fn alone(bytes: usize) -> Self {
        Self { bytes, alone: true }
    }
}

/// What the answers of a whole server share.
#[derive(Debug)]
pub(super) struct AnswerBudget {
    limits: AnswerLimits,
    server: Arc<Semaphore>,
    users: Mutex<HashMap<Uuid, Arc<Semaphore>>>,
}

/// What the answers of one connection share. Owns no memory until the first large answer.
#[derive(Debug, Default)]
pub(super) struct ConnectionBudget(OnceLock<Arc<Semaphore>>);

impl AnswerBudget {
    pub(super) fn new(limits: AnswerLimits) -> Self {
        let server = Arc::new(Semaphore::new(limits.server_bytes));
        Self { limits, server, users: Mutex::default() }
    }

    /// Reserves room for an answer; first come, first served, on each of the three levels.
    ///
    /// # Errors
    /// [`ImksError::Overloaded`] when there is no room in time.
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

    /// Takes the three shares in one order, the narrowest first: who waits for a share holds only narrower ones, so
    /// nobody waits in a circle, and a user with many requests waits for themselves before they use up the server.
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

    /// Forgets users without an answer under way; called once in a while.
    pub(super) fn sweep(&self) {
        // Whoever waits or holds a reservation has a clone.
        self.users.lock().retain(|_, budget| Arc::strong_count(budget) > 1);
    }

    /// Bytes reserved now.
    #[cfg(test)]
    pub(super) fn reserved(&self) -> usize {
        self.limits.server_bytes - self.server.available_permits()
    }
}

/// An answer that is larger than its budget may be under way alone.
async fn take(
    budget: Arc<Semaphore>,
    bytes: usize,
    total: usize,
) -> Result<OwnedSemaphorePermit, AcquireError> {
    let bytes = u32::try_from(bytes.min(total)).unwrap_or(u32::MAX);
    budget.acquire_many_owned(bytes).await
}

/// Room for one large answer, given back when the last clone is dropped.
///
/// [`Registry::on_read`](super::registry::Registry::on_read) reserves before it calls the handler, and keeps the
/// reservation until the answer has left. Reading many messages without one does not compile:
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

    /// Keeps what an encoded answer needs, for whoever holds its bytes.
    pub(super) fn for_bytes(self, bytes: usize) -> Arc<dyn Any + Send + Sync> {
        self.shrink_to(bytes);
        self.0
    }

    /// Gives back what the answer does not need, now that its size is known.
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
    /// Bytes of the server's memory.
    fn bytes(&self) -> i64 {
        i64::try_from(self.0[2].num_permits()).unwrap_or(i64::MAX)
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        metrics::ANSWER_BYTES.add(-self.bytes());
    }
}

/// Largest message in an answer: a body of 8,000 characters that are all escaped, and what stands beside it.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Largest entry about a channel in `session:ready`.
const CHANNEL_BYTES_MAX: usize = 1 << 10;
/// An answer is in memory as rows and as text.
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

    /// What somebody does with the budget.
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

    /// Three connections each of three users.
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

        /// Lets everybody go on who can. Who asked earlier on a connection is served earlier.
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
