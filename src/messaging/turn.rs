//! The order of a caller's writes, as a value that every write requires.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::session::Session;

/// Permission to write next. Writes of one session take turns in the order in which they arrived, so a
/// message cannot overtake an earlier one whose permission is still being checked.
///
/// [`Registry::on_write`](super::registry::Registry::on_write) takes the turn before it calls the handler.
/// Submitting the write consumes it, which starts the next turn. A write without a turn does not compile:
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
    /// The future takes its place in the queue when it is first polled.
    pub(super) async fn take(session: &Arc<Session>) -> Self {
        // Unconstrained, because tokio's cooperative budget could return "pending" before a place in the
        // queue is taken.
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

/// The writes of one session that wait for their turn, in order of arrival.
#[derive(Debug)]
pub(super) struct WriteOrder(Semaphore);

impl Default for WriteOrder {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}
