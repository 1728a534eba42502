//! The order of one channel: merges live events, `sync` and `history` into one sequence without holes and doubles. No I/O,
//! and time is an argument.

mod lengths;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use self::lengths::Lengths;
use super::event::{Change, ChannelEvent, Cursor, characters};
use super::message::{Message, Page, TextStream};
use super::wire::{Changed, ChannelSync, Live, Numbered};

/// What is missing, and what must be asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    Sync { seq: i64, rev: i64 },
    History { after: Uuid },
    Messages { ids: Vec<Uuid> },
}

/// What kind of thing must be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Sync,
    History,
    Messages,
}

/// How a reader wants its events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// The maximum number of live events that wait for the reader. Further ones are dropped, and asked for again when
    /// there is room.
    pub(super) buffer: usize,
    /// Whether messages that do not fit into one answer are left out with a `Gap`, or all fetched.
    pub(super) skip_gaps: bool,
}

/// Merges one channel. Facts come in by `live`, `heads`, `synced`, `page` and `got`, in any order and number; what is known
/// comes out of `take`, in order. `next` says what the server should be asked.
#[derive(Debug)]
pub(super) struct Timeline {
    begin: Cursor,
    options: Options,
    /// What waits for the reader, each with the place after it.
    queue: VecDeque<(ChannelEvent, Cursor)>,
    /// The place after the last event of the queue.
    cursor: Cursor,
    horizon: i64,
    /// The greatest numbers that were heard of, also in events that were dropped.
    head: Numbers,
    /// Events whose predecessors are missing.
    pending: Vec<Pending>,
    /// What `history` is to bring, while messages are fetched that do not fit into a `sync`.
    filling: Option<Filling>,
    /// Whether to `sync` without waiting for the hole to close.
    is_stale: bool,
    hole_since: Option<Instant>,
    /// How many characters are known of each message that is being streamed.
    known: Lengths,
    /// How many characters there are of a message that is being streamed, where pieces came that did not fit.
    heard: Lengths,
}

#[derive(Debug, Clone, Copy)]
struct Numbers {
    seq: i64,
    rev: i64,
}

#[derive(Debug, Clone, Copy)]
struct Filling {
    after: Uuid,
    until: i64,
}

#[derive(Debug)]
enum Pending {
    Message(Box<Message>),
    Change(Numbered),
}

impl Timeline {
    /// Begins after a place in a channel, whose messages up to `horizon` are gone.
    pub(super) fn new(begin: Cursor, horizon: i64, options: Options) -> Self {
        Self {
            begin,
            options,
            queue: VecDeque::new(),
            cursor: begin,
            horizon,
            head: Numbers { seq: begin.seq, rev: begin.rev },
            pending: Vec::new(),
            filling: None,
            is_stale: false,
            hole_since: None,
            known: Lengths::default(),
            heard: Lengths::default(),
        }
    }

    /// Returns the place where it began.
    pub(super) fn begin(&self) -> Cursor {
        self.begin
    }

