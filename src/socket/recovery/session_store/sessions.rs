//! The state of a session store: its sessions, the queue of absent clients, and the log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use super::link::{Link, Pid};
use super::log::{Epoch, Log};
use super::outgoing::Outgoing;
use super::record::{Joining, Memberships, Record, State};
use super::sent::Position;
use crate::socket::metrics;
use crate::socket::socket_id::SocketId;

/// The state of a store under its lock.
#[derive(Default)]
pub(super) struct Sessions {
    /// The id of the log.
    pub(super) epoch: Epoch,
    pub(super) log: Log,
    pub(super) by_pid: HashMap<Pid, Record>,
    /// The sessions of absent clients, in the order in which they left.
    pub(super) away: BTreeMap<(Instant, u64), Pid>,
    pub(super) claims: u64,
    /// Whether the purge task is running.
    pub(super) purging: bool,
    /// What waits for the shared log, if there is one.
    pub(super) outgoing: Outgoing,
}

impl Sessions {
    pub(super) fn next_claim(&mut self) -> u64 {
        self.claims += 1;
        self.claims
    }

    /// Returns the memberships of a socket: those of its session once it is open, temporary ones before.
    pub(super) fn memberships(&mut self, link: &Link) -> Option<&mut Memberships> {
        let record = self.by_pid.get_mut(&link.pid)?;
        if record.is_held_by(link.claim) {
            return Some(&mut record.memberships);
        }
        record.joining.as_mut().filter(|joining| joining.claim == link.claim).map(|it| &mut it.memberships)
    }

    pub(super) fn joining(&mut self, link: &Link) -> Option<&mut Joining> {
        let joining = self.by_pid.get_mut(&link.pid)?.joining.as_mut()?;
        (joining.claim == link.claim).then_some(joining)
    }

    pub(super) fn remove(&mut self, pid: Pid) {
        if let Some(record) = self.by_pid.remove(&pid)
            && let State::Away { since, .. } = record.state
        {
            self.away.remove(&since);
            metrics::RECOVERY_AWAY.add(-1);
        }
    }

    /// Removes a session that nobody may continue: what this node has stored of it goes too. Otherwise a lease would call
    /// it current.
    pub(super) fn end(&mut self, pid: Pid) {
        if let Some(record) = self.by_pid.get(&pid).filter(|record| record.is_stored_by_us()) {
            self.outgoing.end(pid, record.stored.generation);
        }
        self.outgoing.forget(pid);
        self.remove(pid);
    }

    /// Removes a session that others may continue, if what is stored of it is all that is known.
    pub(super) fn let_go(&mut self, pid: Pid) {
        let is_away = self.by_pid.get(&pid).is_some_and(|record| matches!(record.state, State::Away { .. }));
        match is_away && !self.outgoing.is_dirty(pid) {
            true => self.remove(pid),
            false => self.end(pid),
        }
    }

    pub(super) fn remove_first_away(&mut self) {
        if let Some(pid) = self.away.first_key_value().map(|(_, pid)| *pid) {
            self.let_go(pid);
        }
    }

    /// Notes a change of a session, which has to be stored. What the client is told afterwards waits for that.
    pub(super) fn touch(&mut self, link: &Link) {
        if let Some(record) = self.by_pid.get_mut(&link.pid).filter(|record| record.is_held_by(link.claim)) {
            record.stored.version += 1;
            link.waits_for(self.outgoing.touch(link.pid));
        }
    }
}

/// The session of an absent client.
pub(crate) struct AwaySession<'a> {
    pub(super) record: &'a mut Record,
    pub(super) at: Position,
    pub(super) first: Position,
}

impl AwaySession<'_> {
    pub(crate) fn socket_id(&self) -> SocketId {
        self.record.id
    }

    pub(crate) fn is_in(&self, room: &str) -> bool {
        *room == *self.record.id.as_str() || self.record.memberships.is_in(room)
    }

    pub(crate) fn join(&mut self, room: &str) {
        self.record.memberships.joined(Arc::from(room), self.at);
    }

    pub(crate) fn leave(&mut self, room: &str) {
        self.record.memberships.left(room, self.at, self.first);
    }
}
