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
    /// When the row was stored.
    pub at: Micros,
}

impl RevocationRow {
    /// Stores the row. A later end stays.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn store(&self, db: &Db) -> ImksResult<()> {
        on!(db, pool => {
            let query = sqlx::query(STORE).bind(self.subject_id).bind(self.is_session);
            query.bind(self.void_until).bind(self.at).execute(pool).await?;
        });
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

/// Removes up to [`PAGE`] rows whose tokens have all expired: those stored before `before`. Returns how many it
/// removed.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn sweep(db: &Db, before: Micros) -> ImksResult<u64> {
    Ok(on!(db, pool => {
        sqlx::query(SWEEP).bind(before).bind(PAGE).execute(pool).await?.rows_affected()
    }))
}

const STORE: &str = "INSERT INTO revocation (subject_id, is_session, void_until, at) VALUES ($1, $2, $3, $4) \
    ON CONFLICT (subject_id) DO UPDATE SET void_until = excluded.void_until, at = excluded.at \
    WHERE revocation.void_until < excluded.void_until";
const AFTER: &str = "SELECT subject_id, is_session, void_until, at FROM revocation \
    WHERE (at, subject_id) > ($1, $2) ORDER BY at, subject_id LIMIT $3";
const SWEEP: &str = "DELETE FROM revocation WHERE subject_id IN \
    (SELECT subject_id FROM revocation WHERE at < $1 ORDER BY at LIMIT $2)";
/// The most rows that are read or removed at once.
pub const PAGE: i64 = 1_000;
