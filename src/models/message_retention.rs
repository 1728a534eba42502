//! The end of messages whose time is over (docs/adr/0052). The oldest messages of a channel are removed with everything
//! that belongs to them, and the channel remembers where its history begins: its horizon. Of messages that somebody
//! deleted, the content is removed when they have been deleted for long enough. Copies that were forwarded lose the text of
//! both a step later.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, detached, on, transaction};
use super::legal_hold::{self, ON_CHANNEL, not_held};
use super::message_children;
use super::message_search_index::{self, id_at};
use super::rows::{Column, Connection, RowsSql, sql_number};
use crate::ImksResult;
use crate::clock::{self, Micros};

/// A channel, and when its oldest message was written, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Oldest {
    /// The channel.
    pub channel_id: Uuid,
    /// When its oldest message was written.
    pub created_at: Option<Micros>,
}

/// Returns the next [`CHANNELS_AT_ONCE`] channels after `after` in the order of their ids; fewer if there are no more.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn oldest(db: &Db, after: Uuid) -> ImksResult<Vec<Oldest>> {
    Ok(on!(read db, pool => {
        sqlx::query_as(OLDEST).bind(after).bind(CHANNELS_AT_ONCE).fetch_all(pool).await?
    }))
}

/// Where the history of a channel begins: after this message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Horizon {
    /// The channel.
    pub channel_id: Uuid,
    /// The number of the newest message that was removed.
    pub horizon_seq: i64,
    /// The id of that message. Those before it in the channel have lower ids.
    pub horizon_id: Uuid,
}

/// A step of the removal of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The new horizon.
    pub horizon: Horizon,
    /// The number of messages that were removed.
    pub removed: usize,
}

/// Removes up to [`REMOVED_AT_ONCE`] of the oldest messages of a channel, of those written before `before`. Returns
/// `None` if there are none, or a hold concerns the channel.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn cut(db: &Db, channel: Uuid, before: Micros) -> ImksResult<Option<Cut>> {
    let db = db.clone();
    detached(async move { cut_in_task(&db, channel, before).await }).await
}

#[derive(Debug, FromRow)]
struct Removed {
    id: Uuid,
    seq: i64,
    cseq: i64,
    deleted_at: Option<Micros>,
}

async fn cut_in_task(db: &Db, channel: Uuid, before: Micros) -> ImksResult<Option<Cut>> {
    let [share, lock] = locks(db);
    Ok(transaction!(db, tx => {
        sqlx::query(share).execute(&mut *tx).await?;
        let horizon: Option<i64> = sqlx::query_scalar(lock).bind(channel).fetch_optional(&mut *tx).await?;
        let Some(horizon) = horizon else { return Ok(None) };
        let rows: Vec<Removed> = sqlx::query_as(FIRST).bind(channel).bind(horizon)
            .bind(horizon + REMOVED_AT_ONCE).bind(id_at(before)).fetch_all(&mut *tx).await?;
        let Some(last) = rows.last() else { return Ok(None) };
        let holds: i64 = sqlx::query_scalar(ON_CHANNEL).bind(channel).fetch_one(&mut *tx).await?;
        let authors: i64 = sqlx::query_scalar(ON_AUTHORS).bind(channel).bind(horizon).bind(last.seq)
            .fetch_one(&mut *tx).await?;
        if holds + authors > 0 {
            return Ok(None);
        }
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        let connection = &mut Connection::from(&mut *tx);
        message_search_index::lock(connection, channel).await?;
        message_children::remove(connection, &ids, clock::now_micros()).await?;
        sqlx::query(FORGET_TOMBSTONES).bind(channel).bind(last.seq).execute(&mut *tx).await?;
        let live = rows.iter().filter(|row| row.deleted_at.is_none()).count();
        sqlx::query(ADVANCE).bind(channel).bind(last.seq).bind(last.cseq).bind(last.id)
            .bind(i64::try_from(live).unwrap_or(0)).execute(&mut *tx).await?;
        let horizon = Horizon { channel_id: channel, horizon_seq: last.seq, horizon_id: last.id };
        Some(Cut { horizon, removed: rows.len() })
    }))
}

/// Removes the content of up to [`REMOVED_AT_ONCE`] messages of a channel that were deleted before `before`. Returns
/// whether there may be more, in this channel or another one.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn scrub(db: &Db, before: Micros) -> ImksResult<bool> {
    let channel: Option<Uuid> = on!(read db, pool => {
        sqlx::query_scalar(NEXT_DELETED).bind(before).fetch_optional(pool).await?
    });
    let Some(channel) = channel else { return Ok(false) };
    let db = db.clone();
    detached(async move { scrub_in_task(&db, channel, before).await }).await
}

