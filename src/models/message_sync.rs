//! The catch-up of a client: messages after its `seq`, changed messages after its `rev` (docs/protocol.md,
//! `sync`).
//!
//! Heads are read before rows, so an answer may hold more than its `seq` and `rev` say, but never less.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::append::{ChangeEvent, Told};
use super::channel_state::{ChannelHead, heads};
use super::db::{Db, on};
use super::message::{ANSWER_BYTES_MAX, MessageDetail};
use super::message_page::{Room, newest, rows_by_id, views};
use super::message_row::Message;
use crate::ImksResult;

/// The last message and change of a channel that a client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Cursor {
    /// The channel.
    pub channel_id: Uuid,
    /// The number of the newest message that the client has.
    pub seq: i64,
    /// The number of the newest change that the client has.
    pub rev: i64,
}

/// Everything that brings a client up to date in a channel.
#[derive(Debug, Clone, Serialize)]
pub struct ChannelSync {
    /// The channel.
    pub channel_id: Uuid,
    /// The messages after the cursor, oldest first; the newest page if `truncated` or `reset`.
    pub messages: Vec<MessageDetail>,
    /// The messages that were changed after the cursor, in their current state.
    pub changes: Vec<ChangedMessage>,
    /// The `seq` of the next cursor.
    pub seq: i64,
    /// The `rev` of the next cursor.
    pub rev: i64,
    /// Whether messages between the cursor and `messages` are missing; clients load them on scroll.
    pub truncated: bool,
    /// Whether the changes after the cursor cannot be told one by one, so that the client must discard its
    /// cache; `messages` is the newest page then.
    pub reset: bool,
    /// The first and last `seq` of `messages`.
    pub seq_range: Option<(i64, i64)>,
}

/// A message that was changed, possibly a tombstone.
#[derive(Debug, Clone, Serialize)]
pub struct ChangedMessage {
    /// The number of its last change.
    pub rev: i64,
    /// The message in its current state.
    pub message: MessageDetail,
}

/// Limits on the size of one answer.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most messages of one channel, clamped to between 1 and [`SYNC_LIMIT`].
    pub per_channel: usize,
    /// The most messages and changes of all channels together.
    pub total: usize,
    /// The most bytes of all channels together.
    pub bytes: usize,
}

/// The most messages, and the most changes, of one channel in an answer.
pub const SYNC_LIMIT: usize = 200;

/// Returns what `reader` missed since `cursors`, in their order, and whether some channels were left out
/// because the answer is full. Up-to-date channels cost no query of their own.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn sync(
    db: &Db,
    reader: Uuid,
    cursors: &[Cursor],
    limits: Limits,
) -> ImksResult<(Vec<ChannelSync>, bool)> {
    let channels: Vec<Uuid> = cursors.iter().map(|cursor| cursor.channel_id).collect();
    let heads = heads(db, &channels).await?;
    let per_channel = limits.per_channel.clamp(1, SYNC_LIMIT);
    let whole = Room { rows: limits.total, bytes: limits.bytes };
    let (mut answers, mut room) = (Vec::with_capacity(cursors.len()), whole);
    for (cursor, head) in cursors.iter().zip(heads) {
        let missed = missed(db, *cursor, head, per_channel, room).await?;
        // A channel that does not fit beside others is left to the next answer.
        if missed.cut && room != whole {
            return Ok((answers, true));
        }
        room = missed.room;
        answers.push(missed.answer(db, reader, *cursor, head).await?);
    }
    Ok((answers, false))
}

/// The messages and changes that were missed in one channel.
struct Missed {
    messages: Vec<Message>,
    changes: Vec<Message>,
    truncated: bool,
    reset: bool,
    /// Whether some were left out for lack of room.
    cut: bool,
    /// The room that is left for other channels.
    room: Room,
}

async fn missed(
    db: &Db,
    cursor: Cursor,
    head: ChannelHead,
    per_channel: usize,
    mut room: Room,
) -> ImksResult<Missed> {
    let whole = room;
    let missing = head.last_seq - cursor.seq;
    // A cursor beyond the head comes from another history, such as a database restored from a backup.
    if missing < 0 || cursor.rev > head.last_rev {
        return fresh(db, cursor.channel_id, head, per_channel, whole).await;
    }
    let wanted = usize::try_from(missing).unwrap_or(0).min(per_channel);
    let messages = newest_of(db, cursor.channel_id, head, wanted, &mut room).await?;
    let cut = messages.len() < wanted;
    let mut rows = Vec::new();
    if cursor.rev < head.last_rev {
        let changes = changes_since(db, cursor.channel_id, cursor.rev, room).await?;
        if changes.cut || changes.incomplete {
            // There are too many changes to send one by one: a fresh page is cheaper for both sides.
            let mut fresh = fresh(db, cursor.channel_id, head, per_channel, whole).await?;
            fresh.cut |= cut || changes.cut;
            return Ok(fresh);
        }
        changes.rows.iter().for_each(|row| room.take(row));
        rows = changes.rows;
    }
    let truncated = i64::try_from(messages.len()).unwrap_or(i64::MAX) < missing;
    Ok(Missed { messages, changes: rows, truncated, reset: false, cut, room })
}

/// Returns the newest page of a channel, for a client that discards what it has.
async fn fresh(
    db: &Db,
    channel: Uuid,
    head: ChannelHead,
    per_channel: usize,
    mut room: Room,
) -> ImksResult<Missed> {
    let wanted = usize::try_from(head.last_seq).unwrap_or(0).min(per_channel);
    let messages = newest_of(db, channel, head, wanted, &mut room).await?;
    let cut = messages.len() < wanted;
    Ok(Missed { messages, changes: Vec::new(), truncated: false, reset: true, cut, room })
}

