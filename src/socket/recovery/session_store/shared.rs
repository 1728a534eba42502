//! The part of a session store that several nodes share: what goes through one log, in one order, on all of them.
//!
//! An event, or a change of the sockets of all nodes, is appended to the log first. Every node takes the entries in the
//! order of their positions, without holes, and only then delivers them; so what a client got up to a position is
//! everything that was for it. A session is stored when it opens and when it changes, before its client is told about
//! the change. Whoever takes it over knows from the log what happened since.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::arrivals::Arrivals;
use super::follow::{Unwritten, guarded};
use super::link::{Credentials, Link, Pid};
use super::log::{Bounds, Logged};
use super::outgoing::{After, Held};
use super::reached::Reached;
use super::record::{Outcome, State};
use super::saved::{self, RestoreData};
use super::sent::Position;
use super::{SessionStore, Sessions};
use crate::error::{ImksError, ImksResult};
use crate::node::NodeId;
use crate::socket::codec::encoder::EncodedPacket;
use crate::socket::metrics;
use crate::socket::recovery::event::RecoverableEvent;
use crate::socket::recovery::log::{Expected, Found, RecoveryLog};
use crate::socket::socket_id::SocketId;

/// The log that the stores of one namespace share on all nodes, and the way to and from it.
pub(crate) struct SharedLog {
    pub(super) log: Arc<dyn RecoveryLog>,
    pub(super) bucket: Box<str>,
    /// The name of this node in the log. It numbers what it writes from one, so it is new in each process, whatever the
    /// configuration calls the node.
    pub(super) node: NodeId,
    pub(super) arrivals: Mutex<Arrivals>,
    /// Wakes the task that takes entries.
    pub(super) arrived: Notify,
    /// Wakes the task that writes.
    pub(super) work: Notify,
    /// What is being written. A writer that begins again goes on with it.
    pub(super) unwritten: Mutex<Option<Arc<Unwritten>>>,
    /// Whether the log is read without delay.
    pub(super) urgent: AtomicBool,
    /// The number up to which what this node queued is done.
    pub(super) released: Reached<u64>,
    /// The position of the last delivered entry, or `None` while the log is not known.
    pub(super) cursor: Reached<Option<Position>>,
    pub(super) started: AtomicBool,
    pub(super) stop: CancellationToken,
}

impl SharedLog {
    /// Connects the store of a namespace to a log.
    pub(crate) fn new(log: Arc<dyn RecoveryLog>, namespace: &str) -> ImksResult<Self> {
        Ok(Self {
            log,
            bucket: namespace.into(),
            node: NodeId::random()?,
            unwritten: Mutex::default(),
            arrivals: Mutex::default(),
            arrived: Notify::new(),
            work: Notify::new(),
            urgent: AtomicBool::new(false),
            released: Reached::new(0),
            cursor: Reached::new(None),
            started: AtomicBool::new(false),
            stop: CancellationToken::new(),
        })
    }

    /// Whether the log is known, so that positions mean something.
    pub(super) fn is_known(&self) -> bool {
        self.cursor.get().is_some()
    }

    /// Takes entries that another node has appended, or learns of them.
    pub(crate) fn arrived(
        &self,
        epoch: u64,
        first: Position,
        last: Position,
        entries: impl ExactSizeIterator<Item = Bytes>,
    ) {
        let mut arrivals = self.arrivals.lock();
        arrivals.add(epoch, first, entries);
        arrivals.announce(epoch, last);
        drop(arrivals);
        self.arrived.notify_one();
    }

    /// Waits until everything up to a position has been delivered.
    async fn reach(&self, epoch: u64, position: Position) {
        let is_there = |cursor: Option<Position>| cursor.is_some_and(|cursor| cursor >= position);
        if is_there(self.cursor.get()) {
            return;
        }
        self.arrivals.lock().announce(epoch, position);
        self.urgent.store(true, Ordering::Release);
        self.arrived.notify_one();
        self.cursor.wait_for(is_there).await;
    }
}

impl SessionStore {
    /// Does something, which carries so many bytes, once the entries that other nodes have announced are delivered here.
    ///
    /// # Errors
    /// [`ImksError::LimitReached`] if too much waits already.
    pub(crate) fn after_arrivals(
        &self,
        bytes: usize,
        after: impl FnOnce() + Send + 'static,
    ) -> ImksResult<()> {
        let after: After = Box::new(after);
        let held = match &self.shared {
            Some(shared) => {
                let cursor = self.position();
                let held = shared.arrivals.lock().hold(cursor, bytes, after);
                shared.arrived.notify_one();
                held
            }
            None => Held::Due(after),
        };
        settle_held(held)
    }

    /// Returns the log that other nodes share, if there is one.
    pub(crate) fn shared(&self) -> Option<&SharedLog> {
        self.shared.as_ref()
    }

