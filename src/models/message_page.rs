//! The reading of messages: pages of history, and messages by id.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::db::{Db, json_ids, on};
use super::message::{ANSWER_BYTES_MAX, MessageDetail, ReplyPreview};
use super::message_ack;
use super::message_forward;
use super::message_id::seq_of;
use super::message_poll_vote;
use super::message_reaction;
use super::message_row::{Message, message_columns};
use crate::{ImksError, ImksResult};

/// The position of a page in its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The newest messages.
    Latest,
    /// Messages older than this one, which need not exist any more.
    Before(Uuid),
    /// Messages with a smaller number.
    BeforeSeq(i64),
    /// Messages newer than this one, which need not exist any more.
    After(Uuid),
    /// Messages around this one, which must exist.
    Around(Uuid),
}

/// A request for a page of history.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// The position of the page.
    pub position: Position,
    /// The thread whose replies to return; all messages if absent.
    pub thread_id: Option<Uuid>,
    /// The most messages to return, clamped to between 1 and [`PAGE_LIMIT`].
    pub limit: u32,
}

/// The most messages in one page.
pub const PAGE_LIMIT: u32 = 100;

/// A page of history, oldest message first. It ends early when it reaches its limit in bytes.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct MessagePage {
    /// The messages. Deleted ones have no body.
    pub messages: Vec<MessageDetail>,
    /// Whether older messages exist.
    pub has_more_before: bool,
    /// Whether newer messages exist.
    pub has_more_after: bool,
    /// The first and last `seq` of the page; `None` if it is empty.
    pub seq_range: Option<(i64, i64)>,
}

/// Returns a page of a channel's history of about `bytes` at most, as `reader` sees it.
///
/// # Errors
/// [`ImksError::NotFound`] when the message to look around does not exist in this channel, and
/// [`ImksError::Database`].
pub async fn page(db: &Db, reader: Uuid, channel: Uuid, page: Page, bytes: usize) -> ImksResult<MessagePage> {
    let room = Room { rows: page.limit.clamp(1, PAGE_LIMIT) as usize, bytes };
    let scan = Scan { db, channel, thread: page.thread_id };
    let (rows, before, after) = match page.position {
        Position::Latest => {
            let (rows, more) = scan.older(i64::MAX, room).await?;
            (rows, more, false)
        }
        Position::Before(id) => scan.before(seq_of(id), room).await?,
        Position::BeforeSeq(seq) => scan.before(seq, room).await?,
        Position::After(id) => {
            let (rows, more) = scan.newer(seq_of(id), room).await?;
            (rows, seq_of(id) > 0 && scan.any_until(seq_of(id)).await?, more)
        }
        Position::Around(id) => scan.around(id, room).await?,
    };
    let seq_range = rows.first().zip(rows.last()).map(|(first, last)| (first.seq, last.seq));
    let messages = views(db, reader, rows).await?;
    Ok(MessagePage { messages, has_more_before: before, has_more_after: after, seq_range })
}

/// Returns the messages with these ids in this channel, as `reader` sees them, oldest first, and whether more
/// exist than fit into about `bytes`. Unknown ids are left out.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn get_many(
    db: &Db,
    reader: Uuid,
    channel: Uuid,
    ids: &[Uuid],
    bytes: usize,
) -> ImksResult<(Vec<MessageDetail>, bool)> {
    let (mut rows, more) = rows_by_id(db, ids, bytes).await?;
    rows.retain(|row| row.channel_id == channel);
    rows.sort_unstable_by_key(|row| row.seq);
    Ok((views(db, reader, rows).await?, more))
}

/// Returns the first of these messages in this channel, as `reader` sees them and in this order, until they take about
/// `bytes`, and how many of the ids that covers: at least one, so that a list always goes on.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn get_first(
    db: &Db,
    reader: Uuid,
    channel: Uuid,
    ids: &[Uuid],
    bytes: usize,
) -> ImksResult<(Vec<MessageDetail>, usize)> {
    let (mut rows, covered) = rows_in_order(db, ids, bytes).await?;
    rows.retain(|row| row.channel_id == channel);
    let mut messages = views(db, reader, rows).await?;
    messages.sort_by_key(|message| ids.iter().position(|id| *id == message.id));
    Ok((messages, covered))
}

