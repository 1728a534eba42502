//! Streamed messages: text that is added piece by piece, and the end of the stream (docs/adr/0050). Every piece is
//! committed before it is acked; the row of its message gets it a moment later.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::append::records::{Lookup, Record, Removable, Write};
use super::append::{LockedChannel, Mutation, References};
use super::channel_change::ChangeKind;
use super::db::{Db, on};
use super::message::{MessageDetail, MessageType};
use super::message_edit::MessageUpdate;
use super::message_row::Message;
use super::message_stream_state::{Piece, Stream, StreamState, Tail, check_growth};
use super::rows::{Column, RowsSql, sql_number};
use super::text::{BODY_CHARS_MAX, ShortText};
use crate::clock::Micros;
use crate::error::{Precondition, Present};
use crate::{ImksError, ImksResult};

/// A piece of text; empty to only renew the lease.
pub type StreamText = ShortText<0, BODY_CHARS_MAX>;

/// A streamed message, as a request names it.
#[derive(Debug, Clone, Copy)]
pub struct StreamedMessage {
    /// The message.
    pub id: Uuid,
    /// Whether the actor may write nowhere but in threads.
    pub only_in_threads: bool,
    /// The type that the message must have, if any: a back end adds nothing to what a person writes.
    pub kind: Option<MessageType>,
}

/// A piece of text for a streamed message.
#[derive(Debug, Clone)]
pub struct AppendText {
    /// The message.
    pub target: StreamedMessage,
    /// The number of characters before the piece.
    pub offset: usize,
    /// The piece.
    pub text: StreamText,
}

/// The end of a stream.
#[derive(Debug, Clone, Copy)]
pub struct EndStream {
    /// The message.
    pub target: StreamedMessage,
    /// The state that remains.
    pub state: StreamState,
    /// The number of characters that the text must have.
    pub offset: Option<usize>,
    /// Whether the stream only ends if its lease is over.
    pub if_over: bool,
}

/// The payload of `message:append`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Appended {
    id: Uuid,
    channel_id: Uuid,
    /// The number of characters before the piece.
    offset: usize,
    text: String,
}

impl Mutation for AppendText {
    /// How far the stream has come.
    type Done = Stream;

    fn refers(&self, references: &mut References<'_>) {
        self.target.refers(references);
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Stream> {
        let (id, text, now) = (self.target.id, self.text.as_str(), channel.now());
        let (row, stream) = self.target.find(channel)?;
        let piece = Piece::of(&row.body, self.offset, text);
        if !stream.is_active() {
            // A repeat of a piece that was the last one gets the answer of the first.
            return match piece {
                Ok(Piece::Known) => Ok(stream),
                _ => Err(ImksError::FailedPrecondition(Precondition::StreamEnded)),
            };
        }
        let is_new = piece? == Piece::New && !text.is_empty();
        if is_new {
            check_growth(&row.body, text)?;
        }
        let mut live = Live::of(channel, id)?;
        live.tail.renew(now);
        if is_new {
            let channel_id = live.channel_id;
            let is_rewritten = channel.extend(id, text)?;
            if live.tail.add(text, now, is_rewritten) {
                channel.rewrite(id)?;
            }
            let payload = Appended { id, channel_id, offset: self.offset, text: text.into() };
            channel.tell_in_passing("message:append", Arc::new(payload));
        }
        channel.insert(live);
        Ok(self.target.find(channel)?.1)
    }
}

impl Mutation for EndStream {
    /// The message as everybody sees it, with the number of its last change.
    type Done = Arc<MessageDetail>;

