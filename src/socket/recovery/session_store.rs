//! The session store of a namespace, for connection state recovery (docs/protocol.md, "Recovery").
//!
//! A client that returns after a short absence continues as the same socket, with its rooms and data, after
//! the packets it missed.
//!
//! There is one store per namespace. A session is recorded when it opens and kept current. One lock orders
//! packets, joins, leaves and departures, so that the set of packets a client should have got after a given
//! one is well defined. In doubt the client gets a new session, which is always correct.
//!
//! The log is in memory, or one that the stores of several nodes share (`shared`).

mod arrivals;
mod follow;
#[cfg(test)]
mod inspect;
mod link;
mod log;
mod outgoing;
mod purge;
mod reached;
mod record;
mod replay;
mod saved;
mod sent;
mod sessions;
mod shared;

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub(crate) use self::follow::{Recipient, guarded};
pub(crate) use self::link::Link;
use self::link::{Credentials, Pid};
pub(crate) use self::log::{Addressees, Logged, Made};
use self::log::{Bounds, Epoch, OffsetText};
use self::record::{Joining, Memberships, Record, State, Stored};
pub(crate) use self::saved::SharedValues;
pub(crate) use self::sent::Position;
use self::sent::SentPositions;
pub(crate) use self::sessions::AwaySession;
use self::sessions::Sessions;
pub(crate) use self::shared::SharedLog;
use super::config::{Recovery, RecoveryStatus};
use super::event::RecoverableEvent;
use crate::error::ImksResult;
use crate::socket::codec::encoder::EncodedPacket;
use crate::socket::data::SavedData;
use crate::socket::metrics::{self, Return};
use crate::socket::socket_id::SocketId;

/// The state that a socket opens with.
pub(crate) struct Restored {
    /// The packets it missed, oldest first. They are sent before the CONNECT reply.
    pub(crate) missed: Vec<EncodedPacket>,
    /// The rooms to join.
    pub(crate) rooms: Vec<Arc<str>>,
    /// The offset of a client that has everything so far.
    pub(crate) offset: OffsetText,
}

/// The reason why a session was not opened.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The session cannot be recovered, but the client can get a new one.
    Lost,
    /// The connection ended.
    Closed,
}

/// The sessions of one namespace, and the packets that their clients may have missed.
pub(crate) struct SessionStore {
    config: Recovery,
    /// The log that other nodes share. Without one, the log is in memory.
    shared: Option<SharedLog>,
    state: Mutex<Sessions>,
    tasks: TaskTracker,
    this: Weak<SessionStore>,
}

impl SessionStore {
    pub(crate) fn new(config: &Recovery, shared: Option<SharedLog>) -> ImksResult<Arc<Self>> {
        let state = Sessions { epoch: Epoch::random()?, ..Sessions::default() };
        Ok(Arc::new_cyclic(|this| Self {
            config: config.clone(),
            shared,
            state: Mutex::new(state),
            tasks: TaskTracker::new(),
            this: this.clone(),
        }))
    }

    pub(crate) fn status(&self) -> RecoveryStatus {
        let state = self.state.lock();
        RecoveryStatus {
            sessions: state.by_pid.len(),
            away: state.away.len(),
            packets: state.log.len(),
            bytes: state.log.bytes(),
        }
    }

    /// Returns a session for a joining client: the earlier one named in its payload if it can be recovered,
    /// else a new one.
    pub(crate) fn begin(&self, payload: Option<&str>) -> ImksResult<Link> {
        let epoch = self.state.lock().epoch;
        if let Some(credentials) = payload.and_then(|payload| Credentials::find(payload, epoch)) {
            if let Some(link) = self.claim(&credentials) {
                return Ok(link);
            }
            metrics::RECOVERIES.of(Return::NewSession).increment();
        }
        self.begin_new()
    }

    /// Creates a session. It is stored at once, but cannot be claimed before its client gets the private id.
    fn begin_new(&self) -> ImksResult<Link> {
        let (pid, id) = (Pid::random()?, SocketId::random()?);
        let mut state = self.state.lock();
        let claim = state.next_claim();
        let memberships = Memberships::new(state.log.last());
        let sent = Arc::new(SentPositions::new(state.log.last()));
        let joining = Some(Joining { claim, memberships: memberships.clone(), dropped: Default::default() });
        let record = Record {
            id,
            owner: None,
            data: SavedData::default(),
            memberships,
            state: State::New,
            sent: sent.clone(),
            greeted: false,
            joining,
            stored: Stored::default(),
        };
        state.by_pid.insert(pid, record);
        Ok(Link { pid, id, claim, sent, resume: None, waits_for: Default::default() })
    }

