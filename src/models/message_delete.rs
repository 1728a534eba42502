//! The deletion of a message, which leaves a tombstone: it keeps its place in the order and has no content.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::append::records::Record;
use super::append::{Authority, LockedChannel, Mutation, References};
use super::channel_change::ChangeKind;
use super::message::is_counted;
use super::message_mention::{MentionRows, OwnRow};
use super::message_row::Message;
use super::message_stream_state::StreamState;
use super::rows::{Column, RowsSql};
use super::{message_attachment_use, message_poll_vote, message_stream, message_thread};
use crate::clock::{Micros, Timestamp};
use crate::{ImksError, ImksResult};

/// A message to delete.
#[derive(Debug, Clone, Copy)]
pub struct DeleteMessage {
    /// The message to delete.
    pub message_id: Uuid,
}

/// A deletion: the payload of `message:deleted` without its `rev`, which every change has (docs/protocol.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[allow(missing_docs, reason = "the wire contract in docs/protocol.md explains each field")]
pub struct Deletion {
    pub channel_id: Uuid,
    pub id: Uuid,
    #[serde(skip)]
    pub rev: i64,
    pub deleted_at: Timestamp,
    pub deleted_by: Uuid,
    pub thread_id: Option<Uuid>,
    pub seq: i64,
}

impl Mutation for DeleteMessage {
    type Done = Arc<Deletion>;

    fn refers(&self, references: &mut References<'_>) {
        references.message(self.message_id);
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Arc<Deletion>> {
        let row = channel.own_message(self.message_id)?;
        if let Some(deleted_at) = row.deleted_at {
            return Ok(Arc::new(deletion(row, deleted_at)));
        }
        let thread = match row.thread_id {
            Some(root) => first_message(channel, root)?,
            None => None,
        };
        let deletion = delete(channel, self.message_id)?;
        if let Some(root) = thread {
            message_thread::replies_deleted(channel, root, 1)?;
        }
        Ok(deletion)
    }
}

/// Several messages to delete together.
#[derive(Debug, Clone)]
pub struct DeleteMessages {
    /// The messages, without duplicates.
    pub message_ids: Vec<Uuid>,
}

/// The outcome of [`DeleteMessages`]: the answer to `message:delete_bulk`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Deletions {
    /// The messages that were deleted.
    pub deleted: Vec<Uuid>,
    /// The messages that do not exist in the channel, or were deleted before.
    pub skipped: Vec<Uuid>,
}

impl Mutation for DeleteMessages {
    type Done = Deletions;

