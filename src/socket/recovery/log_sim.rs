//! A recovery log in memory for tests. It is slow, fails, succeeds without an answer and forgets, reproducibly for each
//! seed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::log::{Batch, Found, Keep, RecoveryLog, SessionKey, Tail, Written};
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
    /// Whether nothing works.
    pub(crate) away: bool,
}

/// A log that nodes of a test share. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct SimLog(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    moods: Moods,
    random: u64,
    epoch: u64,
    first: u64,
    entries: VecDeque<(NodeId, u64, Bytes)>,
    sessions: HashMap<SessionKey, Session>,
    leases: HashMap<NodeId, (u64, Instant)>,
}

struct Session {
    node: NodeId,
    generation: u64,
    saved: Instant,
    away: Option<Instant>,
    taken: Option<Instant>,
    record: Bytes,
}

impl SimLog {
    pub(crate) fn new(seed: u64, moods: Moods) -> Self {
        let random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        Self(Arc::new(Mutex::new(Contents {
            moods,
            random,
            epoch: seed | 1,
            first: 1,
            ..Contents::default()
        })))
    }

    pub(crate) fn set_moods(&self, moods: Moods) {
        self.0.lock().moods = moods;
    }

    /// Loses everything, as a server that crashed.
    pub(crate) fn crash(&self) {
        let mut contents = self.0.lock();
        let (moods, random, epoch) = (contents.moods, contents.random, contents.epoch + 2);
        *contents = Contents { moods, random, epoch, first: 1, ..Contents::default() };
    }

    /// Drops all but the last entries.
    pub(crate) fn shorten(&self, keep: usize) {
        let mut contents = self.0.lock();
        while contents.entries.len() > keep {
            contents.entries.pop_front();
            contents.first += 1;
        }
    }

    /// Returns the position of the newest entry.
    pub(crate) fn last(&self) -> u64 {
        self.0.lock().last()
    }

    /// Does something to the contents, as well as the moods allow.
    fn access<'a, T: Send + 'a>(
        &'a self,
        act: impl FnOnce(&mut Contents) -> T + Send + 'a,
    ) -> BoxFuture<'a, ImksResult<T>> {
        Box::pin(async move {
            let (delay, fate) = {
                let mut contents = self.0.lock();
                let millis = contents.moods.delay_max.as_millis() as u64;
                (Duration::from_millis(contents.draw(millis + 1)), contents.draw(100))
            };
            tokio::time::sleep(delay / 2).await;
            let outcome = {
                let mut contents = self.0.lock();
                let Moods { failing_percent, silent_percent, away, .. } = contents.moods;
                if away || fate < failing_percent {
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
        let known = |entry: &(NodeId, u64, Bytes)| entry.0 == batch.node && entry.1 == batch.number;
        let before = self.entries.iter().position(known).filter(|_| !batch.entries.is_empty());
        assert!(before.is_none() || batch.again, "a number is used once");
        let first = before.map_or(self.last() + 1, |n| self.first + n as u64);
        if before.is_none() {
            for (number, entry) in (batch.number..).zip(&batch.entries) {
                self.entries.push_back((batch.node, number, entry.clone()));
            }
        }
        let mut taken = Vec::new();
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
        let positions = (first..).take(batch.entries.len()).collect();
        Written { epoch: self.epoch, positions, taken }
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
            connected: session.away.is_none(),
            away_millis: millis(session.away.unwrap_or(seen)),
            taken_millis: session.taken.map(millis),
            lease: lease.map(|(position, _)| position),
            record: session.record.clone(),
        })
    }

    fn take(&mut self, key: SessionKey, generation: u64, node: NodeId) -> bool {
        let Some(session) = self.sessions.get_mut(&key).filter(|it| it.generation == generation) else {
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
        self.access(|contents| contents.write(batch))
    }

    fn read<'a>(&'a self, _bucket: &'a str, after: u64) -> BoxFuture<'a, ImksResult<Tail>> {
        self.access(move |contents| {
            let first = (after + 1).max(contents.first);
            let skipped = usize::try_from(first - contents.first).unwrap();
            let entries =
                contents.entries.iter().skip(skipped).take(7).map(|(_, _, entry)| entry.clone()).collect();
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
        generation: u64,
        node: NodeId,
    ) -> BoxFuture<'a, ImksResult<bool>> {
        self.access(move |contents| contents.take(key, generation, node))
    }

    fn trim<'a>(&'a self, _bucket: &'a str, _keep: Keep) -> BoxFuture<'a, ImksResult<()>> {
        Box::pin(async { Ok(()) })
    }
}
