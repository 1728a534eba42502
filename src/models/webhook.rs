//! The receivers of webhooks: how far each has got, and the events that it did not take.

use sqlx::FromRow;

use super::db::{Db, on};
use super::feed::Position;
use super::lease::Lease;
use crate::ImksResult;
use crate::clock::Micros;

/// A receiver of webhooks.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Endpoint {
    /// A hash of its address.
    pub id: String,
    /// Its address without credentials and parameters.
    pub name: String,
    /// The transaction of its next event.
    pub next_batch: i64,
    /// The index of its next event in that transaction.
    pub next_index: i64,
    /// When it was disabled, because it answered that it is gone.
    pub disabled_at: Option<Micros>,
}

/// An event that a receiver did not take.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct DeadLetter {
    /// The receiver.
    pub endpoint_id: String,
    /// The `webhook-id` of the event.
    pub id: String,
    /// The body that was sent.
    pub body: String,
    /// Why it was given up.
    pub reason: String,
    /// When it was given up.
    pub died_at: Micros,
    /// Whether an operator wants it to be sent again.
    pub retry: bool,
}

impl Endpoint {
    /// Returns where its next event is.
    pub fn next(&self) -> Position {
        Position { batch: self.next_batch, index: self.next_index }
    }

    /// Returns all receivers, also those that are no longer configured.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn all(db: &Db) -> ImksResult<Vec<Self>> {
        Ok(on!(read db, pool => sqlx::query_as(ENDPOINTS).fetch_all(pool).await?))
    }

    /// Returns the receiver with this id.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn find(db: &Db, id: &str) -> ImksResult<Option<Self>> {
        Ok(on!(read db, pool => sqlx::query_as(ENDPOINT).bind(id).fetch_optional(pool).await?))
    }

    /// Stores a new receiver.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn insert(&self, db: &Db) -> ImksResult<()> {
        on!(db, pool => {
            let insert = sqlx::query(INSERT).bind(&self.id).bind(&self.name);
            insert.bind(self.next_batch).bind(self.next_index).execute(pool).await?;
        });
        Ok(())
    }

    /// Records where the next event of a receiver is. Returns whether the node still holds the lease.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn advance(db: &Db, lease: &Lease, id: &str, next: Position) -> ImksResult<bool> {
        let (name, holder) = lease.key();
        let advanced = on!(db, pool => {
            let advance = sqlx::query(ADVANCE).bind(id).bind(next.batch).bind(next.index).bind(name).bind(holder);
            advance.execute(pool).await?.rows_affected()
        });
        Ok(advanced == 1)
    }

    /// Returns the number of receivers that are disabled.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn count_disabled(db: &Db) -> ImksResult<i64> {
        Ok(on!(read db, pool => sqlx::query_scalar(COUNT_DISABLED).fetch_one(pool).await?))
    }

    /// Disables or enables a receiver. Returns whether there is one.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn set_disabled(db: &Db, id: &str, at: Option<Micros>) -> ImksResult<bool> {
        Ok(on!(db, pool => sqlx::query(DISABLE).bind(id).bind(at).execute(pool).await?.rows_affected() == 1))
    }
}

