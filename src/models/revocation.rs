//! Users and sessions whose tokens a back end has withdrawn, so that every node knows them, also after a restart.

use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, on};
use crate::ImksResult;
use crate::clock::Micros;

/// A row of `revocation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct RevocationRow {
    /// The user or the session.
    pub subject_id: Uuid,
    /// Whether the subject is a session.
    pub is_session: bool,
    /// The time up to which tokens that are issued are void.
    pub void_until: Micros,
    /// When the row was stored: on PostgreSQL by its clock, because nodes read on from the newest row, whichever of
    /// them stored it.
    pub at: Micros,
}

impl RevocationRow {
    /// Stores the row, now. A later end stays.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn store(&self, db: &Db) -> ImksResult<()> {
        match db {
            Db::Postgres(pool) => {
                let query = sqlx::query(STORE_POSTGRES).bind(self.subject_id).bind(self.is_session);
                query.bind(self.void_until).execute(pool).await?;
            }
            Db::Sqlite(sqlite) => {
                let query = sqlx::query(STORE_SQLITE).bind(self.subject_id).bind(self.is_session);
                query.bind(self.void_until).bind(self.at).execute(&sqlite.writer).await?;
            }
        }
        Ok(())
    }
}

/// Returns rows that were stored after `after`, a time and a subject, in this order; at most [`PAGE`].
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn page(db: &Db, after: (Micros, Uuid)) -> ImksResult<Vec<RevocationRow>> {
    Ok(on!(read db, pool => {
        sqlx::query_as(AFTER).bind(after.0).bind(after.1).bind(PAGE).fetch_all(pool).await?
    }))
}

/// Removes up to [`PAGE`] rows whose tokens have all expired: those that are older than `age` at `now`. Returns how
/// many it removed.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn sweep(db: &Db, age: Micros, now: Micros) -> ImksResult<u64> {
    let removed = match db {
        Db::Postgres(pool) => {
            sqlx::query(SWEEP_POSTGRES).bind(age).bind(PAGE).execute(pool).await?.rows_affected()
        }
        Db::Sqlite(sqlite) => {
            let sweep = sqlx::query(SWEEP_SQLITE).bind(now.saturating_sub(age)).bind(PAGE);
            sweep.execute(&sqlite.writer).await?.rows_affected()
        }
    };
    Ok(removed)
}

const STORE_POSTGRES: &str = "INSERT INTO revocation (subject_id, is_session, void_until, at) \
    VALUES ($1, $2, $3, (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT) \
    ON CONFLICT (subject_id) DO UPDATE SET void_until = excluded.void_until, at = excluded.at \
    WHERE revocation.void_until < excluded.void_until";
const STORE_SQLITE: &str = "INSERT INTO revocation (subject_id, is_session, void_until, at) VALUES ($1, $2, $3, $4) \
    ON CONFLICT (subject_id) DO UPDATE SET void_until = excluded.void_until, at = excluded.at \
    WHERE revocation.void_until < excluded.void_until";
const AFTER: &str = "SELECT subject_id, is_session, void_until, at FROM revocation \
    WHERE (at, subject_id) > ($1, $2) ORDER BY at, subject_id LIMIT $3";
const SWEEP_POSTGRES: &str = "DELETE FROM revocation WHERE subject_id IN (SELECT subject_id FROM revocation \
    WHERE at < (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT - $1 ORDER BY at LIMIT $2)";
const SWEEP_SQLITE: &str = "DELETE FROM revocation WHERE subject_id IN \
    (SELECT subject_id FROM revocation WHERE at < $1 ORDER BY at LIMIT $2)";
/// The most rows that are read or removed at once.
pub const PAGE: i64 = 1_000;