/// Returns the `wanted` newest messages of a channel, or as many as there is room for.
async fn newest_of(
    db: &Db,
    channel: Uuid,
    head: ChannelHead,
    wanted: usize,
    room: &mut Room,
) -> ImksResult<Vec<Message>> {
    let rows = wanted.min(room.rows);
    if rows == 0 {
        return Ok(Vec::new());
    }
    let messages = newest(db, channel, head.last_seq, Room { rows, bytes: room.bytes }).await?;
    messages.iter().for_each(|row| room.take(row));
    Ok(messages)
}

impl Missed {
    async fn answer(
        self,
        db: &Db,
        reader: Uuid,
        cursor: Cursor,
        head: ChannelHead,
    ) -> ImksResult<ChannelSync> {
        let seq_range =
            self.messages.first().zip(self.messages.last()).map(|(first, last)| (first.seq, last.seq));
        let messages = self.messages.len();
        let rows = self.messages.into_iter().chain(self.changes).collect();
        let mut views = views(db, reader, rows).await?;
        let changes = views.split_off(messages).into_iter();
        Ok(ChannelSync {
            channel_id: cursor.channel_id,
            messages: views,
            changes: changes.map(|message| ChangedMessage { rev: message.rev, message }).collect(),
            seq: head.last_seq,
            rev: head.last_rev,
            truncated: self.truncated,
            reset: self.reset,
            seq_range,
        })
    }
}

/// The events of a channel that a node has missed, in order.
#[derive(Debug)]
pub struct MissedEvents {
    /// The new messages, then the changed ones. Each is in its current state.
    pub told: Vec<Told>,
    /// The `seq` of the channel up to which events are there.
    pub seq: i64,
    /// The `rev` of the channel up to which events are there.
    pub rev: i64,
}

/// The payload of `message:updated` for a message that was changed, in whatever way.
#[derive(Debug, Serialize)]
struct Refreshed {
    #[serde(flatten)]
    message: MessageDetail,
    kind: &'static str,
}

/// The payload of `channel:behind`: clients of this channel should `sync`.
#[derive(Debug, Serialize)]
struct Behind {
    channel_id: Uuid,
    seq: i64,
    rev: i64,
}

/// Returns the events of a channel after `seq` and `rev`. If there are too many, there is one event that makes
/// clients `sync`.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn missed_events(db: &Db, channel: Uuid, seq: i64, rev: i64) -> ImksResult<MissedEvents> {
    let cursor = Cursor { channel_id: channel, seq, rev };
    let limits = Limits { per_channel: SYNC_LIMIT, total: 2 * SYNC_LIMIT, bytes: ANSWER_BYTES_MAX };
    let (answers, _) = sync(db, Uuid::nil(), &[cursor], limits).await?;
    let Some(missed) = answers.into_iter().next() else {
        return Ok(MissedEvents { told: Vec::new(), seq, rev });
    };
    let (seq, rev) = (missed.seq, missed.rev);
    if missed.truncated || missed.reset {
        let behind = Arc::new(Behind { channel_id: channel, seq, rev });
        return Ok(MissedEvents {
            told: vec![Told::new(channel, (seq, rev), "channel:behind", behind)],
            seq,
            rev,
        });
    }
    let new = missed
        .messages
        .into_iter()
        .map(|message| Told::new(channel, (seq, rev), "message:new", Arc::new(message)));
    let changed = missed.changes.into_iter().map(|ChangedMessage { rev: changed, message }| {
        let payload = ChangeEvent::new(Refreshed { message, kind: "sync" }, changed);
        Told::new(channel, (seq, rev), "message:updated", Arc::new(payload))
    });
    Ok(MissedEvents { told: new.chain(changed).collect(), seq, rev })
}

/// The changes of a channel after a `rev`.
struct Changes {
    /// The changed messages, without duplicates, by the number of their last change.
    rows: Vec<Message>,
    /// Whether there are more than fit.
    cut: bool,
    /// Whether the log does not reach back to the requested `rev`.
    incomplete: bool,
}

/// Returns the changes after `rev`, which must be below the channel's.
async fn changes_since(db: &Db, channel: Uuid, rev: i64, room: Room) -> ImksResult<Changes> {
    let limit = room.rows.min(SYNC_LIMIT);
    let one_more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let ids: Vec<Uuid> = on!(read db, pool => {
        sqlx::query_scalar(CHANGES).bind(channel).bind(rev).bind(one_more).fetch_all(pool).await?
    });
    // Numbers have no holes: if the next change is not in the log, it was already swept.
    let next: i64 = on!(read db, pool => {
        sqlx::query_scalar(LOGGED).bind(channel).bind(rev + 1).fetch_one(pool).await?
    });
    let incomplete = next == 0;
    if incomplete || ids.len() > limit || room.bytes == 0 {
        return Ok(Changes { rows: Vec::new(), cut: !incomplete, incomplete });
    }
    let (mut rows, cut) = rows_by_id(db, &ids, room.bytes).await?;
    rows.sort_unstable_by_key(|row| row.rev);
    Ok(Changes { rows, cut, incomplete })
}

const LOGGED: &str = "SELECT COUNT(*) FROM channel_change WHERE channel_id = $1 AND rev = $2";
const CHANGES: &str = "SELECT message_id FROM channel_change \
    WHERE channel_id = $1 AND rev > $2 GROUP BY message_id LIMIT $3";
