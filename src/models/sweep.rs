//! The removal of expired rows: entries of the change log after two weeks. It proceeds in small steps, so
//! that no writer waits long for a lock, and has to be called repeatedly.

use super::db::{Db, on};
use crate::ImksResult;
use crate::clock::Micros;

/// How long a client may be absent and still receive every change one by one (docs/protocol.md, `sync`).
pub const CHANGES_LIFETIME: Micros = 14 * 24 * 3_600 * 1_000_000;

/// The most rows that one call deletes.
pub const SWEEP_STEP: i64 = 1_000;

/// Deletes up to [`SWEEP_STEP`] changes that are too old at `now`. Returns how many it deleted; fewer than
/// the step means that none remain for now.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn sweep(db: &Db, now: Micros) -> ImksResult<u64> {
    Ok(on!(db, pool => {
        let query = sqlx::query(FORGET_CHANGES).bind(now - CHANGES_LIFETIME).bind(SWEEP_STEP);
        query.execute(pool).await?.rows_affected()
    }))
}

/// Deletes the oldest first, so that the rest of a channel's log has no holes.
const FORGET_CHANGES: &str = "DELETE FROM channel_change WHERE (channel_id, rev) IN (\
    SELECT channel_id, rev FROM channel_change WHERE at < $1 ORDER BY channel_id, rev LIMIT $2)";
