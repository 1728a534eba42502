//! The answers that a namespace waits for, each with its deadline.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::action::Ticket;

/// The events whose answers are waited for, by ack id.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pending: BTreeMap<u64, Pending>,
    deadlines: BTreeSet<(Instant, u64)>,
}

/// An event whose answer is waited for.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) ticket: Ticket,
    deadline: Instant,
    /// When it was sent. Until then it waits for a connection.
    pub(super) sent: Option<Instant>,
}

impl Answers {
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= ANSWERS_MAX
    }

    pub(super) fn expect(&mut self, id: u64, ticket: Ticket, deadline: Instant) {
        self.pending.insert(id, Pending { ticket, deadline, sent: None });
        self.deadlines.insert((deadline, id));
    }

    /// Notes that the event was sent.
    pub(super) fn handle_sent(&mut self, id: u64, now: Instant) {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.sent = Some(now);
        }
    }

    pub(super) fn take(&mut self, id: u64) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.deadlines.remove(&(pending.deadline, id));
        Some(pending)
    }

    /// Takes one whose deadline has passed, with its id.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<(u64, Pending)> {
        let (_, id) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now)?;
        Some((id, self.take(id)?))
    }

    /// Whether an answer to something that was sent is waited for.
    pub(super) fn is_any_sent(&self) -> bool {
        self.pending.values().any(|pending| pending.sent.is_some())
    }

    /// Takes those that were sent, which nobody will answer any more.
    pub(super) fn take_sent(&mut self) -> Vec<Ticket> {
        let sent = self.pending.iter().filter(|(_, pending)| pending.sent.is_some());
        let ids: Vec<u64> = sent.map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| Some(self.take(id)?.ticket)).collect()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}

/// The maximum number of events of one namespace whose answers are waited for. A further one fails with
/// `ClientError::Full`.
const ANSWERS_MAX: usize = 4_096;
