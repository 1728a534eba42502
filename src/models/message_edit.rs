//! The edit of a message, and the earlier texts that edits replaced.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::append::records::{Record, Removable};
use super::append::{LockedChannel, Mutation, References};
use super::channel_change::ChangeKind;
use super::db::{Db, on};
use super::message::{ContentType, MessageDetail};
use super::message_mention::{MentionRows, Mentioned};
use super::message_row::Message;
use super::message_stream_state::StreamState;
use super::rows::{Column, RowsSql};
use super::text::{Mentions, MessageBody};
use super::{message_attachment_use, message_stream};
use crate::clock::{Micros, Timestamp};
use crate::error::Precondition;
use crate::{ImksError, ImksResult};

/// A new text for a message.
#[derive(Debug, Clone)]
pub struct EditMessage {
    /// The message to edit.
    pub message_id: Uuid,
    /// The new text.
    pub body: MessageBody,
    /// The new mentions; `None` keeps the current ones.
    pub mentions: Option<Mentions>,
    /// The people behind the roles and `here` of the new mentions.
    pub mentioned: Mentioned,
    /// The files that the message has from now on; `None` keeps the current ones.
    pub attachments: Option<Vec<Uuid>>,
    /// Whether the author may attach files.
    pub may_attach: bool,
    /// The version that must be stored, or the edit is refused.
    pub expected_version: Option<i64>,
    /// How long after its sending a message can be edited; `None` for ever.
    pub window: Option<Duration>,
}

impl Mutation for EditMessage {
    /// The message as everybody sees it, with the number of its last change.
    type Done = Arc<MessageDetail>;

    fn refers(&self, references: &mut References<'_>) {
        references.message(self.message_id);
        message_attachment_use::refer(references, self.attachments.as_deref().unwrap_or_default());
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Arc<MessageDetail>> {
        if channel.own_message(self.message_id)?.deleted_at.is_some() {
            return Err(ImksError::MessageDeleted);
        }
        let files = match &self.attachments {
            Some(ids) => message_attachment_use::replace(channel, self.message_id, ids, self.may_attach)?,
            None => None,
        };
        let row = channel.message(self.message_id)?;
        let mentions = match &self.mentions {
            Some(mentions) => mentions.stored()?,
            None => row.mentions.clone(),
        };
        let mentions_changed = row.mentions != mentions;
        // Before the version check: a client that repeats its own edit must not get a version conflict.
        if row.body == self.body.as_str() && !mentions_changed && files.is_none() {
            return channel.detail(self.message_id);
        }
        if self.expected_version.is_some_and(|expected| expected != row.version) {
            return Err(ImksError::VersionMismatch { current: row.version });
        }
        let is_encrypted = row.content_type == ContentType::E2ee as i32;
        MessageBody::check(self.body.as_str(), is_encrypted)?;
        self.check_window(row.created_at, channel.now())?;
        let replaced = ReplacedText::of(row, channel);
        let (message_id, oldest) = (self.message_id, row.version - TEXTS_KEPT);
        if mentions_changed {
            self.rewrite_mentions(channel)?;
        }
        files.iter().for_each(|files| files.record(channel, message_id));
        // Whoever edits a streamed message has the last word.
        message_stream::stop(channel, message_id)?;
        let at = channel.now();
        channel.change(message_id, ChangeKind::Edit, |row| {
            message_stream::end(row, StreamState::Finished);
            row.body = self.body.as_str().into();
            row.mentions = mentions;
            row.version += 1;
            row.edit_count += 1;
            row.edited_at = Some(at.max(row.created_at));
            if let Some(files) = files {
                (row.attachment_count, row.attachments) = (files.count, files.attachments);
            }
        })?;
        if !is_encrypted {
            channel.remove::<ReplacedText>((message_id, oldest));
            channel.insert(replaced);
        }
        let message = channel.detail(message_id)?;
        let update = MessageUpdate { message: Arc::clone(&message), kind: "edit" };
        channel.tell_change("message:updated", message.rev, update)?;
        Ok(message)
    }
}

impl EditMessage {
    fn check_window(&self, sent_at: Micros, now: Micros) -> ImksResult<()> {
        let age = Duration::from_micros(u64::try_from(now - sent_at).unwrap_or_default());
        match self.window {
            Some(window) if age > window => {
                Err(ImksError::FailedPrecondition(Precondition::EditWindowClosed))
            }
            _ => Ok(()),
        }
    }

