//! The removal of expired rows: entries of the change log after two weeks. It proceeds in small steps, so
//! that no writer waits long for a lock, and has to be called repeatedly.

use uuid::Uuid;

use super::db::{Db, detached, on, transaction};
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

/// Deletes the rows of drafts, bookmarks and scheduled messages that were removed or settled too long before `now`, for up to
/// [`USERS_AT_ONCE`] users, and records in their streams how far they are incomplete.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn forget_removed(db: &Db, now: Micros) -> ImksResult<()> {
    let before = now - CHANGES_LIFETIME;
    let users: Vec<Uuid> = on!(read db, pool => {
        sqlx::query_scalar(WITH_REMOVED).bind(before).bind(USERS_AT_ONCE).fetch_all(pool).await?
    });
    for user in users {
        let db = db.clone();
        detached(async move { forget_of_user(&db, user, before).await }).await?;
    }
    Ok(())
}

async fn forget_of_user(db: &Db, user: Uuid, before: Micros) -> ImksResult<()> {
    transaction!(db, tx => {
        // First, because it locks the stream: nothing may be removed meanwhile.
        sqlx::query(INCOMPLETE).bind(user).bind(before).execute(&mut *tx).await?;
        for forget in FORGET_REMOVED {
            sqlx::query(forget).bind(user).bind(before).execute(&mut *tx).await?;
        }
    });
    Ok(())
}

/// The users whose removed rows one call forgets.
const USERS_AT_ONCE: i64 = 100;
const WITH_REMOVED: &str = "SELECT user_id FROM message_draft WHERE deleted_at < $1 \
    UNION SELECT user_id FROM message_bookmark WHERE deleted_at < $1 \
    UNION SELECT user_id FROM message_scheduled WHERE settled_at < $1 LIMIT $2";
const INCOMPLETE: &str = "UPDATE user_state SET forgotten_rev = COALESCE((SELECT MAX(gone.user_rev) FROM (\
      SELECT user_rev FROM message_draft WHERE user_id = $1 AND deleted_at < $2 \
      UNION ALL SELECT user_rev FROM message_bookmark WHERE user_id = $1 AND deleted_at < $2 \
      UNION ALL SELECT user_rev FROM message_scheduled WHERE user_id = $1 AND settled_at < $2 \
      UNION ALL SELECT forgotten_rev FROM user_state WHERE user_id = $1) AS gone), 0) WHERE user_id = $1";
const FORGET_REMOVED: [&str; 3] = [
    "DELETE FROM message_draft WHERE user_id = $1 AND deleted_at < $2",
    "DELETE FROM message_bookmark WHERE user_id = $1 AND deleted_at < $2",
    "DELETE FROM message_scheduled WHERE user_id = $1 AND settled_at < $2",
];
/// Deletes the oldest first, so that the rest of a channel's log has no holes.
const FORGET_CHANGES: &str = "DELETE FROM channel_change WHERE (channel_id, rev) IN (\
    SELECT channel_id, rev FROM channel_change WHERE at < $1 ORDER BY channel_id, rev LIMIT $2)";
