//! Entries of the shared log on their way to this node: put in order, and asked for where one is missing. It does no I/O.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tokio::time::Instant;

use super::outgoing::{After, Held};
use super::sent::Position;

/// The entries that have arrived, by position, and what is known of those that have not.
#[derive(Default)]
pub(super) struct Arrivals {
    epoch: u64,
    early: BTreeMap<Position, Bytes>,
    bytes: usize,
    /// The newest position that anybody spoke of.
    head: Position,
    /// Whether somebody spoke of another epoch.
    other_epoch: bool,
    /// The newest position that anybody spoke of since the last reading began, and whether it was one of another epoch.
    news: (Position, bool),
    /// Since when an entry has been missing.
    hole_since: Option<Instant>,
    /// The own entries that are in the log, in their order: their epoch, their position, and the number that they release.
    commits: VecDeque<(u64, Position, u64)>,
    /// What came past the log, and comes after the entries that were announced before it.
    after: Vec<(Position, usize, After)>,
    /// The size of what these carry.
    after_bytes: usize,
}

impl Arrivals {
    /// Starts over with an epoch.
    pub(super) fn begin(&mut self, epoch: u64) {
        let (commits, mut after) = (std::mem::take(&mut self.commits), std::mem::take(&mut self.after));
        after.iter_mut().for_each(|(position, ..)| *position = 0);
        *self = Self { epoch, commits, after, after_bytes: self.after_bytes, ..Self::default() };
    }

    /// Adds consecutive entries. Those that do not fit are read from the log later.
    pub(super) fn add(&mut self, epoch: u64, first: Position, entries: impl ExactSizeIterator<Item = Bytes>) {
        if entries.len() == 0 {
            return;
        }
        let Some(end) = first.checked_add(entries.len() as u64) else { return };
        self.announce(epoch, end - 1);
        if epoch != self.epoch {
            return;
        }
        for (position, entry) in (first..).zip(entries) {
            let fits = self.early.len() < EARLY_MAX && self.bytes + entry.len() <= EARLY_BYTES_MAX;
            if fits && !self.early.contains_key(&position) {
                self.bytes += entry.len();
                self.early.insert(position, entry);
            }
        }
    }

    /// Notes the newest position of the log.
    pub(super) fn announce(&mut self, epoch: u64, last: Position) {
        if epoch == self.epoch {
            self.head = self.head.max(last);
            self.news.0 = self.news.0.max(last);
        } else {
            (self.other_epoch, self.news.1) = (true, true);
        }
    }

    /// Notes that what this node has queued up to a number is in the log, at positions up to `last`.
    pub(super) fn committed(&mut self, epoch: u64, last: Position, upto: u64) {
        if epoch != self.epoch {
            (self.other_epoch, self.news.1) = (true, true);
        }
        self.commits.push_back((epoch, last, upto));
    }

    /// Removes and returns the entry after `cursor`, if it is there.
    pub(super) fn next(&mut self, cursor: Position) -> Option<Bytes> {
        while let Some(entry) = self.early.first_entry()
            && *entry.key() <= cursor
        {
            self.bytes -= entry.remove().len();
        }
        let entry = self.early.remove(&(cursor + 1))?;
        self.bytes -= entry.len();
        Some(entry)
    }

    /// Keeps `after` until what was announced has been delivered, unless that has happened.
    pub(super) fn hold(&mut self, cursor: Position, bytes: usize, after: After) -> Held {
        if self.head <= cursor {
            return Held::Due(after);
        }
        if self.after.len() >= EARLY_MAX || self.after_bytes + bytes > EARLY_BYTES_MAX {
            return Held::Full;
        }
        self.after_bytes += bytes;
        self.after.push((self.head, bytes, after));
        Held::Kept
    }

    /// Whether anything waits for entries.
    pub(super) fn is_awaited(&self) -> bool {
        !self.after.is_empty()
    }

    /// Removes and returns what comes after the entries up to `cursor`.
    pub(super) fn ready(&mut self, cursor: Position) -> Vec<After> {
        let (ready, waiting): (Vec<_>, Vec<_>) =
            self.after.drain(..).partition(|(position, ..)| *position <= cursor);
        self.after = waiting;
        self.after_bytes -= ready.iter().map(|(_, bytes, _)| bytes).sum::<usize>();
        ready.into_iter().map(|(.., after)| after).collect()
    }

    /// Whether this node has appended the entry after `cursor`, as far as it knows.
    pub(super) fn next_is_own(&self, cursor: Position) -> bool {
        self.commits
            .front()
            .is_some_and(|(epoch, position, _)| (*epoch, *position) == (self.epoch, cursor + 1))
    }

    /// Returns the number up to which everything of this node is in the log and at or before `cursor`.
    pub(super) fn released(&mut self, cursor: Position) -> Option<u64> {
        let mut released = None;
        while let Some((epoch, last, upto)) = self.commits.front() {
            // What was in an earlier log is lost, and nothing waits for it.
            let done = if *epoch == self.epoch { *last <= cursor } else { !self.other_epoch };
            if !done {
                break;
            }
            released = Some(*upto);
            self.commits.pop_front();
        }
        released
    }

