//! What a client missed: messages after its `seq`, changed messages after its `rev` (docs/protocol.md, `sync`).
//!
//! Heads are read first and rows after them, so an answer may hold more than its `seq` and `rev` say, never less.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use super::channel_state::{ChannelHead, heads};
use super::db::{Db, on};
use super::message::{MessageDetail, newer_than, rows_by_id, with_replies};
use crate::ImksResult;

/// What a client has of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Cursor {
    /// The channel.
    pub channel_id: Uuid,
    /// Its newest message.
    pub seq: i64,
    /// Its newest change.
    pub rev: i64,
}

/// What brings a client up to date in a channel.
#[derive(Debug, Clone, Serialize)]
pub struct ChannelSync {
    /// The channel.
    pub channel_id: Uuid,
    /// Messages after the cursor, oldest first; the newest page when `truncated`.
    pub messages: Vec<MessageDetail>,
    /// Messages that were changed after the cursor, as they are now.
    pub changes: Vec<ChangedMessage>,
    /// The cursor for next time.
    pub seq: i64,
    /// The cursor for next time.
    pub rev: i64,
    /// Messages between the cursor and `messages` are left out: a hole to be filled on scroll.
    pub truncated: bool,
    /// The change log does not reach back to the cursor: discard what is cached.
    pub reset: bool,
    /// First and last `seq` of `messages`.
    pub seq_range: Option<(i64, i64)>,
}

/// A message that was changed, tombstones included.
#[derive(Debug, Clone, Serialize)]
pub struct ChangedMessage {
    /// Number of its last change.
    pub rev: i64,
    /// The message as it is now.
    pub message: MessageDetail,
}

/// What changed in a channel after a `rev`, each message once.
#[derive(Debug, Clone)]
pub struct Changes {
    /// The messages, by the number of their last change.
    pub messages: Vec<ChangedMessage>,
    /// The cursor for next time.
    pub rev: i64,
    /// There are more: ask again with `rev`.
    pub more: bool,
    /// The log does not reach back to the `rev` asked for.
    pub incomplete: bool,
}

/// Most messages, and most changes, in one channel's answer.
pub const SYNC_LIMIT: i64 = 200;

/// What `cursors` missed, in the order asked for. Up-to-date channels cost no query of their own.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn sync(db: &Db, cursors: &[Cursor], limit: i64) -> ImksResult<Vec<ChannelSync>> {
    let limit = limit.clamp(1, SYNC_LIMIT);
    let channels: Vec<Uuid> = cursors.iter().map(|cursor| cursor.channel_id).collect();
    let heads = heads(db, &channels).await?;
    let mut answers = Vec::with_capacity(cursors.len());
    for (cursor, head) in cursors.iter().zip(heads) {
        answers.push(channel(db, *cursor, head, limit).await?);
    }
    Ok(answers)
}

async fn channel(db: &Db, cursor: Cursor, head: ChannelHead, limit: i64) -> ImksResult<ChannelSync> {
    let missing = head.last_seq - cursor.seq;
    let truncated = missing > limit;
    // A cursor of the future comes from another history, for example a database restored from a backup.
    let foreign = missing < 0 || cursor.rev > head.last_rev;
    let from = if truncated || foreign { head.last_seq - limit } else { cursor.seq };
    let messages = match missing {
        0 => Vec::new(),
        _ => newer_than(db, cursor.channel_id, from, limit).await?.0,
    };
    let mut answer = ChannelSync {
        channel_id: cursor.channel_id,
        seq_range: messages.first().zip(messages.last()).map(|(first, last)| (first.seq, last.seq)),
        seq: messages.last().map_or(head.last_seq, |last| last.seq.max(head.last_seq)),
        messages,
        changes: Vec::new(),
        rev: head.last_rev,
        truncated,
        reset: foreign,
    };
    if !foreign && cursor.rev < head.last_rev {
        let changes = changes_since(db, cursor.channel_id, cursor.rev, SYNC_LIMIT).await?;
        // Too much to tell message by message: a fresh page is cheaper for both sides.
        answer.reset = changes.more || changes.incomplete;
        answer.rev = changes.rev.max(head.last_rev);
        answer.changes = if answer.reset { Vec::new() } else { changes.messages };
    }
    Ok(answer)
}

/// Messages of a channel that were changed after `rev`, each once and as it is now, by the number of its last
/// change. For a `rev` below the channel's.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn changes_since(db: &Db, channel: Uuid, rev: i64, limit: i64) -> ImksResult<Changes> {
    let mut entries: Vec<Entry> = on!(read db, pool => {
        sqlx::query_as(CHANGES).bind(channel).bind(rev).bind(limit + 1).fetch_all(pool).await?
    });
    let more = entries.len() > usize::try_from(limit).unwrap_or(0);
    if more {
        entries.pop();
    }
    // Numbers have no holes: if the next change is not in the log, the log was cut after it.
    let next: i64 = on!(read db, pool => {
        sqlx::query_scalar(LOGGED).bind(channel).bind(rev + 1).fetch_one(pool).await?
    });
    let ids: Vec<Uuid> = entries.iter().map(|entry| entry.message_id).collect();
    let rows = if ids.is_empty() { Vec::new() } else { rows_by_id(db, &ids).await? };
    let mut messages: Vec<ChangedMessage> = with_replies(db, rows)
        .await?
        .into_iter()
        .map(|message| ChangedMessage { rev: message.rev, message })
        .collect();
    messages.sort_unstable_by_key(|changed| changed.rev);
    let rev = entries.last().map_or(rev, |entry| entry.rev);
    Ok(Changes { messages, rev, more, incomplete: next == 0 })
}

#[derive(FromRow)]
struct Entry {
    message_id: Uuid,
    rev: i64,
}

const LOGGED: &str = "SELECT COUNT(*) FROM channel_change WHERE channel_id = $1 AND rev = $2";
const CHANGES: &str = "SELECT message_id, MAX(rev) AS rev FROM channel_change \
    WHERE channel_id = $1 AND rev > $2 GROUP BY message_id ORDER BY MAX(rev) LIMIT $3";