    /// Appends an event to the log and delivers it to the connected sockets.
    ///
    /// Both happen under the lock, so that all sockets get packets in the order of their positions.
    pub(crate) fn publish(
        &self,
        addressees: Addressees,
        event: RecoverableEvent,
        deliver: impl FnOnce(&EncodedPacket, Position),
    ) {
        let mut state = self.state.lock();
        let position = state.log.last() + 1;
        let packet = event.stamp(state.epoch.offset(position).as_str());
        deliver(&packet, position);
        if state.by_pid.is_empty() {
            state.log.skip();
            return;
        }
        let bounds = Bounds { packets_max: self.config.packets_max, bytes_max: self.config.bytes_max };
        state.log.push(Logged::Packet(addressees, packet), Instant::now(), bounds);
        self.watch(&mut state);
    }

    /// Adds the socket to a room. `enter` returns the name of the room unless the socket is in it already.
    pub(crate) fn join<R>(
        &self,
        link: &Link,
        enter: impl FnOnce() -> Option<(Arc<str>, R)>,
    ) -> Option<(Arc<str>, R)> {
        let mut state = self.state.lock();
        let at = state.log.last();
        let entered = enter();
        if let Some((room, _)) = &entered
            && let Some(memberships) = state.memberships(link)
        {
            memberships.joined(room.clone(), at);
            self.changed(&mut state, link);
        }
        entered
    }

    /// Removes the socket from a room. While its connect hook runs, the room is also removed from the session
    /// being recovered.
    pub(crate) fn leave<R>(&self, link: &Link, room: &str, leave: impl FnOnce() -> R) -> R {
        let mut state = self.state.lock();
        let (at, first) = (state.log.last(), state.log.first());
        let left = leave();
        if let Some(memberships) = state.memberships(link) {
            memberships.left(room, at, first);
        }
        if let Some(joining) = state.joining(link) {
            joining.dropped.insert(room.into());
        }
        self.changed(&mut state, link);
        left
    }

    /// Notes that a session must be stored in the shared log, if there is one.
    fn changed(&self, state: &mut Sessions, link: &Link) {
        if self.shared.is_some() {
            state.touch(link);
            self.wake_writer();
        }
    }

    /// Returns those rooms of the session being recovered that the connect hook did not remove.
    pub(crate) fn recovered_rooms(&self, link: &Link) -> Vec<Arc<str>> {
        let mut state = self.state.lock();
        let Some(record) = state.by_pid.get_mut(&link.pid).filter(|_| link.is_resumed()) else {
            return Vec::new();
        };
        let dropped = record.joining.as_ref().filter(|joining| joining.claim == link.claim);
        let kept = |room: &&Arc<str>| dropped.is_none_or(|joining| !joining.dropped.contains(&***room));
        record.memberships.rooms().filter(kept).cloned().collect()
    }

    /// Saves the data that the application attached to the socket.
    pub(crate) fn set_data(&self, link: &Link, data: impl FnOnce() -> SavedData) {
        let mut state = self.state.lock();
        if let Some(record) = state.by_pid.get_mut(&link.pid).filter(|record| record.is_held_by(link.claim)) {
            record.data = data();
            self.changed(&mut state, link);
        }
    }

    /// Whether the session exists, with or without a connected client.
    pub(crate) fn is_known(&self, link: &Link) -> bool {
        self.state.lock().by_pid.contains_key(&link.pid)
    }

    /// Whether the connect hook authenticated the owner of the session.
    pub(crate) fn is_owner(&self, link: &Link, owner: Option<&str>) -> bool {
        let state = self.state.lock();
        let record = state.by_pid.get(&link.pid);
        link.is_trusted() || record.is_some_and(|record| record.owner.as_deref() == owner)
    }