    fn refers(&self, references: &mut References<'_>) {
        self.target.refers(references);
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Arc<MessageDetail>> {
        let (id, now) = (self.target.id, channel.now());
        let (_, stream) = self.target.find(channel)?;
        if self.offset.is_some_and(|offset| offset != stream.offset) {
            return Err(ImksError::NotAsExpected(Present::Offset(stream.offset)));
        }
        if !stream.is_active() {
            return match stream.state == self.state || self.if_over {
                true => channel.detail(id),
                false => Err(ImksError::FailedPrecondition(Precondition::StreamEnded)),
            };
        }
        if self.if_over && !Live::of(channel, id)?.tail.is_over(now) {
            return channel.detail(id);
        }
        stop(channel, id)?;
        channel.change(id, ChangeKind::Stream, |row| end(row, self.state))?;
        let message = channel.detail(id)?;
        let update = MessageUpdate { message: Arc::clone(&message), kind: "stream" };
        channel.tell_change("message:updated", message.rev, update)?;
        Ok(message)
    }
}

impl StreamedMessage {
    fn refers(self, references: &mut References<'_>) {
        references.message(self.id);
        references.rows::<Live>(self.id);
    }

    /// Returns the message, which must be the actor's, whatever else the actor may do.
    fn find<'a>(self, channel: &'a LockedChannel<'_>) -> ImksResult<(&'a Message, Stream)> {
        let row = channel.message(self.id)?;
        let is_of_kind = self.kind.is_none_or(|kind| row.kind == kind as i32);
        if row.author_id != channel.scope().actor.id || !is_of_kind {
            return Err(ImksError::NotAuthor);
        }
        if self.only_in_threads && row.thread_id.is_none() {
            return Err(ImksError::Forbidden(SEND_MESSAGES));
        }
        if row.deleted_at.is_some() {
            return Err(ImksError::MessageDeleted);
        }
        let stream = Stream::from_stored(row.stream, &row.body);
        Ok((row, stream.ok_or(ImksError::NotFound("streamed message"))?))
    }
}

/// Records that more text may come for a new message.
pub(super) fn start(channel: &mut LockedChannel<'_>, message: &MessageDetail) {
    if message.stream.is_some_and(Stream::is_active) {
        let tail = Tail::new(channel.now());
        channel.insert(Live { message_id: message.id, channel_id: message.channel_id, tail });
    }
}

/// Prepares the [end] of a stream by a change of its message, if more text may come.
///
/// # Errors
/// [`ImksError::NotFound`].
pub(super) fn stop(channel: &mut LockedChannel<'_>, message: Uuid) -> ImksResult<()> {
    if channel.message(message)?.stream == Some(StreamState::Active as i32) {
        channel.remove::<Live>(message);
    }
    Ok(())
}

/// Ends a stream in the row of its message, unless it has ended before.
pub(super) fn end(row: &mut Message, state: StreamState) {
    if row.stream == Some(StreamState::Active as i32) {
        row.stream = Some(state as i32);
    }
}

/// A row of `message_stream`: a message whose stream is active.
#[derive(Debug, Clone)]
struct Live {
    message_id: Uuid,
    channel_id: Uuid,
    tail: Tail,
}

impl Live {
    /// Returns the row of a message whose stream is active.
    fn of(channel: &mut LockedChannel<'_>, message: Uuid) -> ImksResult<Self> {
        if let Some(Write::Stored(live)) = channel.write_of::<Self>(&message) {
            return Ok(live.clone());
        }
        let found = channel.rows::<Self>(&message)?.first().cloned();
        found.ok_or(ImksError::Internal("a stream without its row"))
    }
}

impl<'r, R: sqlx::Row> FromRow<'r, R> for Live
where
    &'static str: sqlx::ColumnIndex<R>,
    Uuid: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let tail = Tail {
            text: row.try_get("tail")?,
            folded_at: row.try_get("folded_at")?,
            expires_at: row.try_get("expires_at")?,
        };
        Ok(Self { message_id: row.try_get("message_id")?, channel_id: row.try_get("channel_id")?, tail })
    }
}

impl Record for Live {
    /// The message.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.message_id
    }

    fn insert() -> &'static RowsSql {
        &UPSERT
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::of(rows, |row| row.message_id),
            Column::of(rows, |row| row.channel_id),
            Column::of(rows, |row| &row.tail.text),
            Column::of(rows, |row| row.tail.folded_at),
            Column::of(rows, |row| row.tail.expires_at),
        ]
    }
}

