//! The tasks between a session store and the log that it shares with other nodes: one writes, one takes what is new.

use std::borrow::Cow;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::SessionStore;
use super::link::Pid;
use super::log::{Epoch, Logged};
use super::outgoing::{LEASE_INTERVAL, Taken};
use super::record::State;
use super::saved;
use super::sent::Position;
use super::sessions::Sessions;
use super::shared::SharedLog;
use crate::background;
use crate::error::{ImksError, ImksResult};
use crate::socket::metrics;
use crate::socket::recovery::log::{Batch, Keep, SavedSession, Tail, Written};
use crate::socket::socket_id::SocketId;

/// A namespace whose store shares its log with other nodes.
pub(crate) trait Recipient: Send + Sync + 'static {
    /// Takes the next entry of the log: keeps it in the store and, if it is `live`, makes it happen on this node.
    fn take(&self, entry: &[u8], live: bool);

    /// Tells the other nodes about entries that this node has appended.
    fn publish(&self, epoch: u64, first: Position, entries: &[Bytes]);

    /// Closes the connection of a socket whose session is gone.
    fn end(&self, id: SocketId);
}

impl SessionStore {
    /// Starts to write to the shared log and to take from it, until [`SessionStore::stop`].
    pub(crate) fn start(self: &Arc<Self>, recipient: Arc<dyn Recipient>) {
        let Some(shared) = &self.shared else { return };
        if shared.started.swap(true, Ordering::AcqRel) {
            return;
        }
        let (store, teller) = (self.clone(), recipient.clone());
        let writing = move |_| store.clone().write(teller.clone());
        self.tasks.spawn(background::keep("recovery_writer", shared.stop.clone(), writing));
        let store = self.clone();
        let following = move |_| store.clone().follow(recipient.clone());
        self.tasks.spawn(background::keep("recovery_follower", shared.stop.clone(), following));
    }

    /// Writes what is left, and stops.
    pub(crate) async fn stop(&self) {
        let Some(shared) = &self.shared else { return };
        if !shared.stop.is_cancelled() {
            self.settle().await;
            shared.stop.cancel();
        }
    }

    async fn write(self: Arc<Self>, recipient: Arc<dyn Recipient>) {
        let Some(shared) = &self.shared else { return };
        let work = async {
            let mut trimmed = Instant::now();
            loop {
                // Positions mean nothing before the log is known.
                if !shared.is_known() {
                    shared.work.notified().await;
                    continue;
                }
                while let Some(unwritten) = self.next_batch(shared, Instant::now()) {
                    let written = insist(shared, &unwritten.batch).await;
                    self.written(shared, &unwritten, written, &*recipient);
                    shared.unwritten.lock().take();
                }
                if trimmed.elapsed() >= TRIM_INTERVAL {
                    trimmed = Instant::now();
                    self.trim(shared).await;
                }
                // A lease is renewed in time even if there is nothing else to write.
                let _ = timeout(LEASE_INTERVAL, shared.work.notified()).await;
            }
        };
        shared.stop.run_until_cancelled(work).await;
    }

    /// Takes what is to be written next from the queue, if there is anything, or what was not written to its end.
    fn next_batch(&self, shared: &SharedLog, now: Instant) -> Option<Arc<Unwritten>> {
        let mut unwritten = shared.unwritten.lock();
        if let Some(begun) = unwritten.take() {
            let batch = Batch { again: true, ..begun.batch.clone() };
            let (numbers, upto) = (begun.numbers.clone(), begun.upto);
            return Some(unwritten.insert(Arc::new(Unwritten { batch, numbers, upto })).clone());
        }
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let quiet_before = state.log.quiet_before(now.checked_sub(QUIET_AFTER).unwrap_or(now));
        let lease_is_due = state.outgoing.lease_is_due(now);
        let has_clients = lease_is_due && correct(state, quiet_before, now);
        if state.outgoing.is_empty() && !has_clients {
            if lease_is_due {
                state.outgoing.leased(now);
            }
            return None;
        }
        let Taken { serial, number, entries, numbers, ended, mut bytes } = state.outgoing.take();
        let ended = ended.into_iter().map(|(pid, generation)| (pid.into(), generation)).collect();
        let (node, epoch, sessions) = (shared.node, state.epoch.0, Vec::new());
        let (lease, again) = (None, false);
        let mut batch = Batch { node, serial, epoch, number, entries, sessions, ended, lease, again };
        while let Some(pid) = state.outgoing.take_dirty(bytes) {
            bytes += save(state, pid, quiet_before, &mut batch);
        }
        // It is about all sessions, so all that changed must be in the log with it.
        if has_clients && state.outgoing.is_clean() {
            state.outgoing.leased(now);
            batch.lease = Some(state.log.last());
        }
        let upto = state.outgoing.taken_upto();
        Some(unwritten.insert(Arc::new(Unwritten { batch, numbers, upto })).clone())
    }

