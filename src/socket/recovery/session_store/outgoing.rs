//! What a node has not written to the shared log yet, and what waits until it has. It does no I/O.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::link::Pid;
use crate::error::{ImksError, ImksResult};

/// Something that is done once what was queued before it is in the log, and has been delivered on this node.
pub(crate) type After = Box<dyn FnOnce() + Send>;

/// What became of something that has to wait.
pub(super) enum Held {
    /// It is done later.
    Kept,
    /// It has nothing to wait for.
    Due(After),
    /// Too much waits already.
    Full,
}

/// The queue of a node in front of the shared log.
///
/// Events and changes of sessions are numbered in one sequence. A number is released when everything up to it is in the
/// log, and the events among it have been delivered on this node.
#[derive(Default)]
pub(super) struct Outgoing {
    entries: VecDeque<(u64, Bytes)>,
    /// The size of the entries and of `after`.
    bytes: usize,
    /// The sessions that changed since they were last stored, by the number of their first change.
    dirty: BTreeMap<u64, Pid>,
    dirty_since: HashMap<Pid, u64>,
    /// The sessions that ended, with their generations.
    ended: Vec<(Pid, u64)>,
    last: u64,
    /// The number up to which everything was taken.
    taken: u64,
    released: u64,
    after: VecDeque<(u64, usize, After)>,
    /// The number of entries that have been taken from the queue.
    appended: u64,
    /// The number of batches.
    batches: u64,
    leased: Option<Instant>,
}

/// What was taken from the queue for one batch.
pub(super) struct Taken {
    pub(super) serial: u64,
    pub(super) number: u64,
    pub(super) entries: Vec<Bytes>,
    /// The numbers of the entries.
    pub(super) numbers: Vec<u64>,
    pub(super) ended: Vec<(Pid, u64)>,
    pub(super) bytes: usize,
}

impl Outgoing {
    /// Adds an entry. Returns its number.
    pub(super) fn push(&mut self, entry: Bytes) -> ImksResult<u64> {
        if self.entries.len() >= WAITING_MAX || self.bytes + entry.len() > WAITING_BYTES_MAX {
            return Err(ImksError::LimitReached("events that wait for the recovery log"));
        }
        self.last += 1;
        self.bytes += entry.len();
        self.entries.push_back((self.last, entry));
        Ok(self.last)
    }

    /// Notes that a session changed. Returns the number of the change.
    pub(super) fn touch(&mut self, pid: Pid) -> u64 {
        self.last += 1;
        if let Entry::Vacant(since) = self.dirty_since.entry(pid) {
            since.insert(self.last);
            self.dirty.insert(self.last, pid);
        }
        self.last
    }

    /// Notes that a session ended.
    pub(super) fn end(&mut self, pid: Pid, generation: u64) {
        self.forget(pid);
        self.ended.push((pid, generation));
        self.last += 1;
    }

    /// Forgets the changes of a session.
    pub(super) fn forget(&mut self, pid: Pid) {
        if let Some(since) = self.dirty_since.remove(&pid) {
            self.dirty.remove(&since);
        }
    }

    /// Whether a change of the session has not been taken from the queue.
    pub(super) fn is_dirty(&self, pid: Pid) -> bool {
        self.dirty_since.contains_key(&pid)
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Keeps `after`, which carries so many bytes, until this number is released, unless it is.
    pub(super) fn hold(&mut self, number: u64, bytes: usize, after: After) -> Held {
        if number <= self.released {
            return Held::Due(after);
        }
        if self.after.len() >= WAITING_MAX || self.bytes + bytes > WAITING_BYTES_MAX {
            return Held::Full;
        }
        self.bytes += bytes;
        self.after.push_back((number, bytes, after));
        Held::Kept
    }

    /// Whether anything waits for numbers.
    pub(super) fn is_awaited(&self) -> bool {
        !self.after.is_empty()
    }

    /// Releases all numbers up to this one. Returns what waited for them.
    pub(super) fn release(&mut self, upto: u64) -> Vec<After> {
        self.released = self.released.max(upto);
        let (ready, waiting) = self.after.drain(..).partition(|(number, ..)| *number <= self.released);
        let ready: VecDeque<(u64, usize, After)> = ready;
        self.after = waiting;
        self.bytes -= ready.iter().map(|(_, bytes, _)| bytes).sum::<usize>();
        ready.into_iter().map(|(.., after)| after).collect()
    }

    /// Whether the lease has to be renewed.
    pub(super) fn lease_is_due(&self, now: Instant) -> bool {
        self.leased.is_none_or(|leased| now.duration_since(leased) >= LEASE_INTERVAL)
    }

    pub(super) fn leased(&mut self, now: Instant) {
        self.leased = Some(now);
    }

    /// Whether there is nothing to write. What was forgotten is released with the next batch.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.dirty.is_empty() && self.ended.is_empty() && self.taken == self.last
    }

    /// Takes the entries that fit into one batch, and the ends of sessions.
    pub(super) fn take(&mut self) -> Taken {
        let (mut entries, mut numbers, mut bytes, number) = (Vec::new(), Vec::new(), 0, self.appended + 1);
        while let Some((n, entry)) = self.entries.front() {
            if !entries.is_empty() && (entries.len() >= BATCH_MAX || bytes + entry.len() > BATCH_BYTES_MAX) {
                break;
            }
            bytes += entry.len();
            numbers.push(*n);
            entries.extend(self.entries.pop_front().map(|(_, entry)| entry));
        }
        self.bytes -= bytes;
        self.appended += entries.len() as u64;
        self.batches += 1;
        Taken {
            serial: self.batches,
            number,
            entries,
            numbers,
            ended: std::mem::take(&mut self.ended),
            bytes,
        }
    }

