//! Read states: how far a user has read, and how much that leaves unread. Counts are derived from counters,
//! never incremented:
//!
//! ```text
//! position = the newest of: what was marked as read, the reader's own newest message
//! unread   = messages that count (channel) − those up to the position, or up to the horizon if that is later
//!            − deleted ones after it − the reader's own after it
//! ```
//!
//! Own messages exist after the position only when a user marked a channel unread, or when a program sent in
//! the user's name; they have rows of kind "self" in `message_mention`. `own_floor` is the channel's newest
//! message at the moment of marking unread: own messages up to it no longer move the position.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::channel_state::ChannelHead;
use super::db::{Db, detached, json_ids, transaction};
use super::message::flag_also_in_channel;
use super::message_mention::mention_self;
use super::user_rev::NEXT_USER_REV;
use crate::clock;
use crate::{ImksError, ImksResult};

/// A user's read position in a channel, and how much it leaves unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, FromRow, JsonSchema)]
pub struct ReadState {
    /// The channel.
    pub channel_id: Uuid,
    /// The number of the newest message that was read.
    pub read_seq: i64,
    /// The number of later messages of others, without deleted ones and those only in threads.
    pub unread_count: i64,
    /// The number of unread messages that mention the reader: by name, by role, as online or as everybody.
    pub mention_count: i64,
    /// The number of this position in the user's own stream (table `user_state`); 0 if it was never marked.
    pub user_rev: i64,
}

/// Moves the read position forward to `seq`, or to the newest message if `seq` is beyond it. Never moves it
/// backward, so late packets of a second device change nothing. Returns it, and whether it moved.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn mark(db: &Db, user: Uuid, channel: Uuid, seq: i64) -> ImksResult<(ReadState, bool)> {
    let task_db = db.clone();
    let moved = detached(async move { mark_in_task(&task_db, user, channel, seq).await }).await?;
    Ok((one(db, user, channel).await?, moved))
}

/// Moves the read position, backward or forward, so that `from_seq` is the first unread message.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn mark_unread(db: &Db, user: Uuid, channel: Uuid, from_seq: i64) -> ImksResult<ReadState> {
    let task_db = db.clone();
    detached(async move { mark_unread_in_task(&task_db, user, channel, from_seq).await }).await?;
    one(db, user, channel).await
}

/// Marks everything up to now as read in each of these channels, and returns the channels in which that moved
/// the position. All of them get the same number in the user's stream.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn mark_all(db: &Db, user: Uuid, channels: &[Uuid]) -> ImksResult<Vec<ReadState>> {
    if channels.is_empty() {
        return Ok(Vec::new());
    }
    let (task_db, task_channels) = (db.clone(), channels.to_vec());
    let moved = detached(async move { mark_all_in_task(&task_db, user, &task_channels).await }).await?;
    unread(db, user, &moved).await
}

/// Gives a new member a position in each of these channels where there is none yet: the number of the channel's last
/// message when the user joined, or now where that is not known. A position of an earlier membership moves forward to
/// a number that is known.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn baseline(db: &Db, user: Uuid, channels: &[(Uuid, Option<i64>)]) -> ImksResult<()> {
    let (known, unknown): (Vec<_>, Vec<_>) =
        channels.iter().partition(|(_, joined_seq)| joined_seq.is_some());
    let statements = match db {
        Db::Postgres(_) => [BASELINE_POSTGRES, REJOINED_POSTGRES],
        Db::Sqlite(_) => [BASELINE_SQLITE, REJOINED_SQLITE],
    };
    for (sql, channels) in statements.into_iter().zip([unknown, known]).filter(|(_, it)| !it.is_empty()) {
        let now = clock::now_micros();
        let rows: Vec<(String, Option<i64>)> =
            channels.into_iter().map(|(channel, seq)| (channel.simple().to_string(), seq)).collect();
        let rows = serde_json::to_string(&rows)?;
        match db {
            Db::Postgres(pool) => {
                sqlx::query(sql).bind(user).bind(rows).bind(now).execute(pool).await?;
            }
            Db::Sqlite(sqlite) => {
                sqlx::query(sql).bind(user).bind(rows).bind(now).execute(&sqlite.writer).await?;
            }
        }
    }
    Ok(())
}

/// Returns positions and counts in many channels with one query. Channels without a position are left out;
/// call [`baseline`] first, so that a new member does not start with the whole history unread.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn unread(db: &Db, user: Uuid, channels: &[Uuid]) -> ImksResult<Vec<ReadState>> {
    if channels.is_empty() {
        return Ok(Vec::new());
    }
    Ok(match db {
        Db::Postgres(pool) => {
            sqlx::query_as(UNREAD_POSTGRES).bind(user).bind(channels).fetch_all(pool).await?
        }
        Db::Sqlite(sqlite) => {
            let query = sqlx::query_as(UNREAD_SQLITE).bind(user).bind(json_ids(channels));
            query.fetch_all(&sqlite.reader).await?
        }
    })
}