#[derive(Debug, FromRow)]
struct Deleted {
    seq: i64,
    id: Option<Uuid>,
    deleted_at: Option<Micros>,
}

async fn scrub_in_task(db: &Db, channel: Uuid, before: Micros) -> ImksResult<bool> {
    let [share, lock] = locks(db);
    Ok(transaction!(db, tx => {
        sqlx::query(share).execute(&mut *tx).await?;
        // A change of such a message writes its whole row, which it has read under this lock.
        sqlx::query(lock).bind(channel).execute(&mut *tx).await?;
        let rows: Vec<Deleted> = sqlx::query_as(DELETED).bind(before).bind(channel).bind(REMOVED_AT_ONCE)
            .fetch_all(&mut *tx).await?;
        // A tombstone of an earlier version does not know its time.
        let later = |row: &Deleted| row.deleted_at.filter(|at| *at >= before);
        let ids: Vec<Uuid> = rows.iter().filter(|row| later(row).is_none()).filter_map(|row| row.id).collect();
        let connection = &mut Connection::from(&mut *tx);
        message_children::scrub(connection, &ids).await?;
        let columns =
            [Column::of(&rows, |_| channel), Column::of(&rows, |row| row.seq), Column::of(&rows, later)];
        NOTED.execute(connection, &columns).await?;
        !rows.is_empty()
    }))
}

/// Marks up to [`REMOVED_AT_ONCE`] copies of messages that have lost their text, for [`empty_copies`]. Returns whether there
/// may be more at `now`. A message is looked at once more [`SECOND_LOOK_AFTER`] later: whoever was forwarding it when it
/// lost its text did not see that, and was not seen.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn mark_copies(db: &Db, now: Micros) -> ImksResult<bool> {
    let db = db.clone();
    detached(async move { mark_in_task(&db, now).await }).await
}

async fn mark_in_task(db: &Db, now: Micros) -> ImksResult<bool> {
    let due = match db {
        Db::Postgres(_) => DUE_POSTGRES,
        Db::Sqlite(_) => DUE_SQLITE,
    };
    Ok(transaction!(db, tx => {
        let gone: Vec<(Uuid, Micros)> =
            sqlx::query_as(due).bind(now).bind(REMOVED_AT_ONCE).fetch_all(&mut *tx).await?;
        if gone.is_empty() {
            return Ok(false);
        }
        mark(&mut Connection::from(&mut *tx), gone, now).await?;
        true
    }))
}

/// Marks copies of these messages, each with when it was to be looked at.
async fn mark(
    connection: &mut Connection<'_>,
    gone: Vec<(Uuid, Micros)>,
    now: Micros,
) -> Result<(), sqlx::Error> {
    let marked: Vec<(Uuid,)> =
        MARK.fetch(connection, &[Column::of(&gone, |(original, _)| *original)]).await?;
    if i64::try_from(marked.len()).is_ok_and(|marked| marked >= REMOVED_AT_ONCE) {
        return Ok(());
    }
    let (first, second): (Vec<_>, Vec<_>) = gone.into_iter().partition(|(_, look_at)| *look_at == 0);
    let again = now.saturating_add(SECOND_LOOK_AFTER);
    let columns = [Column::of(&first, |(original, _)| *original), Column::of(&first, |_| again)];
    LOOK_AGAIN.execute(connection, &columns).await?;
    FORGET_GONE.execute(connection, &[Column::of(&second, |(original, _)| *original)]).await
}

/// A marked copy.
#[derive(Debug, FromRow)]
struct Marked {
    message_id: Uuid,
    channel_id: Uuid,
    is_free: bool,
}

/// Looks at the next [`REMOVED_AT_ONCE`] marked copies after `after`, in the order of their ids, and takes the text out of
/// those that no hold concerns. Returns the last one; `None` if there are no more.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn empty_copies(db: &Db, after: Uuid) -> ImksResult<Option<Uuid>> {
    let marked: Vec<Marked> = on!(read db, pool => {
        sqlx::query_as(MARKED).bind(after).bind(REMOVED_AT_ONCE).fetch_all(pool).await?
    });
    let Some(last) = marked.last().map(|copy| copy.message_id) else { return Ok(None) };
    let free = marked.into_iter().filter(|copy| copy.is_free);
    let copies: Vec<(Uuid, Uuid)> = free.map(|copy| (copy.message_id, copy.channel_id)).collect();
    if !copies.is_empty() {
        let db = db.clone();
        detached(async move { empty_in_task(&db, &copies).await }).await?;
    }
    Ok(Some(last))
}

