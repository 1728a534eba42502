//! The order of one caller's writes, as a value that every write demands.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::session::Session;

/// Permission to write next. Writes of one session take their turns in the order in which they arrived, so a later
/// message cannot overtake one whose permission still has to be asked for.
///
/// [`Registry::on_write`](super::registry::Registry::on_write) takes the turn before it calls the handler;
/// submitting the write uses it up, which lets the next write go on. A write without a turn does not compile:
///
/// ```
/// # use imks::testing::messaging::{Channel, Moderate, Turn};
/// # use imks::testing::models::message_delete::DeleteMessage;
/// fn in_turn(channel: Channel<Moderate>, turn: Turn, write: DeleteMessage) {
///     let _ = channel.submit(turn, write);
/// }
/// ```
///
/// ```compile_fail
/// # use imks::testing::messaging::{Channel, Moderate, Turn};
/// # use imks::testing::models::message_delete::DeleteMessage;
/// fn in_turn(channel: Channel<Moderate>, turn: Turn, write: DeleteMessage) {
///     let _ = channel.submit(write);
/// }
/// ```
#[derive(Debug)]
pub struct Turn(Arc<Session>);

impl Turn {
    /// Waits until every write that arrived earlier in this session has been submitted.
    ///
    /// The place in the line is taken when the future is polled for the first time.
    pub(super) async fn take(session: &Arc<Session>) -> Self {
        // Unconstrained: tokio's cooperative budget would otherwise answer "pending" without taking a place.
        if let Ok(permit) = tokio::task::unconstrained(session.writes().0.acquire()).await {
            permit.forget();
        }
        Self(session.clone())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.writes().0.add_permits(1);
    }
}

/// The writes of one session that wait for their turn, first come, first served.
#[derive(Debug)]
pub(super) struct WriteOrder(Semaphore);

impl Default for WriteOrder {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}