    fn rewrite_mentions(&self, channel: &mut LockedChannel<'_>) -> ImksResult<()> {
        let row = channel.message(self.message_id)?;
        let people = |mentions| self.mentioned.people(mentions, row.channel_id, row.author_id);
        let targets = self.mentions.as_ref().map(people);
        let rows = MentionRows {
            message_id: row.id,
            author_id: row.author_id,
            channel_id: row.channel_id,
            seq: row.seq,
            thread_id: row.thread_id,
            at: channel.now(),
            targets: targets.unwrap_or_default(),
        };
        channel.remove::<MentionRows>(self.message_id);
        channel.insert(rows);
        Ok(())
    }
}

/// The payload of `message:updated`: the whole message, for clients that missed the original.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MessageUpdate {
    #[serde(flatten)]
    pub message: Arc<MessageDetail>,
    pub kind: &'static str,
}

/// A row of `message_edit`: the text of a message before an edit.
#[derive(Debug)]
struct ReplacedText {
    message_id: Uuid,
    version: i64,
    channel_id: Uuid,
    editor_id: Uuid,
    body: String,
    at: Micros,
}

impl ReplacedText {
    fn of(row: &Message, channel: &LockedChannel<'_>) -> Self {
        Self {
            message_id: row.id,
            version: row.version,
            channel_id: row.channel_id,
            editor_id: channel.scope().actor.id,
            body: row.body.clone(),
            at: channel.now(),
        }
    }
}

impl Record for ReplacedText {
    /// The message and version.
    type Key = (Uuid, i64);

    fn key(&self) -> Self::Key {
        (self.message_id, self.version)
    }

    fn insert() -> &'static RowsSql {
        &INSERT
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::Ids(rows.iter().map(|row| row.message_id).collect()),
            Column::Numbers(rows.iter().map(|row| row.version).collect()),
            Column::Ids(rows.iter().map(|row| row.channel_id).collect()),
            Column::Ids(rows.iter().map(|row| row.editor_id).collect()),
            Column::Texts(rows.iter().map(|row| row.body.as_str()).collect()),
            Column::Numbers(rows.iter().map(|row| row.at).collect()),
        ]
    }
}

impl Removable for ReplacedText {
    fn delete() -> &'static RowsSql {
        &DELETE
    }

    fn key_columns(keys: &[Self::Key]) -> Vec<Column<'_>> {
        let (messages, versions) = keys.iter().copied().unzip();
        vec![Column::Ids(messages), Column::Numbers(versions)]
    }
}

/// An earlier text that an edit replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MessageEdit {
    /// The version that had this text.
    pub version: i64,
    /// The user who replaced the text.
    pub editor_id: Uuid,
    /// The text.
    pub body: String,
    /// When the text was replaced.
    pub edited_at: Timestamp,
}

/// Returns the author of a message that is not deleted.
///
/// # Errors
/// [`ImksError::NotFound`], [`ImksError::MessageDeleted`], [`ImksError::Database`].
pub async fn author(db: &Db, channel: Uuid, message: Uuid) -> ImksResult<Uuid> {
    let found: Option<(Uuid, Option<Micros>)> = on!(read db, pool => {
        sqlx::query_as(AUTHOR).bind(message).bind(channel).fetch_optional(pool).await?
    });
    match found.ok_or(ImksError::NotFound("message"))? {
        (author, None) => Ok(author),
        (_, Some(_)) => Err(ImksError::MessageDeleted),
    }
}

/// Returns earlier texts of a message, newest first.
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

const AUTHOR: &str = "SELECT author_id, deleted_at FROM message WHERE id = $1 AND channel_id = $2";
const EDITS: &str = "SELECT version, editor_id, body, edited_at FROM message_edit \
    WHERE message_id = $1 AND channel_id = $2 ORDER BY version DESC";
static INSERT: RowsSql = RowsSql::new(
    "message_id, version, channel_id, editor_id, body, edited_at",
    "INSERT INTO message_edit (message_id, version, channel_id, editor_id, body, edited_at) \
     SELECT * FROM r WHERE r.message_id IS NOT NULL",
);
static DELETE: RowsSql = RowsSql::new(
    "message_id, version",
    "DELETE FROM message_edit WHERE (message_id, version) IN \
     (SELECT message_id, version FROM r WHERE message_id IS NOT NULL)",
);
/// The number of earlier texts that are kept per message.
pub(crate) const TEXTS_KEPT: i64 = 50;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_earlier_text_is_shown_as_the_protocol_says() {
        let row = Row { version: 3, editor_id: Uuid::nil(), body: "before".into(), edited_at: 1_500_000 };
        let shown = json!(MessageEdit::from(row));
        assert_eq!(
            shown,
            json!({
                "version": 3,
                "editor_id": "00000000-0000-0000-0000-000000000000",
                "body": "before",
                "edited_at": "1970-01-01T00:00:01.500Z",
            })
        );
    }
}