/// A channel as a user finds it: its newest numbers, and how far the user has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Standing {
    /// The user.
    pub user_id: Uuid,
    /// The newest numbers of the channel.
    #[sqlx(flatten)]
    pub head: ChannelHead,
    /// The user's position, and what it leaves unread.
    #[sqlx(flatten)]
    pub read: ReadState,
}

/// Returns what [`unread`] returns, together with the heads of the channels, for many pairs of user and channel with
/// one query.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn standings(db: &Db, pairs: &[(Uuid, Uuid)]) -> ImksResult<Vec<Standing>> {
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    Ok(match db {
        Db::Postgres(pool) => {
            let (users, channels): (Vec<Uuid>, Vec<Uuid>) = pairs.iter().copied().unzip();
            sqlx::query_as(STANDINGS_POSTGRES).bind(users).bind(channels).fetch_all(pool).await?
        }
        Db::Sqlite(sqlite) => {
            let pairs: Vec<_> =
                pairs.iter().map(|(user, channel)| (user.simple(), channel.simple())).collect();
            let pairs = serde_json::to_string(&pairs)?;
            sqlx::query_as(STANDINGS_SQLITE).bind(pairs).fetch_all(&sqlite.reader).await?
        }
    })
}

async fn one(db: &Db, user: Uuid, channel: Uuid) -> ImksResult<ReadState> {
    unread(db, user, &[channel]).await?.pop().ok_or(ImksError::NotFound("read position"))
}

async fn mark_in_task(db: &Db, user: Uuid, channel: Uuid, seq: i64) -> ImksResult<bool> {
    let now = clock::now_micros();
    Ok(transaction!(db, tx => {
        let rev: i64 = sqlx::query_scalar(NEXT_USER_REV).bind(user).fetch_one(&mut *tx).await?;
        let mark = sqlx::query(MARK).bind(user).bind(channel).bind(seq).bind(now).bind(rev);
        if mark.execute(&mut *tx).await?.rows_affected() == 0 {
            // Leaving without a commit takes back the number.
            return Ok(false);
        }
        true
    }))
}

async fn mark_unread_in_task(db: &Db, user: Uuid, channel: Uuid, from_seq: i64) -> ImksResult<()> {
    let (now, seq) = (clock::now_micros(), from_seq.max(1) - 1);
    let lock = match db {
        Db::Postgres(_) => LOCK_POSTGRES,
        Db::Sqlite(_) => LOCK_SQLITE,
    };
    transaction!(db, tx => {
        // No message may arrive between moving the position and reading the own messages after it.
        sqlx::query(lock).bind(channel).execute(&mut *tx).await?;
        let rev: i64 = sqlx::query_scalar(NEXT_USER_REV).bind(user).fetch_one(&mut *tx).await?;
        let mark = sqlx::query(MARK_EXACTLY).bind(user).bind(channel).bind(seq).bind(now).bind(rev);
        mark.execute(&mut *tx).await?;
        sqlx::query(MARK_OWN).bind(user).bind(channel).bind(seq).execute(&mut *tx).await?;
    });
    Ok(())
}

async fn mark_all_in_task(db: &Db, user: Uuid, channels: &[Uuid]) -> ImksResult<Vec<Uuid>> {
    let (now, channels) = (clock::now_micros(), json_ids(channels));
    let sql = match db {
        Db::Postgres(_) => MARK_ALL_POSTGRES,
        Db::Sqlite(_) => MARK_ALL_SQLITE,
    };
    Ok(transaction!(db, tx => {
        let rev: i64 = sqlx::query_scalar(NEXT_USER_REV).bind(user).fetch_one(&mut *tx).await?;
        let mark = sqlx::query_scalar(sql).bind(user).bind(rev).bind(now).bind(&channels);
        let moved: Vec<Uuid> = mark.fetch_all(&mut *tx).await?;
        if moved.is_empty() {
            // Leaving without a commit takes back the number.
            return Ok(moved);
        }
        moved
    }))
}

