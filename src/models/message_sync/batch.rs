//! One answer to `sync`: what fits into it, read with a number of queries that does not depend on that of the channels.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use uuid::Uuid;

use super::changes::{Changed, Changes};
use super::{ChangedMessage, ChannelSync, Cursor, Limits, SYNC_LIMIT, TOTAL_LIMIT};
use crate::ImksResult;
use crate::models::channel_state::{ChannelHead, heads};
use crate::models::db::Db;
use crate::models::message::MessageDetail;
use crate::models::message_id::seq_of;
use crate::models::message_page::{SeqRange, first_by_id, in_ranges, views};
use crate::models::message_row::Message;
use crate::models::message_stream;

/// The channels of an answer, always the first ones of the request: those for which there is no room are left to the
/// next answer.
pub(super) struct Batch {
    parts: Vec<Part>,
    /// Whether channels were left out.
    more: bool,
    /// The messages and changes that may still be read.
    rows_left: usize,
    limits: Limits,
    /// The bytes of the rows of all channels.
    held: usize,
}

impl Batch {
    /// Decides which channels to answer, and what to read of each.
    pub(super) async fn plan(db: &Db, cursors: &[Cursor], limits: Limits) -> ImksResult<Self> {
        let channels: Vec<Uuid> = cursors.iter().map(|cursor| cursor.channel_id).collect();
        // Heads are read before rows.
        let heads = heads(db, &channels).await?;
        let mut changes = Changes::read(db, cursors, &heads).await?;
        let total = limits.total.min(TOTAL_LIMIT);
        let limits =
            Limits { per_channel: limits.per_channel.clamp(1, SYNC_LIMIT).min(total), total, ..limits };
        let mut batch = Self { parts: Vec::new(), more: false, rows_left: total, limits, held: 0 };
        for (cursor, head) in cursors.iter().zip(heads).take(changes.covered) {
            let mut part = Part::new(*cursor, head, changes.of(cursor, &head), limits.per_channel);
            let fits = part.rows() <= batch.rows_left;
            if !fits && batch.rows_left < total {
                break;
            }
            if !fits {
                part.start_over(limits.per_channel);
            }
            batch.rows_left -= part.rows();
            batch.parts.push(part);
            // Where one channel has too many changes, those of the next ones were not read.
            if !fits {
                break;
            }
        }
        batch.more = batch.parts.len() < cursors.len();
        Ok(batch)
    }

    /// Adds to the changes the messages that the client has and that are being streamed.
    pub(super) async fn add_streams(&mut self, db: &Db) -> ImksResult<()> {
        let known = self.parts.iter().filter(|part| !part.reset);
        let known: Vec<Uuid> = known.map(|part| part.head.channel_id).collect();
        let places = self.places();
        for (message, channel) in message_stream::active(db, &known, self.rows_left).await? {
            let Some(part) = places.get(&channel).map(|place| &mut self.parts[*place]) else { continue };
            if seq_of(message) <= part.cursor.seq && !part.changed.contains_key(&message) {
                part.streamed.push(message);
            }
        }
        Ok(())
    }

    /// Reads what was planned and returns it as `reader` sees it, and whether channels were left out.
    pub(super) async fn answer(mut self, db: &Db, reader: Uuid) -> ImksResult<(Vec<ChannelSync>, bool)> {
        self.read_messages(db).await?;
        if !self.read_changes(db).await? {
            self.start_over();
            self.read_messages(db).await?;
        }
        self.read_streams(db).await?;
        let (mut answers, mut rows) = (Vec::with_capacity(self.parts.len()), Vec::new());
        for part in self.parts {
            let (outline, messages, changes) = part.into_outline();
            answers.push((outline, messages.len(), changes.len()));
            rows.extend(messages.into_iter().chain(changes));
        }
        let mut views = views(db, reader, rows).await?.into_iter();
        let filled = answers
            .into_iter()
            .map(|(outline, messages, changes)| outline.filled(&mut views, messages, changes));
        Ok((filled.collect(), self.more))
    }

    /// Reads the new messages of all channels.
    async fn read_messages(&mut self, db: &Db) -> ImksResult<()> {
        let ranges: Vec<SeqRange> = self.parts.iter().filter_map(Part::range).collect();
        if ranges.is_empty() {
            return Ok(());
        }
        let places = self.places();
        let mut rows = in_ranges(db, &ranges, self.limits.bytes);
        while let Some(row) = rows.try_next().await? {
            let place = places.get(&row.channel_id).copied().unwrap_or(usize::MAX);
            // They come channel by channel, the newest of each first: those behind are not needed either.
            if !self.make_room(place) {
                break;
            }
            self.held += row.bytes();
            self.parts[place].messages.push(row);
        }
        Ok(())
    }

