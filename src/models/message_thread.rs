//! Threads as everybody sees them: how many replies, the newest one, and who takes part. Each reply changes the
//! row of the first message.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::append::LockedChannel;
use super::append::records::Record;
use super::channel_change::ChangeKind;
use super::db::{Db, on};
use super::message::MessageDetail;
use super::message_thread_member::follow_by_replying;
use super::message_thread_state::ThreadState;
use super::rows::{Column, RowsSql};
use crate::ImksResult;

/// Counts a reply that the batch has appended, and makes those concerned follow the thread.
pub(super) fn replied(channel: &mut LockedChannel<'_>, reply: &MessageDetail) -> ImksResult<()> {
    let Some(root) = reply.thread_id else { return Ok(()) };
    let root_author = channel.message(root)?.author_id;
    change(channel, root, |state| state.add(reply.author.id, reply.seq, reply.created_at.0))?;
    let (root_message_id, channel_id) = (root, reply.channel_id);
    channel.insert(ThreadRow { root_message_id, channel_id, last_reply_seq: reply.seq });
    follow_by_replying(channel, root_author, root, reply);
    Ok(())
}

/// Takes back the count of replies that are deleted. The first message of the thread must be loaded.
pub(super) fn replies_deleted(channel: &mut LockedChannel<'_>, root: Uuid, count: i64) -> ImksResult<()> {
    change(channel, root, |state| state.remove(count))
}

fn change(
    channel: &mut LockedChannel<'_>,
    root: Uuid,
    change: impl FnOnce(&mut ThreadState),
) -> ImksResult<()> {
    let stored = channel.message(root)?.thread.as_deref();
    let mut state = ThreadState::from_stored(stored)?.map(|state| *state).unwrap_or_default();
    change(&mut state);
    let stored = state.stored()?;
    let row = channel.change_together(root, ChangeKind::Thread, |row| row.thread = Some(stored))?;
    let (channel_id, rev) = (row.channel_id, row.rev);
    channel.tell_state("thread:updated", rev, root, ThreadUpdate { channel_id, thread_id: root, state })?;
    Ok(())
}

/// The payload of `thread:updated` without its `rev`, which every change has (docs/protocol.md).
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ThreadUpdate {
    channel_id: Uuid,
    thread_id: Uuid,
    #[serde(flatten)]
    state: ThreadState,
}

/// Returns the first messages of up to `limit` threads of a channel whose newest reply is before `before`, and that
/// `seq`, the thread with the newest reply first.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn list(db: &Db, channel: Uuid, before: i64, limit: i64) -> ImksResult<Vec<(Uuid, i64)>> {
    Ok(on!(read db, pool => {
        sqlx::query_as(LIST).bind(channel).bind(before).bind(limit).fetch_all(pool).await?
    }))
}

/// A row of `message_thread`.
#[derive(Debug, FromRow)]
struct ThreadRow {
    root_message_id: Uuid,
    channel_id: Uuid,
    last_reply_seq: i64,
}

impl Record for ThreadRow {
    /// The first message of the thread.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.root_message_id
    }

    fn insert() -> &'static RowsSql {
        &STORE
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::of(rows, |row| row.root_message_id),
            Column::of(rows, |row| row.channel_id),
            Column::of(rows, |row| row.last_reply_seq),
        ]
    }
}

const LIST: &str = "SELECT t.root_message_id, t.last_reply_seq FROM message_thread t \
    JOIN message m ON m.id = t.root_message_id AND m.deleted_at IS NULL \
    WHERE t.channel_id = $1 AND t.last_reply_seq < $2 ORDER BY t.last_reply_seq DESC LIMIT $3";
static STORE: RowsSql = RowsSql::new(
    "root_message_id, channel_id, last_reply_seq",
    "INSERT INTO message_thread (root_message_id, channel_id, last_reply_seq) \
     SELECT * FROM r WHERE r.root_message_id IS NOT NULL \
     ON CONFLICT (root_message_id) DO UPDATE SET last_reply_seq = excluded.last_reply_seq",
);