impl DeadLetter {
    /// Stores a dead letter. Beyond [`DEAD_MAX`], the oldest of the receiver is removed; returns how many were.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn store(&self, db: &Db) -> ImksResult<u64> {
        Ok(on!(db, pool => {
            let store = sqlx::query(STORE).bind(&self.endpoint_id).bind(&self.id).bind(&self.body);
            store.bind(&self.reason).bind(self.died_at).execute(pool).await?;
            sqlx::query(TRIM).bind(&self.endpoint_id).bind(DEAD_MAX).execute(pool).await?.rows_affected()
        }))
    }

    /// Returns the dead letters of a receiver, or of all, the oldest first.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn list(db: &Db, endpoint: Option<&str>) -> ImksResult<Vec<Self>> {
        Ok(on!(read db, pool => sqlx::query_as(LIST).bind(endpoint).bind(LIST_MAX).fetch_all(pool).await?))
    }

    /// Returns some dead letters of a receiver that are to be sent again.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn to_retry(db: &Db, endpoint: &str, limit: i64) -> ImksResult<Vec<Self>> {
        Ok(on!(read db, pool => sqlx::query_as(TO_RETRY).bind(endpoint).bind(limit).fetch_all(pool).await?))
    }

    /// Returns the number of dead letters of all receivers.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn count_all(db: &Db) -> ImksResult<i64> {
        Ok(on!(read db, pool => sqlx::query_scalar(COUNT).fetch_one(pool).await?))
    }

    /// Marks dead letters to be sent again: one by its id, or all. Returns how many.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn retry(db: &Db, id: Option<&str>) -> ImksResult<u64> {
        Ok(on!(db, pool => sqlx::query(RETRY).bind(id).execute(pool).await?.rows_affected()))
    }

    /// Removes dead letters: one by its id, or all. Returns how many.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn forget(db: &Db, id: Option<&str>) -> ImksResult<u64> {
        Ok(on!(db, pool => sqlx::query(FORGET).bind(id).execute(pool).await?.rows_affected()))
    }

    /// Removes this dead letter, which was taken after all.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn taken(&self, db: &Db) -> ImksResult<()> {
        on!(db, pool => {
            sqlx::query(TAKEN).bind(&self.endpoint_id).bind(&self.id).execute(pool).await?;
        });
        Ok(())
    }
}

/// The most dead letters of one receiver that are kept.
pub const DEAD_MAX: i64 = 10_000;
/// The most dead letters that are listed at once.
pub const LIST_MAX: i64 = 1_000;
const ENDPOINTS: &str =
    "SELECT id, name, next_batch, next_index, disabled_at FROM webhook_endpoint ORDER BY name";
const ENDPOINT: &str =
    "SELECT id, name, next_batch, next_index, disabled_at FROM webhook_endpoint WHERE id = $1";
const INSERT: &str = "INSERT INTO webhook_endpoint (id, name, next_batch, next_index) VALUES ($1, $2, $3, $4) \
    ON CONFLICT DO NOTHING";
const ADVANCE: &str = "UPDATE webhook_endpoint SET next_batch = $2, next_index = $3 WHERE id = $1 \
    AND EXISTS (SELECT 1 FROM lease WHERE lease.name = $4 AND lease.holder = $5)";
const DISABLE: &str = "UPDATE webhook_endpoint SET disabled_at = $2 WHERE id = $1";
const COUNT_DISABLED: &str = "SELECT COUNT(*) FROM webhook_endpoint WHERE disabled_at IS NOT NULL";
const STORE: &str = "INSERT INTO webhook_dead (endpoint_id, id, body, reason, died_at) VALUES ($1, $2, $3, $4, $5) \
    ON CONFLICT (endpoint_id, id) DO UPDATE SET reason = EXCLUDED.reason, died_at = EXCLUDED.died_at, retry = FALSE";
const TRIM: &str = "DELETE FROM webhook_dead WHERE endpoint_id = $1 AND id IN (SELECT id FROM webhook_dead \
    WHERE endpoint_id = $1 ORDER BY died_at DESC LIMIT 100 OFFSET $2)";
const LIST: &str = "SELECT endpoint_id, id, body, reason, died_at, retry FROM webhook_dead \
    WHERE $1 IS NULL OR endpoint_id = $1 ORDER BY endpoint_id, died_at LIMIT $2";
const TO_RETRY: &str = "SELECT endpoint_id, id, body, reason, died_at, retry FROM webhook_dead \
    WHERE endpoint_id = $1 AND retry ORDER BY died_at LIMIT $2";
const COUNT: &str = "SELECT COUNT(*) FROM webhook_dead";
const RETRY: &str = "UPDATE webhook_dead SET retry = TRUE WHERE $1 IS NULL OR id = $1";
const FORGET: &str = "DELETE FROM webhook_dead WHERE $1 IS NULL OR id = $1";
const TAKEN: &str = "DELETE FROM webhook_dead WHERE endpoint_id = $1 AND id = $2";