/// Returns the rows of the first of these ids until they take `bytes`, and how many of the ids that covers: at least one.
pub(super) async fn rows_in_order(db: &Db, ids: &[Uuid], bytes: usize) -> ImksResult<(Vec<Message>, usize)> {
    let (mut rows, mut left, mut covered) = (Vec::new(), bytes, 0);
    for chunk in ids.chunks(IN_ORDER_AT_ONCE) {
        let (mut found, cut) = rows_by_id(db, chunk, left.max(1)).await?;
        if cut {
            // Which of the chunk are missing does not follow their order: the page ends before it.
            if rows.is_empty() {
                (rows, covered) = (rows_by_id(db, &chunk[..1], 1).await?.0, 1);
            }
            break;
        }
        left = left.saturating_sub(found.iter().map(Message::bytes).sum());
        covered += chunk.len();
        rows.append(&mut found);
        if left == 0 {
            break;
        }
    }
    Ok((rows, covered))
}

/// Converts rows to messages as `reader` sees them. A feature that shows something that depends on the reader
/// adds one line here, and costs a query only if a message has something of it.
pub(crate) async fn views(db: &Db, reader: Uuid, rows: Vec<Message>) -> ImksResult<Vec<MessageDetail>> {
    let mut messages = with_replies(db, rows).await?;
    message_reaction::mark_own(db, reader, &mut messages).await?;
    message_poll_vote::mark_own(db, reader, &mut messages).await?;
    message_ack::mark_own(db, reader, &mut messages).await?;
    message_forward::hide_deleted(db, &mut messages).await?;
    Ok(messages)
}

async fn with_replies(db: &Db, rows: Vec<Message>) -> ImksResult<Vec<MessageDetail>> {
    let quoted: Vec<Uuid> = rows.iter().filter_map(|row| row.reply_to_message_id).collect();
    let quoted: HashMap<Uuid, ReplyPreview> = match quoted.is_empty() {
        true => HashMap::new(),
        false => previews(db, &quoted).await?,
    };
    let view = |row: Message| {
        let reply_to = row.reply_to_message_id.and_then(|id| quoted.get(&id)).cloned().map(Box::new);
        row.into_detail(reply_to)
    };
    rows.into_iter().map(view).collect()
}

/// Returns the previews of the messages with these ids. Only some rows are in memory at once: whole messages may take much
/// more of it than the answer that quotes them.
async fn previews(db: &Db, ids: &[Uuid]) -> ImksResult<HashMap<Uuid, ReplyPreview>> {
    let mut previews = HashMap::with_capacity(ids.len());
    for chunk in ids.chunks(QUOTED_AT_ONCE) {
        let mut rows = by_id(db, chunk);
        while let Some(row) = rows.try_next().await? {
            previews.insert(row.id, (&row).into());
        }
    }
    Ok(previews)
}

/// Returns the messages with these ids until they take `bytes`, and whether there are more.
pub(crate) async fn rows_by_id(db: &Db, ids: &[Uuid], bytes: usize) -> ImksResult<(Vec<Message>, bool)> {
    Room { rows: ids.len(), bytes }.fill(by_id(db, ids)).await
}

/// Returns the messages with these ids, in no order.
fn by_id<'a>(db: &'a Db, ids: &'a [Uuid]) -> BoxStream<'a, Result<Message, sqlx::Error>> {
    match db {
        Db::Postgres(pool) => sqlx::query_as(BY_IDS_POSTGRES).bind(ids).fetch(pool),
        Db::Sqlite(sqlite) => sqlx::query_as(BY_IDS_SQLITE).bind(json_ids(ids)).fetch(&sqlite.reader),
    }
}

/// Returns the messages with these ids, or the first of them: PostgreSQL, of which all rows are in memory before the first
/// one is seen, returns them in the order of the ids, and no more than one after those that take `bytes`.
pub(crate) fn first_by_id<'a>(
    db: &'a Db,
    ids: &'a [Uuid],
    bytes: usize,
) -> BoxStream<'a, Result<Message, sqlx::Error>> {
    match db {
        Db::Postgres(pool) => {
            sqlx::query_as(FIRST_BY_ID_POSTGRES).bind(ids).bind(number_of(bytes)).fetch(pool)
        }
        Db::Sqlite(_) => by_id(db, ids),
    }
}

/// A part of a channel: the messages with greater numbers than `after`, up to `until`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeqRange {
    pub channel: Uuid,
    pub after: i64,
    pub until: i64,
}

