//! The reader of one channel: where it is, what it wants, and what becomes of it when that fails.

use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{Job, Start, Taken};
use crate::client::chat::event::Cursor;
use crate::client::chat::message::Page;
use crate::client::chat::timeline::{Ask, Options, Timeline, Wanted};
use crate::client::chat::wire::{ChannelSync, Head};
use crate::client::error::ClientError;

/// The reader of one channel.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) number: u64,
    pub(super) channel: Uuid,
    from: Start,
    options: Options,
    place: Place,
    /// The connection on which its room was entered.
    joined: Option<u64>,
    /// Whether it is asked for alone, because a request for several readers was refused: until one for it has succeeded.
    pub(super) is_alone: bool,
    /// Requests in a row that failed.
    failures: u32,
    /// No request for it is made before this time, because the last one failed.
    pub(super) not_before: Option<Instant>,
    /// Why it has ended, if it has.
    over: Option<Option<ClientError>>,
    /// Whether whoever takes its events has been told why it has ended.
    is_told: bool,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Place {
    /// The server has not said yet where the channel is.
    Unknown,
    /// The page is missing with which the reader begins.
    Opening(Head, usize),
    Open(Box<Timeline>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Join,
    Sync,
    Fetch,
}

impl Reader {
    /// Creates a reader that has ended already if `over` says why.
    pub(super) fn new(
        number: u64,
        channel: Uuid,
        from: Start,
        options: Options,
        over: Option<Option<ClientError>>,
    ) -> Self {
        let (place, joined, not_before, waker) = (Place::Unknown, None, None, None);
        let (is_alone, is_told, failures) = (false, false, 0);
        Self {
            number,
            channel,
            from,
            options,
            place,
            joined,
            is_alone,
            failures,
            not_before,
            over,
            is_told,
            waker,
        }
    }

    pub(super) fn take(&mut self, waker: &Waker) -> Taken {
        if let Some((event, cursor)) = self.timeline_mut().and_then(Timeline::take) {
            return Taken::Event(event, cursor);
        }
        match &self.over {
            Some(_) if self.is_told => Taken::End(None),
            Some(error) => {
                self.is_told = true;
                Taken::End(error.clone())
            }
            None => {
                self.waker = Some(waker.clone());
                Taken::Nothing
            }
        }
    }

    pub(super) fn begun(&mut self, waker: &Waker) -> Result<Option<Cursor>, Option<ClientError>> {
        match (&self.place, &self.over) {
            (Place::Open(timeline), _) => Ok(Some(timeline.begin())),
            (_, Some(error)) => Err(error.clone()),
            (_, None) => {
                self.waker = Some(waker.clone());
                Ok(None)
            }
        }
    }

    pub(super) fn timeline(&self) -> Option<&Timeline> {
        match &self.place {
            Place::Open(timeline) => Some(timeline),
            _ => None,
        }
    }

    pub(super) fn timeline_mut(&mut self) -> Option<&mut Timeline> {
        match &mut self.place {
            Place::Open(timeline) => Some(timeline),
            _ => None,
        }
    }

    pub(super) fn resync(&mut self) {
        if let Some(timeline) = self.timeline_mut() {
            timeline.resync();
        }
    }

    pub(super) fn synced(&mut self, answer: ChannelSync, now: Instant) {
        if let Some(timeline) = self.timeline_mut() {
            timeline.synced(answer, now);
        }
    }

    pub(super) fn due_at(&self, now: Instant, connection: u64) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let due = match &self.place {
            Place::Open(timeline) if self.joined == Some(connection) => timeline.due_at(now)?,
            _ => now,
        };
        Some(self.not_before.map_or(due, |time| time.max(due)))
    }

    /// Returns what it would ask now.
    pub(super) fn want(&self, now: Instant, connection: u64) -> Option<Want> {
        if self.is_over() {
            return None;
        }
        match &self.place {
            _ if self.joined != Some(connection) => Some(Want::Join),
            Place::Unknown => Some(Want::Join),
            Place::Opening(..) => Some(Want::Fetch),
            Place::Open(timeline) => match timeline.wants(now)? {
                Wanted::Sync => Some(Want::Sync),
                Wanted::History | Wanted::Messages => Some(Want::Fetch),
            },
        }
    }

    pub(super) fn cursor_to_sync(&mut self, now: Instant) -> Option<(Uuid, i64, i64)> {
        match self.timeline_mut()?.next(now)? {
            Ask::Sync { seq, rev } => Some((self.channel, seq, rev)),
            _ => None,
        }
    }

    pub(super) fn fetch(&mut self, now: Instant) -> Option<Job> {
        let channel = self.channel;
        match &mut self.place {
            Place::Unknown => None,
            Place::Opening(_, last) => Some(Job::Page { channel, after: None, limit: *last }),
            Place::Open(timeline) => match timeline.next(now)? {
                Ask::Sync { .. } => None,
                Ask::History { after } => Some(Job::Page { channel, after: Some(after), limit: PAGE_MAX }),
                Ask::Messages { ids } => Some(Job::Messages(channel, ids)),
            },
        }
    }

    /// Handles that it is in the room of the channel, which was that far when it was.
    pub(super) fn joined(&mut self, head: Head, connection: u64) {
        self.succeeded();
        self.joined = Some(connection);
        if !matches!(self.place, Place::Open(_)) {
            let Head { last_seq: seq, rev, last_message_id: id, horizon_seq, .. } = head;
            let at = |cursor, horizon| Place::Open(Box::new(Timeline::new(cursor, horizon, self.options)));
            self.place = match self.from {
                Start::Now => at(Cursor { seq, rev, id }, horizon_seq),
                Start::Oldest => at(Cursor { seq: horizon_seq, rev, id: None }, horizon_seq),
                Start::After(cursor) => at(cursor, 0),
                Start::Last(count) => Place::Opening(head, count.clamp(1, PAGE_MAX)),
            };
        }
        // Whatever came before the room was entered, and while its numbers were on their way.
        self.resync();
        self.wake();
    }

    pub(super) fn page(&mut self, page: Page, now: Instant) {
        match &mut self.place {
            Place::Unknown => {}
            Place::Open(timeline) => timeline.page(page, now),
            Place::Opening(head, _) => {
                let Head { last_seq: seq, rev, last_message_id: id, horizon_seq, .. } = *head;
                let before = page.messages.first().map(|first| first.seq.saturating_sub(1));
                let begin = match before {
                    Some(seq) => Cursor { seq, rev, id: None },
                    None => Cursor { seq, rev, id },
                };
                let mut timeline = Timeline::new(begin, horizon_seq, self.options);
                timeline.page(page, now);
                timeline.resync();
                self.place = Place::Open(Box::new(timeline));
            }
        }
    }

    pub(super) fn failed(&mut self, error: &ClientError, is_shared: bool, random: f64, now: Instant) {
        self.failures += 1;
        let is_over = !is_worth_another_attempt(error, self.failures);
        if is_over && !is_shared {
            return self.end(Some(error.clone()));
        }
        self.resync();
        if is_over {
            // Of several, one is wrong: each is asked for alone.
            (self.is_alone, self.failures) = (true, 0);
            return;
        }
        let after = match error {
            ClientError::Refused(refusal) => refusal.retry_after().unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let doubled = PAUSE.saturating_mul(1 << (self.failures - 1).min(16)).min(PAUSE_MAX);
        self.not_before = Some(now + after.max(doubled.mul_f64(0.5 + random)));
    }

    pub(super) fn succeeded(&mut self) {
        (self.is_alone, self.failures, self.not_before) = (false, 0, None);
    }

    /// Whether it has ended: its end is told after what waits, so that nothing may be added to that.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Ends it after what waits.
    pub(super) fn end(&mut self, error: Option<ClientError>) {
        self.over.get_or_insert(error);
        self.wake();
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Whether a request that failed this way for the `failures`th time in a row is worth another attempt. Without a connection,
/// whoever tells of it says whether it comes back.
fn is_worth_another_attempt(error: &ClientError, failures: u32) -> bool {
    match error {
        ClientError::Refused(refusal) if refusal.code() == Some("internal") => {
            refusal.is_retryable() && failures <= 2
        }
        ClientError::Closed => true,
        _ => error.is_retryable(),
    }
}

/// The maximum number of messages in one page of history.
const PAGE_MAX: usize = 100;

/// The first pause of a reader after requests for it that failed. The next ones double. All differ by half from client to client.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// The longest pause of a reader after requests for it that failed.
const PAUSE_MAX: Duration = Duration::from_secs(10);