    #[cfg(test)]
    pub(super) fn tables(&self) -> [(&'static str, usize, usize); 4] {
        [
            ("entries to write", self.entries.len(), WAITING_MAX),
            ("bytes to write", self.bytes, WAITING_BYTES_MAX),
            ("sessions to write", self.dirty.len().max(self.dirty_since.len()), usize::MAX),
            ("what waits for the log", self.after.len(), WAITING_MAX),
        ]
    }

    /// Takes the next session that changed, for a batch of this size.
    pub(super) fn take_dirty(&mut self, bytes: usize) -> Option<Pid> {
        if bytes >= BATCH_BYTES_MAX {
            return None;
        }
        let (_, pid) = self.dirty.pop_first()?;
        self.dirty_since.remove(&pid);
        Some(pid)
    }

    /// Whether all sessions that changed have been taken.
    pub(super) fn is_clean(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Returns the number up to which everything has been taken.
    pub(super) fn taken_upto(&mut self) -> u64 {
        let entry = self.entries.front().map(|(number, _)| *number);
        let session = self.dirty.first_key_value().map(|(number, _)| *number);
        self.taken = entry.into_iter().chain(session).min().map_or(self.last, |next| next - 1);
        self.taken
    }
}

/// The maximum number of events that wait for the shared log, and of answers and other events that wait for these. More
/// are refused.
pub(crate) const WAITING_MAX: usize = 16_384;

/// The maximum size of the events that wait for the shared log, and of the answers and other events that wait for these, in
/// bytes. More are refused. Of sessions only their names wait.
pub(crate) const WAITING_BYTES_MAX: usize = 32 << 20;

/// The maximum number of events in one batch.
const BATCH_MAX: usize = 512;

/// The size in bytes from which on nothing is added to a batch.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// The interval at which a node tells that it is alive, and that what it has stored is current.
pub(super) const LEASE_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn entry(bytes: usize) -> Bytes {
        Bytes::from(vec![0; bytes])
    }

    #[test]
    fn what_waits_is_done_when_everything_before_it_is_in_the_log() {
        let (mut outgoing, done) = (Outgoing::default(), Arc::new(AtomicUsize::new(0)));
        let after = |outgoing: &mut Outgoing| {
            let (done, last) = (done.clone(), outgoing.last());
            let count = move || done.store(done.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            matches!(outgoing.hold(last, 1, Box::new(count)), Held::Kept)
        };
        assert!(!after(&mut outgoing), "nothing is before it");
        outgoing.push(entry(BATCH_BYTES_MAX)).unwrap();
        assert!(after(&mut outgoing));
        outgoing.push(entry(1)).unwrap();
        assert!(after(&mut outgoing));
        let first = outgoing.take();
        let first_upto = outgoing.taken_upto();
        let second = outgoing.take();
        let second_upto = outgoing.taken_upto();
        assert_eq!((first.number, first.entries.len(), second.number, second.entries.len()), (1, 1, 2, 1));
        assert!(outgoing.is_empty());
        outgoing.release(first_upto).into_iter().for_each(|after| after());
        assert_eq!(done.load(Ordering::Relaxed), 1);
        outgoing.release(second_upto).into_iter().for_each(|after| after());
        assert_eq!(done.load(Ordering::Relaxed), 2);
        assert!(!after(&mut outgoing));
    }

    #[test]
    fn what_is_too_much_is_refused_and_nothing_is_forgotten() {
        let mut outgoing = Outgoing::default();
        let fits = (0..).take_while(|_| outgoing.push(entry(1)).is_ok()).count();
        assert_eq!(fits, WAITING_MAX);
        let mut taken = 0;
        while outgoing.taken_upto() < outgoing.last() {
            let batch = outgoing.take();
            assert_eq!(batch.number, taken + 1);
            taken += batch.entries.len() as u64;
        }
        assert_eq!(taken, WAITING_MAX as u64);
        outgoing.push(entry(WAITING_BYTES_MAX - 1)).unwrap();
        assert!(outgoing.push(entry(2)).is_err());
        let last = outgoing.last();
        assert!(matches!(outgoing.hold(last, 2, Box::new(|| ())), Held::Full), "answers count too");
        assert!(matches!(outgoing.hold(last, 1, Box::new(|| ())), Held::Kept));
        outgoing.take();
        outgoing.release(last);
        assert_eq!(outgoing.bytes, 0);
    }

    #[test]
    fn sessions_that_do_not_fit_into_a_batch_are_in_a_later_one_and_nothing_is_released_before() {
        let mut outgoing = Outgoing::default();
        let [one, two] = [Pid::random().unwrap(), Pid::random().unwrap()];
        assert_eq!((outgoing.touch(one), outgoing.touch(two), outgoing.touch(one)), (1, 2, 3));
        outgoing.push(entry(1)).unwrap();
        let taken = outgoing.take();
        assert_eq!((taken.entries.len(), outgoing.take_dirty(taken.bytes)), (1, Some(one)));
        assert_eq!(outgoing.take_dirty(BATCH_BYTES_MAX), None);
        assert_eq!((outgoing.taken_upto(), outgoing.is_clean()), (1, false));
        assert_eq!(outgoing.take_dirty(0), Some(two));
        assert_eq!((outgoing.taken_upto(), outgoing.is_clean(), outgoing.is_empty()), (4, true, true));
        outgoing.touch(one);
        outgoing.end(one, 1);
        assert!(outgoing.is_clean() && !outgoing.is_dirty(one) && !outgoing.is_empty());
    }
}