/// Returns the messages of these ranges: those of the first range first, the newest of each first. PostgreSQL returns no
/// more than one after those that take `bytes`, as for [`first_by_id`].
pub(crate) fn in_ranges<'a>(
    db: &'a Db,
    ranges: &[SeqRange],
    bytes: usize,
) -> BoxStream<'a, Result<Message, sqlx::Error>> {
    match db {
        Db::Postgres(pool) => {
            let channels: Vec<Uuid> = ranges.iter().map(|range| range.channel).collect();
            let (after, until): (Vec<i64>, Vec<i64>) =
                ranges.iter().map(|range| (range.after, range.until)).unzip();
            let query = sqlx::query_as(IN_RANGES_POSTGRES).bind(channels).bind(after).bind(until);
            query.bind(number_of(bytes)).fetch(pool)
        }
        Db::Sqlite(sqlite) => {
            let of_range = |range: &SeqRange| (range.channel.simple().to_string(), range.after, range.until);
            let ranges = json!(ranges.iter().map(of_range).collect::<Vec<_>>()).to_string();
            sqlx::query_as(IN_RANGES_SQLITE).bind(ranges).fetch(&sqlite.reader)
        }
    }
}

/// Returns a limit in bytes as SQL gets it: one that no row is below would hide that there are rows.
fn number_of(bytes: usize) -> i64 {
    i64::try_from(bytes.max(1)).unwrap_or(i64::MAX)
}

/// The room that is left in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub rows: usize,
    pub bytes: usize,
}

impl Room {
    /// Reads rows until the answer is full. Returns them, and whether there are more.
    async fn fill(
        mut self,
        mut rows: BoxStream<'_, Result<Message, sqlx::Error>>,
    ) -> ImksResult<(Vec<Message>, bool)> {
        let mut taken = Vec::new();
        while let Some(row) = rows.try_next().await? {
            if self.is_full() {
                return Ok((taken, true));
            }
            self.take(&row);
            taken.push(row);
        }
        Ok((taken, false))
    }

    /// Subtracts a message. The message that reaches the limit is still included.
    pub(crate) fn take(&mut self, row: &Message) {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(row.bytes());
    }

    pub(crate) fn is_full(&self) -> bool {
        self.rows == 0 || self.bytes == 0
    }
}

struct Scan<'a> {
    db: &'a Db,
    channel: Uuid,
    thread: Option<Uuid>,
}

impl Scan<'_> {
    /// Returns rows with a smaller `seq`, oldest first, and whether older ones remain.
    async fn older(&self, seq: i64, room: Room) -> ImksResult<(Vec<Message>, bool)> {
        let (mut rows, more) = self.rows([OLDER, OLDER_IN_THREAD], seq, room).await?;
        rows.reverse();
        Ok((rows, more))
    }

    /// Returns rows with a greater `seq`, oldest first, and whether newer ones remain.
    async fn newer(&self, seq: i64, room: Room) -> ImksResult<(Vec<Message>, bool)> {
        self.rows([NEWER, NEWER_IN_THREAD], seq, room).await
    }

    /// Returns rows with a smaller `seq`, and whether older and newer ones remain.
    async fn before(&self, seq: i64, room: Room) -> ImksResult<(Vec<Message>, bool, bool)> {
        let (rows, more) = self.older(seq, room).await?;
        Ok((rows, more, self.any_from(seq).await?))
    }

    async fn around(&self, id: Uuid, room: Room) -> ImksResult<(Vec<Message>, bool, bool)> {
        let (found, _) = rows_by_id(self.db, &[id], ANSWER_BYTES_MAX).await?;
        let found = found.into_iter().find(|row| row.channel_id == self.channel);
        let seq = found.ok_or(ImksError::NotFound("message"))?.seq;
        let before = Room { rows: room.rows / 2, bytes: room.bytes / 2 };
        let after = Room { rows: room.rows - before.rows, bytes: room.bytes - before.bytes };
        let (mut rows, more_before) = self.older(seq, before).await?;
        let (newer, more_after) = self.newer(seq - 1, after).await?;
        rows.extend(newer);
        Ok((rows, more_before, more_after))
    }

    async fn any_from(&self, seq: i64) -> ImksResult<bool> {
        Ok(!self.newer(seq - 1, ONE).await?.0.is_empty())
    }

    async fn any_until(&self, seq: i64) -> ImksResult<bool> {
        Ok(!self.older(seq + 1, ONE).await?.0.is_empty())
    }

    async fn rows(&self, sql: [&'static str; 2], seq: i64, room: Room) -> ImksResult<(Vec<Message>, bool)> {
        let one_more = i64::try_from(room.rows).unwrap_or(i64::MAX).saturating_add(1);
        match self.thread {
            None => on!(read self.db, pool => {
                room.fill(sqlx::query_as(sql[0]).bind(self.channel).bind(seq).bind(one_more).fetch(pool)).await
            }),
            Some(thread) => on!(read self.db, pool => {
                let query = sqlx::query_as(sql[1]).bind(self.channel).bind(seq).bind(one_more).bind(thread);
                room.fill(query.fetch(pool)).await
            }),
        }
    }
}