/// Reads the number of counted messages from the message at or before `seq`; zero before the first message.
macro_rules! mark_sql {
    ($floor:literal, $update:literal) => {
        concat!(
            "INSERT INTO message_read_state \
             (user_id, channel_id, read_seq, read_cseq, read_message_id, own_floor, updated_at, user_rev) \
             SELECT $1, $2, COALESCE(m.seq, 0), COALESCE(m.cseq, 0), m.id, ",
            $floor,
            ", $4, $5 FROM (SELECT MAX(seq) AS seq FROM message WHERE channel_id = $2 AND seq <= $3) AS newest \
             LEFT JOIN message m ON m.channel_id = $2 AND m.seq = newest.seq WHERE TRUE \
             ON CONFLICT (user_id, channel_id) DO UPDATE SET read_seq = excluded.read_seq, \
               read_cseq = excluded.read_cseq, read_message_id = excluded.read_message_id, \
               updated_at = excluded.updated_at, user_rev = excluded.user_rev",
            $update
        )
    };
}
const MARK: &str = mark_sql!("0", " WHERE excluded.read_seq > message_read_state.read_seq");
const MARK_EXACTLY: &str = mark_sql!(
    "COALESCE((SELECT last_seq FROM channel_state WHERE channel_id = $2), 0)",
    ", own_floor = excluded.own_floor"
);
/// Records the own messages after the position that count as unread.
const MARK_OWN: &str = concat!(
    "INSERT INTO message_mention \
     (message_id, kind, target_id, author_id, channel_id, seq, thread_id, created_at) SELECT id, ",
    mention_self!(),
    ", author_id, author_id, channel_id, seq, thread_id, created_at FROM message \
     WHERE channel_id = $2 AND seq > $3 AND author_id = $1 AND deleted_at IS NULL \
       AND (thread_id IS NULL OR flags & ",
    flag_also_in_channel!(),
    " <> 0) ON CONFLICT DO NOTHING"
);
macro_rules! mark_all_sql {
    ($channels:literal) => {
        concat!(
            "UPDATE message_read_state SET read_seq = s.last_seq, read_cseq = s.last_cseq, \
               read_message_id = s.last_message_id, user_rev = $2, updated_at = $3 FROM channel_state s \
             WHERE message_read_state.user_id = $1 AND s.channel_id = message_read_state.channel_id \
               AND message_read_state.read_seq < s.last_seq AND message_read_state.channel_id IN (",
            $channels,
            ") RETURNING message_read_state.channel_id"
        )
    };
}
const MARK_ALL_POSTGRES: &str = mark_all_sql!("SELECT value::uuid FROM json_array_elements_text($4::json)");
const MARK_ALL_SQLITE: &str = mark_all_sql!("SELECT unhex(value) FROM json_each($4)");
const LOCK_POSTGRES: &str = "SELECT last_seq FROM channel_state WHERE channel_id = $1 FOR UPDATE";
const LOCK_SQLITE: &str = "SELECT last_seq FROM channel_state WHERE channel_id = $1";

/// Takes the position from the message at `joined_seq`, or from the channel's counters where it is not earlier.
macro_rules! baseline_sql {
    ($channels:literal, $conflict:literal) => {
        concat!(
            "INSERT INTO message_read_state \
               (user_id, channel_id, read_seq, read_cseq, read_message_id, joined_seq, updated_at) \
             SELECT $1, j.channel_id, \
               CASE WHEN j.joined_seq < s.last_seq THEN COALESCE(m.seq, 0) ELSE COALESCE(s.last_seq, 0) END, \
               CASE WHEN j.joined_seq < s.last_seq THEN COALESCE(m.cseq, 0) ELSE COALESCE(s.last_cseq, 0) END, \
               CASE WHEN j.joined_seq < s.last_seq THEN m.id ELSE s.last_message_id END, \
               CASE WHEN j.joined_seq < s.last_seq THEN j.joined_seq ELSE COALESCE(s.last_seq, 0) END, $3 \
             FROM (",
            $channels,
            ") AS j LEFT JOIN channel_state s ON s.channel_id = j.channel_id \
             LEFT JOIN message m ON j.joined_seq < s.last_seq AND m.channel_id = j.channel_id AND m.seq = (\
               SELECT MAX(n.seq) FROM message n WHERE n.channel_id = j.channel_id AND n.seq <= j.joined_seq) \
             WHERE TRUE ON CONFLICT (user_id, channel_id) DO ",
            $conflict
        )
    };
    (postgres $conflict:literal) => {
        baseline_sql!(
            "SELECT (value->>0)::uuid AS channel_id, (value->>1)::int8 AS joined_seq \
             FROM json_array_elements($2::json)",
            $conflict
        )
    };
    (sqlite $conflict:literal) => {
        baseline_sql!(
            "SELECT unhex(value->>0) AS channel_id, value->>1 AS joined_seq FROM json_each($2)",
            $conflict
        )
    };
    (new $database:ident) => {
        baseline_sql!($database "NOTHING")
    };
    (rejoined $database:ident) => {
        baseline_sql!(
            $database "UPDATE SET read_seq = excluded.read_seq, read_cseq = excluded.read_cseq, \
               read_message_id = excluded.read_message_id, joined_seq = excluded.joined_seq, \
               updated_at = excluded.updated_at WHERE excluded.joined_seq > message_read_state.joined_seq \
               AND excluded.read_seq > message_read_state.read_seq"
        )
    };
}
const BASELINE_POSTGRES: &str = baseline_sql!(new postgres);
const BASELINE_SQLITE: &str = baseline_sql!(new sqlite);
const REJOINED_POSTGRES: &str = baseline_sql!(rejoined postgres);
const REJOINED_SQLITE: &str = baseline_sql!(rejoined sqlite);

