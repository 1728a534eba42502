//! The memory budget of large answers: bounded per connection, per user and for the whole server.
//!
//! A handler of a large answer reserves its size before the database is read, and the reservation is released
//! after the answer has left. This bounds the memory of all answers, however many requests users send. Where
//! the memory is short, answers become smaller rather than later.

mod fair;

use std::any::Any;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use uuid::Uuid;

use self::fair::{FairBudget, Share, Wanted};
use crate::models::message::ANSWER_BYTES_MAX;
use crate::{ImksError, ImksResult};

/// Limits on the memory that large answers may take.
#[derive(Debug, Clone)]
pub struct AnswerLimits {
    /// The bytes of one connection.
    pub connection_bytes: usize,
    /// The bytes of all connections of one user, including their HTTP requests. A user also gets at most an
    /// eighth of the server's bytes that are free or already theirs.
    pub user_bytes: usize,
    /// The bytes of the whole server.
    pub server_bytes: usize,
    /// How long a request waits for other answers to finish before it is refused with `overloaded`. After a
    /// quarter of it, a page of messages is made as small as the room that there is.
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
    /// The number of bytes that it takes in memory.
    wanted: Wanted,
    /// Whether it waits until no other large answer of its connection is in flight.
    alone: bool,
}

impl AnswerSize {
    /// Returns the size of an answer with up to `count` messages, capped at [`ANSWER_BYTES_MAX`].
    pub fn of_messages(count: usize) -> Self {
        let most = count.saturating_mul(MESSAGE_BYTES_MAX).min(ANSWER_BYTES_MAX) * COPIES;
        Self { wanted: Wanted { most, least: PAGE_BYTES_MIN.min(most) }, alone: false }
    }

    /// Returns the size of an answer with messages, capped at [`ANSWER_BYTES_MAX`], and up to `others` other
    /// bytes. It waits for every other large answer of its connection.
    pub const fn alone(others: usize) -> Self {
        let most = (ANSWER_BYTES_MAX + others) * COPIES;
        Self { wanted: Wanted { most, least: PAGE_BYTES_MIN + others * COPIES }, alone: true }
    }

    /// Returns the size of an answer of up to `bytes`, which cannot be made smaller.
    pub const fn up_to(bytes: usize) -> Self {
        Self { wanted: Wanted { most: bytes, least: bytes }, alone: false }
    }

    /// Returns the size of the events that start a session with `count` channels.
    pub fn of_channels(count: usize) -> Self {
        Self::up_to(count.saturating_mul(CHANNEL_BYTES_MAX) * COPIES)
    }

    /// Returns the bytes in memory that it takes at most.
    pub(super) const fn most(self) -> usize {
        self.wanted.most
    }
}

/// The budget of the whole server and of each user.
#[derive(Debug)]
pub(super) struct AnswerBudget {
    limits: AnswerLimits,
    server: FairBudget,
}

/// The budget of one connection. Allocates nothing until the first large answer.
#[derive(Debug, Default)]
pub(super) struct ConnectionBudget(OnceLock<Arc<Semaphore>>);

impl AnswerBudget {
    pub(super) fn new(limits: AnswerLimits) -> Self {
        let server = FairBudget::new(limits.server_bytes, limits.user_bytes);
        Self { limits, server }
    }

    /// Reserves room for an answer. Requests of a connection are served in order.
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
            Ok(Some(reservation)) => Ok(reservation),
            Ok(None) => Err(ImksError::Internal("an answer budget is closed")),
            Err(_elapsed) => Err(ImksError::Overloaded { retry_after: RETRY_AFTER }),
        }
    }

    /// Takes the share of the connection first. A waiter therefore holds only bytes of its own connection,
    /// which rules out deadlock.
    async fn acquire(
        &self,
        connection: &ConnectionBudget,
        user: Uuid,
        size: AnswerSize,
    ) -> Option<Reservation> {
        let total = self.limits.connection_bytes;
        let of_connection = if size.alone { total } else { size.wanted.most.min(total) };
        let of_connection = u32::try_from(of_connection).unwrap_or(u32::MAX);
        let connection = connection.0.get_or_init(|| Arc::new(Semaphore::new(total))).clone();
        let connection = connection.acquire_many_owned(of_connection).await.ok()?;
        let server = self.server.take(user, size.wanted, self.limits.wait / PATIENCE_PART).await?;
        let mut shares = Shares { connection, server };
        if !size.alone {
            shares.shrink_connection_to(shares.server.bytes());
        }
        Some(Reservation(Arc::new(Mutex::new(shares))))
    }

    /// Returns the number of bytes that are reserved now.
    #[cfg(test)]
    pub(super) fn reserved(&self) -> usize {
        self.limits.server_bytes - self.server.free()
    }
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