    /// Reads the changed messages of all channels. Returns whether those of the first one fit.
    async fn read_changes(&mut self, db: &Db) -> ImksResult<bool> {
        // Channel by channel: if the rows end because there is no more room, those behind are not needed.
        let ids: Vec<Uuid> = self.parts.iter().flat_map(|part| part.changed.keys()).copied().collect();
        if ids.is_empty() {
            return Ok(true);
        }
        let places = self.places();
        let mut rows = first_by_id(db, &ids, self.limits.bytes);
        while let Some(mut row) = rows.try_next().await? {
            let place = places.get(&row.channel_id).copied().unwrap_or(usize::MAX);
            let rev = self.parts.get(place).and_then(|part| part.changed.get(&row.id)).copied();
            let Some(rev) = rev else { continue };
            row.rev = rev;
            if self.make_room(place) {
                self.held += row.bytes();
                self.parts[place].changes.push(row);
            } else if place < self.parts.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the messages that are being streamed, as far as there is room.
    async fn read_streams(&mut self, db: &Db) -> ImksResult<()> {
        let ids: Vec<Uuid> = self.parts.iter().flat_map(|part| &part.streamed).copied().collect();
        if ids.is_empty() || self.is_full() {
            return Ok(());
        }
        let places = self.places();
        let mut rows = first_by_id(db, &ids, self.limits.bytes - self.held);
        while let Some(mut row) = rows.try_next().await? {
            if self.is_full() {
                break;
            }
            let place = places.get(&row.channel_id).copied().unwrap_or(usize::MAX);
            let Some(part) = self.parts.get_mut(place) else { continue };
            // A change since the heads were read has a greater number than the cursor that the answer gives.
            row.rev = row.rev.min(part.head.last_rev);
            self.held += row.bytes();
            part.changes.push(row);
        }
        Ok(())
    }

    /// Makes room for a row of the channel at `place` by leaving the last channels to the next answer. Returns `false`
    /// if that channel was left out itself, or if it is the only one that has rows.
    fn make_room(&mut self, place: usize) -> bool {
        while self.is_full() && place < self.parts.len() {
            let Some((last, others)) = self.parts.split_last() else { return false };
            if others.iter().all(|part| part.rows() == 0) {
                return false;
            }
            self.held -= last.bytes();
            self.parts.pop();
            self.more = true;
        }
        place < self.parts.len()
    }

    /// Forgets what was read of the only channel that has rows: its changes do not fit, and the newest page does.
    fn start_over(&mut self) {
        self.held = 0;
        if let Some(part) = self.parts.last_mut() {
            part.start_over(self.limits.per_channel);
        }
    }

    /// The row that reaches the limit is still included.
    fn is_full(&self) -> bool {
        self.held >= self.limits.bytes
    }

    fn places(&self) -> HashMap<Uuid, usize> {
        self.parts.iter().enumerate().map(|(place, part)| (part.head.channel_id, place)).collect()
    }
}

/// What is read of one channel.
struct Part {
    cursor: Cursor,
    head: ChannelHead,
    /// Whether the client has to discard what it has.
    reset: bool,
    /// The messages after those that the client has.
    missing: usize,
    /// The newest messages to read, of those that are missing.
    wanted: usize,
    /// The changed messages to read.
    changed: Changed,
    /// The messages to read that change without a number.
    streamed: Vec<Uuid>,
    messages: Vec<Message>,
    changes: Vec<Message>,
}

impl Part {
    /// Plans a channel with at most `most` messages. `changed` is `None` if the changes cannot be told one by one.
    fn new(cursor: Cursor, head: ChannelHead, changed: Option<Changed>, most: usize) -> Self {
        let missing = count(head.last_seq - cursor.seq.max(head.horizon_seq));
        // A cursor beyond the head comes from another history, such as a database restored from a backup.
        let is_foreign = cursor.seq > head.last_seq || cursor.rev > head.last_rev;
        let is_known = !is_foreign && changed.is_some();
        let mut part = Self {
            cursor,
            head,
            reset: false,
            missing,
            wanted: missing.min(most),
            changed: changed.unwrap_or_default(),
            streamed: Vec::new(),
            messages: Vec::new(),
            changes: Vec::new(),
        };
        if !is_known {
            part.start_over(most);
        }
        part
    }

    /// Plans the newest page, for a client that discards what it has.
    fn start_over(&mut self, most: usize) {
        self.reset = true;
        self.missing = count(self.head.last_seq - self.head.horizon_seq);
        self.wanted = self.missing.min(most);
        self.changed.clear();
        self.streamed.clear();
        self.messages.clear();
        self.changes.clear();
    }

    /// Returns how many rows were planned, without those of streams, for which nothing else is left out.
    fn rows(&self) -> usize {
        self.wanted + self.changed.len()
    }

    fn bytes(&self) -> usize {
        self.messages.iter().chain(&self.changes).map(Message::bytes).sum()
    }

    /// Returns where the messages to read are.
    fn range(&self) -> Option<SeqRange> {
        let after = self.head.last_seq - i64::try_from(self.wanted).ok()?;
        (self.wanted > 0).then_some(SeqRange {
            channel: self.head.channel_id,
            after,
            until: self.head.last_seq,
        })
    }

    /// Returns the answer without its messages, and the rows of its messages and changes, in order.
    fn into_outline(mut self) -> (Outline, Vec<Message>, Vec<Message>) {
        self.messages.reverse();
        self.changes.sort_unstable_by_key(|row| row.rev);
        let truncated = self.messages.len() < self.missing;
        (Outline { head: self.head, truncated, reset: self.reset }, self.messages, self.changes)
    }
}

/// An answer without its messages.
struct Outline {
    head: ChannelHead,
    truncated: bool,
    reset: bool,
}

impl Outline {
    /// Returns the answer with the next ones of `views`: first so many messages, then so many changes.
    fn filled(
        self,
        views: &mut impl Iterator<Item = MessageDetail>,
        messages: usize,
        changes: usize,
    ) -> ChannelSync {
        let messages: Vec<MessageDetail> = views.take(messages).collect();
        let changes =
            views.take(changes).map(|message| ChangedMessage { rev: message.rev, message }).collect();
        ChannelSync {
            channel_id: self.head.channel_id,
            seq_range: messages.first().zip(messages.last()).map(|(first, last)| (first.seq, last.seq)),
            messages,
            changes,
            seq: self.head.last_seq,
            rev: self.head.last_rev,
            truncated: self.truncated,
            reset: self.reset,
            horizon_seq: self.head.horizon_seq,
            horizon_id: self.head.horizon_id,
        }
    }
}

fn count(numbers: i64) -> usize {
    usize::try_from(numbers).unwrap_or(0)
}