impl Removable for Live {
    fn delete() -> &'static RowsSql {
        &DELETE
    }

    fn key_columns(messages: &[Uuid]) -> Vec<Column<'_>> {
        vec![Column::of(messages, |message| *message)]
    }
}

impl Lookup for Live {
    /// The message.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.message_id
    }

    fn select() -> &'static RowsSql {
        &SELECT
    }

    fn key_columns(messages: &[Uuid]) -> Vec<Column<'_>> {
        vec![Column::of(messages, |message| *message)]
    }
}

/// A stream whose lease is over, with what is needed to end it in the name of its author.
#[derive(Debug, FromRow)]
#[allow(missing_docs, reason = "named as the columns")]
pub struct SilentStream {
    pub message_id: Uuid,
    pub channel_id: Uuid,
    pub author_id: Uuid,
    pub author_username: String,
}

/// Returns up to [`SILENT_AT_ONCE`] streams whose lease is over at `now`.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn silent(db: &Db, now: Micros) -> ImksResult<Vec<SilentStream>> {
    Ok(on!(read db, pool => {
        sqlx::query_as(SILENT).bind(now).bind(SILENT_AT_ONCE).fetch_all(pool).await?
    }))
}

/// Returns messages of these channels for which more text may come, each with its channel, up to `limit` and
/// [`ACTIVE_AT_ONCE`].
///
/// # Errors
/// [`ImksError::Database`].
pub(crate) async fn active(db: &Db, channels: &[Uuid], limit: usize) -> ImksResult<Vec<(Uuid, Uuid)>> {
    let mut found: Vec<(Uuid, Uuid)> = ACTIVE.read(db, &[Column::of(channels, |id| *id)]).await?;
    found.truncate(limit.min(ACTIVE_AT_ONCE));
    Ok(found)
}

/// The permission to write in a channel outside of threads.
const SEND_MESSAGES: &str = "SEND_MESSAGES";
/// The streams that one call of [`silent`] returns.
pub const SILENT_AT_ONCE: i64 = 100;
sql_number! {
    /// The messages that one call of [`active`] returns.
    const ACTIVE_AT_ONCE: usize = active_at_once = 200;
}
// A version that knows no streams deletes a message and leaves its row here, which would come first every time.
const SILENT: &str = "SELECT s.message_id, m.channel_id, m.author_id, m.author_username FROM message_stream s \
    JOIN message m ON m.id = s.message_id WHERE s.expires_at <= $1 AND m.stream = 0 AND m.deleted_at IS NULL \
    ORDER BY s.expires_at LIMIT $2";
static ACTIVE: RowsSql = RowsSql::new(
    "wanted",
    concat!(
        "SELECT s.message_id, s.channel_id FROM r JOIN message_stream s ON s.channel_id = r.wanted \
         WHERE r.wanted IS NOT NULL LIMIT ",
        active_at_once!()
    ),
);
static UPSERT: RowsSql = RowsSql::new(
    "message_id, channel_id, tail, folded_at, expires_at",
    "INSERT INTO message_stream (message_id, channel_id, tail, folded_at, expires_at) \
     SELECT * FROM r WHERE r.message_id IS NOT NULL ON CONFLICT (message_id) DO UPDATE \
     SET tail = excluded.tail, folded_at = excluded.folded_at, expires_at = excluded.expires_at",
);
static SELECT: RowsSql = RowsSql::new(
    "wanted",
    "SELECT s.message_id, s.channel_id, s.tail, s.folded_at, s.expires_at FROM r \
     JOIN message_stream s ON s.message_id = r.wanted",
);
static DELETE: RowsSql = RowsSql::new(
    "message_id",
    "DELETE FROM message_stream WHERE message_id IN (SELECT message_id FROM r WHERE message_id IS NOT NULL)",
);
