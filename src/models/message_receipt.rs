//! Read receipts: who has read a message.

use uuid::Uuid;

use super::db::{Db, on};
use crate::ImksResult;

/// Returns up to `limit` users, by id, after `after`, whose position in the channel is at `seq` or beyond.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn readers(db: &Db, channel: Uuid, seq: i64, after: Uuid, limit: i64) -> ImksResult<Vec<Uuid>> {
    Ok(on!(read db, pool => {
        sqlx::query_scalar(READERS).bind(channel).bind(seq).bind(after).bind(limit).fetch_all(pool).await?
    }))
}

/// The position is the newest of what was marked as read and the user's own newest message, as in
/// [`super::message_read_state`].
const READERS: &str = "SELECT r.user_id FROM message_read_state r LEFT JOIN message_author own \
      ON own.author_id = r.user_id AND own.channel_id = r.channel_id AND own.last_seq > r.own_floor \
    WHERE r.channel_id = $1 AND r.user_id > $3 AND (r.read_seq >= $2 OR own.last_seq >= $2) \
    ORDER BY r.user_id LIMIT $4";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::db::sqlite_plan;

    #[tokio::test]
    async fn readers_are_found_by_channel_in_the_order_of_their_ids() {
        let plan = sqlite_plan(READERS).await;
        assert!(
            plan.iter().any(|line| line.contains("message_read_state_channel (channel_id=? AND user_id>?)")),
            "{plan:#?}"
        );
        assert!(
            !plan.iter().any(|line| line.starts_with("SCAN") || line.contains("TEMP B-TREE")),
            "{plan:#?}"
        );
    }
}
