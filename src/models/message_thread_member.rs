//! Who follows a thread, and how far they have read it.
//!
//! ```text
//! position = the newest of: what was marked as read, the user's own newest reply
//! unread   = replies of others after the position that are not deleted
//! ```

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::append::LockedChannel;
use super::append::records::Record;
use super::db::{Db, detached, on, transaction};
use super::message::MessageDetail;
use super::message_mention::mention_self;
use super::rows::{Column, RowsSql};
use super::user_rev::{NEXT_USER_REV, Need, TakenRev};
use crate::{ImksError, ImksResult};

/// A user's position in a thread: an entry of `user.threads` in `sync`, and the payload of `thread:state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, FromRow, JsonSchema)]
pub struct ThreadMember {
    /// The first message of the thread.
    pub thread_id: Uuid,
    /// The channel of the thread.
    pub channel_id: Uuid,
    /// Whether the user follows the thread.
    pub following: bool,
    /// The number of the newest reply that was read.
    pub read_seq: i64,
    /// The number of the newest reply; 0 if there is none.
    pub last_reply_seq: i64,
    /// The number of later replies of others that are not deleted.
    pub unread_count: i64,
    /// The number of unread replies that mention the user directly.
    pub mention_count: i64,
    /// The number of the last change of this row in the user's stream.
    pub user_rev: i64,
}

/// Follows or unfollows a thread. Returns the position, and whether that changed anything.
///
/// # Errors
/// [`ImksError::NotFound`] for a message that is not the first of a thread in the channel,
/// [`ImksError::Database`].
pub async fn follow(
    db: &Db,
    user: Uuid,
    channel: Uuid,
    root: Uuid,
    following: bool,
) -> ImksResult<(ThreadMember, bool)> {
    let change = Change { user, channel, root, following: Some(following), seq: None };
    apply(db, change).await
}

/// Moves a user's position in a thread forward to `seq`, or to the newest message if `seq` is beyond it. Returns
/// the position, and whether it moved.
///
/// # Errors
/// [`ImksError::NotFound`] for a message that is not the first of a thread in the channel,
/// [`ImksError::Database`].
pub async fn mark(
    db: &Db,
    user: Uuid,
    channel: Uuid,
    root: Uuid,
    seq: i64,
) -> ImksResult<(ThreadMember, bool)> {
    let change = Change { user, channel, root, following: None, seq: Some(seq) };
    apply(db, change).await
}

/// Returns about `limit` positions that changed after `since`, in the order of the changes.
pub(super) async fn changed(db: &Db, user: Uuid, since: i64, limit: i64) -> ImksResult<Vec<ThreadMember>> {
    Ok(on!(read db, pool => {
        sqlx::query_as(CHANGED).bind(user).bind(since).bind(limit).fetch_all(pool).await?
    }))
}

/// Returns up to `limit` threads that a user follows with a `user_rev` below `before`, the last changed first.
/// With `unread`, only those with unread replies.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn followed(
    db: &Db,
    user: Uuid,
    before: i64,
    limit: i64,
    unread: bool,
) -> ImksResult<Vec<ThreadMember>> {
    let sql = if unread { FOLLOWED_UNREAD } else { FOLLOWED };
    Ok(on!(read db, pool => sqlx::query_as(sql).bind(user).bind(before).bind(limit).fetch_all(pool).await?))
}

/// A change of one user's row of a thread.
#[derive(Debug, Clone, Copy)]
struct Change {
    user: Uuid,
    channel: Uuid,
    root: Uuid,
    /// `None` keeps what is stored.
    following: Option<bool>,
    /// The position to move to; `None` keeps what is stored.
    seq: Option<i64>,
}

async fn apply(db: &Db, change: Change) -> ImksResult<(ThreadMember, bool)> {
    let task_db = db.clone();
    let changed = detached(async move { change.apply(&task_db).await }).await?;
    let member: Option<ThreadMember> = on!(read db, pool => {
        sqlx::query_as(ONE).bind(change.user).bind(change.root).fetch_optional(pool).await?
    });
    Ok((member.ok_or(ImksError::NotFound("thread"))?, changed))
}

