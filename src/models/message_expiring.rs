//! Messages that delete themselves: finding those whose time is over. They are deleted like any other message.

use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, on};
use super::legal_hold::not_held;
use crate::ImksResult;
use crate::clock::Micros;

/// A message whose time is over, with what is needed to delete it in the name of its author.
#[derive(Debug, FromRow)]
#[allow(missing_docs, reason = "named as the columns")]
pub struct ExpiredMessage {
    pub id: Uuid,
    pub channel_id: Uuid,
    pub author_id: Uuid,
    pub author_username: String,
}

/// Returns up to [`EXPIRED_AT_ONCE`] messages whose time is over at `now`. Those on hold stay until it is released.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn expired(db: &Db, now: Micros) -> ImksResult<Vec<ExpiredMessage>> {
    Ok(on!(read db, pool => {
        sqlx::query_as(EXPIRED).bind(now).bind(EXPIRED_AT_ONCE).fetch_all(pool).await?
    }))
}

/// The messages that one call of [`expired`] returns.
pub const EXPIRED_AT_ONCE: i64 = 100;
const EXPIRED: &str = concat!(
    "SELECT id, channel_id, author_id, author_username FROM message WHERE expires_at <= $1 AND ",
    not_held!("message.channel_id", "message.author_id"),
    " ORDER BY expires_at LIMIT $2"
);