    /// Returns the number of events that wait: those for the reader, and those whose predecessors are missing.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.pending.len()
    }

    /// Returns the next event for the reader, and the place after it.
    pub(super) fn take(&mut self) -> Option<(ChannelEvent, Cursor)> {
        self.queue.pop_front()
    }

    /// Takes a live event, in the order of the connection.
    pub(super) fn live(&mut self, event: Live, now: Instant) {
        let pending = match event {
            Live::Horizon { seq, id } => {
                self.raise(seq, id);
                return self.drain();
            }
            Live::Append { id, offset, text } => return self.append(id, offset, text),
            Live::Message(message) => {
                self.hear(message.seq, 0);
                Pending::Message(message)
            }
            Live::Change(change) => {
                self.hear(0, change.rev);
                Pending::Change(change)
            }
        };
        if self.queue.len() >= self.options.buffer {
            self.is_stale = true;
            return;
        }
        // When this is full, what comes first fits first: the newest can be asked for again.
        match self.pending.len() < PENDING_MAX {
            true => self.pending.push(pending),
            false => self.is_stale = true,
        }
        self.drain();
        self.watch(now);
    }

    /// Takes the numbers of a channel whose events do not come, or did not.
    pub(super) fn heads(&mut self, seq: i64, rev: i64) {
        self.hear(seq, rev);
        self.is_stale |= self.is_behind();
    }

    /// Notes that events may have been missed: after each connect, for `sync:required`, and when a request has failed.
    pub(super) fn resync(&mut self) {
        self.is_stale = true;
    }

    /// Returns when [`Timeline::wants`] says something, if nothing happens until then: now or later, or `None` for never.
    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        match (self.wants(now), self.hole_since) {
            (Some(_), _) => Some(now),
            (None, Some(since)) if self.has_room() => Some(since + HOLE_MAX),
            (None, _) => None,
        }
    }

    /// Returns what [`Timeline::next`] would ask: nothing if all is known, or if the reader has enough to do.
    pub(super) fn wants(&self, now: Instant) -> Option<Wanted> {
        if !self.has_room() {
            return None;
        }
        let is_hole_old = || self.hole_since.is_some_and(|since| now >= since + HOLE_MAX);
        match () {
            () if self.filling.is_some() => Some(Wanted::History),
            () if self.is_stale || is_hole_old() => Some(Wanted::Sync),
            () => self.torn().next().map(|_| Wanted::Messages),
        }
    }

    /// Returns what to ask now, and takes it as asked. A request that fails is to be told by [`Timeline::resync`].
    pub(super) fn next(&mut self, now: Instant) -> Option<Ask> {
        match self.wants(now)? {
            Wanted::History => self.filling.map(|filling| Ask::History { after: filling.after }),
            Wanted::Sync => {
                let Cursor { seq, rev, .. } = self.cursor;
                (self.is_stale, self.hole_since) = (false, None);
                // The answer has everything that was heard of until now, or says that it was of another history.
                self.head = Numbers { seq, rev };
                Some(Ask::Sync { seq, rev })
            }
            Wanted::Messages => {
                let ids: Vec<Uuid> = self.torn().collect();
                // An answer that has less is not asked for again, until the next piece comes.
                ids.iter().for_each(|id| self.heard.forget(*id));
                Some(Ask::Messages { ids })
            }
        }
    }

    /// Takes the answer to `sync`.
    pub(super) fn synced(&mut self, answer: ChannelSync, now: Instant) {
        let is_newest = answer.rev >= self.cursor.rev;
        let until = self.cursor.seq;
        self.hear(answer.seq, answer.rev);
        match answer.reset {
            true => self.reset(&answer),
            false => self.raise(answer.horizon_seq, answer.horizon_id),
        }
        let ChannelSync { messages, changes, seq, rev: head_rev, truncated, reset, .. } = answer;
        let known = self.cursor.rev;
        let mut changes = changes.into_iter().peekable();
        while let Some(change) = changes.next() {
            let (rev, message) = (change.rev, change.message);
            // A message that is being streamed may have the number of another change, which is passed with the last of them.
            let is_last = changes.peek().is_none_or(|next| next.rev != rev);
            // Those after the cursor come as messages, as they are now.
            if message.seq > until {
                continue;
            }
            if rev > known {
                let passed = if is_last { rev } else { rev.saturating_sub(1) };
                let id = message.id;
                self.deliver_change(Numbered { rev, id, changed: Changed::by_answer(message) }, passed);
            } else if is_newest {
                self.refresh(message);
            }
        }
        self.cursor.rev = self.cursor.rev.max(head_rev);
        self.advance(messages, seq, truncated || reset);
        self.drain();
        self.watch(now);
    }

    /// Takes a page of `history` after the place that was asked for, or the newest page, with which a reader begins.
    pub(super) fn page(&mut self, page: Page, now: Instant) {
        let last = page.messages.last().map(|message| message.id);
        self.deliver(page.messages);
        match (&mut self.filling, last) {
            (Some(filling), Some(last)) if page.has_more_after => filling.after = last,
            (Some(filling), _) => {
                let until = filling.until;
                self.raise_to(until);
                self.filling = None;
                self.drain();
                // Events came meanwhile for which there was no room.
                self.is_stale |= self.is_behind();
            }
            (None, _) => {}
        }
        self.drain();
        self.watch(now);
    }

    /// Takes the answer to `message:get`, which may be older than what came meanwhile: an end, most of all.
    pub(super) fn got(&mut self, messages: Vec<Message>) {
        for message in messages {
            if self.known.get(message.id).is_some() {
                self.refresh(message);
            }
        }
    }

    fn hear(&mut self, seq: i64, rev: i64) {
        self.head = Numbers { seq: self.head.seq.max(seq), rev: self.head.rev.max(rev) };
    }

    fn has_room(&self) -> bool {
        self.queue.len() <= self.options.buffer / 2
    }

    fn is_behind(&self) -> bool {
        self.head.seq > self.cursor.seq || self.head.rev > self.cursor.rev
    }

    /// Starts or ends the wait for what is missing.
    fn watch(&mut self, now: Instant) {
        self.hole_since = match self.is_behind() && self.filling.is_none() {
            true => self.hole_since.or(Some(now)),
            false => None,
        };
    }

    /// Delivers what fits of the pending events, and forgets what is known.
    fn drain(&mut self) {
        loop {
            // Messages that are being fetched count as known: as they were sent, they are without the changes up to the cursor.
            let until = self.filling.map_or(self.cursor.seq, |filling| filling.until.max(self.cursor.seq));
            let rev = self.cursor.rev;
            self.pending.retain(|event| match event {
                Pending::Message(message) => message.seq > until,
                Pending::Change(change) => change.rev > rev,
            });
            let Some(at) = self.pending.iter().position(|event| self.fits(event)) else { return };
            match self.pending.remove(at) {
                Pending::Message(message) => self.deliver(vec![*message]),
                Pending::Change(change) => {
                    let passed = change.rev;
                    self.deliver_change(change, passed);
                }
            }
        }
    }

    fn fits(&self, event: &Pending) -> bool {
        match event {
            Pending::Message(message) => message.seq == self.cursor.seq.saturating_add(1),
            Pending::Change(change) => {
                change.rev == self.cursor.rev.saturating_add(1) && self.is_delivered(change.id)
            }
        }
    }

    /// Whether a message was delivered: in one channel, ids are in the order of `seq`.
    fn is_delivered(&self, id: Uuid) -> bool {
        self.cursor.id.is_some_and(|newest| id <= newest)
    }

    fn deliver(&mut self, messages: Vec<Message>) {
        for message in messages {
            if message.seq <= self.cursor.seq {
                continue;
            }
            // An answer leaves out only what is gone.
            self.raise_to(message.seq.saturating_sub(1));
            (self.cursor.seq, self.cursor.id) = (message.seq, Some(message.id));
            self.follow(message.id, message.stream.as_ref());
            self.push(ChannelEvent::Message(Box::new(message)));
        }
    }

    fn deliver_change(&mut self, Numbered { rev, id, changed }: Numbered, passed: i64) {
        self.cursor.rev = passed;
        match changed {
            Changed::Deleted { seq, deleted_at, message } => {
                self.follow(id, None);
                self.push(ChannelEvent::Deleted { id, seq, rev, deleted_at, message });
            }
            Changed::Updated { kind, change, own } => {
                if let Change::Message(message) = &change {
                    self.follow(id, message.stream.as_ref());
                }
                self.push(ChannelEvent::Updated { id, rev, kind, change, own });
            }
        }
    }

    /// Delivers the messages of an answer up to `seq`, if none is missing before them.
    fn advance(&mut self, messages: Vec<Message>, seq: i64, may_lack: bool) {
        let next = self.cursor.seq.saturating_add(1);
        let first = messages.iter().map(|message| message.seq).find(|first| *first >= next);
        let is_whole = !may_lack || seq <= self.cursor.seq || first == Some(next);
        if !is_whole && !self.options.skip_gaps {
            let after = self.cursor.id.unwrap_or_default();
            self.filling.get_or_insert(Filling { after, until: seq });
            return;
        }
        if !is_whole {
            let (after, before) = (self.cursor.seq, first.unwrap_or(seq.saturating_add(1)));
            self.cursor.seq = before.saturating_sub(1);
            self.push(ChannelEvent::Gap { after, before });
        }
        self.deliver(messages);
        self.raise_to(seq);
    }

    /// Starts over with the numbers of an answer, which may be those of another history.
    fn reset(&mut self, answer: &ChannelSync) {
        let ChannelSync { messages, seq, rev, horizon_seq, .. } = answer;
        let known = messages.iter().filter(|message| message.seq <= self.cursor.seq);
        let known: Vec<Message> = known.cloned().collect();
        if *seq < self.cursor.seq {
            self.cursor = Cursor { seq: *seq, rev: *rev, id: messages.last().map(|message| message.id) };
        }
        self.cursor.rev = *rev;
        self.head = Numbers { seq: *seq, rev: *rev };
        self.horizon = *horizon_seq;
        self.cursor.seq = self.cursor.seq.max(*horizon_seq);
        self.pending.clear();
        self.filling = None;
        (self.known, self.heard) = (Lengths::default(), Lengths::default());
        known.iter().for_each(|message| self.follow(message.id, message.stream.as_ref()));
        self.push(ChannelEvent::Reset { messages: known });
    }

    /// Takes it that no message up to `seq` is left beyond those that were delivered.
    fn raise_to(&mut self, seq: i64) {
        if seq > self.cursor.seq {
            self.raise(seq, None);
        }
    }

    fn raise(&mut self, until_seq: i64, until_id: Option<Uuid>) {
        if until_seq <= self.horizon {
            return;
        }
        self.horizon = until_seq;
        if self.cursor.seq < until_seq {
            self.cursor = Cursor { seq: until_seq, id: until_id.or(self.cursor.id), ..self.cursor };
        }
        // It may come when the queue is full: it is one event, and rare.
        self.push(ChannelEvent::Removed { until_seq, until_id });
    }

    /// Notes how much is known of a message that is being streamed, or that it is not any more.
    fn follow(&mut self, id: Uuid, stream: Option<&TextStream>) {
        self.known.forget(id);
        let active = stream.filter(|stream| stream.is_active()).map(|stream| stream.offset);
        if let Some(offset) = active {
            self.known.note(id, offset);
        }
        if active.is_none_or(|offset| offset >= self.heard.get(id).unwrap_or(0)) {
            self.heard.forget(id);
        }
    }

    fn append(&mut self, id: Uuid, offset: u64, text: String) {
        let (known, end) = (self.known.get(id), offset.saturating_add(characters(&text)));
        if known == Some(offset) && self.queue.len() < self.options.buffer {
            self.push(ChannelEvent::Append { id, offset, text });
            self.follow(id, Some(&TextStream::active(end)));
        } else if known.map_or(!self.is_delivered(id), |known| end > known) {
            // Also of a message that itself has to wait.
            self.heard.note(id, end.max(self.heard.get(id).unwrap_or(0)));
        }
    }

    /// Returns the messages of which pieces were missed.
    fn torn(&self) -> impl Iterator<Item = Uuid> + '_ {
        let is_torn = |id: Uuid, end: u64| self.known.get(id).is_some_and(|known| end > known);
        self.heard.iter().filter(move |(id, end)| is_torn(*id, *end)).map(|(id, _)| id)
    }

    /// Takes the text of a message that is being streamed. Until its end it only grows, and without a number, so that it is
    /// not older than what is known wherever it is longer. Everything else of it has come, or will come, with a number.
    fn refresh(&mut self, message: Message) {
        let Message { id, seq, body, stream, .. } = message;
        let Some(stream) = stream.filter(TextStream::is_active) else { return };
        let is_news = self.known.get(id).is_none_or(|known| stream.offset > known);
        if !is_news || !self.is_delivered(id) || seq <= self.horizon {
            return;
        }
        self.follow(id, Some(&stream));
        let (rev, change) = (self.cursor.rev, Change::Text { body, stream });
        self.push(ChannelEvent::Updated { id, rev, kind: "stream".into(), change, own: None });
    }

    fn push(&mut self, event: ChannelEvent) {
        self.queue.push_back((event, self.cursor));
    }
}

/// How long a hole may stay before `sync` is asked.
pub(super) const HOLE_MAX: Duration = Duration::from_secs(2);

/// The maximum number of live events of a channel that wait for their predecessors. Further ones are dropped, and asked for
/// again.
const PENDING_MAX: usize = 256;
