//! Deletes what is no longer needed: entries of the change log after two weeks. Small steps, so that nobody waits long
//! for a lock; to be called again and again.

use super::db::{Db, on};
use crate::ImksResult;
use crate::clock::Micros;

/// How long a client may be away and still learn of every change one by one (docs/protocol.md, `sync`).
pub const CHANGES_LIFETIME: Micros = 14 * 24 * 3_600 * 1_000_000;

/// Rows that one call forgets at most.
pub const SWEEP_STEP: i64 = 1_000;

/// Forgets at most [`SWEEP_STEP`] changes that are too old at `now`; says how many went. Fewer than the step means
/// that there is nothing more to do for now.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn sweep(db: &Db, now: Micros) -> ImksResult<u64> {
    Ok(on!(db, pool => {
        let query = sqlx::query(FORGET_CHANGES).bind(now - CHANGES_LIFETIME).bind(SWEEP_STEP);
        query.execute(pool).await?.rows_affected()
    }))
}

/// Oldest first: what is left of a channel's log never has a hole.
const FORGET_CHANGES: &str = "DELETE FROM channel_change WHERE (channel_id, rev) IN (\
    SELECT channel_id, rev FROM channel_change WHERE at < $1 ORDER BY channel_id, rev LIMIT $2)";