    /// Opens the session of a socket that the connect hook accepted.
    ///
    /// `open` joins the rooms and sends the first packets. It runs under the lock, and so atomically with
    /// respect to all events of the namespace.
    pub(crate) fn open(
        &self,
        link: &Link,
        accepted: Accepted<'_>,
        open: impl FnOnce(Restored) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let mut guard = self.state.lock();
        // What is read of a log that is not known yet is not delivered to sockets.
        if self.shared.as_ref().is_some_and(|shared| !shared.is_known()) {
            return Err(Refused::Lost);
        }
        let state = &mut *guard;
        let last = state.log.last();
        let record = state.by_pid.get_mut(&link.pid).ok_or(Refused::Lost)?;
        let joining = record.joining.as_ref().filter(|joining| joining.claim == link.claim);
        let joining = joining.ok_or(Refused::Lost)?;
        let mut memberships = record.memberships.clone();
        memberships.forget(&joining.dropped);
        memberships.merge(&joining.memberships);
        memberships.became_member(last);
        let missed = match &link.resume {
            None if self.shared.is_none() => Vec::new(),
            // What the hook sent to the socket has taken the way through the log.
            None if memberships.began() + 1 < state.log.first() => return Err(Refused::Lost),
            None => {
                let began = memberships.began();
                self.missed(&state.log, record.id, &memberships, began).ok_or(Refused::Lost)?
            }
            // An earlier socket that was still connected has been closed by now.
            Some(back) => {
                let from = self.resume_from(&state.log, record, back.offset).ok_or(Refused::Lost)?;
                let missed = self.missed(&state.log, record.id, &memberships, from).ok_or(Refused::Lost)?;
                record.sent.known_after(from);
                missed
            }
        };
        let offset = state.epoch.offset(if link.is_resumed() { last } else { memberships.began() });
        let rooms = memberships.rooms().cloned().collect();
        let (positions, missed): (Vec<_>, _) = missed.into_iter().unzip();
        open(Restored { missed, rooms, offset })?;
        positions.into_iter().for_each(|position| record.sent.note(position));
        if let State::Away { since, .. } = record.state {
            state.away.remove(&since);
            metrics::RECOVERY_AWAY.add(-1);
        }
        record.memberships = memberships;
        record.state = State::Live(link.claim);
        record.joining = None;
        record.data = accepted.data;
        if !link.is_trusted() {
            record.owner = accepted.owner.map(Into::into);
            record.greeted = accepted.greeted;
        }
        if link.is_resumed() {
            metrics::RECOVERIES.of(Return::Recovered).increment();
        }
        self.changed(state, link);
        Ok(())
    }

    /// Records that the socket is gone or was refused. Its session stays if the client may return.
    pub(crate) fn depart(&self, link: &Link, recoverable: bool) {
        let mut state = self.state.lock();
        let position = state.log.last();
        let Some(record) = state.by_pid.get_mut(&link.pid) else { return };
        if record.joining.as_ref().is_some_and(|joining| joining.claim == link.claim) {
            record.joining = None;
        }
        let over = match record.state {
            State::New => true,
            State::Live(claim) if claim == link.claim && recoverable => {
                let since = (Instant::now(), link.claim);
                record.state = State::Away { since, position };
                state.away.insert(since, link.pid);
                metrics::RECOVERY_AWAY.add(1);
                if self.shared.is_some() {
                    state.outgoing.touch(link.pid);
                }
                false
            }
            State::Live(claim) => claim == link.claim,
            State::Away { .. } => false,
        };
        if over {
            state.end(link.pid);
        }
        self.wake_writer();
        while state.away.len() > self.config.sessions_max {
            state.remove_first_away();
        }
        self.watch(&mut state);
    }

    /// Calls `change` for each session of an absent client, and removes the session if it returns `false`.
    pub(crate) fn for_each_away(&self, mut change: impl FnMut(&mut AwaySession<'_>) -> bool) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (at, first) = (state.log.last(), state.log.first());
        let mut over = Vec::new();
        for pid in state.away.values() {
            if let Some(record) = state.by_pid.get_mut(pid)
                && !change(&mut AwaySession { record, at, first })
            {
                over.push(*pid);
            }
        }
        over.into_iter().for_each(|pid| state.remove(pid));
    }
}

/// The outcome of an accepting connect hook.
pub(crate) struct Accepted<'a> {
    pub(crate) owner: Option<&'a str>,
    pub(crate) greeted: bool,
    pub(crate) data: SavedData,
}

impl Drop for SessionStore {
    fn drop(&mut self) {
        metrics::RECOVERY_AWAY.add(-(self.state.get_mut().away.len() as i64));
    }
}

impl fmt::Debug for SessionStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SessionStore").field(&self.status()).finish()
    }
}
