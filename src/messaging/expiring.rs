//! The field `expires_at` of `message:send`, and the task that deletes messages whose time is over.

use futures_util::future::join_all;
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use super::parts::Messaging;
use super::ticks;
use super::timed::timed;
use crate::clock::{self, Micros, Timestamp};
use crate::models::message::AuthorInfo;
use crate::models::message_delete::DeleteMessage;
use crate::models::message_expiring::{EXPIRED_AT_ONCE, ExpiredMessage, expired};
use crate::{ImksError, ImksResult};

/// Checks when a message that is sent at `now` deletes itself.
pub(super) fn check(Timestamp(at): Timestamp, now: Micros) -> ImksResult<()> {
    match (now..=now + LIFE_MAX).contains(&at) {
        true => Ok(()),
        false => Err(ImksError::invalid("expires_at", "must be in the future, and within a year")),
    }
}

/// Deletes messages whose time is over, until `stop`. Several nodes may do so: only the first one changes anything.
pub(super) async fn delete_expired(messaging: Messaging, stop: CancellationToken) {
    ticks::repeat(DELETE_EVERY, &stop, || delete_some(&messaging)).await;
}

/// Returns whether there may be more.
async fn delete_some(messaging: &Messaging) -> bool {
    let found = match timed("expired", expired(messaging.db(), clock::now_micros())).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "expired messages are deleted late");
            return false;
        }
    };
    let is_full = i64::try_from(found.len()).is_ok_and(|found| found >= EXPIRED_AT_ONCE);
    let deletions = join_all(found.into_iter().map(|message| delete_one(messaging, message))).await;
    let mut failed = deletions.into_iter().filter_map(Result::err);
    match failed.next() {
        None => is_full,
        Some(error) => {
            tracing::warn!(%error, "expired messages are deleted late");
            false
        }
    }
}

async fn delete_one(messaging: &Messaging, message: ExpiredMessage) -> ImksResult<()> {
    let actor = AuthorInfo { id: message.author_id, username: message.author_username.into() };
    let delete = DeleteMessage { message_id: message.id };
    messaging.submit_as(message.channel_id, actor, delete)?.await.map(drop)
}

/// The longest time until a message deletes itself, in microseconds.
const LIFE_MAX: Micros = 365 * 24 * 3_600 * 1_000_000;
/// How often the server looks for messages whose time is over.
const DELETE_EVERY: Duration = Duration::from_secs(1);