/// The messages of a list that are read with one query.
const IN_ORDER_AT_ONCE: usize = 10;
/// The quoted messages that are read with one query.
const QUOTED_AT_ONCE: usize = 200;
const ONE: Room = Room { rows: 1, bytes: ANSWER_BYTES_MAX };
const OLDER: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM message WHERE channel_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3"
);
const NEWER: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM message WHERE channel_id = $1 AND seq > $2 ORDER BY seq LIMIT $3"
);
const OLDER_IN_THREAD: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM message WHERE thread_id = $4 AND seq < $2 AND channel_id = $1 ORDER BY seq DESC LIMIT $3"
);
const NEWER_IN_THREAD: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM message WHERE thread_id = $4 AND seq > $2 AND channel_id = $1 ORDER BY seq LIMIT $3"
);
const BY_IDS_POSTGRES: &str = concat!("SELECT ", message_columns!(), " FROM message WHERE id = ANY($1)");
const BY_IDS_SQLITE: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM message WHERE id IN (SELECT unhex(value) FROM json_each($1))"
);
/// The bytes of the messages before the previous one: below the limit for all that fit, and for one more. It looks at no
/// text, and counts less than `Message::bytes`, so whoever counts with that sees the end of the room before the rows end.
macro_rules! bytes_before {
    ($order:literal) => {
        concat!(
            "COALESCE(SUM(octet_length(body) + COALESCE(octet_length(forward_of), 0) \
               + COALESCE(octet_length(attachments), 0) + COALESCE(octet_length(embeds), 0) \
               + COALESCE(octet_length(reactions), 0) + COALESCE(octet_length(poll), 0)) \
             OVER (ORDER BY ",
            $order,
            " ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING), 0) AS bytes_before"
        )
    };
}
const FIRST_BY_ID_POSTGRES: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM (SELECT place, message.*, ",
    bytes_before!("place"),
    " FROM UNNEST($1::uuid[]) WITH ORDINALITY AS r(of_message, place) \
       JOIN message ON id = of_message AND id = ANY($1)) AS message \
     WHERE bytes_before < $2 ORDER BY place"
);
const IN_RANGES_POSTGRES: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM (SELECT place, message.*, ",
    bytes_before!("place, seq DESC"),
    " FROM UNNEST($1::uuid[], $2::int8[], $3::int8[]) WITH ORDINALITY AS r(of_channel, after_seq, until_seq, place) \
       JOIN message ON channel_id = of_channel AND seq > after_seq AND seq <= until_seq) AS message \
     WHERE bytes_before < $4 ORDER BY place, seq DESC"
);
const IN_RANGES_SQLITE: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM (SELECT key AS place, unhex(value->>0) AS of_channel, value->>1 AS after_seq, value->>2 AS until_seq \
       FROM json_each($1)) \
     CROSS JOIN message WHERE channel_id = of_channel AND seq > after_seq AND seq <= until_seq \
     ORDER BY place, seq DESC"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::db::sqlite_plan;

    #[tokio::test]
    async fn pages_of_history_on_sqlite_read_no_table_from_end_to_end() {
        for sql in [OLDER, NEWER, OLDER_IN_THREAD, NEWER_IN_THREAD, BY_IDS_SQLITE, IN_RANGES_SQLITE] {
            let plan = sqlite_plan(sql).await;
            let has = |start: &str| plan.iter().any(|line| line.starts_with(start));
            assert!(has("SEARCH message") && !has("SCAN message"), "{plan:#?}");
            // Only ranges of several channels have to be put in order.
            assert_eq!(has("USE TEMP B-TREE"), sql == IN_RANGES_SQLITE, "{plan:#?}");
        }
    }
}
