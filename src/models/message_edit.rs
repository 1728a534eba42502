//! Earlier texts of a message. Written by the append path, at most 50 per message.

use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, on};
use crate::ImksResult;
use crate::clock::{Micros, Timestamp};

/// A text that an edit replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MessageEdit {
    /// The version that had this text.
    pub version: i64,
    /// Who replaced it.
    pub editor_id: Uuid,
    /// The text.
    pub body: String,
    /// When it was replaced.
    pub edited_at: Timestamp,
}

/// Earlier texts of a message, newest first.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn edits(db: &Db, channel: Uuid, message: Uuid) -> ImksResult<Vec<MessageEdit>> {
    let rows: Vec<Row> = on!(read db, pool => {
        sqlx::query_as(EDITS).bind(message).bind(channel).fetch_all(pool).await?
    });
    Ok(rows.into_iter().map(MessageEdit::from).collect())
}

#[derive(FromRow)]
struct Row {
    version: i64,
    editor_id: Uuid,
    body: String,
    edited_at: Micros,
}

impl From<Row> for MessageEdit {
    fn from(row: Row) -> Self {
        Self {
            version: row.version,
            editor_id: row.editor_id,
            body: row.body,
            edited_at: Timestamp(row.edited_at),
        }
    }
}

const EDITS: &str = "SELECT version, editor_id, body, edited_at FROM message_edit \
    WHERE message_id = $1 AND channel_id = $2 ORDER BY version DESC";
