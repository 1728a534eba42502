//! The mention inbox of a user: the messages that mention them, in all channels that they may read, newest first.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::db::{Db, json_ids};
use super::message::MessageDetail;
use super::message_mention::{MentionKind, mention_self};
use super::message_page::{rows_in_order, views};
use crate::ImksResult;

/// A message that mentions a user, and why.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Mention {
    /// The first reason of: by name, by role, as online, as everybody.
    pub kind: MentionKind,
    /// The message, as the user sees it.
    pub message: MessageDetail,
}

/// A page of an inbox.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Inbox {
    /// The messages, newest first.
    pub mentions: Vec<Mention>,
    /// The `before` of the next page; `None` after the last one.
    pub next: Option<Uuid>,
}

/// Returns the newest messages before `before` in `channels` that mention the user, of about `bytes` at most.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn inbox(
    db: &Db,
    user: Uuid,
    channels: &[Uuid],
    before: Option<Uuid>,
    limit: u32,
    bytes: usize,
) -> ImksResult<Inbox> {
    let found = found(db, user, channels, before.unwrap_or(Uuid::max()), limit).await?;
    let ids: Vec<Uuid> = found.iter().map(|(id, _)| *id).collect();
    let (mut rows, whole) = rows_in_order(db, &ids, bytes).await?;
    rows.retain(|row| row.deleted_at.is_none());
    let is_full = whole < ids.len() || ids.len() == limit as usize;
    let next = whole.checked_sub(1).and_then(|last| ids.get(last)).filter(|_| is_full).copied();
    let kinds: HashMap<Uuid, i64> = found.into_iter().collect();
    let mut mentions: Vec<Mention> = views(db, user, rows)
        .await?
        .into_iter()
        .filter_map(|message| {
            Some(Mention { kind: MentionKind::from_stored(*kinds.get(&message.id)?), message })
        })
        .collect();
    mentions.sort_unstable_by_key(|mention| std::cmp::Reverse(mention.message.id));
    Ok(Inbox { mentions, next })
}

/// Returns the messages and the kinds of the mentions, newest first.
async fn found(
    db: &Db,
    user: Uuid,
    channels: &[Uuid],
    before: Uuid,
    limit: u32,
) -> ImksResult<Vec<(Uuid, i64)>> {
    let limit = i64::from(limit);
    Ok(match db {
        Db::Postgres(pool) => {
            let query = sqlx::query_as(INBOX_POSTGRES).bind(user).bind(channels).bind(before).bind(limit);
            query.fetch_all(pool).await?
        }
        Db::Sqlite(sqlite) => {
            let channels = json_ids(channels);
            let query = sqlx::query_as(INBOX_SQLITE).bind(user).bind(channels).bind(before).bind(limit);
            query.fetch_all(&sqlite.reader).await?
        }
    })
}

/// Selects the newest mentions of the user $1, and those of each channel `c`, then the newest of both. Mentions of a
/// channel from before the user joined it are not the user's.
macro_rules! inbox_sql {
    ($channels:literal, $direct:literal, $wide:literal) => {
        concat!(
            "SELECT message_id, CAST(MIN(kind) AS BIGINT) AS kind FROM (\
               SELECT * FROM (SELECT d.message_id, d.kind FROM message_mention d WHERE d.target_id = $1 AND d.kind <> ",
            mention_self!(),
            " AND d.message_id < $3 AND d.channel_id ",
            $direct,
            " ORDER BY d.message_id DESC LIMIT $4) AS direct \
               UNION ALL SELECT w.message_id, w.kind FROM ",
            $channels,
            " JOIN message_read_state r ON r.user_id = $1 AND r.channel_id = c.id ",
            $wide,
            " WHERE w.seq > r.joined_seq) AS all_of_them \
             GROUP BY message_id ORDER BY message_id DESC LIMIT $4"
        )
    };
}
const INBOX_POSTGRES: &str = inbox_sql!(
    "UNNEST($2::uuid[]) AS c(id)",
    "= ANY($2)",
    "CROSS JOIN LATERAL (SELECT m.message_id, m.kind, m.seq FROM message_mention m \
     WHERE m.target_id = c.id AND m.message_id < $3 AND m.author_id <> $1 ORDER BY m.message_id DESC LIMIT $4) AS w"
);
const INBOX_SQLITE: &str = inbox_sql!(
    "(SELECT unhex(value) AS id FROM json_each($2)) AS c",
    "IN (SELECT unhex(value) FROM json_each($2))",
    "JOIN message_mention w ON w.target_id = c.id AND w.message_id IN (SELECT m.message_id FROM message_mention m \
     WHERE m.target_id = c.id AND m.message_id < $3 AND m.author_id <> $1 ORDER BY m.message_id DESC LIMIT $4)"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::db::sqlite_plan;

    #[tokio::test]
    async fn the_inbox_on_sqlite_walks_an_index() {
        let plan = sqlite_plan(INBOX_SQLITE).await;
        assert!(plan.iter().any(|line| line.contains("INDEX message_mention_inbox")), "{plan:#?}");
        assert!(!plan.iter().any(|line| line.starts_with("SCAN message_mention")), "{plan:#?}");
    }
}