impl Change {
    async fn apply(self, db: &Db) -> ImksResult<bool> {
        let Self { user, channel, root, .. } = self;
        Ok(transaction!(db, tx => {
            let user_rev: i64 = sqlx::query_scalar(NEXT_USER_REV).bind(user).fetch_one(&mut *tx).await?;
            let head: Option<i64> =
                sqlx::query_scalar(ROOT).bind(root).bind(channel).fetch_optional(&mut *tx).await?;
            let head = head.ok_or(ImksError::NotFound("thread"))?;
            let stored: Option<(bool, i64)> =
                sqlx::query_as(STORED).bind(user).bind(root).fetch_optional(&mut *tx).await?;
            // Whoever has no row has read what was written before.
            let (was_following, was_read) = stored.unwrap_or((false, if self.seq.is_some() { 0 } else { head }));
            let following = self.following.unwrap_or(was_following);
            let read_seq = self.seq.map_or(was_read, |seq| seq.min(head).max(was_read));
            if stored.is_some() && (following, read_seq) == (was_following, was_read) {
                // Leaving without a commit takes back the number.
                return Ok(false);
            }
            sqlx::query(STORE).bind(user).bind(root).bind(channel).bind(following).bind(head).bind(read_seq)
                .bind(user_rev).execute(&mut *tx).await?;
            true
        }))
    }
}

/// Makes the author of a reply, the author of the thread's first message and those mentioned follow the thread.
pub(super) fn follow_by_replying(
    channel: &mut LockedChannel<'_>,
    root_author: Uuid,
    root: Uuid,
    reply: &MessageDetail,
) {
    // The author of the first message follows once, with the first reply, and never again after an unfollow.
    let mut causes = BTreeMap::from([(root_author, 0)]);
    causes.extend(reply.mentions.users.iter().map(|user| (*user, reply.seq)));
    causes.insert(reply.author.id, reply.seq);
    for (user, seq) in causes {
        let read_seq = if user == reply.author.id { reply.seq } else { reply.seq - 1 };
        // Inserted first, because it takes the number that the row stores.
        channel.insert(TakenRev { user, need: Need::Follow { root, seq } });
        channel.insert(Follow { user, root, channel_id: reply.channel_id, seq, read_seq });
    }
}

/// An automatic follow.
#[derive(Debug, Clone, Copy)]
struct Follow {
    user: Uuid,
    root: Uuid,
    channel_id: Uuid,
    /// The number of the reply that caused it; 0 if any earlier decision of the user is stronger.
    seq: i64,
    read_seq: i64,
}

impl Record for Follow {
    /// The user and the first message of the thread.
    type Key = (Uuid, Uuid);

    fn key(&self) -> Self::Key {
        (self.user, self.root)
    }

    fn insert() -> &'static RowsSql {
        &FOLLOW
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::of(rows, |row| row.user),
            Column::of(rows, |row| row.root),
            Column::of(rows, |row| row.channel_id),
            Column::of(rows, |row| row.seq),
            Column::of(rows, |row| row.read_seq),
        ]
    }
}