/// Takes the text out of these copies, each a message and its channel.
async fn empty_in_task(db: &Db, copies: &[(Uuid, Uuid)]) -> ImksResult<()> {
    let [share, _] = locks(db);
    transaction!(db, tx => {
        sqlx::query(share).execute(&mut *tx).await?;
        empty(&mut Connection::from(&mut *tx), copies).await?;
    });
    Ok(())
}

async fn empty(connection: &mut Connection<'_>, copies: &[(Uuid, Uuid)]) -> Result<(), sqlx::Error> {
    let is_postgres = matches!(connection, Connection::Postgres(_));
    if is_postgres {
        // Whoever takes a user out of a copy writes it as it was read under this lock.
        LOCK_ALL_POSTGRES.execute(connection, &[Column::of(copies, |(_, channel)| *channel)]).await?;
    }
    let free: Vec<(Uuid,)> = FREE.fetch(connection, &[Column::of(copies, |(message, _)| *message)]).await?;
    let sql = if is_postgres { &EMPTY_POSTGRES } else { &EMPTY_SQLITE };
    sql.execute(connection, &[Column::of(&free, |(message,)| *message)]).await
}

/// Returns the statements that lock out new holds, and the channel.
pub(super) fn locks(db: &Db) -> [&'static str; 2] {
    match db {
        Db::Postgres(_) => [legal_hold::LOCK_SHARED_POSTGRES, LOCK_POSTGRES],
        Db::Sqlite(_) => [legal_hold::LOCK_SQLITE, LOCK_SQLITE],
    }
}

/// The channels that one call of [`oldest`] returns.
pub const CHANNELS_AT_ONCE: i64 = 500;
sql_number! {
    /// The most messages that one step removes, or takes the content of.
    pub const REMOVED_AT_ONCE: i64 = removed_at_once = 1_000;
}
/// Longer than any transaction that stores a copy, in microseconds.
pub const SECOND_LOOK_AFTER: Micros = 60_000_000;
const OLDEST: &str = "SELECT s.channel_id, m.created_at FROM (SELECT channel_id, horizon_seq FROM channel_state \
      WHERE channel_id > $1 ORDER BY channel_id LIMIT $2) AS s \
    LEFT JOIN message m ON m.channel_id = s.channel_id AND m.seq = (SELECT MIN(n.seq) FROM message n \
      WHERE n.channel_id = s.channel_id AND n.seq > s.horizon_seq) ORDER BY s.channel_id";
const LOCK_POSTGRES: &str = "SELECT horizon_seq FROM channel_state WHERE channel_id = $1 FOR UPDATE";
/// A transaction on SQLite is alone anyway.
const LOCK_SQLITE: &str = "SELECT horizon_seq FROM channel_state WHERE channel_id = $1";
/// Looks at the next numbers only, which have no holes: with a limit instead, the last step would look through the rest of
/// the channel for more.
const FIRST: &str = "SELECT id, seq, cseq, deleted_at FROM message \
    WHERE channel_id = $1 AND seq > $2 AND seq <= $3 AND id < $4 ORDER BY seq";
/// The holds on authors whom no row says to have written here, because a program wrote in their name.
const ON_AUTHORS: &str = "SELECT COUNT(*) FROM legal_hold h WHERE h.released_at IS NULL AND h.target_id IN \
    (SELECT author_id FROM message WHERE channel_id = $1 AND seq > $2 AND seq <= $3)";
const FORGET_TOMBSTONES: &str = "DELETE FROM message_tombstone WHERE channel_id = $1 AND seq <= $2";
const ADVANCE: &str = "UPDATE channel_state SET horizon_seq = $2, horizon_cseq = $3, horizon_id = $4, \
    message_count = message_count - $5 WHERE channel_id = $1";
macro_rules! deleted {
    ($columns:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM message_tombstone t LEFT JOIN message m ON m.channel_id = t.channel_id AND m.seq = t.seq \
             WHERE t.deleted_at < $1 AND ",
            not_held!("t.channel_id", "m.author_id"),
            " ",
            $rest
        )
    };
}
const NEXT_DELETED: &str = deleted!("t.channel_id", "ORDER BY t.deleted_at LIMIT 1");
const DELETED: &str =
    deleted!("t.seq, m.id, m.deleted_at", "AND t.channel_id = $2 ORDER BY t.deleted_at LIMIT $3");