/// The shares of one reservation.
#[derive(Debug)]
struct Shares {
    connection: OwnedSemaphorePermit,
    server: Share,
}

impl Reservation {
    /// Returns the size at which the answer must end, in bytes of its text.
    pub(super) fn answer_bytes(&self) -> usize {
        self.0.lock().server.bytes() / COPIES
    }

    /// Shrinks to what an encoded answer needs, and returns a guard for the owner of its bytes.
    pub(super) fn for_bytes(self, bytes: usize) -> Arc<dyn Any + Send + Sync> {
        self.shrink_to(bytes);
        self.0
    }

    /// Releases what the answer does not need, now that its size is known.
    pub(super) fn shrink_to(&self, bytes: usize) {
        let shares = &mut *self.0.lock();
        shares.shrink_connection_to(bytes);
        shares.server.shrink_to(bytes);
    }
}

impl Shares {
    fn shrink_connection_to(&mut self, bytes: usize) {
        let spare = self.connection.num_permits().saturating_sub(bytes);
        drop(self.connection.split(spare));
    }
}

/// The largest message in an answer: a body of 8,000 characters that are all escaped, another one that it forwards,
/// and the other fields.
const MESSAGE_BYTES_MAX: usize = 128 << 10;
/// The smallest page of messages for which there is room at all: that of a single message.
const PAGE_BYTES_MIN: usize = MESSAGE_BYTES_MAX * COPIES;
/// The largest entry of a channel in `session:ready`.
const CHANNEL_BYTES_MAX: usize = 1 << 10;
/// The copies of an answer that are in memory at once: its rows and its text.
pub(super) const COPIES: usize = 2;
/// The part of the wait after which a page is made smaller.
const PATIENCE_PART: u32 = 4;
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
        server_bytes: 800,
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

    type Waiting<'a> = Pin<Box<dyn Future<Output = Option<Reservation>> + 'a>>;

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
                    let size = AnswerSize { alone, ..AnswerSize::up_to(bytes) };
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

        fn sum(&self, of: impl Fn(usize) -> bool, bytes: impl Fn(&Shares) -> usize) -> usize {
            let held = self.held.iter().filter(|(connection, _)| of(*connection));
            held.map(|(_, reservation)| bytes(&reservation.0.lock())).sum()
        }

        fn is_within_bounds(&self) -> bool {
            let of_connection = |shares: &Shares| shares.connection.num_permits();
            let of_server = |shares: &Shares| shares.server.bytes();
            let connections =
                (0..9).all(|one| self.sum(|held| held == one, of_connection) <= LIMITS.connection_bytes);
            let users = (0..3).all(|user| self.sum(|held| held / 3 == user, of_server) <= LIMITS.user_bytes);
            connections && users && self.sum(|_| true, of_server) <= LIMITS.server_bytes
        }
    }

    proptest! {
        #[test]
        fn no_sequence_of_requests_passes_a_bound_and_nobody_waits_for_ever(
            steps in proptest::collection::vec(step(), 1..120),
        ) {
            // Waiting needs a clock, which stands still here.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _clock = runtime.enter();
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
            prop_assert!(budget.server.is_idle());
        }
    }

    fn alone(bytes: usize) -> AnswerSize {
        AnswerSize { alone: true, ..AnswerSize::up_to(bytes) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_finds_no_room_in_time_is_refused_and_leaves_nothing_reserved() {
        let budget = AnswerBudget::new(LIMITS);
        let (one, two) = (ConnectionBudget::default(), ConnectionBudget::default());
        let user = Uuid::from_u128(1);
        let first = budget.reserve(&one, user, alone(30)).await.unwrap();
        let error = budget.reserve(&one, user, AnswerSize::up_to(1)).await.unwrap_err();
        assert_eq!((error.code().as_str(), error.is_retryable()), ("overloaded", true));
        let elsewhere = budget.reserve(&two, user, alone(30)).await.unwrap();
        assert_eq!(budget.reserved(), 60);
        first.shrink_to(5);
        assert_eq!(budget.reserved(), 35);
        drop((first, elsewhere));
        assert_eq!(budget.reserved(), 0);
        budget.reserve(&one, user, AnswerSize::up_to(1)).await.unwrap();
    }
}
