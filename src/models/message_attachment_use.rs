//! Which messages have attachments: those that are sent with them, scheduled messages, and edits that change them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::append::records::{Record, Write};
use super::append::{LockedChannel, References};
use super::message_attachment::{Attachment, BY_ID, HOUR, NOT_FOUND};
use super::rows::{Column, Connection, RowsSql};
use super::stored_json::{from_column, to_column};
use crate::clock::Micros;
use crate::{ImksError, ImksResult};

/// Requests the attachments that a message is sent with.
pub(super) fn refer(references: &mut References<'_>, ids: &[Uuid]) {
    ids.iter().for_each(|id| references.rows::<Attachment>(*id));
}

/// Returns an attachment that a message of the actor may have, or the scheduled message that becomes it: uploaded by the
/// actor for this channel, and not in another message.
///
/// # Errors
/// [`ImksError::NotFound`], [`ImksError::InvalidInput`] for one that is not uploaded, [`ImksError::Conflict`] for one
/// that another message has.
pub(super) fn usable(
    channel: &mut LockedChannel<'_>,
    id: Uuid,
    scheduled: Option<Uuid>,
) -> ImksResult<Attachment> {
    let (actor, channel_id, now) = (channel.scope().actor.id, channel.scope().channel_id, channel.now());
    let found = channel.rows::<Attachment>(&id)?.first().cloned();
    let attachment = found.ok_or(NOT_FOUND)?.usable_by(actor, channel_id, scheduled, now)?;
    match channel.write_of::<Attached>(&id) {
        Some(Write::Stored(_)) => Err(attachment.is_taken()),
        Some(Write::Removed) | None => Ok(attachment),
    }
}

impl Attachment {
    /// Returns this attachment if a message of `user`, or the scheduled message that becomes it, may have it.
    fn usable_by(self, user: Uuid, channel: Uuid, scheduled: Option<Uuid>, now: Micros) -> ImksResult<Self> {
        let is_kept = self.scheduled_id.is_some();
        let is_live = self.deleted_at.is_none() && (is_kept || self.created_at > now - USABLE_FOR);
        if self.uploader_id != user || self.channel_id != channel || !is_live {
            return Err(NOT_FOUND);
        }
        if self.completed_at.is_none() {
            return Err(ImksError::invalid("attachments", format!("{} is not uploaded", self.id)));
        }
        if self.message_id.is_some() || is_kept && self.scheduled_id != scheduled {
            return Err(self.is_taken());
        }
        Ok(self)
    }

    fn is_taken(&self) -> ImksError {
        ImksError::Conflict { what: "attachment", name: self.id.to_string() }
    }
}

/// Keeps attachments for a scheduled message, in the transaction that stores it, and lets go of those that it had before
/// and has no more.
///
/// # Errors
/// Those of [`usable`].
pub(super) async fn keep(
    connection: &mut Connection<'_>,
    scheduled: Uuid,
    (user, channel): (Uuid, Uuid),
    ids: &[Uuid],
    now: Micros,
) -> ImksResult<()> {
    let found: Vec<Attachment> = BY_ID.fetch(connection, &[Column::of(ids, |id| *id)]).await?;
    for id in ids {
        let attachment = found.iter().find(|attachment| attachment.id == *id).cloned();
        attachment.ok_or(NOT_FOUND)?.usable_by(user, channel, Some(scheduled), now)?;
    }
    let_go(connection, scheduled).await?;
    let columns = [Column::of(ids, |id| *id), Column::of(ids, |_| scheduled)];
    Ok(KEEP.execute(connection, &columns).await?)
}

/// Lets go of the attachments of a scheduled message that will not be sent.
///
/// # Errors
/// [`ImksError::Database`].
pub(super) async fn let_go(connection: &mut Connection<'_>, scheduled: Uuid) -> ImksResult<()> {
    Ok(LET_GO.execute(connection, &[Column::Ids(vec![scheduled])]).await?)
}

/// Records that a message has these attachments.
pub(super) fn attach(channel: &mut LockedChannel<'_>, message_id: Uuid, attachments: &[Attachment]) {
    for attachment in attachments {
        channel.insert(Attached { id: attachment.id, message_id });
    }
}

/// Replaces the attachments of a message of the actor. Returns the number and the column's value of the new ones, or
/// `None` if they are those that the message has.
///
/// # Errors
/// Those of [`usable`], and [`ImksError::Forbidden`] if one is added and `may_attach` is not set.
pub(super) fn replace(
    channel: &mut LockedChannel<'_>,
    message_id: Uuid,
    ids: &[Uuid],
    may_attach: bool,
) -> ImksResult<Option<Replaced>> {
    let stored = channel.message(message_id)?.attachments.clone();
    let present: Vec<Shown> = from_column(stored.as_deref())?.unwrap_or_default();
    if present.iter().map(|shown| shown.id).eq(ids.iter().copied()) {
        return Ok(None);
    }
    let (mut next, mut added) = (Vec::with_capacity(ids.len()), Vec::new());
    for id in ids {
        match present.iter().find(|shown| shown.id == *id) {
            Some(shown) => next.push(to_column(shown)?),
            None if !may_attach => return Err(ImksError::Forbidden(ATTACH_FILES)),
            None => {
                let attachment = usable(channel, *id, None)?;
                next.push(to_column(&attachment)?);
                added.push(attachment);
            }
        }
    }
    let removed = present.iter().map(|shown| shown.id).filter(|id| !ids.contains(id)).collect();
    let attachments = (!next.is_empty()).then(|| format!("[{}]", next.join(",")));
    Ok(Some(Replaced { attachments, count: i32::try_from(ids.len()).unwrap_or(i32::MAX), added, removed }))
}