static NOTED: RowsSql = RowsSql::new(
    "channel_id, seq, at",
    "UPDATE message_tombstone SET deleted_at = r.at FROM r \
     WHERE message_tombstone.channel_id = r.channel_id AND message_tombstone.seq = r.seq",
);
/// Whoever works at the same messages waits.
const DUE_POSTGRES: &str = "SELECT original_id, look_at FROM message_gone WHERE look_at <= $1 ORDER BY look_at LIMIT $2 \
    FOR UPDATE";
const DUE_SQLITE: &str =
    "SELECT original_id, look_at FROM message_gone WHERE look_at <= $1 ORDER BY look_at LIMIT $2";
static MARK: RowsSql = RowsSql::new(
    "id",
    concat!(
        "UPDATE message_forward SET original_gone = TRUE WHERE message_id IN \
           (SELECT f.message_id FROM r CROSS JOIN message_forward f \
            WHERE f.original_id = r.id AND NOT f.original_gone AND r.id IS NOT NULL LIMIT ",
        removed_at_once!(),
        ") RETURNING message_id"
    ),
);
static LOOK_AGAIN: RowsSql = RowsSql::new(
    "id, at",
    "UPDATE message_gone SET look_at = r.at FROM r WHERE message_gone.original_id = r.id",
);
static FORGET_GONE: RowsSql = RowsSql::new(
    "id",
    "DELETE FROM message_gone WHERE original_id IN (SELECT id FROM r WHERE id IS NOT NULL)",
);
const MARKED: &str = concat!(
    "SELECT f.message_id, f.channel_id, ",
    not_held!("f.channel_id", "m.author_id, f.author_id"),
    " AS is_free FROM message_forward f JOIN message m ON m.id = f.message_id \
     WHERE f.original_gone AND f.message_id > $1 ORDER BY f.message_id LIMIT $2"
);
/// Takes the locks of channels in the order in which writers do. A transaction on SQLite is alone anyway.
static LOCK_ALL_POSTGRES: RowsSql = RowsSql::new(
    "id",
    "SELECT c.channel_id FROM r JOIN channel_state c ON c.channel_id = r.id ORDER BY c.channel_id FOR UPDATE OF c",
);
/// Copies that no hold concerns: a hold may be new since they were found.
static FREE: RowsSql = RowsSql::new(
    "id",
    concat!(
        "UPDATE message_forward SET original_id = NULL, original_gone = FALSE \
         FROM r JOIN message m ON m.id = r.id WHERE message_forward.message_id = r.id AND ",
        not_held!("message_forward.channel_id", "m.author_id, message_forward.author_id"),
        " RETURNING message_forward.message_id"
    ),
);
/// Leaves of a copy what readers see of it, as `Forward::hide_gone`.
static EMPTY_POSTGRES: RowsSql = RowsSql::new(
    "id",
    "UPDATE message SET forward_of = (forward_of::jsonb || \
       jsonb_build_object('body', '', 'deleted_at', forward_of::jsonb->'created_at'))::text \
     FROM r WHERE message.id = r.id",
);
static EMPTY_SQLITE: RowsSql = RowsSql::new(
    "id",
    "UPDATE message SET forward_of = \
       json_set(forward_of, '$.body', '', '$.deleted_at', json_extract(forward_of, '$.created_at')) \
     FROM r WHERE message.id = r.id",
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::db::sqlite_plan;

    #[tokio::test]
    async fn what_is_over_is_found_by_indexes() {
        let mark = MARK.sqlite_text(1, 2).unwrap();
        for (sql, index) in [
            (OLDEST, "SEARCH m USING INDEX message_channel_seq (channel_id=? AND seq=?)"),
            (FIRST, "SEARCH message USING INDEX message_channel_seq (channel_id=? AND seq>? AND seq<?)"),
            (NEXT_DELETED, "INDEX message_tombstone_due (deleted_at<?)"),
            (DELETED, "INDEX message_tombstone_kept (channel_id=? AND deleted_at<?)"),
            (MARKED, "INDEX message_forward_gone"),
            (DUE_SQLITE, "INDEX message_gone_look (look_at<?)"),
            (&*mark, "SEARCH f USING"),
        ] {
            let plan = sqlite_plan(sql).await;
            assert!(plan.iter().any(|line| line.contains(index)), "{plan:#?}");
        }
    }
}