    fn refers(&self, references: &mut References<'_>) {
        self.message_ids.iter().for_each(|id| references.message(*id));
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Deletions> {
        if channel.scope().authority == Authority::Own {
            return Err(ImksError::NotAuthor);
        }
        let is_live = |id: &Uuid| channel.message(*id).is_ok_and(|row| row.deleted_at.is_none());
        let (deleted, skipped): (Vec<Uuid>, Vec<Uuid>) = self.message_ids.iter().copied().partition(is_live);
        delete_all(channel, &deleted, |_, _| Ok(()))?;
        Ok(Deletions { deleted, skipped })
    }
}

/// Deletes live messages, and does something with each before anything else happens to it.
pub(super) fn delete_all(
    channel: &mut LockedChannel<'_>,
    live: &[Uuid],
    each: impl Fn(&mut LockedChannel<'_>, Uuid) -> ImksResult<()>,
) -> ImksResult<()> {
    let mut replies = BTreeMap::new();
    for root in live.iter().filter_map(|id| channel.message(*id).ok()?.thread_id) {
        *replies.entry(root).or_insert(0) += 1;
    }
    let mut roots = Vec::with_capacity(replies.len());
    for (root, count) in replies {
        roots.extend(first_message(channel, root)?.map(|root| (root, count)));
    }
    for id in live {
        delete(channel, *id)?;
        each(channel, *id)?;
    }
    roots.into_iter().try_for_each(|(root, count)| message_thread::replies_deleted(channel, root, count))
}

/// Loads the first message of a thread. Returns `None` if it is gone, because its time was over.
fn first_message(channel: &mut LockedChannel<'_>, root: Uuid) -> ImksResult<Option<Uuid>> {
    match channel.fetch_message(root) {
        Ok(_) => Ok(Some(root)),
        Err(ImksError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Turns a message into a tombstone.
fn delete(channel: &mut LockedChannel<'_>, id: Uuid) -> ImksResult<Arc<Deletion>> {
    let (at, actor) = (channel.now().max(channel.message(id)?.created_at), channel.scope().actor.id);
    if channel.message(id)?.attachment_count > 0 {
        message_attachment_use::detach(channel, id);
    }
    if channel.message(id)?.poll.is_some() {
        message_poll_vote::end(channel, id);
    }
    message_stream::stop(channel, id)?;
    let row = channel.change(id, ChangeKind::Delete, |row| {
        message_stream::end(row, StreamState::Aborted);
        (row.deleted_at, row.deleted_by) = (Some(at), Some(actor));
        // The index of what expires holds only what is still to be deleted.
        row.expires_at = None;
    })?;
    let (deletion, tombstone) = (Arc::new(deletion(row, at)), Tombstone::of(row));
    channel.remove::<MentionRows>(id);
    channel.remove::<OwnRow>(id);
    channel.insert(tombstone);
    channel.uncount()?;
    channel.tell_change("message:deleted", deletion.rev, Arc::clone(&deletion))?;
    Ok(deletion)
}

fn deletion(row: &Message, deleted_at: Micros) -> Deletion {
    Deletion {
        channel_id: row.channel_id,
        id: row.id,
        rev: row.rev,
        deleted_at: Timestamp(deleted_at),
        deleted_by: row.deleted_by.unwrap_or_default(),
        thread_id: row.thread_id,
        seq: row.seq,
    }
}

/// A row of `message_tombstone`, which keeps unread counts exact without reading messages.
#[derive(Debug)]
struct Tombstone {
    channel_id: Uuid,
    seq: i64,
    counted: bool,
    thread_id: Option<Uuid>,
    /// Until the content of the message is removed.
    deleted_at: Option<Micros>,
}

impl Tombstone {
    fn of(row: &Message) -> Self {
        let counted = is_counted(row.thread_id, row.flags);
        let Message { channel_id, seq, thread_id, deleted_at, .. } = *row;
        Self { channel_id, seq, counted, thread_id, deleted_at }
    }
}

impl Record for Tombstone {
    /// The channel and `seq`.
    type Key = (Uuid, i64);

    fn key(&self) -> Self::Key {
        (self.channel_id, self.seq)
    }

    fn insert() -> &'static RowsSql {
        &INSERT_TOMBSTONES
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::Ids(rows.iter().map(|row| row.channel_id).collect()),
            Column::Numbers(rows.iter().map(|row| row.seq).collect()),
            Column::Flags(rows.iter().map(|row| row.counted).collect()),
            Column::MaybeIds(rows.iter().map(|row| row.thread_id).collect()),
            Column::MaybeNumbers(rows.iter().map(|row| row.deleted_at).collect()),
        ]
    }
}

static INSERT_TOMBSTONES: RowsSql = RowsSql::new(
    "channel_id, seq, counted, thread_id, deleted_at",
    "INSERT INTO message_tombstone (channel_id, seq, counted, thread_id, deleted_at) \
     SELECT * FROM r WHERE r.channel_id IS NOT NULL",
);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reply_only_in_its_thread_leaves_a_tombstone_that_does_not_count() {
        let reply = Message { seq: 7, thread_id: Some(Uuid::from_u128(1)), ..Message::default() };
        let tombstone = Tombstone::of(&reply);
        assert_eq!((tombstone.key(), tombstone.counted), ((Uuid::nil(), 7), false));
        assert!(Tombstone::of(&Message { thread_id: None, ..reply }).counted);
    }

    #[test]
    fn the_event_of_a_deletion_has_no_number_of_its_own() {
        let row = Message { seq: 7, rev: 9, deleted_by: Some(Uuid::from_u128(2)), ..Message::default() };
        let event = json!(deletion(&row, 1_500_000));
        assert_eq!((&event["seq"], &event["deleted_at"]), (&json!(7), &json!("1970-01-01T00:00:01.500Z")));
        assert_eq!(event.get("rev"), None, "the append path adds it");
    }
}
