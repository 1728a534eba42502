//! Connection state recovery (docs/protocol.md, "Recovery"): a client that comes back after a short absence goes on
//! as the same socket, with its rooms and data, after the packets it missed.
//!
//! One store per namespace. A session is recorded when it opens and kept current. One lock gives packets, joins,
//! leaves and departures one order, so "which packets should this client have got after that one" has one answer. If
//! anything is in doubt, the answer is a new session: that is always correct.
//!
//! Methods take and give plain values (ids, names of rooms, positions, frames), so that another node can be asked.

mod link;
mod log;
mod record;
mod sent;
mod sessions;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub(crate) use self::link::Link;
use self::link::{Back, Credentials, Pid};
pub(crate) use self::log::{Addressees, Position};
use self::log::{Bounds, Epoch, Log, OffsetText};
use self::record::{Joining, Memberships, Record, State};
use self::sent::{Next, Sent};
pub(crate) use self::sessions::AwaySession;
use self::sessions::Sessions;
use super::event::RecoverableEvent;
use crate::engine::Frame;
use crate::error::ImksResult;
use crate::socket::codec::encoder::EncodedPacket;
use crate::socket::data::SavedData;
use crate::socket::metrics::{self, Return};
use crate::socket::socket_id::SocketId;

/// How clients may come back. Bounds are per namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// How long a client may be away.
    pub max_disconnection_duration: Duration,
    /// Whether the connect hook is left out when a client comes back. Events it would give along are not sent
    /// again then. Sessions whose hook named an owner are asked nevertheless.
    pub skip_middlewares: bool,
    /// Packets kept at most; the oldest go first.
    pub packets_max: usize,
    /// Bytes of packets kept at most; the oldest go first.
    pub bytes_max: usize,
    /// Absent clients remembered at most; who left first is forgotten first.
    pub sessions_max: usize,
    /// Packets sent to one client that comes back at most; who missed more starts anew.
    pub replay_packets_max: usize,
    /// Bytes sent to one client that comes back at most; who missed more starts anew.
    pub replay_bytes_max: usize,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            max_disconnection_duration: Duration::from_secs(120),
            skip_middlewares: false,
            packets_max: 16_384,
            bytes_max: 32 << 20,
            sessions_max: 16_384,
            replay_packets_max: 1_024,
            replay_bytes_max: 512 << 10,
        }
    }
}

/// What a store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecoveryStatus {
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Sessions whose client is away.
    pub away: usize,
    /// Packets.
    pub packets: usize,
    /// Bytes of these packets.
    pub bytes: usize,
}

/// What a socket that is taken in starts with.
pub(crate) struct Opening {
    /// Packets it missed, oldest first: they go before the CONNECT reply.
    pub(crate) missed: Vec<EncodedPacket>,
    /// Rooms to enter.
    pub(crate) rooms: Vec<Arc<str>>,
    /// Stands for having everything so far.
    pub(crate) offset: OffsetText,
}

/// Why a socket was not taken in.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The session cannot be gone on with; a new one can be had.
    Lost,
    /// The connection ended.
    Closed,
}

/// The sessions of one namespace, and the packets their clients may have missed.
pub(crate) struct SessionStore {
    config: Recovery,
    epoch: Epoch,
    state: Mutex<Sessions>,
    tasks: TaskTracker,
    this: Weak<SessionStore>,
}

impl SessionStore {
    pub(crate) fn new(config: &Recovery) -> ImksResult<Arc<Self>> {
        let epoch = Epoch::random()?;
        Ok(Arc::new_cyclic(|this| Self {
            config: config.clone(),
            epoch,
            state: Mutex::default(),
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

    /// A session for a client that wants to join: its earlier one if its payload names one that can be gone on with,
    /// else a new one.
    pub(crate) fn begin(&self, payload: Option<&str>) -> ImksResult<Link> {
        if let Some(credentials) = payload.and_then(|payload| Credentials::find(payload, self.epoch)) {
            if let Some(link) = self.claim(&credentials) {
                return Ok(link);
            }
            metrics::RECOVERIES.of(Return::NewSession).increment();
        }
        self.begin_anew()
    }

    /// A new session. It is recorded at once, although nobody can claim it before its client was told its private id.
    fn begin_anew(&self) -> ImksResult<Link> {
        let (pid, id) = (Pid::random()?, SocketId::random()?);
        let mut state = self.state.lock();
        let claim = state.next_claim();
        let memberships = Memberships::new(state.log.last());
        let sent = Arc::new(Sent::new(state.log.last()));
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
        };
        state.by_pid.insert(pid, record);
        Ok(Link { pid, id, claim, sent, back: None })
    }

    /// Gives an event its place among all others, keeps it for those who miss it, and delivers it to those who are
    /// there: all in one step, so that nobody gets packets in another order than that of their positions.
    pub(crate) fn publish(
        &self,
        addressees: Addressees,
        event: RecoverableEvent,
        deliver: impl FnOnce(&EncodedPacket, Position),
    ) {
        let mut state = self.state.lock();
        let position = state.log.last() + 1;
        let packet = event.stamp(self.epoch.offset(position).as_str());
        deliver(&packet, position);
        if state.by_pid.is_empty() {
            state.log.skip();
            return;
        }
        let bounds = Bounds { packets_max: self.config.packets_max, bytes_max: self.config.bytes_max };
        state.log.push(addressees, packet, Instant::now(), bounds);
        self.watch(&mut state);
    }

    /// The socket enters a room; `enter` gives its name unless it is there already.
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
        }
        entered
    }

    /// The socket leaves a room. While its connect hook runs, it loses a room of the session it wants to go on with.
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
        left
    }

