//! A recovery log in memory for tests. It is slow, fails, succeeds without an answer and forgets, reproducibly for each
//! seed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::log::{Batch, Expected, Found, Keep, RecoveryLog, SessionKey, Tail, Written};
use crate::bus::BoxFuture;
use crate::error::{Cause, ImksError, ImksResult};
use crate::node::NodeId;

/// The faults of a log.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moods {
    /// The longest time that an access takes.
    pub(crate) delay_max: Duration,
    /// The percentage of accesses that fail without an effect.
    pub(crate) failing_percent: u64,
    /// The percentage of accesses that have an effect and fail.
    pub(crate) silent_percent: u64,
    /// The percentage of writes that fail and have an effect later.
    pub(crate) late_percent: u64,
    /// Whether nothing works.
    pub(crate) away: bool,
}

/// A log that nodes of a test share. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct SimLog {
    contents: Arc<Mutex<Contents>>,
    /// Whether the node that holds this end is cut off.
    cut: Arc<AtomicBool>,
}

#[derive(Default)]
struct Contents {
    moods: Moods,
    random: u64,
    epoch: u64,
    first: u64,
    entries: VecDeque<Bytes>,
    sessions: HashMap<SessionKey, Session>,
    leases: HashMap<NodeId, (u64, Instant)>,
    /// The last batch of each node: its number, and the position of its first entry.
    batches: HashMap<NodeId, (u64, u64)>,
}

struct Session {
    node: NodeId,
    generation: u64,
    version: u64,
    saved: Instant,
    away: Option<Instant>,
    taken: Option<Instant>,
    record: Bytes,
}

impl SimLog {
    pub(crate) fn new(seed: u64, moods: Moods) -> Self {
        let random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let contents = Contents { moods, random, epoch: seed | 1, first: 1, ..Contents::default() };
        Self { contents: Arc::new(Mutex::new(contents)), cut: Arc::default() }
    }

    /// Returns an end of the log for one node, which can be cut off.
    pub(crate) fn end(&self) -> Self {
        Self { contents: self.contents.clone(), cut: Arc::default() }
    }

    /// Sets whether this end reaches the log.
    pub(crate) fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    pub(crate) fn set_moods(&self, moods: Moods) {
        self.contents.lock().moods = moods;
    }

    /// Loses everything, as a server that crashed.
    pub(crate) fn crash(&self) {
        let mut contents = self.contents.lock();
        let (moods, random, epoch) = (contents.moods, contents.random, contents.epoch + 2);
        *contents = Contents { moods, random, epoch, first: 1, ..Contents::default() };
    }

    /// Drops all but the last entries.
    pub(crate) fn shorten(&self, keep: usize) {
        let mut contents = self.contents.lock();
        while contents.entries.len() > keep {
            contents.entries.pop_front();
            contents.first += 1;
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.contents.lock().epoch
    }

    /// Returns the position of the newest entry.
    pub(crate) fn last(&self) -> u64 {
        self.contents.lock().last()
    }

    /// Does something to the contents, as well as the moods allow.
    fn access<'a, T: Send + 'a>(
        &'a self,
        act: impl FnOnce(&mut Contents) -> T + Send + 'a,
    ) -> BoxFuture<'a, ImksResult<T>> {
        Box::pin(async move {
            let (delay, fate) = {
                let mut contents = self.contents.lock();
                let millis = contents.moods.delay_max.as_millis() as u64;
                (Duration::from_millis(contents.draw(millis + 1)), contents.draw(100))
            };
            tokio::time::sleep(delay / 2).await;
            let outcome = {
                let mut contents = self.contents.lock();
                let Moods { failing_percent, silent_percent, away, .. } = contents.moods;
                if away || self.cut.load(Ordering::Relaxed) || fate < failing_percent {
                    return Err(failure());
                }
                let outcome = act(&mut contents);
                if fate < failing_percent + silent_percent { Err(failure()) } else { Ok(outcome) }
            };
            tokio::time::sleep(delay / 2).await;
            outcome
        })
    }
}

fn failure() -> ImksError {
    ImksError::AdapterMessageBus(Cause::new("the log is in a bad mood"))
}

impl Contents {
    fn last(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }

    /// Returns a random number below `bound` (xorshift64).
    fn draw(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound.max(1)
    }

