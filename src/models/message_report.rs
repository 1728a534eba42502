//! Reports of messages: what members want moderators to look at.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, on};
use super::message_row::text_so_far;
use super::text::ShortText;
use crate::clock::{self, Timestamp};
use crate::{ImksError, ImksResult};

/// Why a message is reported, in a word.
pub type Reason = ShortText<1, REASON_CHARS_MAX>;

/// What the reporter adds.
pub type ReportNote = ShortText<1, NOTE_CHARS_MAX>;

/// A message to report.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "as in docs/protocol.md")]
pub struct NewReport {
    pub channel_id: Uuid,
    pub message_id: Uuid,
    pub reporter_id: Uuid,
    pub reason: Reason,
    pub note: Option<ReportNote>,
}

/// A report, as moderators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[allow(missing_docs, reason = "the wire contract in docs/protocol.md explains each field")]
pub struct Report {
    pub id: Uuid,
    pub channel_id: Uuid,
    pub message_id: Uuid,
    pub author_id: Uuid,
    pub reporter_id: Uuid,
    pub reason: String,
    pub note: Option<String>,
    /// The text of the message when it was reported.
    pub body: String,
    pub created_at: Timestamp,
}

/// Stores a report, with the present text of the message. A second report of the same message by the same user
/// replaces reason and note of the first one. Returns its id.
///
/// # Errors
/// [`ImksError::NotFound`] for a message that does not exist or is deleted, [`ImksError::Database`].
pub async fn create(db: &Db, new: &NewReport) -> ImksResult<Uuid> {
    let (reason, note) = (new.reason.as_str(), new.note.as_ref().map(ReportNote::as_str));
    let id: Option<Uuid> = on!(db, pool => {
        sqlx::query_scalar(INSERT)
            .bind(clock::new_id()).bind(new.channel_id).bind(new.message_id).bind(new.reporter_id)
            .bind(reason).bind(note).bind(clock::now_micros())
            .fetch_optional(pool).await?
    });
    id.ok_or(ImksError::NotFound("message"))
}

/// Returns up to `limit` reports in a channel that are older than `before`, the newest first.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn list(db: &Db, channel: Uuid, before: Option<Uuid>, limit: i64) -> ImksResult<Vec<Report>> {
    let before = before.unwrap_or(Uuid::max());
    let rows: Vec<Row> = on!(read db, pool => {
        sqlx::query_as(LIST).bind(channel).bind(before).bind(limit).fetch_all(pool).await?
    });
    Ok(rows.into_iter().map(Report::from).collect())
}

#[derive(Debug, FromRow)]
struct Row {
    id: Uuid,
    channel_id: Uuid,
    message_id: Uuid,
    author_id: Uuid,
    reporter_id: Uuid,
    reason: String,
    note: Option<String>,
    body: String,
    created_at: i64,
}

impl From<Row> for Report {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            channel_id: row.channel_id,
            message_id: row.message_id,
            author_id: row.author_id,
            reporter_id: row.reporter_id,
            reason: row.reason,
            note: row.note,
            body: row.body,
            created_at: Timestamp(row.created_at),
        }
    }
}

/// The longest reason of a report, in Unicode scalar values.
pub const REASON_CHARS_MAX: usize = 50;
/// The longest note of a report, in Unicode scalar values.
pub const NOTE_CHARS_MAX: usize = 1_000;
const INSERT: &str = concat!(
    "INSERT INTO message_report \
     (id, channel_id, message_id, author_id, reporter_id, reason, note, body, created_at) \
     SELECT $1, $2, id, author_id, $4, $5, $6, ",
    text_so_far!(),
    ", $7 FROM message \
     WHERE id = $3 AND channel_id = $2 AND deleted_at IS NULL \
     ON CONFLICT (message_id, reporter_id) DO UPDATE SET reason = excluded.reason, note = excluded.note \
     RETURNING id"
);
const LIST: &str = "SELECT id, channel_id, message_id, author_id, reporter_id, reason, note, body, created_at \
    FROM message_report WHERE channel_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