/// The attachments of a message after an edit.
#[derive(Debug)]
pub(super) struct Replaced {
    /// The value for the column of the message's row.
    pub attachments: Option<String>,
    pub count: i32,
    added: Vec<Attachment>,
    removed: Vec<Uuid>,
}

impl Replaced {
    /// Records whose the attachments are, and lets the bytes of those that are gone be removed.
    pub(super) fn record(&self, channel: &mut LockedChannel<'_>, message_id: Uuid) {
        attach(channel, message_id, &self.added);
        let at = channel.now();
        for id in &self.removed {
            channel.insert(GivenUp { id: *id, at });
        }
    }
}

/// An attachment as the column of a message's row has it.
#[derive(Debug, Serialize, Deserialize)]
struct Shown {
    id: Uuid,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

/// Lets the bytes of a deleted message's attachments be removed.
pub(super) fn detach(channel: &mut LockedChannel<'_>, message_id: Uuid) {
    let at = channel.now();
    // What an edit in the same batch has added may be recorded after the deletion.
    let added = channel.writes::<Attached>().filter_map(|(id, write)| match write {
        Write::Stored(attached) if attached.message_id == message_id => Some(*id),
        Write::Stored(_) | Write::Removed => None,
    });
    let added: Vec<Uuid> = added.collect();
    added.into_iter().for_each(|id| channel.insert(GivenUp { id, at }));
    channel.insert(Detached { message_id, at });
}

/// Returns the value for the column of the message's row; `None` for a message without attachments.
pub(super) fn stored(attachments: &[Attachment]) -> ImksResult<Option<String>> {
    (!attachments.is_empty()).then(|| to_column(attachments)).transpose()
}

/// The message of an attachment.
#[derive(Debug)]
struct Attached {
    id: Uuid,
    message_id: Uuid,
}

impl Record for Attached {
    /// The attachment.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.id
    }

    fn insert() -> &'static RowsSql {
        &ATTACH
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![Column::of(rows, |row| row.id), Column::of(rows, |row| row.message_id)]
    }
}

/// A deleted message with attachments.
#[derive(Debug)]
struct Detached {
    message_id: Uuid,
    at: Micros,
}

impl Record for Detached {
    /// The message.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.message_id
    }

    fn insert() -> &'static RowsSql {
        &DETACH
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![Column::of(rows, |row| row.message_id), Column::of(rows, |row| row.at)]
    }
}

/// An attachment that an edit took out of its message, or whose message was deleted in the same batch.
#[derive(Debug)]
struct GivenUp {
    id: Uuid,
    at: Micros,
}

impl Record for GivenUp {
    /// The attachment.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.id
    }

    fn insert() -> &'static RowsSql {
        &TAKE_OUT
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![Column::of(rows, |row| row.id), Column::of(rows, |row| row.at)]
    }
}

/// The permission that an edit needs which adds an attachment.
const ATTACH_FILES: &str = "ATTACH_FILES";
/// How long after it was created an attachment can be sent: it is surely not being removed then.
const USABLE_FOR: Micros = 23 * HOUR;
static KEEP: RowsSql = RowsSql::new(
    "attachment, scheduled",
    "UPDATE message_attachment SET scheduled_id = r.scheduled FROM r \
     WHERE message_attachment.id = r.attachment AND message_attachment.message_id IS NULL",
);
static LET_GO: RowsSql = RowsSql::new(
    "scheduled",
    "UPDATE message_attachment SET scheduled_id = NULL FROM r WHERE message_attachment.scheduled_id = r.scheduled",
);
static ATTACH: RowsSql = RowsSql::new(
    "attachment, message",
    "UPDATE message_attachment SET message_id = r.message FROM r WHERE message_attachment.id = r.attachment",
);
static TAKE_OUT: RowsSql = RowsSql::new(
    "attachment, at",
    "UPDATE message_attachment SET deleted_at = r.at FROM r WHERE message_attachment.id = r.attachment",
);
pub(super) static DETACH: RowsSql = RowsSql::new(
    "message, at",
    "UPDATE message_attachment SET deleted_at = r.at FROM r WHERE message_attachment.message_id = r.message",
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::db::sqlite_plan;

    #[tokio::test]
    async fn the_attachments_of_messages_are_found_by_their_indexes() {
        for (sql, width) in [(&ATTACH, 2), (&TAKE_OUT, 2), (&DETACH, 2), (&KEEP, 2), (&LET_GO, 1)] {
            let sql = sql.sqlite_text(width, 2).unwrap();
            let plan = sqlite_plan(&sql).await;
            assert!(plan.iter().any(|line| line.contains("message_attachment USING")), "{sql}: {plan:#?}");
        }
    }
}