    /// Appends an entry to the shared log, from which it will be delivered. What is said to the clients of these links from
    /// now on waits for that.
    pub(crate) fn append(&self, entry: Bytes, links: [Option<&Link>; 2]) -> ImksResult<()> {
        // Otherwise everything behind it would wait for ever.
        if self.shared.as_ref().is_some_and(|shared| entry.len() > shared.log.entry_bytes_max()) {
            return Err(ImksError::PayloadTooLarge);
        }
        let number = self.state.lock().outgoing.push(entry)?;
        links.into_iter().flatten().for_each(|link| link.waits_for(number));
        self.wake_writer();
        Ok(())
    }

    pub(super) fn wake_writer(&self) {
        if let Some(shared) = &self.shared {
            shared.work.notify_one();
        }
    }

    /// Does something, which carries so many bytes, once what the socket did before is in the shared log and has been
    /// delivered here, or what the whole node did if there is no `link`.
    ///
    /// # Errors
    /// [`ImksError::LimitReached`] if too much waits already.
    pub(crate) fn after(
        &self,
        link: Option<&Link>,
        bytes: usize,
        after: impl FnOnce() + Send + 'static,
    ) -> ImksResult<()> {
        let waits_for = |link: &Link| link.waits_for.load(Ordering::Acquire);
        let is_released =
            |shared: &SharedLog| link.is_some_and(|link| waits_for(link) <= shared.released.get());
        if self.shared.as_ref().is_none_or(is_released) {
            after();
            return Ok(());
        }
        let held = {
            let mut state = self.state.lock();
            let number = link.map_or_else(|| state.outgoing.last(), waits_for);
            state.outgoing.hold(number, bytes, Box::new(after))
        };
        settle_held(held)
    }

    /// Waits until everything that this node has queued is in the shared log and has been delivered here.
    pub(crate) async fn settle(&self) {
        let Some(shared) = &self.shared else { return };
        let last = self.state.lock().outgoing.last();
        // A log that is away makes nothing else fail.
        let _ = timeout(SETTLE_MAX, shared.released.wait_for(|released| released >= last)).await;
    }