    /// Rooms of the session that the client wants to go on with, as far as the connect hook left them.
    pub(crate) fn recovered_rooms(&self, link: &Link) -> Vec<Arc<str>> {
        let mut state = self.state.lock();
        let Some(record) = state.by_pid.get_mut(&link.pid).filter(|_| link.is_back()) else {
            return Vec::new();
        };
        let dropped = record.joining.as_ref().filter(|joining| joining.claim == link.claim);
        let kept = |room: &&Arc<str>| dropped.is_none_or(|joining| !joining.dropped.contains(&***room));
        record.memberships.rooms().filter(kept).cloned().collect()
    }

    /// Keeps what the application keeps with the socket.
    pub(crate) fn set_data(&self, link: &Link, data: impl FnOnce() -> SavedData) {
        let mut state = self.state.lock();
        if let Some(record) = state.by_pid.get_mut(&link.pid).filter(|record| record.is_held_by(link.claim)) {
            record.data = data();
        }
    }

    /// Whether the session goes on, with its client or without.
    pub(crate) fn is_known(&self, link: &Link) -> bool {
        self.state.lock().by_pid.contains_key(&link.pid)
    }

    /// Whether the connect hook speaks for whom the session belongs to.
    pub(crate) fn is_owner(&self, link: &Link, owner: Option<&str>) -> bool {
        let state = self.state.lock();
        let record = state.by_pid.get(&link.pid);
        link.is_trusted() || record.is_some_and(|record| record.owner.as_deref() == owner)
    }

    /// Takes a socket in whose connect hook accepted. `open` puts it into its rooms and sends what it starts with,
    /// in one step with everything that happens in the namespace.
    pub(crate) fn open(
        &self,
        link: &Link,
        accepted: Accepted<'_>,
        open: impl FnOnce(Opening) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let last = state.log.last();
        let record = state.by_pid.get_mut(&link.pid).ok_or(Refused::Lost)?;
        let joining = record.joining.as_ref().filter(|joining| joining.claim == link.claim);
        let joining = joining.ok_or(Refused::Lost)?;
        let mut memberships = record.memberships.clone();
        memberships.forget(&joining.dropped);
        memberships.merge(&joining.memberships);
        memberships.became_member(last);
        let missed = match &link.back {
            None => Vec::new(),
            // An earlier socket that is still there has been shut by now.
            Some(back) => {
                let from = self.resume(&state.log, record, back.offset).ok_or(Refused::Lost)?;
                self.missed(&state.log, record.id, &memberships, from).ok_or(Refused::Lost)?
            }
        };
        let offset = self.epoch.offset(if link.is_back() { last } else { memberships.began() });
        let rooms = memberships.rooms().cloned().collect();
        let (positions, missed): (Vec<_>, _) = missed.into_iter().unzip();
        open(Opening { missed, rooms, offset })?;
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
        if link.is_back() {
            metrics::RECOVERIES.of(Return::Recovered).increment();
        }
        Ok(())
    }