    fn written(
        &self,
        shared: &SharedLog,
        unwritten: &Unwritten,
        written: Written,
        recipient: &dyn Recipient,
    ) {
        let Unwritten { batch, numbers, upto } = unwritten;
        let generations: HashMap<Pid, u64> =
            batch.sessions.iter().map(|session| (session.key.into(), session.generation)).collect();
        for key in written.taken {
            let pid = Pid::from(key);
            if let Some(id) = generations.get(&pid).and_then(|generation| self.lost(pid, *generation)) {
                recipient.end(id);
            }
        }
        let mut arrivals = shared.arrivals.lock();
        let delivered = self.position();
        for (first, entries) in runs(&written.positions, &batch.entries) {
            arrivals.add(written.epoch, first, entries.iter().cloned());
        }
        for (position, number) in written.positions.iter().zip(numbers) {
            arrivals.committed(written.epoch, *position, *number.min(upto));
        }
        // Without entries there is nothing to wait for.
        let last = written.positions.last().copied().unwrap_or_default();
        arrivals.committed(written.epoch, last, *upto);
        drop(arrivals);
        shared.arrived.notify_one();
        // Others hear of entries when they are delivered here. These were read from the log before.
        for (first, entries) in
            runs(&written.positions, &batch.entries).filter(|(first, _)| *first <= delivered)
        {
            recipient.publish(written.epoch, first, entries);
        }
    }

