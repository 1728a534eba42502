//! Messages that other programs wrote with `imks.publish` (migrate/postgres/0072_outbox.sql). Only PostgreSQL has
//! them: the file of SQLite belongs to one server.

use std::time::Duration;

use sqlx::FromRow;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::timeout;
use uuid::Uuid;

use super::db::{Db, on};
use crate::clock::Micros;
use crate::{ImksError, ImksResult};

/// A message that waits to be appended.
#[derive(Debug, Clone, FromRow)]
pub struct OutboxMessage {
    /// Its number, in the order of writing.
    pub number: i64,
    /// Its id.
    pub id: Uuid,
    /// The channel.
    pub channel_id: Uuid,
    /// The id that stands in `author.id`.
    pub author_id: Uuid,
    /// The name of the author.
    pub author_name: String,
    /// The stored number of its type.
    #[sqlx(rename = "type")]
    pub kind: i32,
    /// The text.
    pub body: String,
    /// What makes it exactly one message.
    pub nonce: String,
    /// The stored number of its priority.
    pub priority: i32,
    /// Whether readers are asked to acknowledge it.
    pub ack_requested: bool,
}

/// What is in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Waiting {
    /// The number of messages that wait, counted up to [`COUNTED`].
    pub messages: i64,
    /// The number of the oldest one.
    pub oldest: Option<i64>,
    /// The number of messages that can never be appended, and are kept for people to look at.
    pub failed: i64,
}

impl Waiting {
    /// Counts what is in the outbox.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn read(db: &Db) -> ImksResult<Self> {
        Ok(on!(read db, pool => sqlx::query_as(COUNT).bind(COUNTED).fetch_one(pool).await?))
    }
}

impl OutboxMessage {
    /// Returns the oldest messages that wait, at most [`PAGE`].
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn waiting(db: &Db) -> ImksResult<Vec<Self>> {
        Ok(on!(read db, pool => sqlx::query_as(WAITING).bind(PAGE).fetch_all(pool).await?))
    }

    /// Removes messages that were appended.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn remove(db: &Db, numbers: &[i64]) -> ImksResult<()> {
        if let Db::Postgres(pool) = db {
            sqlx::query(REMOVE).bind(numbers).execute(pool).await?;
        }
        Ok(())
    }

    /// Marks a message that can never be appended.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn fail(&self, db: &Db, at: Micros, reason: &str) -> ImksResult<()> {
        on!(db, pool => {
            sqlx::query(FAIL).bind(self.number).bind(at).bind(reason).execute(pool).await?;
        });
        Ok(())
    }

    /// Removes messages that failed too long before `now`.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn sweep(db: &Db, now: Micros) -> ImksResult<()> {
        on!(db, pool => {
            sqlx::query(SWEEP).bind(now - FAILED_LIFETIME).execute(pool).await?;
        });
        Ok(())
    }
}

/// Waits for the notices of programs that have written messages.
#[derive(Debug)]
pub struct Notices(PgListener);

impl Notices {
    /// Opens a connection of its own. `None` on SQLite.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`]; [`crate::ImksError::Timeout`].
    pub async fn open(db: &Db) -> ImksResult<Option<Self>> {
        let Db::Postgres(pool) = db else { return Ok(None) };
        let pool =
            PgPoolOptions::new().max_connections(1).connect_lazy_with((*pool.connect_options()).clone());
        let listening = async {
            let mut listener = Box::pin(PgListener::connect_with(&pool)).await?;
            listener.eager_reconnect(false);
            Box::pin(listener.listen(CHANNEL)).await?;
            Ok(Some(Self(listener)))
        };
        timeout(OPEN_MAX, listening).await.unwrap_or(Err(ImksError::Timeout("LISTEN")))
    }

    /// Waits for the next notice. Cancel safe.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`] when the connection is lost.
    pub async fn next(&mut self) -> ImksResult<()> {
        Box::pin(self.0.recv()).await?;
        Ok(())
    }
}

/// How long it may take until notices are waited for.
const OPEN_MAX: Duration = Duration::from_secs(2);
/// The most messages of one page.
pub const PAGE: i64 = 200;
/// How long failed messages are kept.
const FAILED_LIFETIME: Micros = 14 * 24 * 3_600 * 1_000_000;
const CHANNEL: &str = "imks_outbox";
const WAITING: &str = "SELECT number, id, channel_id, author_id, author_name, type, body, nonce, priority, \
    ack_requested FROM outbox_message WHERE failed_at IS NULL ORDER BY number LIMIT $1";
/// The most messages that are counted one by one.
const COUNTED: i64 = 10_000;
const COUNT: &str = "SELECT COUNT(*) AS messages, MIN(number) AS oldest, \
    (SELECT COUNT(*) FROM outbox_message WHERE failed_at IS NOT NULL) AS failed \
    FROM (SELECT number FROM outbox_message WHERE failed_at IS NULL ORDER BY number LIMIT $1) AS waiting";
const REMOVE: &str = "DELETE FROM outbox_message WHERE number = ANY($1)";
const FAIL: &str = "UPDATE outbox_message SET failed_at = $2, reason = $3 WHERE number = $1";
const SWEEP: &str = "DELETE FROM outbox_message WHERE failed_at < $1";
