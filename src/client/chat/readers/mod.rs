//! The readers of all channels of a chat: hands live events to their timelines, and says what the server must be asked for
//! them. No I/O, and time is an argument.

mod reader;
#[cfg(test)]
mod tests;

use std::task::Waker;

use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use self::reader::{Reader, Want};
use super::event::{ChannelEvent, Cursor};
use super::message::Page;
use super::timeline::{Options, Timeline};
use super::wire::{Got, Head, Live, Subscribed, SyncAnswer};
use crate::client::error::ClientError;

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Now,
    Oldest,
    Last(usize),
    After(Cursor),
}

/// A request to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    Join(Vec<Uuid>),
    /// A channel with `seq` and `rev`.
    Sync(Vec<(Uuid, i64, i64)>),
    Page {
        channel: Uuid,
        after: Option<Uuid>,
        limit: usize,
    },
    Messages(Uuid, Vec<Uuid>),
}

/// What the server said to a request.
#[derive(Debug)]
pub(super) enum Answer {
    Joined(Subscribed),
    Synced(SyncAnswer),
    Page(Page),
    Messages(Got),
}

/// For whom a request is made, and on which connection.
#[derive(Debug)]
pub(super) struct Readership {
    readers: Vec<u64>,
    connection: u64,
}

/// All readers of a chat. One request at a time asks for what they miss.
#[derive(Debug)]
pub(super) struct Readers {
    /// Those that were asked for last stand last.
    all: Vec<Reader>,
    next: u64,
    /// Counts the connections.
    connection: u64,
    /// Why no reader can read, if there is no connection and there will not be one.
    over: Option<Option<ClientError>>,
    is_connected: bool,
    /// Which kind of request comes first.
    turn: usize,
    /// What the pauses of this client differ by from those of others: 0 to 1. Its readers come back together, in one
    /// request.
    random: f64,
}

/// What a reader gets.
#[derive(Debug)]
pub(super) enum Taken {
    Event(ChannelEvent, Cursor),
    End(Option<ClientError>),
    Nothing,
}

impl Readers {
    /// Creates readers whose pauses differ by `random`, from 0 to 1.
    pub(super) fn new(random: f64) -> Self {
        let (all, next, connection, turn) = (Vec::new(), 0, 0, 0);
        Self { all, next, connection, over: None, is_connected: false, turn, random }
    }

    /// Adds a reader and returns its number.
    pub(super) fn open(&mut self, channel: Uuid, from: Start, options: Options) -> u64 {
        self.next += 1;
        self.all.push(Reader::new(self.next, channel, from, options, self.over.clone()));
        self.next
    }

    /// Removes a reader.
    pub(super) fn close(&mut self, number: u64) {
        self.all.retain(|reader| reader.number != number);
    }

    /// Returns the next event of a reader, or why there is none any more. `waker` is woken when there may be one.
    pub(super) fn take(&mut self, number: u64, waker: &Waker) -> Taken {
        self.find(number).map_or(Taken::End(None), |reader| reader.take(waker))
    }

    /// Returns the place where a reader has begun, if it has, or why it will not. `waker` is woken when it may have.
    pub(super) fn begun(
        &mut self,
        number: u64,
        waker: &Waker,
    ) -> Result<Option<Cursor>, Option<ClientError>> {
        self.find(number).map_or(Err(None), |reader| reader.begun(waker))
    }

    /// Returns the number of events that wait for a reader, or for their predecessors.
    pub(super) fn waiting(&self, number: u64) -> usize {
        let reader = self.all.iter().find(|reader| reader.number == number);
        reader.and_then(Reader::timeline).map_or(0, Timeline::waiting)
    }

    /// Whether a reader has something to ask, now or later.
    pub(super) fn is_due(&self, number: u64) -> bool {
        let reader = self.all.iter().find(|reader| reader.number == number);
        reader.is_some_and(|reader| reader.due_at(Instant::now(), self.connection).is_some())
    }

    /// Handles a new connection.
    pub(super) fn connected(&mut self) {
        self.connection += 1;
        (self.is_connected, self.over) = (true, None);
        self.all.iter_mut().for_each(Reader::succeeded);
    }

    pub(super) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Handles the loss of the connection, which comes back.
    pub(super) fn lost(&mut self) {
        self.is_connected = false;
    }

    /// Handles a connection that does not come back by itself, because of an error or because that was wanted.
    pub(super) fn ended(&mut self, error: Option<&ClientError>) {
        self.is_connected = false;
        self.over = Some(error.cloned());
        self.all.iter_mut().for_each(|reader| reader.end(error.cloned()));
    }

    /// Handles a live event.
    pub(super) fn live(&mut self, channel: Uuid, event: &Live, now: Instant) {
        self.each(channel, |reader| {
            if let Some(timeline) = reader.timeline_mut() {
                timeline.live(event.clone(), now);
            }
        });
    }

    /// Handles that events of a channel were missed.
    pub(super) fn missed(&mut self, channel: Uuid) {
        self.each(channel, Reader::resync);
    }

    /// Handles the numbers of a channel whose events do not come.
    pub(super) fn heads(&mut self, head: &Head) {
        self.each(head.channel_id, |reader| {
            if let Some(timeline) = reader.timeline_mut() {
                timeline.heads(head.last_seq, head.rev);
            }
        });
    }

    /// Handles that the user is not in a channel any more.
    pub(super) fn left(&mut self, channel: Uuid, code: &str, message: &str) {
        self.each(channel, |reader| reader.end(Some(refusal(code, message))));
    }