    /// Returns when the log has to be read because of what is missing after `cursor`, if anything is.
    pub(super) fn read_at(&mut self, cursor: Position, now: Instant) -> Option<Instant> {
        if self.other_epoch {
            return Some(now);
        }
        if self.head <= cursor {
            self.hole_since = None;
            return None;
        }
        Some(*self.hole_since.get_or_insert(now) + HOLE_MAX)
    }

    #[cfg(test)]
    pub(super) fn tables(&self) -> [(&'static str, usize, usize); 4] {
        [
            ("early entries", self.early.len(), EARLY_MAX),
            ("bytes of early entries", self.bytes, EARLY_BYTES_MAX),
            ("what waits for entries", self.after.len(), EARLY_MAX),
            ("commits", self.commits.len(), usize::MAX),
        ]
    }

    /// Notes that the log is going to be read.
    pub(super) fn begin_to_read(&mut self) {
        self.news = (0, false);
    }

    /// Notes that the log was read up to its newest position, and that its epoch is the known one. What was heard meanwhile
    /// may be newer.
    pub(super) fn was_read(&mut self, last: Position) {
        (self.head, self.other_epoch) = (last.max(self.news.0), self.news.1);
        self.hole_since = None;
    }
}

/// How long an entry that another node has announced may be on its way before it is read from the log.
const HOLE_MAX: std::time::Duration = std::time::Duration::from_millis(30);

/// The maximum number of entries that came too early, and of events past the log that wait for entries. More are read from the log later.
pub(crate) const EARLY_MAX: usize = 4_096;

/// The maximum size of the entries that came too early in bytes. More are read from the log later.
pub(crate) const EARLY_BYTES_MAX: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: usize) -> impl ExactSizeIterator<Item = Bytes> {
        (0..count).map(|_| Bytes::from_static(b"x"))
    }

    #[tokio::test]
    async fn entries_come_in_order_whatever_order_they_arrived_in_and_a_hole_is_read_soon() {
        let (mut arrivals, now) = (Arrivals::default(), Instant::now());
        arrivals.begin(7);
        assert_eq!(arrivals.read_at(0, now), None);
        arrivals.add(7, 3, entries(2));
        assert!(arrivals.next(0).is_none());
        assert_eq!(arrivals.read_at(0, now), Some(now + HOLE_MAX));
        arrivals.add(7, 1, entries(3));
        assert!((0..4).all(|cursor| arrivals.next(cursor).is_some()) && arrivals.next(4).is_none());
        assert_eq!((arrivals.read_at(4, now), arrivals.bytes), (None, 0));
        arrivals.add(7, 2, entries(2));
        assert!(arrivals.next(4).is_none() && arrivals.early.is_empty(), "copies");
        arrivals.announce(7, 5);
        assert_eq!(arrivals.read_at(4, now), Some(now + HOLE_MAX));
        arrivals.add(8, 1, entries(1));
        assert_eq!(arrivals.read_at(4, now), Some(now), "another log");
    }

    #[test]
    fn own_batches_are_done_when_this_node_has_delivered_them_or_they_are_lost() {
        let mut arrivals = Arrivals::default();
        arrivals.begin(7);
        arrivals.committed(7, 3, 10);
        arrivals.committed(7, 5, 20);
        assert_eq!(arrivals.released(2), None);
        assert_eq!(arrivals.released(3), Some(10));
        arrivals.begin(8);
        assert_eq!(arrivals.released(0), Some(20));
    }

    #[tokio::test]
    async fn what_was_heard_while_the_log_was_read_is_not_forgotten() {
        let (mut arrivals, now) = (Arrivals::default(), Instant::now());
        arrivals.begin(7);
        arrivals.begin_to_read();
        arrivals.announce(7, 9);
        arrivals.committed(8, 1, 1);
        // What was read is older than that.
        arrivals.was_read(5);
        assert_eq!(
            (arrivals.read_at(5, now), arrivals.released(5)),
            (Some(now), None),
            "the log is another one"
        );
        arrivals.begin_to_read();
        arrivals.was_read(5);
        assert_eq!(arrivals.read_at(5, now), None, "what nobody has is nothing to wait for");
    }

    #[test]
    fn what_came_too_early_is_bounded() {
        let mut arrivals = Arrivals::default();
        arrivals.add(0, 2, entries(EARLY_MAX + 10));
        assert_eq!((arrivals.early.len(), arrivals.head), (EARLY_MAX, EARLY_MAX as u64 + 11));
        arrivals.add(0, u64::MAX, entries(2));
        let after =
            |arrivals: &mut Arrivals, bytes| matches!(arrivals.hold(0, bytes, Box::new(|| ())), Held::Kept);
        assert!(after(&mut arrivals, EARLY_BYTES_MAX) && !after(&mut arrivals, 1));
        arrivals.begin(1);
        assert!(arrivals.ready(0).len() == 1 && arrivals.after_bytes == 0);
    }
}