/// Selects the positions of the rows `t` that the condition selects, in an order. $1 is the user.
macro_rules! positions {
    ($condition:literal, $order:literal) => {
        concat!(
            "SELECT p.root_message_id AS thread_id, p.channel_id, p.following, p.read_seq, p.last_reply_seq, \
               (SELECT COUNT(*) FROM message m WHERE m.thread_id = p.root_message_id AND m.seq > p.read_seq \
                  AND m.author_id <> $1 AND m.deleted_at IS NULL) AS unread_count, \
               (SELECT COUNT(*) FROM message_mention d WHERE d.target_id = $1 AND d.channel_id = p.channel_id \
                  AND d.seq > p.read_seq AND d.thread_id = p.root_message_id AND d.kind <> ",
            mention_self!(),
            " AND d.author_id <> $1) \
               + (SELECT COUNT(*) FROM message_mention w WHERE w.target_id = p.channel_id \
                  AND w.channel_id = p.channel_id AND w.seq > p.read_seq AND w.thread_id = p.root_message_id \
                  AND w.author_id <> $1 AND NOT EXISTS (SELECT 1 FROM message_mention x \
                    WHERE x.target_id = $1 AND x.message_id = w.message_id AND x.kind <> ",
            mention_self!(),
            ")) AS mention_count, p.user_rev FROM (\
               SELECT t.root_message_id, t.channel_id, t.following, t.user_rev, \
                 COALESCE(h.last_reply_seq, 0) AS last_reply_seq, \
                 (SELECT MAX(o.seq) FROM (SELECT t.read_seq AS seq UNION ALL SELECT n.seq FROM message n \
                    WHERE n.thread_id = t.root_message_id AND n.seq > t.read_seq AND n.author_id = $1) AS o) \
                 AS read_seq \
               FROM message_thread_member t LEFT JOIN message_thread h ON h.root_message_id = t.root_message_id ",
            $condition,
            ") AS p ",
            $order
        )
    };
}
const ONE: &str = positions!("WHERE t.user_id = $1 AND t.root_message_id = $2", "");
/// Rows that were changed together stay together.
const CHANGED: &str = positions!(
    "WHERE t.user_id = $1 AND t.user_rev > $2 AND t.user_rev <= COALESCE((\
       SELECT n.user_rev FROM message_thread_member n WHERE n.user_id = $1 AND n.user_rev > $2 \
       ORDER BY n.user_rev LIMIT 1 OFFSET $3 - 1), 9223372036854775807)",
    "ORDER BY p.user_rev"
);
const FOLLOWED: &str = positions!(
    "WHERE t.user_id = $1 AND t.user_rev < $2 AND t.following ORDER BY t.user_rev DESC LIMIT $3",
    "ORDER BY p.user_rev DESC"
);
/// Threads without a reply after the position are left out before they are counted.
const FOLLOWED_UNREAD: &str = positions!(
    "WHERE t.user_id = $1 AND t.user_rev < $2 AND t.following AND EXISTS (SELECT 1 FROM message m \
     WHERE m.thread_id = t.root_message_id AND m.seq > t.read_seq AND m.author_id <> $1 \
     AND m.deleted_at IS NULL AND m.seq > COALESCE((SELECT MAX(n.seq) FROM message n \
       WHERE n.thread_id = t.root_message_id AND n.author_id = $1 AND n.seq > t.read_seq), 0)) \
     ORDER BY t.user_rev DESC LIMIT $3",
    "ORDER BY p.user_rev DESC"
);
/// Returns the newest message of the channel, if the root is the first message of a thread there, or could be.
const ROOT: &str = "SELECT s.last_seq FROM message m JOIN channel_state s ON s.channel_id = m.channel_id \
    WHERE m.id = $1 AND m.channel_id = $2 AND m.thread_id IS NULL AND m.deleted_at IS NULL";
const STORED: &str =
    "SELECT following, read_seq FROM message_thread_member WHERE user_id = $1 AND root_message_id = $2";
const STORE: &str = "INSERT INTO message_thread_member \
    (user_id, root_message_id, channel_id, following, decided_seq, read_seq, user_rev) \
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (user_id, root_message_id) DO UPDATE SET \
      following = excluded.following, decided_seq = excluded.decided_seq, read_seq = excluded.read_seq, \
      user_rev = excluded.user_rev";
/// Loses against an unfollow that was decided later than the reply, or after the number was taken.
static FOLLOW: RowsSql = RowsSql::new(
    "user_id, root_message_id, channel_id, seq, read_seq",
    "INSERT INTO message_thread_member \
       (user_id, root_message_id, channel_id, following, decided_seq, read_seq, user_rev) \
     SELECT r.user_id, r.root_message_id, r.channel_id, TRUE, r.seq, r.read_seq, s.last_rev \
     FROM r JOIN user_state s ON s.user_id = r.user_id WHERE r.user_id IS NOT NULL \
     ON CONFLICT (user_id, root_message_id) DO UPDATE SET following = TRUE, \
       decided_seq = excluded.decided_seq, user_rev = excluded.user_rev \
     WHERE NOT message_thread_member.following AND message_thread_member.decided_seq < excluded.decided_seq \
       AND message_thread_member.user_rev < excluded.user_rev",
);