    async fn trim(&self, shared: &SharedLog) {
        let keep = Keep {
            millis: u64::try_from((self.keep() + LEASE_INTERVAL).as_millis()).unwrap_or(u64::MAX),
            entries: self.config.packets_max as u64,
            bytes: self.config.bytes_max as u64,
            sessions: self.config.sessions_max as u64,
        };
        match timeout(WRITE_MAX, shared.log.trim(&shared.bucket, keep)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, log = shared.log.name(), "recovery log not trimmed"),
            Err(_) => tracing::warn!(log = shared.log.name(), "recovery log not trimmed in time"),
        }
    }

    async fn follow(self: Arc<Self>, recipient: Arc<dyn Recipient>) {
        let Some(shared) = &self.shared else { return };
        let work = async {
            self.load(shared, &*recipient).await;
            let mut polled = Instant::now();
            loop {
                self.take_arrivals(shared, &*recipient).await;
                let now = Instant::now();
                let missing = shared.arrivals.lock().read_at(self.position(), now);
                let urgent = shared.urgent.swap(false, Ordering::AcqRel);
                let at = if urgent {
                    now
                } else {
                    missing.unwrap_or(polled + POLL_INTERVAL).min(polled + POLL_INTERVAL)
                };
                if at > now {
                    tokio::select! {
                        () = shared.arrived.notified() => {}
                        () = sleep_until(at) => {}
                    }
                    continue;
                }
                polled = now;
                if missing.is_some() {
                    metrics::RECOVERY_HOLES.increment();
                }
                self.read(shared, &*recipient).await;
            }
        };
        shared.stop.run_until_cancelled(work).await;
    }

    /// Delivers what has arrived and follows on what was delivered.
    async fn take_arrivals(&self, shared: &SharedLog, recipient: &dyn Recipient) {
        let (mut turn, mut own) = (0, Vec::new());
        let epoch = self.state.lock().epoch.0;
        loop {
            let cursor = self.position();
            let (next, is_own) = {
                let mut arrivals = shared.arrivals.lock();
                (arrivals.next(cursor), arrivals.next_is_own(cursor))
            };
            let Some(entry) = next else { break };
            self.place_next(cursor, &entry, recipient, true);
            match is_own {
                true => own.push(entry),
                false => publish(recipient, epoch, cursor, &mut own),
            }
            // What comes after this entry reaches the other nodes after it.
            if shared.arrivals.lock().is_awaited() || self.state.lock().outgoing.is_awaited() {
                publish(recipient, epoch, cursor + 1, &mut own);
            }
            self.go_on(shared);
            turn += 1;
            if turn % ENTRIES_PER_TURN == 0 {
                publish(recipient, epoch, cursor + 1, &mut own);
                tokio::task::yield_now().await;
            }
        }
        publish(recipient, epoch, self.position(), &mut own);
        let cursor = self.go_on(shared);
        if shared.cursor.get().is_some() {
            shared.cursor.set(Some(cursor));
        }
    }

    /// Does what waited for the entries that have been delivered. Returns the position of the last one.
    fn go_on(&self, shared: &SharedLog) -> Position {
        let cursor = self.position();
        let (ready, released) = {
            let mut arrivals = shared.arrivals.lock();
            (arrivals.ready(cursor), arrivals.released(cursor))
        };
        ready.into_iter().for_each(guarded);
        if let Some(upto) = released {
            self.release(shared, upto);
        }
        cursor
    }

    fn place_next(&self, cursor: Position, entry: &[u8], recipient: &dyn Recipient, live: bool) {
        guarded(|| recipient.take(entry, live));
        if self.position() == cursor {
            self.keep_logged(Logged::Unreadable);
        }
    }

    /// Reads what is new in the log.
    async fn read(&self, shared: &SharedLog, recipient: &dyn Recipient) {
        let cursor = self.position();
        shared.arrivals.lock().begin_to_read();
        let Tail { epoch, last, first, entries } = match read(shared, cursor).await {
            Ok(tail) => tail,
            Err(error) => {
                tracing::warn!(%error, log = shared.log.name(), "recovery log not read");
                return sleep(RETRY_MIN).await;
            }
        };
        let known = self.state.lock().epoch;
        let gap = if entries.is_empty() { last > cursor } else { first > cursor + 1 };
        if known.0 != epoch || gap || last < cursor {
            tracing::warn!(log = shared.log.name(), gap, "recovery log lost: clients get new sessions");
            return self.load(shared, recipient).await;
        }
        let mut arrivals = shared.arrivals.lock();
        arrivals.was_read(last);
        arrivals.add(epoch, first, entries.into_iter());
    }

    /// Starts over with what the log holds. The sessions of this node are gone, and their connections are closed: nobody
    /// knows what their clients have missed.
    async fn load(&self, shared: &SharedLog, recipient: &dyn Recipient) {
        shared.cursor.set(None);
        let mut known = None;
        loop {
            let after = known.map_or(0, |_| self.position());
            let tail = match read(shared, after).await {
                Ok(tail) => tail,
                Err(error) => {
                    tracing::warn!(%error, log = shared.log.name(), "recovery log not read");
                    sleep(RETRY_MAX).await;
                    continue;
                }
            };
            let gap = !tail.entries.is_empty() && tail.first != after + 1;
            if known != Some(tail.epoch) || gap {
                let before = if tail.entries.is_empty() { tail.last } else { tail.first - 1 };
                self.begin_log(tail.epoch, before).into_iter().for_each(|id| recipient.end(id));
                known = Some(tail.epoch);
            }
            for entry in &tail.entries {
                self.place_next(self.position(), entry, recipient, false);
            }
            if self.position() >= tail.last || tail.entries.is_empty() {
                shared.arrivals.lock().begin(tail.epoch);
                shared.cursor.set(Some(self.position()));
                shared.work.notify_one();
                return;
            }
        }
    }

    /// Starts an empty log after a position, without sessions. Returns the ids of those whose client is connected.
    fn begin_log(&self, epoch: u64, before: Position) -> Vec<SocketId> {
        let mut state = self.state.lock();
        state.epoch = Epoch(epoch);
        state.log.begin_after(before);
        let all: Vec<Pid> = state.by_pid.keys().copied().collect();
        let live = state.by_pid.values().filter(|record| matches!(record.state, State::Live(_)));
        let ids = live.map(|record| record.id).collect();
        // A later lease must not call current what nobody has followed.
        all.into_iter().for_each(|pid| state.let_go(pid));
        ids
    }
}

/// Tells the other nodes about consecutive entries of this node, up to a position.
fn publish(recipient: &dyn Recipient, epoch: u64, last: Position, own: &mut Vec<Bytes>) {
    if !own.is_empty() {
        recipient.publish(epoch, last + 1 - own.len() as u64, own);
        own.clear();
    }
}

/// A batch that is being written, and what of the queue is in it.
pub(super) struct Unwritten {
    batch: Batch,
    /// The numbers of the entries.
    numbers: Vec<u64>,
    /// The number up to which everything is in this batch or an earlier one.
    upto: u64,
}

/// Does something that may run handlers of the application. A panic in one of them ends only this.
pub(crate) fn guarded(act: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(act)).is_err() {
        metrics::HANDLER_PANICS.increment();
        tracing::error!("handler panicked while an entry of the recovery log was delivered");
    }
}

