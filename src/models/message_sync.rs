//! What a client missed: messages after its `seq`, changed messages after its `rev` (docs/protocol.md, `sync`).
//!
//! Heads are read first and rows after them, so an answer may hold more than its `seq` and `rev` say, never less.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::channel_state::{ChannelHead, heads};
use super::db::{Db, on};
use super::message::{Message, MessageDetail};
use super::message_page::{Room, newest, rows_by_id, views};
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

/// How much one answer may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages of one channel, between 1 and [`SYNC_LIMIT`]; anything else is moved there.
    pub per_channel: usize,
    /// Messages and changes of all channels together.
    pub total: usize,
    /// Bytes of all channels together.
    pub bytes: usize,
}

/// Most messages, and most changes, in one channel's answer.
pub const SYNC_LIMIT: usize = 200;

/// What `reader` missed since `cursors`, in the order asked for, and whether some were left out because the answer is
/// full. Up-to-date channels cost no query of their own.
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
        // What does not fit beside others gets the next answer for itself.
        if missed.cut && room != whole {
            return Ok((answers, true));
        }
        room = missed.room;
        answers.push(missed.answer(db, reader, *cursor, head).await?);
    }
    Ok((answers, false))
}

/// What was missed in one channel.
struct Missed {
    messages: Vec<Message>,
    changes: Vec<Message>,
    truncated: bool,
    reset: bool,
    /// Whether it would be more if there were more room.
    cut: bool,
    /// What is left for others.
    room: Room,
}

async fn missed(
    db: &Db,
    cursor: Cursor,
    head: ChannelHead,
    per_channel: usize,
    mut room: Room,
) -> ImksResult<Missed> {
    let missing = head.last_seq - cursor.seq;
    // A cursor of the future comes from another history, for example a database restored from a backup.
    let foreign = missing < 0 || cursor.rev > head.last_rev;
    let wanted = if foreign { head.last_seq } else { missing };
    let wanted = usize::try_from(wanted).unwrap_or(0).min(per_channel);
    let messages = match wanted.min(room.rows) {
        0 => Vec::new(),
        rows => newest(db, cursor.channel_id, head.last_seq, Room { rows, bytes: room.bytes }).await?,
    };
    messages.iter().for_each(|row| room.take(row));
    let truncated = !foreign && i64::try_from(messages.len()).unwrap_or(i64::MAX) < missing;
    let mut missed = Missed {
        cut: messages.len() < wanted,
        truncated,
        reset: foreign,
        messages,
        changes: Vec::new(),
        room,
    };
    if !foreign && cursor.rev < head.last_rev {
        let changes = changes_since(db, cursor.channel_id, cursor.rev, missed.room).await?;
        missed.cut |= changes.cut;
        // Too much to tell message by message: a fresh page is cheaper for both sides.
        missed.reset = changes.cut || changes.incomplete;
        if !missed.reset {
            changes.rows.iter().for_each(|row| missed.room.take(row));
            missed.changes = changes.rows;
        }
    }
    Ok(missed)
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

/// What changed in a channel after a `rev`.
struct Changes {
    /// The messages, each once, by the number of their last change.
    rows: Vec<Message>,
    /// There are more than fit.
    cut: bool,
    /// The log does not reach back to the `rev` asked for.
    incomplete: bool,
}

/// For a `rev` below the channel's.
async fn changes_since(db: &Db, channel: Uuid, rev: i64, room: Room) -> ImksResult<Changes> {
    let limit = room.rows.min(SYNC_LIMIT);
    let one_more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let ids: Vec<Uuid> = on!(read db, pool => {
        sqlx::query_scalar(CHANGES).bind(channel).bind(rev).bind(one_more).fetch_all(pool).await?
    });
    // Numbers have no holes: if the next change is not in the log, the log was cut after it.
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
