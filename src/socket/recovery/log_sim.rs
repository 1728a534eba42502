//! A recovery log in memory for tests. It is slow, fails, succeeds without an answer and forgets, reproducibly for each
//! seed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use super::log::{Batch, Expected, Found, Keep, RecoveryLog, SessionKey, Tail, Written};
use crate::bus::BoxFuture;
use crate::bus::sim::Dice;
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
    end: Arc<End>,
    /// The attempts to write that have an effect later.
    late: TaskTracker,
}

/// The end of the log that one node holds.
#[derive(Default)]
struct End {
    number: u64,
    /// Whether the node that holds this end is cut off.
    cut: AtomicBool,
    /// Until when the process that holds this end stands still.
    still_until: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Contents {
    moods: Moods,
    seed: u64,
    /// The dice of each kind of access through each end, so that the order of different ones does not matter.
    dice: HashMap<(u64, Access), Dice>,
    ends: u64,
    epoch: u64,
    first: u64,
    entries: VecDeque<(Instant, Bytes)>,
    sessions: HashMap<SessionKey, Session>,
    leases: HashMap<NodeId, (u64, Instant)>,
    /// The last batch of each node: its number, and the position of its first entry.
    batches: HashMap<NodeId, (u64, u64)>,
    /// The sessions that each end has taken, as often as it knows that.
    taken: HashMap<(u64, SessionKey), usize>,
    /// Who the clients of sessions are, for those that have told.
    clients: HashMap<SessionKey, u64>,
    /// Every entry that ever was in the log, by epoch and position.
    journal: Vec<(u64, u64, Bytes)>,
}

/// What an access does, and for which client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Access {
    Write,
    Read,
    Trim,
    Find(u64),
    Take(u64),
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
        let contents = Contents { moods, seed, epoch: seed | 1, first: 1, ..Contents::default() };
        Self { contents: Arc::new(Mutex::new(contents)), ..Self::default() }
    }

    /// Returns an end of the log for one node, which can be cut off.
    pub(crate) fn end(&self) -> Self {
        let mut contents = self.contents.lock();
        contents.ends += 1;
        let end = Arc::new(End { number: contents.ends, ..End::default() });
        Self { contents: self.contents.clone(), end, late: self.late.clone() }
    }

    /// Sets whether this end reaches the log.
    pub(crate) fn set_cut(&self, cut: bool) {
        self.end.cut.store(cut, Ordering::Relaxed);
    }

    /// Stops the process of this end for a time.
    pub(crate) fn stop(&self, until: Instant) {
        *self.end.still_until.lock() = Some(until);
    }

    pub(crate) fn set_moods(&self, moods: Moods) {
        self.contents.lock().moods = moods;
    }

    /// Loses everything, as a server that crashed.
    pub(crate) fn crash(&self) {
        let mut contents = self.contents.lock();
        let old = std::mem::take(&mut *contents);
        let Contents { moods, seed, dice, ends, epoch, clients, journal, .. } = old;
        let epoch = epoch + 2;
        *contents =
            Contents { moods, seed, dice, ends, epoch, first: 1, clients, journal, ..Contents::default() };
    }

    /// Drops all but the last entries.
    pub(crate) fn shorten(&self, keep: usize) {
        let mut contents = self.contents.lock();
        while contents.entries.len() > keep {
            contents.drop_first();
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.contents.lock().epoch
    }

    /// Returns the position of the newest entry.
    pub(crate) fn last(&self) -> u64 {
        self.contents.lock().last()
    }

    /// Returns the number of stored sessions.
    pub(crate) fn sessions(&self) -> usize {
        self.contents.lock().sessions.len()
    }

    /// Returns every entry that ever was in the log, with its epoch and its position.
    pub(crate) fn journal(&self) -> Vec<(u64, u64, Bytes)> {
        self.contents.lock().journal.clone()
    }

    /// Whether this end has taken a session, which it then may continue once.
    pub(crate) fn has_taken(&self, key: SessionKey) -> bool {
        let mut contents = self.contents.lock();
        let taken = contents.taken.get_mut(&(self.end.number, key)).filter(|taken| **taken > 0);
        taken.map(|taken| *taken -= 1).is_some()
    }

    /// Notes whose session this is: what happens to one client then depends on no other one.
    pub(crate) fn name(&self, key: SessionKey, client: u64) {
        self.contents.lock().clients.insert(key, client);
    }

    /// Does something to the contents, as well as the moods allow.
    fn access<'a, T: Send + 'a>(
        &'a self,
        access: Access,
        act: impl FnOnce(&mut Contents) -> T + Send + 'a,
    ) -> BoxFuture<'a, ImksResult<T>> {
        Box::pin(async move {
            let (delay, fate) = {
                let mut contents = self.contents.lock();
                let delay_max = contents.moods.delay_max;
                let dice = contents.dice(self.end.number, access);
                (dice.duration(delay_max), dice.below(100))
            };
            self.travel(delay / 2).await;
            let outcome = {
                let mut contents = self.contents.lock();
                let Moods { failing_percent, silent_percent, away, .. } = contents.moods;
                if away || self.end.cut.load(Ordering::Relaxed) || fate < failing_percent {
                    return Err(failure());
                }
                let outcome = act(&mut contents);
                if fate < failing_percent + silent_percent { Err(failure()) } else { Ok(outcome) }
            };
            self.travel(delay / 2).await;
            outcome
        })
    }

    /// Waits as long as one way to the log takes, or back.
    async fn travel(&self, delay: Duration) {
        self.stand_still().await;
        sleep(delay).await;
        self.stand_still().await;
    }

    async fn stand_still(&self) {
        let until = *self.end.still_until.lock();
        if let Some(until) = until.filter(|until| *until > Instant::now()) {
            sleep_until(until).await;
        }
    }
}