    /// Returns when [`Readers::next`] has something to ask, if nothing happens until then.
    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        let due = self.all.iter().filter_map(|reader| reader.due_at(now, self.connection)).min();
        due.filter(|_| self.is_connected)
    }

    /// Returns the next request, and for whom it is. The kinds take turns, so that none holds up another.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Job, Readership)> {
        if !self.is_connected {
            return None;
        }
        self.turn += 1;
        let kinds = [(Want::Join, BATCH_MAX), (Want::Sync, BATCH_MAX), (Want::Fetch, 1)];
        for place in 0..kinds.len() {
            let (want, max) = kinds[(self.turn + place) % kinds.len()];
            let numbers = self.batch(now, want, max);
            if let Some(job) = self.job(now, want, &numbers) {
                return Some((job, Readership { readers: numbers, connection: self.connection }));
            }
        }
        None
    }

    /// Handles the answer to a request.
    pub(super) fn answered(&mut self, asked: &Readership, answer: Answer, now: Instant) {
        match answer {
            Answer::Joined(answer) => self.joined(asked, answer, now),
            Answer::Synced(answer) => self.synced(asked, answer, now),
            Answer::Page(page) => self.one(asked, |reader| reader.page(page, now)),
            Answer::Messages(got) => self.one(asked, |reader| {
                if let Some(timeline) = reader.timeline_mut() {
                    timeline.got(got.messages);
                }
            }),
        }
    }

    /// Handles a request that failed. Those of one request are tried again together.
    pub(super) fn failed(&mut self, asked: &Readership, error: &ClientError, now: Instant) {
        let is_shared = asked.readers.len() > 1;
        let random = self.random;
        for number in &asked.readers {
            if let Some(reader) = self.find_open(*number) {
                reader.failed(error, is_shared, random, now);
            }
        }
    }

    fn joined(&mut self, asked: &Readership, answer: Subscribed, now: Instant) {
        let random = self.random;
        let mut heads = answer.channels.into_iter();
        for number in &asked.readers {
            let head = heads.next();
            let Some(reader) = self.find_open(*number) else { continue };
            let Some(head) = head.filter(|head| head.channel_id == reader.channel) else {
                reader.failed(&malformed("channel:subscribe"), false, random, now);
                continue;
            };
            match &head.error {
                Some(error) => reader.failed(&ClientError::refused(error), false, random, now),
                None => reader.joined(head, asked.connection),
            }
        }
    }

    fn synced(&mut self, asked: &Readership, answer: SyncAnswer, now: Instant) {
        let SyncAnswer { mut channels, removed_channels } = answer;
        for number in &asked.readers {
            let Some(reader) = self.find_open(*number) else { continue };
            reader.succeeded();
            let mine = channels.iter().position(|channel| channel.channel_id == reader.channel);
            match mine.map(|at| channels.swap_remove(at)) {
                Some(mine) => reader.synced(mine, now),
                None if removed_channels.contains(&reader.channel) => {
                    reader.end(Some(refusal("forbidden", "the channel cannot be read any more")));
                }
                None => reader.resync(),
            }
            reader.wake();
        }
    }

    fn one(&mut self, asked: &Readership, act: impl FnOnce(&mut Reader)) {
        let Some(reader) = asked.readers.first().and_then(|number| self.find_open(*number)) else { return };
        reader.succeeded();
        act(reader);
        reader.wake();
    }

    /// Returns the first readers that want this, each of another channel, and puts them behind all others.
    fn batch(&mut self, now: Instant, want: Want, max: usize) -> Vec<u64> {
        let mut batch: Vec<(u64, Uuid)> = Vec::new();
        for reader in &self.all {
            let is_early = reader.not_before.is_some_and(|time| time > now);
            let is_double = batch.iter().any(|(_, channel)| *channel == reader.channel);
            if is_early || is_double || reader.want(now, self.connection) != Some(want) {
                continue;
            }
            if reader.is_alone && !batch.is_empty() {
                continue;
            }
            batch.push((reader.number, reader.channel));
            if reader.is_alone || batch.len() == max {
                break;
            }
        }
        let numbers: Vec<u64> = batch.into_iter().map(|(number, _)| number).collect();
        self.all.sort_by_key(|reader| numbers.contains(&reader.number));
        numbers
    }

    fn job(&mut self, now: Instant, want: Want, numbers: &[u64]) -> Option<Job> {
        let mut asked = self.all.iter_mut().filter(|reader| numbers.contains(&reader.number));
        match want {
            _ if numbers.is_empty() => None,
            // In the order of the answer.
            Want::Join => Some(Job::Join(numbers.iter().filter_map(|it| self.channel(*it)).collect())),
            Want::Sync => Some(Job::Sync(asked.filter_map(|reader| reader.cursor_to_sync(now)).collect())),
            Want::Fetch => asked.next()?.fetch(now),
        }
    }

    fn channel(&self, number: u64) -> Option<Uuid> {
        self.all.iter().find(|reader| reader.number == number).map(|reader| reader.channel)
    }

    fn find(&mut self, number: u64) -> Option<&mut Reader> {
        self.all.iter_mut().find(|reader| reader.number == number)
    }

    /// Returns a reader, unless it has ended.
    fn find_open(&mut self, number: u64) -> Option<&mut Reader> {
        self.find(number).filter(|reader| !reader.is_over())
    }

    fn each(&mut self, channel: Uuid, act: impl Fn(&mut Reader)) {
        for reader in self.all.iter_mut().filter(|reader| reader.channel == channel && !reader.is_over()) {
            act(reader);
            reader.wake();
        }
    }
}

fn refusal(code: &str, message: &str) -> ClientError {
    ClientError::refused(&json!({ "code": code, "message": message, "retryable": false }))
}

fn malformed(event: &'static str) -> ClientError {
    ClientError::invalid(crate::ImksError::InvalidPayload(format!("the answer to {event} lacks a channel")))
}

/// The maximum number of channels in one request for several.
const BATCH_MAX: usize = 100;