    /// The socket is gone, or its connect hook refused it. Its session stays if the client may come back.
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
                false
            }
            State::Live(claim) => claim == link.claim,
            State::Away { .. } => false,
        };
        if over {
            state.remove(link.pid);
        }
        while state.away.len() > self.config.sessions_max {
            state.remove_first_away();
        }
        self.watch(&mut state);
    }

    /// Calls `change` for the sessions of absent clients; it says whether they go on.
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

    fn claim(&self, credentials: &Credentials) -> Option<Link> {
        let Credentials { pid, offset } = *credentials;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let claim = state.next_claim();
        let record = state.by_pid.get_mut(&pid).filter(|record| !matches!(record.state, State::New))?;
        let asked = !self.config.skip_middlewares || record.owner.is_some();
        // Without its hook nobody would send it the greeting again.
        if !asked && record.greeted && offset.is_none() {
            return None;
        }
        let from = self.resume(&state.log, record, offset)?;
        self.missed(&state.log, record.id, &record.memberships, from)?;
        let memberships = Memberships::new(state.log.last());
        record.joining = Some(Joining { claim, memberships, dropped: Default::default() });
        let back = Some(Back { offset, data: record.data.clone(), asked });
        Some(Link { pid, id: record.id, claim, sent: record.sent.clone(), back })
    }

    /// The position up to which the client has everything, if all later packets are still there.
    fn resume(&self, log: &Log, record: &Record, offset: Option<Position>) -> Option<Position> {
        let began = record.memberships.began();
        let mut from = offset.unwrap_or(began).max(began);
        if from > log.last() {
            return None;
        }
        let left_at = match record.state {
            State::Away { since: (since, _), .. } if self.is_too_late(since, Instant::now()) => return None,
            State::Away { position, .. } => position,
            _ => log.last(),
        };
        // What lies between two packets for the same client was for others.
        match record.sent.next(from) {
            Next::Nothing => from = from.max(left_at),
            Next::At(next) => from = next - 1,
            Next::Unknown => {}
        }
        (from >= record.memberships.known_from() && from + 1 >= log.first()).then_some(from)
    }

    /// The packets of a session after a position, if they are not too many.
    fn missed(
        &self,
        log: &Log,
        id: SocketId,
        memberships: &Memberships,
        from: Position,
    ) -> Option<Vec<(Position, EncodedPacket)>> {
        let (mut missed, mut bytes) = (Vec::new(), 0);
        for (position, entry) in log.after(from) {
            if !entry.addressees.include(id, memberships, position) {
                continue;
            }
            bytes += entry.packet.iter().map(Frame::len).sum::<usize>();
            if missed.len() >= self.config.replay_packets_max || bytes > self.config.replay_bytes_max {
                return None;
            }
            missed.push((position, entry.packet.clone()));
        }
        Some(missed)
    }
}

/// What the connect hook said.
pub(crate) struct Accepted<'a> {
    pub(crate) owner: Option<&'a str>,
    pub(crate) greeted: bool,
    pub(crate) data: SavedData,
}

impl SessionStore {
    /// Makes sure that somebody looks after what gets too old.
    fn watch(&self, state: &mut Sessions) {
        if state.by_pid.is_empty() {
            state.log.clear();
            state.by_pid.shrink_to_fit();
        }
        let idle = state.away.is_empty() && state.log.len() == 0;
        if idle || state.purging {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            state.purging = true;
            self.tasks.spawn_on(purge_from_time_to_time(self.this.clone()), &runtime);
        }
    }

    fn is_too_late(&self, since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) >= self.config.max_disconnection_duration
    }

    /// Forgets what is too old, and says when to look again: never, if nothing is left.
    fn purge(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        let away_max = self.config.max_disconnection_duration;
        while state.away.first_key_value().is_some_and(|((since, _), _)| self.is_too_late(*since, now)) {
            state.remove_first_away();
        }
        let keep = away_max + UNNOTICED_MAX;
        if let Some(before) = now.checked_sub(keep) {
            state.log.purge(before);
        }
        self.watch(&mut state);
        let oldest_session = state.away.first_key_value().map(|((since, _), _)| *since + away_max);
        let oldest_packet = state.log.oldest().map(|at| at + keep);
        let next = oldest_session.into_iter().chain(oldest_packet).min();
        state.purging = next.is_some();
        // Who leaves before the oldest packet is too old is looked at in time, too.
        next.map(|next| next.min(now + away_max).max(now + PURGE_INTERVAL))
    }
}

async fn purge_from_time_to_time(store: Weak<SessionStore>) {
    while let Some(next) = store.upgrade().and_then(|store| store.purge(Instant::now())) {
        tokio::time::sleep_until(next).await;
    }
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

/// How long a broken connection may go unnoticed, so that packets on their way into it are still kept when the
/// client comes back at the last moment.
const UNNOTICED_MAX: Duration = Duration::from_secs(60);

/// Least time between two looks at what is too old.
const PURGE_INTERVAL: Duration = Duration::from_secs(1);