fn failure() -> ImksError {
    ImksError::AdapterMessageBus(Cause::new("the log is in a bad mood"))
}

impl Contents {
    fn last(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }

    fn dice(&mut self, end: u64, access: Access) -> &mut Dice {
        let seed = self.seed;
        self.dice.entry((end, access)).or_insert_with(|| Dice::new(seed, (end, access)))
    }

    fn client(&self, key: SessionKey) -> u64 {
        self.clients.get(&key).copied().unwrap_or_default()
    }

    fn drop_first(&mut self) {
        self.first += u64::from(self.entries.pop_front().is_some());
    }

    fn append(&mut self, entry: &Bytes) {
        self.entries.push_back((Instant::now(), entry.clone()));
        self.journal.push((self.epoch, self.last(), entry.clone()));
    }

    fn trim(&mut self, keep: Keep) {
        let (now, age_max) = (Instant::now(), Duration::from_millis(keep.millis));
        let mut bytes: usize = self.entries.iter().map(|(_, entry)| entry.len()).sum();
        while let Some((at, entry)) = self.entries.front() {
            let fits = self.entries.len() as u64 <= keep.entries && bytes as u64 <= keep.bytes;
            if fits && now - *at <= age_max {
                break;
            }
            bytes -= entry.len();
            self.drop_first();
        }
        let leases = &self.leases;
        let since = |session: &Session| {
            let seen = leases.get(&session.node).map_or(session.saved, |(_, seen)| session.saved.max(*seen));
            session.away.unwrap_or(seen)
        };
        self.sessions.retain(|_, session| now - since(session) <= age_max);
        let mut away: Vec<(Instant, SessionKey)> =
            self.sessions.iter().filter_map(|(key, it)| Some((it.away?, *key))).collect();
        away.sort_by_key(|(since, key)| (*since, key.0));
        let over = (away.len() as u64).saturating_sub(keep.sessions);
        away.into_iter().take(over as usize).for_each(|(_, key)| drop(self.sessions.remove(&key)));
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
            batch.entries.iter().for_each(|entry| self.append(entry));
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
        let later = {
            let mut contents = self.contents.lock();
            let late_percent = contents.moods.late_percent;
            let dice = contents.dice(self.end.number, Access::Write);
            dice.chance(late_percent).then(|| dice.duration(LATE_MAX))
        };
        let Some(later) = later else {
            return self.access(Access::Write, |contents| contents.write(batch));
        };
        let (log, batch) = (self.clone(), batch.clone());
        Box::pin(async move {
            let epoch = log.epoch();
            self.late.spawn(async move {
                sleep(later).await;
                // Nothing is on its way any more to a server that has crashed.
                if log.epoch() == epoch {
                    log.contents.lock().write(&batch);
                }
            });
            Err(failure())
        })
    }

    fn read<'a>(&'a self, _bucket: &'a str, after: u64) -> BoxFuture<'a, ImksResult<Tail>> {
        self.access(Access::Read, move |contents| {
            let first = (after + 1).max(contents.first);
            let skipped = usize::try_from(first - contents.first).unwrap();
            let entries =
                contents.entries.iter().skip(skipped).take(7).map(|(_, entry)| entry.clone()).collect();
            Tail { epoch: contents.epoch, last: contents.last(), first, entries }
        })
    }

    fn find<'a>(&'a self, _bucket: &'a str, key: SessionKey) -> BoxFuture<'a, ImksResult<Option<Found>>> {
        let client = self.contents.lock().client(key);
        self.access(Access::Find(client), move |contents| contents.find(key))
    }

    fn take<'a>(
        &'a self,
        _bucket: &'a str,
        key: SessionKey,
        expected: Expected,
        node: NodeId,
    ) -> BoxFuture<'a, ImksResult<bool>> {
        let client = self.contents.lock().client(key);
        Box::pin(async move {
            let taken =
                self.access(Access::Take(client), move |contents| contents.take(key, expected, node)).await;
            if let Ok(true) = taken {
                *self.contents.lock().taken.entry((self.end.number, key)).or_default() += 1;
            }
            taken
        })
    }

    fn trim<'a>(&'a self, _bucket: &'a str, keep: Keep) -> BoxFuture<'a, ImksResult<()>> {
        self.access(Access::Trim, move |contents| contents.trim(keep))
    }
}

/// The longest time after which a write that has failed has its effect.
const LATE_MAX: Duration = Duration::from_secs(3);
