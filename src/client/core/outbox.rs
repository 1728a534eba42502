//! The outbox of one namespace: events that are sent until they are acknowledged, one after the other.
//!
//! Only the first event is on its way. The next one follows when that is acknowledged or given up, so that the
//! server handles them in the order in which they were sent, whatever gets lost.

use std::collections::VecDeque;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;
use uuid::Uuid;

use super::action::{Ticket, later};
use crate::client::budget::{Budget, Place};
use crate::client::error::ClientError;
use crate::client::retry::Retry;
use crate::client::store::Entry;
use crate::socket::packet::Args;

/// The events that wait, the first of which may be on its way.
#[derive(Debug)]
pub(super) struct Outbox {
    entries: VecDeque<Waiting>,
    /// The deadline for the answer to the first entry, if it is on its way.
    answer_by: Option<Instant>,
    /// The ack ids under which the first entry was sent on this connection. An answer to any of them will do.
    sent_as: SmallVec<[u64; 2]>,
    /// When the first entry may be sent again.
    not_before: Option<Instant>,
    /// How often the first entry was sent without success.
    failures: u32,
    /// Holds a place for each packet that the transport has not taken yet.
    unsent: Budget,
}

/// An entry with what it needs until it is gone.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entry: Entry,
    pub(super) ticket: Option<Ticket>,
    #[expect(dead_code, reason = "it is dropped with the entry")]
    pub(super) place: Option<Place>,
}

/// An entry that leaves the outbox.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) id: Uuid,
    pub(super) ticket: Option<Ticket>,
    pub(super) result: Result<Args, ClientError>,
}

impl Outbox {
    pub(super) fn push(&mut self, waiting: Waiting) {
        self.entries.push_back(waiting);
    }

    /// Returns the entry to send now under a new ack id, if there is one, and the place that goes with its packet.
    pub(super) fn next(&mut self, now: Instant, new_id: u64, retry: &Retry) -> Option<(&Entry, Place)> {
        let is_early = self.not_before.is_some_and(|time| time > now);
        if is_early || self.answer_by.is_some() {
            return None;
        }
        let first = self.entries.front()?;
        self.not_before = None;
        self.answer_by = Some(later(now, retry.answer_timeout));
        if self.sent_as.len() == SENT_AS_MAX {
            self.sent_as.remove(0);
        }
        self.sent_as.push(new_id);
        Some((&first.entry, self.unsent.take_anyway(0)))
    }

    /// Handles an answer. Returns the entry that it ends, if it is one of this outbox and final.
    pub(super) fn handle_ack(&mut self, now: Instant, id: u64, args: &Args, retry: &Retry) -> Answered {
        if !self.sent_as.contains(&id) {
            return Answered::NotOurs;
        }
        match retry.refusal(args) {
            // After the last attempt this is the answer.
            Some(after) => Answered::Ours(self.fail(now, after, retry, Ok(args.clone()))),
            None => Answered::Ours(self.finish(Ok(args.clone()))),
        }
    }

    /// Handles the passing of time. Returns the entry that is given up, if there is one.
    pub(super) fn handle_timeout(&mut self, now: Instant, retry: &Retry) -> Option<Outcome> {
        self.answer_by.filter(|deadline| *deadline <= now)?;
        if self.unsent.used().events > 0 {
            // The network is slow, and the server cannot have answered. A second copy would only make it slower.
            self.answer_by = Some(later(now, retry.answer_timeout));
            return None;
        }
        self.fail(now, Duration::ZERO, retry, Err(ClientError::Timeout("an answer")))
    }

    /// Handles the loss of the connection: the first entry has to be sent again.
    pub(super) fn handle_lost(&mut self) {
        self.answer_by = None;
        self.not_before = None;
        self.sent_as.clear();
    }

    /// Whether an answer to the first entry is waited for.
    pub(super) fn is_under_way(&self) -> bool {
        self.answer_by.is_some()
    }

    /// Takes the tickets of everybody who waits. The entries stay.
    pub(super) fn take_tickets(&mut self) -> impl Iterator<Item = Ticket> + '_ {
        self.entries.iter_mut().filter_map(|waiting| waiting.ticket.take())
    }

    /// Returns when [`Outbox::handle_timeout`] or [`Outbox::next`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.answer_by.or(self.not_before)
    }

    /// Ends the entry that [`Outbox::next`] has returned, because it can never be sent.
    pub(super) fn refuse(&mut self, error: ClientError) -> Option<Outcome> {
        self.finish(Err(error))
    }

    /// Sends the first entry again after a pause. After the last attempt, it ends with `result`.
    fn fail(
        &mut self,
        now: Instant,
        after: Duration,
        retry: &Retry,
        result: Result<Args, ClientError>,
    ) -> Option<Outcome> {
        self.answer_by = None;
        self.failures += 1;
        if retry.times.is_some_and(|times| self.failures > times) {
            return self.finish(result);
        }
        self.not_before = Some(later(now, after.max(retry.pause)));
        None
    }

    fn finish(&mut self, result: Result<Args, ClientError>) -> Option<Outcome> {
        let Waiting { entry, ticket, .. } = self.entries.pop_front()?;
        self.handle_lost();
        self.failures = 0;
        Some(Outcome { id: entry.id, ticket, result })
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            answer_by: None,
            sent_as: SmallVec::new(),
            not_before: None,
            failures: 0,
            unsent: Budget::new(usize::MAX, usize::MAX),
        }
    }
}

/// What an answer meant.
#[derive(Debug)]
pub(super) enum Answered {
    /// It answers nothing of this outbox.
    NotOurs,
    /// It answers the first entry, which ends with it or is sent again.
    Ours(Option<Outcome>),
}

/// The maximum number of attempts whose answers are known. One that answers an older attempt is no answer, and the
/// event is sent again.
const SENT_AS_MAX: usize = 64;
