//! What a node has not written to the shared log yet, and what waits until it has. It does no I/O.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::link::Pid;
use crate::error::{ImksError, ImksResult};

/// Something that is done once what was queued before it is in the log, and has been delivered on this node.
pub(crate) type After = Box<dyn FnOnce() + Send>;

/// The queue of a node in front of the shared log.
///
/// Events and changes of sessions are numbered in one sequence. A number is released when everything up to it is in the
/// log, and the events among it have been delivered on this node.
#[derive(Default)]
pub(super) struct Outgoing {
    entries: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// The sessions that changed since they were last stored.
    dirty: HashSet<Pid>,
    /// The sessions that ended, with their generations.
    ended: Vec<(Pid, u64)>,
    last: u64,
    released: u64,
    after: VecDeque<(u64, After)>,
    /// The number of entries that have been taken from the queue.
    appended: u64,
    leased: Option<Instant>,
}

/// What was taken from the queue for one batch.
pub(super) struct Taken {
    pub(super) number: u64,
    pub(super) entries: Vec<Bytes>,
    /// The numbers of the entries.
    pub(super) numbers: Vec<u64>,
    pub(super) dirty: HashSet<Pid>,
    pub(super) ended: Vec<(Pid, u64)>,
    /// The number up to which everything is in the batch.
    pub(super) upto: u64,
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
        self.dirty.insert(pid);
        self.last += 1;
        self.last
    }

    /// Notes that a session ended.
    pub(super) fn end(&mut self, pid: Pid, generation: u64) {
        self.dirty.remove(&pid);
        self.ended.push((pid, generation));
        self.last += 1;
    }

    /// Whether a change of the session has not been taken from the queue.
    pub(super) fn is_dirty(&self, pid: Pid) -> bool {
        self.dirty.contains(&pid)
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Keeps `after` until this number is released. Gives it back if that has happened, or if too many wait.
    pub(super) fn hold(&mut self, number: u64, after: After) -> Result<(), After> {
        if number <= self.released || self.after.len() >= WAITING_MAX {
            return Err(after);
        }
        self.after.push_back((number, after));
        Ok(())
    }

    /// Whether anything waits for numbers.
    pub(super) fn is_awaited(&self) -> bool {
        !self.after.is_empty()
    }

    /// Releases all numbers up to this one. Returns what waited for them.
    pub(super) fn release(&mut self, upto: u64) -> Vec<After> {
        self.released = self.released.max(upto);
        let (ready, waiting) = self.after.drain(..).partition(|(number, _)| *number <= self.released);
        let ready: VecDeque<(u64, After)> = ready;
        self.after = waiting;
        ready.into_iter().map(|(_, after)| after).collect()
    }

    /// Whether the lease has to be renewed.
    pub(super) fn lease_is_due(&self, now: Instant) -> bool {
        self.leased.is_none_or(|leased| now.duration_since(leased) >= LEASE_INTERVAL)
    }

    pub(super) fn leased(&mut self, now: Instant) {
        self.leased = Some(now);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.dirty.is_empty() && self.ended.is_empty()
    }

    /// Takes what fits into one batch.
    pub(super) fn take(&mut self) -> Taken {
        let (mut entries, mut numbers, mut bytes, number) = (Vec::new(), Vec::new(), 0, self.appended + 1);
        let mut upto = self.last;
        while let Some((n, entry)) = self.entries.front() {
            if !entries.is_empty() && (entries.len() >= BATCH_MAX || bytes + entry.len() > BATCH_BYTES_MAX) {
                upto = n - 1;
                break;
            }
            bytes += entry.len();
            numbers.push(*n);
            entries.extend(self.entries.pop_front().map(|(_, entry)| entry));
        }
        self.bytes -= bytes;
        self.appended += entries.len() as u64;
        let (dirty, ended) = (std::mem::take(&mut self.dirty), std::mem::take(&mut self.ended));
        Taken { number, entries, numbers, dirty, ended, upto }
    }
}

/// The maximum number of events that wait for the shared log, and of answers and other events that wait for these. More
/// are refused.
pub(crate) const WAITING_MAX: usize = 16_384;

/// The maximum size of the events that wait for the shared log in bytes. More are refused.
pub(crate) const WAITING_BYTES_MAX: usize = 32 << 20;

/// The maximum number of events in one batch.
const BATCH_MAX: usize = 512;

/// The maximum size of the events in one batch in bytes, unless it is one event.
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
            outgoing
                .hold(last, Box::new(move || done.store(done.load(Ordering::Relaxed) + 1, Ordering::Relaxed)))
                .is_ok()
        };
        assert!(!after(&mut outgoing), "nothing is before it");
        outgoing.push(entry(BATCH_BYTES_MAX)).unwrap();
        assert!(after(&mut outgoing));
        outgoing.push(entry(1)).unwrap();
        assert!(after(&mut outgoing));
        let (first, second) = (outgoing.take(), outgoing.take());
        assert_eq!((first.number, first.entries.len(), second.number, second.entries.len()), (1, 1, 2, 1));
        assert!(outgoing.is_empty());
        outgoing.release(first.upto).into_iter().for_each(|after| after());
        assert_eq!(done.load(Ordering::Relaxed), 1);
        outgoing.release(second.upto).into_iter().for_each(|after| after());
        assert_eq!(done.load(Ordering::Relaxed), 2);
        assert!(!after(&mut outgoing));
    }

    #[test]
    fn what_is_too_much_is_refused_and_nothing_is_forgotten() {
        let mut outgoing = Outgoing::default();
        let fits = (0..).take_while(|_| outgoing.push(entry(1)).is_ok()).count();
        assert_eq!(fits, WAITING_MAX);
        let mut taken = 0;
        while !outgoing.is_empty() {
            let batch = outgoing.take();
            assert_eq!(batch.number, taken + 1);
            taken += batch.entries.len() as u64;
        }
        assert_eq!(taken, WAITING_MAX as u64);
        outgoing.push(entry(WAITING_BYTES_MAX)).unwrap();
        assert!(outgoing.push(entry(1)).is_err());
    }
}