    /// Prepares for a joining client: waits until the log is known, and gets the session that the client names. Returns
    /// false if the log cannot be read.
    pub(crate) async fn prepare(&self, payload: Option<&str>, restore: RestoreData<'_>) -> bool {
        let Some(shared) = &self.shared else { return true };
        let known = timeout(READY_MAX, shared.cursor.wait_for(|cursor: Option<Position>| cursor.is_some()))
            .await
            .is_ok();
        let epoch = self.state.lock().epoch;
        let named = payload.and_then(|payload| Credentials::find(payload, epoch)).filter(|_| known);
        if let Some(Credentials { pid, .. }) = named {
            // In doubt the client gets a new session.
            match timeout(FETCH_MAX, self.fetch(shared, pid, restore)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, log = shared.log.name(), "session not found"),
                Err(_) => tracing::warn!(log = shared.log.name(), "session not found in time"),
            }
        }
        known
    }

    async fn fetch(&self, shared: &SharedLog, pid: Pid, restore: RestoreData<'_>) -> ImksResult<()> {
        if self.drop_copy(pid) {
            self.settle().await;
        }
        let Some(found) = shared.log.find(&shared.bucket, pid.into()).await? else { return Ok(()) };
        // Two nodes that see the same client at once: the other one was first.
        let raced = found.taken_millis.is_some_and(|millis| millis < RACE_MILLIS);
        if raced && found.node != shared.node {
            return Ok(());
        }
        shared.reach(found.epoch, found.last).await;
        self.adopt(pid, &found, restore)
    }

    /// Forgets a copy of another node's session, which may have changed since. Returns whether the session is this node's.
    fn drop_copy(&self, pid: Pid) -> bool {
        let mut state = self.state.lock();
        let Some(record) = state.by_pid.get(&pid) else { return false };
        let is_ours = record.stored.copy_of.is_none();
        if !is_ours {
            state.remove(pid);
        }
        is_ours
    }

    /// Makes a stored session one of this node, as that of an absent client.
    fn adopt(&self, pid: Pid, found: &Found, restore: RestoreData<'_>) -> ImksResult<()> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        // What this node has of the same generation is at least as new.
        let known = state.by_pid.get(&pid).is_some_and(|record| {
            record.stored.copy_of.is_none() && record.stored.generation >= found.generation
        });
        let away = Duration::from_millis(found.away_millis);
        let since =
            Instant::now().checked_sub(away).filter(|since| !self.is_too_late(*since, Instant::now()));
        let (false, Some(since)) = (known || state.epoch.0 != found.epoch, since) else { return Ok(()) };
        state.remove(pid);
        let since = (since, state.next_claim());
        if let Some(record) = saved::decode(found, &state.log, since, restore)? {
            state.by_pid.insert(pid, record);
            state.away.insert(since, pid);
            metrics::RECOVERY_AWAY.add(1);
        }
        while state.away.len() > self.config.sessions_max {
            state.remove_first_away();
        }
        self.watch(state);
        Ok(())
    }

    /// Makes this node the owner of the session that a client claims. Returns false if another node was faster, or if
    /// the log cannot tell.
    pub(crate) async fn take(&self, link: &Link) -> bool {
        let Some(shared) = &self.shared else { return true };
        let Some(expected) = self.begin_to_take(link) else { return false };
        let taking = shared.log.take(&shared.bucket, link.pid.into(), expected, shared.node);
        let taken = match timeout(FETCH_MAX, taking).await {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => {
                tracing::warn!(%error, log = shared.log.name(), "session not taken");
                false
            }
            Err(_) => false,
        };
        if let Some(record) = self.state.lock().by_pid.get_mut(&link.pid) {
            record.stored.taking = false;
            if taken {
                (record.stored.generation, record.stored.copy_of) = (expected.generation + 1, None);
            }
        }
        taken
    }

    fn begin_to_take(&self, link: &Link) -> Option<Expected> {
        let mut state = self.state.lock();
        let stored = &mut state.by_pid.get_mut(&link.pid)?.stored;
        let first = !std::mem::replace(&mut stored.taking, true);
        first.then_some(Expected { generation: stored.generation, version: stored.copy_of })
    }

    /// Returns the generation of the session of a socket.
    pub(crate) fn generation(&self, link: &Link) -> Option<u64> {
        self.state.lock().by_pid.get(&link.pid).map(|record| record.stored.generation)
    }

    /// Forgets the session of a socket, which another node has taken.
    pub(crate) fn forget(&self, link: &Link) {
        self.state.lock().end(link.pid);
        self.wake_writer();
    }

    /// Delivers an event of the shared log, and keeps it for absent clients.
    pub(crate) fn deliver_logged(
        &self,
        addressees: super::Addressees,
        event: RecoverableEvent,
        deliver: impl FnOnce(&EncodedPacket, Position),
    ) {
        let mut state = self.state.lock();
        let position = state.log.last() + 1;
        let packet = event.stamp(state.epoch.offset(position).as_str());
        deliver(&packet, position);
        self.place(&mut state, Logged::Packet(addressees, packet));
    }

    /// Keeps an entry of the shared log that is not an event, and makes its change to all sessions at its position. Sockets
    /// follow: if they were first, a session could be stored as of this position without the change.
    pub(crate) fn keep_logged(&self, logged: Logged) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (at, first) = (state.log.last() + 1, state.log.first());
        let mut over = Vec::new();
        for (pid, record) in &mut state.by_pid {
            match logged.change(record, at, first) {
                Outcome::Over => over.push(*pid),
                // What is stored of an absent client is as of its departure, and the log has what came later.
                Outcome::Changed if matches!(record.state, State::Live(_)) => {
                    state.outgoing.touch(*pid);
                }
                Outcome::Changed | Outcome::Unchanged => {}
            }
        }
        over.into_iter().for_each(|pid| state.end(pid));
        self.place(state, logged);
        drop(guard);
        self.wake_writer();
    }

    fn place(&self, state: &mut Sessions, logged: Logged) {
        let bounds = Bounds { packets_max: self.config.packets_max, bytes_max: self.config.bytes_max };
        state.log.push(logged, Instant::now(), bounds);
        self.watch(state);
    }

    /// Returns the position of the newest delivered entry.
    pub(crate) fn position(&self) -> Position {
        self.state.lock().log.last()
    }

    /// Releases what waited for a number, and does it.
    pub(super) fn release(&self, shared: &SharedLog, upto: u64) {
        let ready = self.state.lock().outgoing.release(upto);
        shared.released.set(upto);
        ready.into_iter().for_each(guarded);
    }

    /// Returns the id of a socket whose stored session another node has taken, and forgets the session.
    pub(super) fn lost(&self, pid: Pid, generation: u64) -> Option<SocketId> {
        let mut state = self.state.lock();
        let record = state.by_pid.get(&pid)?;
        if record.stored.taking || record.stored.generation != generation {
            return None;
        }
        let id = record.id;
        state.end(pid);
        Some(id)
    }
}

/// Does what has nothing to wait for.
fn settle_held(held: Held) -> ImksResult<()> {
    match held {
        Held::Kept => {}
        Held::Due(after) => after(),
        Held::Full => return Err(ImksError::LimitReached("what waits for the recovery log")),
    }
    Ok(())
}

/// How long a client may wait until the log is known.
const READY_MAX: Duration = Duration::from_secs(5);

/// How long the log may take to find a session, or to let it be taken.
const FETCH_MAX: Duration = Duration::from_secs(2);

/// How long a question to other nodes waits for what was sent before it.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// Of two nodes that want the same session within this time, the first one gets it. Later the client has moved on.
const RACE_MILLIS: u64 = 25;