    fn write(&mut self, batch: &Batch) -> Written {
        let now = Instant::now();
        let (newest, first) = self.batches.get(&batch.node).copied().unwrap_or_default();
        if batch.serial < newest {
            return Written::default();
        }
        let before = (batch.serial == newest).then_some(first);
        let first = before.unwrap_or(self.last() + 1);
        if before.is_none() {
            self.entries.extend(batch.entries.iter().cloned());
            self.batches.insert(batch.node, (batch.serial, first));
        }
        let positions = (first..).take(batch.entries.len()).collect();
        let mut written = Written { epoch: self.epoch, positions, taken: Vec::new() };
        if batch.epoch == self.epoch {
            self.write_sessions(batch, now, &mut written.taken);
        }
        written
    }

    fn write_sessions(&mut self, batch: &Batch, now: Instant, taken: &mut Vec<SessionKey>) {
        for saved in &batch.sessions {
            let old = self.sessions.get(&saved.key);
            if old.is_some_and(|old| old.generation != saved.generation) {
                taken.push(saved.key);
                continue;
            }
            let away = saved.away_millis.map(|millis| now - Duration::from_millis(millis));
            let session = Session {
                node: batch.node,
                generation: saved.generation,
                version: saved.version,
                saved: now,
                away,
                taken: old.and_then(|old| old.taken),
                record: saved.record.clone(),
            };
            self.sessions.insert(saved.key, session);
        }
        for (key, generation) in &batch.ended {
            if self.sessions.get(key).is_some_and(|session| session.generation == *generation) {
                self.sessions.remove(key);
            }
        }
        if let Some(position) = batch.lease {
            self.leases.insert(batch.node, (position, now));
        }
    }

    fn find(&self, key: SessionKey) -> Option<Found> {
        let session = self.sessions.get(&key)?;
        let lease = self.leases.get(&session.node).copied();
        let seen = lease.map_or(session.saved, |(_, seen)| seen.max(session.saved));
        let millis = |since: Instant| since.elapsed().as_millis() as u64;
        Some(Found {
            epoch: self.epoch,
            last: self.last(),
            node: session.node,
            generation: session.generation,
            version: session.version,
            connected: session.away.is_none(),
            away_millis: millis(session.away.unwrap_or(seen)),
            taken_millis: session.taken.map(millis),
            lease: lease.map(|(position, _)| position),
            record: session.record.clone(),
        })
    }

    fn take(&mut self, key: SessionKey, expected: Expected, node: NodeId) -> bool {
        let is_expected = |session: &&mut Session| {
            session.generation == expected.generation
                && expected.version.is_none_or(|version| version == session.version)
        };
        let Some(session) = self.sessions.get_mut(&key).filter(is_expected) else {
            return false;
        };
        let now = Instant::now();
        session.generation += 1;
        session.node = node;
        session.taken = Some(now);
        session.away.get_or_insert(now);
        true
    }
}

impl RecoveryLog for SimLog {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn write<'a>(&'a self, _bucket: &'a str, batch: &'a Batch) -> BoxFuture<'a, ImksResult<Written>> {
        let fate = self.contents.lock().draw(100);
        if fate >= self.contents.lock().moods.late_percent {
            return self.access(|contents| contents.write(batch));
        }
        let (contents, batch) = (self.contents.clone(), batch.clone());
        Box::pin(async move {
            tokio_util::task::TaskTracker::new().spawn(async move {
                let (delay, epoch) = {
                    let mut contents = contents.lock();
                    (contents.draw(3_000), contents.epoch)
                };
                tokio::time::sleep(Duration::from_millis(delay)).await;
                let mut contents = contents.lock();
                // Nothing is on its way any more to a server that has crashed.
                if contents.epoch == epoch {
                    contents.write(&batch);
                }
            });
            Err(failure())
        })
    }

    fn read<'a>(&'a self, _bucket: &'a str, after: u64) -> BoxFuture<'a, ImksResult<Tail>> {
        self.access(move |contents| {
            let first = (after + 1).max(contents.first);
            let skipped = usize::try_from(first - contents.first).unwrap();
            let entries = contents.entries.iter().skip(skipped).take(7).cloned().collect();
            Tail { epoch: contents.epoch, last: contents.last(), first, entries }
        })
    }

    fn find<'a>(&'a self, _bucket: &'a str, key: SessionKey) -> BoxFuture<'a, ImksResult<Option<Found>>> {
        self.access(move |contents| contents.find(key))
    }

    fn take<'a>(
        &'a self,
        _bucket: &'a str,
        key: SessionKey,
        expected: Expected,
        node: NodeId,
    ) -> BoxFuture<'a, ImksResult<bool>> {
        self.access(move |contents| contents.take(key, expected, node))
    }

    fn trim<'a>(&'a self, _bucket: &'a str, _keep: Keep) -> BoxFuture<'a, ImksResult<()>> {
        Box::pin(async { Ok(()) })
    }
}
