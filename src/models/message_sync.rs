//! The catch-up of a client: messages after its `seq`, changed messages after its `rev` (docs/protocol.md,
//! `sync`).
//!
//! Heads are read before rows, so an answer may hold more than its `seq` and `rev` say, but never less.

mod batch;
mod changes;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::append::{ChangeEvent, Told};
use super::db::Db;
use super::message::{ANSWER_BYTES_MAX, MessageDetail};
use super::rows::sql_number;
use crate::ImksResult;
use batch::Batch;

/// The last message and change of a channel that a client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[schemars(rename = "SyncCursor")]
pub struct Cursor {
    /// The channel.
    pub channel_id: Uuid,
    /// The number of the newest message that the client has.
    pub seq: i64,
    /// The number of the newest change that the client has.
    pub rev: i64,
}

/// Everything that brings a client up to date in a channel.
#[derive(Debug, Clone, Serialize, JsonSchema)]
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
    /// Whether messages before `messages` are missing: between the cursor and them, or all earlier ones if `reset`. Clients
    /// load them on scroll.
    pub truncated: bool,
    /// Whether the changes after the cursor cannot be told one by one, so that the client must discard its
    /// cache; `messages` is the newest page then.
    pub reset: bool,
    /// The first and last `seq` of `messages`.
    pub seq_range: Option<(i64, i64)>,
    /// The number of the newest message that was removed because its time was over; 0 if none was. The client discards
    /// the messages up to it.
    pub horizon_seq: i64,
    /// The id of that message. Those before it in the channel have lower ids.
    pub horizon_id: Option<Uuid>,
}

/// A message that was changed, possibly a tombstone.
#[derive(Debug, Clone, Serialize, JsonSchema)]
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
    /// The most messages and changes of all channels together, at most [`TOTAL_LIMIT`].
    pub total: usize,
    /// The most bytes of all channels together.
    pub bytes: usize,
}

sql_number! {
    /// The most messages and changes in one answer.
    pub const TOTAL_LIMIT: usize = total_limit = 2_000;
    /// The most messages, and the most changes, of one channel in an answer.
    pub const SYNC_LIMIT: usize = sync_limit = 200;
}

/// Returns what `reader` missed since `cursors`, which are of different channels, in their order, and whether some
/// channels were left out because the answer is full. However many channels there are, that is one query each for their
/// heads, changes and streams, for new, changed and streamed messages, and for each feature that shows readers something of
/// their own. Messages that are being streamed change without a `rev`: they are among the changes too, as far as there
/// is room.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn sync(
    db: &Db,
    reader: Uuid,
    cursors: &[Cursor],
    limits: Limits,
) -> ImksResult<(Vec<ChannelSync>, bool)> {
    let mut batch = Batch::plan(db, cursors, limits).await?;
    batch.add_streams(db).await?;
    batch.answer(db, reader).await
}

/// The events of a channel that a node has missed, in order.
#[derive(Debug)]
pub struct MissedEvents {
    /// The channel.
    pub channel: Uuid,
    /// The new messages, then the changed ones. Each is in its current state.
    pub told: Vec<Told>,
    /// The `seq` of the channel up to which events are there.
    pub seq: i64,
    /// The `rev` of the channel up to which events are there.
    pub rev: i64,
}

/// The payload of `message:updated` for a message that was changed, in whatever way.
#[derive(Debug, Serialize, JsonSchema)]
struct Refreshed {
    #[serde(flatten)]
    message: MessageDetail,
    kind: &'static str,
}

/// The name of the event that makes clients `sync`.
pub(crate) const SYNC_REQUIRED: &str = "sync:required";

/// The payload of `sync:required`: clients should `sync` these channels.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SyncRequired {
    channel_ids: [Uuid; 1],
    reason: SyncReason,
}

/// Why clients should `sync`.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SyncReason {
    /// The node has missed more events of the channel than it sends one by one.
    Gap,
}

/// Returns the events of a channel after `seq` and `rev`. If there are too many, there is one event that makes
/// clients `sync`.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn missed_events(db: &Db, channel: Uuid, seq: i64, rev: i64) -> ImksResult<MissedEvents> {
    let cursor = Cursor { channel_id: channel, seq, rev };
    let limits = Limits { per_channel: SYNC_LIMIT, total: 2 * SYNC_LIMIT, bytes: ANSWER_BYTES_MAX };
    let (answers, _) = Batch::plan(db, &[cursor], limits).await?.answer(db, Uuid::nil()).await?;
    let Some(missed) = answers.into_iter().next() else {
        return Ok(MissedEvents { channel, told: Vec::new(), seq, rev });
    };
    let (seq, rev) = (missed.seq, missed.rev);
    if missed.truncated || missed.reset {
        let required = Arc::new(SyncRequired { channel_ids: [channel], reason: SyncReason::Gap });
        return Ok(MissedEvents {
            channel,
            told: vec![Told::new(channel, (seq, rev), SYNC_REQUIRED, required)],
            seq,
            rev,
        });
    }
    Ok(events_of(missed, cursor.rev))
}

/// Returns the events of channels after these cursors, which are of different channels: of the first ones, as far as the limits
/// allow, at least of one. `None` stands for what cannot be told one by one.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn missed_events_of(
    db: &Db,
    cursors: &[Cursor],
    limits: Limits,
) -> ImksResult<Vec<Option<MissedEvents>>> {
    let (answers, _) = Batch::plan(db, cursors, limits).await?.answer(db, Uuid::nil()).await?;
    let events = |(missed, cursor): (ChannelSync, &Cursor)| {
        (!missed.truncated && !missed.reset).then(|| events_of(missed, cursor.rev))
    };
    Ok(answers.into_iter().zip(cursors).map(events).collect())
}

/// Returns what was missed as events. The numbers of each say how far somebody has come who has got it and those before it:
/// first all messages, as they are now, then all changes, in their order.
fn events_of(missed: ChannelSync, rev_before: i64) -> MissedEvents {
    let (channel, seq, rev) = (missed.channel_id, missed.seq, missed.rev);
    let new = missed
        .messages
        .into_iter()
        .map(|message| Told::new(channel, (message.seq, rev_before), "message:new", Arc::new(message)));
    let last = missed.changes.len().saturating_sub(1);
    let changed = missed.changes.into_iter().enumerate().map(|(place, changed)| {
        let ChangedMessage { rev: own, message } = changed;
        let payload = ChangeEvent::new(Refreshed { message, kind: "sync" }, own);
        // With the last one, nothing is missed any more: what has later numbers was told as new.
        let at = if place == last { rev } else { own };
        Told::new(channel, (seq, at), "message:updated", Arc::new(payload))
    });
    MissedEvents { channel, told: new.chain(changed).collect(), seq, rev }
}