macro_rules! unread_sql {
    ($columns:literal, $pairs:literal) => {
        concat!(
            "SELECT p.channel_id, p.read_seq, p.user_rev, ",
            $columns,
            " \
               COALESCE(s.last_cseq, 0) \
               - CASE WHEN s.horizon_cseq > p.read_cseq THEN s.horizon_cseq ELSE p.read_cseq END \
               - (SELECT COUNT(*) FROM message_tombstone t \
                  WHERE t.channel_id = p.channel_id AND t.seq > p.read_seq AND t.counted) \
               - (SELECT COUNT(*) FROM message_mention o WHERE o.kind = ",
            mention_self!(),
            " AND o.target_id = p.user_id \
                  AND o.channel_id = p.channel_id AND o.seq > p.read_seq) AS unread_count, \
               (SELECT COUNT(*) FROM message_mention d WHERE d.kind <> ",
            mention_self!(),
            " AND d.target_id = p.user_id \
                  AND d.channel_id = p.channel_id AND d.seq > p.read_seq AND d.author_id <> p.user_id) \
               + (SELECT COUNT(*) FROM message_mention w WHERE w.target_id = p.channel_id \
                  AND w.channel_id = p.channel_id AND w.seq > p.read_seq AND w.author_id <> p.user_id \
                  AND NOT EXISTS (SELECT 1 FROM message_mention x WHERE x.target_id = p.user_id \
                    AND x.message_id = w.message_id AND x.kind <> ",
            mention_self!(),
            ")) AS mention_count \
             FROM (SELECT r.user_id, r.channel_id, r.user_rev, \
                 COALESCE(own.last_seq, r.read_seq) AS read_seq, COALESCE(own.last_cseq, r.read_cseq) AS read_cseq \
               FROM message_read_state r LEFT JOIN message_author own ON own.author_id = r.user_id \
                 AND own.channel_id = r.channel_id AND own.last_seq > r.own_floor AND own.last_seq > r.read_seq \
               WHERE ",
            $pairs,
            ") AS p \
             LEFT JOIN channel_state s ON s.channel_id = p.channel_id"
        )
    };
}
const UNREAD_POSTGRES: &str = unread_sql!("", "r.user_id = $1 AND r.channel_id = ANY($2)");
const UNREAD_SQLITE: &str =
    unread_sql!("", "r.user_id = $1 AND r.channel_id IN (SELECT unhex(value) FROM json_each($2))");
macro_rules! standings_sql {
    ($pairs:literal) => {
        unread_sql!(
            "p.user_id, COALESCE(s.last_seq, 0) AS last_seq, COALESCE(s.last_rev, 0) AS last_rev, \
             COALESCE(s.last_cseq, 0) AS last_cseq, s.last_message_id, s.last_message_at, \
             COALESCE(s.horizon_seq, 0) AS horizon_seq, s.horizon_id, ",
            $pairs
        )
    };
}
const STANDINGS_POSTGRES: &str =
    standings_sql!("(r.user_id, r.channel_id) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[]))");
const STANDINGS_SQLITE: &str = standings_sql!(
    "(r.user_id, r.channel_id) IN (SELECT unhex(value->>0), unhex(value->>1) FROM json_each($1))"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::db::sqlite_plan;

    #[tokio::test]
    async fn unread_counts_and_marks_on_sqlite_read_no_table_from_end_to_end() {
        for sql in [UNREAD_SQLITE, STANDINGS_SQLITE, MARK, MARK_OWN] {
            let plan = sqlite_plan(sql).await;
            assert!(plan.iter().any(|line| line.starts_with("SEARCH ")), "{plan:#?}");
            assert!(
                !plan.iter().any(|line| line.starts_with("SCAN message") || line.contains("TEMP B-TREE")),
                "{plan:#?}"
            );
        }
    }
}