/// Makes what is stored of quiet sessions true again, and keeps what is stored from being forgotten. Returns whether there
/// is any session of a connected client.
fn correct(state: &mut Sessions, quiet_before: Position, now: Instant) -> bool {
    let (mut any, outgoing) = (false, &mut state.outgoing);
    for (pid, record) in &state.by_pid {
        if !matches!(record.state, State::Live(_)) {
            continue;
        }
        any = true;
        let last = record.sent.last();
        let right = match record.stored.quiet {
            Some(quiet) => quiet == last,
            None => last >= quiet_before,
        };
        let old = record.stored.at.is_some_and(|at| now.duration_since(at) >= STORED_AGAIN_AFTER);
        if !right || old {
            outgoing.touch(*pid);
        }
    }
    any
}

/// Adds a session to a batch as it is now. Returns the size of what was added.
fn save(state: &mut Sessions, pid: Pid, quiet_before: Position, batch: &mut Batch) -> usize {
    let Some(record) = state.by_pid.get_mut(&pid) else { return 0 };
    let away_millis = match record.state {
        State::New => return 0,
        State::Live(_) => None,
        State::Away { since: (since, _), .. } => {
            Some(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX))
        }
    };
    let generation = record.stored.generation;
    // Of an absent client it is always known, and does not change any more.
    let last = record.sent.last();
    let quiet = (last < quiet_before || away_millis.is_some()).then_some(last);
    let mut encoded = Err(ImksError::Internal("shared data that panics"));
    guarded(|| encoded = saved::encode(record, &state.log, quiet));
    (record.stored.quiet, record.stored.at) = (quiet, Some(Instant::now()));
    match encoded {
        Ok(bytes) => {
            let size = bytes.len();
            let (key, version) = (pid.into(), record.stored.version);
            batch.sessions.push(SavedSession { key, generation, version, away_millis, record: bytes });
            size
        }
        Err(error) => {
            // What is stored of it is older, and no longer true.
            tracing::warn!(%error, socket_sid = record.id.as_str(), "session cannot be stored: its client cannot recover it");
            batch.ended.push((pid.into(), generation));
            0
        }
    }
}

/// Returns entries with the position of the first one, as many at once as have consecutive positions.
fn runs<'a>(positions: &'a [u64], entries: &'a [Bytes]) -> impl Iterator<Item = (Position, &'a [Bytes])> {
    let mut begun = 0;
    let consecutive = positions.chunk_by(|one, next| one + 1 == *next);
    consecutive.filter_map(move |run| {
        let some = entries.get(begun..begun + run.len())?;
        begun += run.len();
        Some((*run.first()?, some))
    })
}

/// Writes a batch until it is written. Meanwhile the queue is what bounds what waits.
async fn insist(shared: &SharedLog, batch: &Batch) -> Written {
    let (mut pause, mut batch) = (RETRY_MIN, Cow::Borrowed(batch));
    loop {
        match timeout(WRITE_MAX, shared.log.write(&shared.bucket, &batch)).await {
            Ok(Ok(written)) => return written,
            Ok(Err(error)) => tracing::warn!(%error, log = shared.log.name(), "recovery log not written"),
            Err(_) => tracing::warn!(log = shared.log.name(), "recovery log not written in time"),
        }
        metrics::RECOVERY_WRITES_FAILED.increment();
        batch.to_mut().again = true;
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

async fn read(shared: &SharedLog, after: Position) -> ImksResult<Tail> {
    match timeout(WRITE_MAX, shared.log.read(&shared.bucket, after)).await {
        Ok(tail) => tail,
        Err(_) => Err(ImksError::Timeout("the recovery log did not answer in time")),
    }
}

/// The interval at which the log is read although nobody spoke of anything new.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The interval at which what is old is removed from the log.
const TRIM_INTERVAL: Duration = Duration::from_secs(20);

/// After how long without a packet a session counts as quiet: what its client got last may leave the log.
const QUIET_AFTER: Duration = Duration::from_secs(60);

/// After how long a session is stored again although it has not changed.
const STORED_AGAIN_AFTER: Duration = Duration::from_secs(1_200);

/// How long one access to the log may take.
const WRITE_MAX: Duration = Duration::from_secs(5);

/// The first pause after a failed access to the log.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest pause after a failed access to the log.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The number of entries that are delivered before other tasks run.
const ENTRIES_PER_TURN: usize = 64;
