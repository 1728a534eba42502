//! The journal of a node: which events of channels it has put into the outboxes of its clients, and in which order. Pure.
//!
//! One clock numbers when each delivery began and when it ended. Deliveries of different channels may run at the same
//! time; those of one channel never do. An event whose delivery ended before that of another one began came first for
//! every client. The number of its beginning is the offset that clients keep.
//!
//! While little happens, an event for few clients is delivered while no other is. Then it is certain what its receivers have,
//! and the event says so itself, in its [`Trail`].

use std::collections::{HashMap, VecDeque};
use std::mem;

use parking_lot::{Condvar, Mutex};
use uuid::Uuid;

use super::trail::{Moved, Trail};
use super::varint;
use crate::socket::stamped::{Numbers, Offset};

/// The delivery of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::messaging) struct Delivery {
    /// When it began: the number in the offset.
    pub(super) began: u64,
    /// When it had reached every outbox; 0 while it has not.
    pub(super) ended: u64,
    /// The channel.
    pub(super) channel: Uuid,
    /// The numbers of the channel after the event.
    pub(super) at: Place,
}

/// How far somebody has come in a channel: the numbers of the newest message and of the newest change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::messaging) struct Place {
    pub(in crate::messaging) seq: i64,
    pub(in crate::messaging) rev: i64,
}

/// Which number of a channel an event has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::messaging) enum Kind {
    /// `seq`: it is a new message.
    Message = 0,
    /// `rev`: it is a change.
    Change = 1,
}

impl Place {
    /// Returns both numbers, in the order of [`Kind`].
    pub(super) fn numbers(self) -> Numbers {
        [self.seq, self.rev]
    }

    /// Returns the number among all events of the channel: each raises `seq` or `rev` by one.
    pub(in crate::messaging) fn number(self) -> i64 {
        self.seq.saturating_add(self.rev)
    }

    /// Returns how far somebody has come who has come to both places. Where a node read from the database what it had missed,
    /// later messages come before earlier changes.
    pub(super) fn and(self, other: Self) -> Self {
        Self { seq: self.seq.max(other.seq), rev: self.rev.max(other.rev) }
    }
}

/// What an event carries to the clients: where it stands in the journal of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The journal: a random number.
    pub(super) epoch: i64,
    /// The number of the beginning of the delivery, or of a moment between deliveries.
    pub(super) number: u64,
}

impl Mark {
    /// Returns the offset of a moment.
    pub(super) fn offset(self) -> Offset {
        Offset { epoch: self.epoch, number: self.number, trail: Box::default() }
    }

    /// Returns the mark before a moment. A client that has it got a part of what a session that continues begins with.
    pub(super) fn before(self) -> Self {
        Self { number: self.number - 1, ..self }
    }
}

/// A delivery that has begun.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) mark: Mark,
    /// What the offset says of channels. It is whole if no other delivery runs at the same time.
    pub(super) trail: Trail,
}

/// The deliveries of a node that are not stored yet.
#[derive(Debug)]
pub(super) struct Journal {
    state: Mutex<State>,
    /// Notified when a delivery that ran alone has ended.
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    epoch: i64,
    clock: u64,
    deliveries: VecDeque<Delivery>,
    /// The deliveries that have not ended. There are as many as threads that deliver.
    open: usize,
    /// Whether the one that has not ended runs alone: the others wait for it.
    is_alone: bool,
    /// Up to which number the journal is stored.
    stored: u64,
    /// The channels of the part that is being stored.
    storing: Moved,
    /// The channels of what is in no part yet.
    waiting: Moved,
}

/// A part of a journal that is complete.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) epoch: i64,
    /// All deliveries that began up to this number are in this part or in an earlier one.
    pub(super) upto: u64,
    /// The deliveries, in the order in which they began.
    pub(super) deliveries: Vec<Delivery>,
}

impl Journal {
    /// Starts a journal under a random number.
    pub(super) fn new(epoch: i64) -> Self {
        let state = State {
            epoch,
            clock: 0,
            deliveries: VecDeque::new(),
            open: 0,
            is_alone: false,
            stored: 0,
            storing: Moved::default(),
            waiting: Moved::default(),
        };
        Self { state: Mutex::new(state), ended: Condvar::new() }
    }

    pub(super) fn epoch(&self) -> i64 {
        self.state.lock().epoch
    }

    /// Begins another journal, under another number, because what was stored of this one is gone.
    pub(super) fn start_over(&self) {
        self.state.lock().start_over();
    }

    /// Notes that the delivery of an event begins, which runs alone if it is short. Waits for one that does.
    pub(super) fn begin(&self, channel: Uuid, at: Place, is_short: bool) -> Begun {
        let mut state = self.state.lock();
        loop {
            match state.begin(channel, at, is_short) {
                Some(begun) => return begun,
                None => self.ended.wait(&mut state),
            }
        }
    }

    /// Notes that the delivery of an event begins, unless one runs alone.
    #[cfg(test)]
    pub(super) fn try_begin(&self, channel: Uuid, at: Place, is_short: bool) -> Option<Begun> {
        self.state.lock().begin(channel, at, is_short)
    }

    /// Notes that the event is in the outboxes of all its receivers. Returns whether it is the only one that is not stored.
    pub(super) fn end(&self, mark: Mark) -> bool {
        let mut state = self.state.lock();
        let is_only_one = state.end(mark);
        drop(state);
        self.ended.notify_all();
        is_only_one
    }

    /// Returns a moment between deliveries. The number before it is of nothing else: see [`Mark::before`].
    pub(super) fn moment(&self) -> Mark {
        let mut state = self.state.lock();
        state.clock += 2;
        Mark { epoch: state.epoch, number: state.clock }
    }

    /// Removes and returns what is complete. `None` if nothing has happened since `upto`.
    pub(super) fn take(&self, upto: u64) -> Option<Part> {
        let mut state = self.state.lock();
        let first_open = match state.open {
            0 => None,
            _ => state.deliveries.iter().position(|delivery| delivery.ended == 0),
        };
        let end = match first_open.and_then(|place| state.deliveries.get(place)) {
            Some(open) => open.began - 1,
            None => state.clock,
        };
        let complete = first_open.unwrap_or(state.deliveries.len());
        let deliveries: Vec<Delivery> = state.deliveries.drain(..complete).collect();
        let waiting = Moved::of(&state.deliveries);
        let taken = mem::replace(&mut state.waiting, waiting);
        state.storing.extend(taken);
        (end > upto || !deliveries.is_empty()).then_some(Part { epoch: state.epoch, upto: end, deliveries })
    }

    /// Notes up to which number the journal is stored: with everything that was taken.
    pub(super) fn stored(&self, epoch: i64, upto: u64) {
        let mut state = self.state.lock();
        if state.epoch == epoch {
            state.stored = upto;
            state.storing = Moved::default();
        }
    }
}

impl State {
    /// Begins the delivery of an event. `None` while one runs alone.
    fn begin(&mut self, channel: Uuid, at: Place, is_short: bool) -> Option<Begun> {
        if self.is_alone {
            return None;
        }
        if self.deliveries.len() >= DELIVERIES_MAX {
            self.start_over();
        }
        self.clock += 1;
        let mark = Mark { epoch: self.epoch, number: self.clock };
        let may_be_alone = is_short && self.open == 0 && self.deliveries.len() < WAITING_MAX;
        let trail = may_be_alone
            .then(|| Trail::whole(self.stored, channel, at, [&self.storing, &self.waiting]))
            .flatten()
            .unwrap_or_else(|| Trail::of_one(self.stored, channel, at));
        self.waiting.note(channel, at);
        self.deliveries.push_back(Delivery { began: mark.number, ended: 0, channel, at });
        self.open += 1;
        self.is_alone = trail.is_whole();
        Some(Begun { mark, trail })
    }

    /// Ends a delivery. Returns whether it is the only one that is not stored.
    fn end(&mut self, mark: Mark) -> bool {
        if self.epoch != mark.epoch {
            return false;
        }
        self.clock += 1;
        let ended = self.clock;
        let delivery = self.deliveries.iter_mut().rev().find(|delivery| delivery.began == mark.number);
        if let Some(delivery) = delivery.filter(|delivery| delivery.ended == 0) {
            delivery.ended = ended;
            self.open -= 1;
            self.is_alone = false;
        }
        self.deliveries.len() == 1
    }

    /// Begins another journal. Nobody knows later offsets of the former one then.
    fn start_over(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.clock = 0;
        self.deliveries.clear();
        self.open = 0;
        self.is_alone = false;
        self.stored = 0;
        (self.storing, self.waiting) = (Moved::default(), Moved::default());
    }
}

impl Part {
    /// Returns the deliveries in a few bytes each.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (mut places, mut channels) = (HashMap::new(), Vec::new());
        for delivery in &self.deliveries {
            places.entry(delivery.channel).or_insert_with(|| {
                channels.push(delivery.channel);
                channels.len() as u64 - 1
            });
        }
        let mut bytes = vec![VERSION];
        varint::write(&mut bytes, channels.len() as u64);
        channels.iter().for_each(|channel| bytes.extend(channel.as_bytes()));
        varint::write(&mut bytes, self.deliveries.len() as u64);
        let (mut last, mut known) = (0, HashMap::<Uuid, Place>::new());
        for Delivery { began, ended, channel, at } in &self.deliveries {
            let before = known.insert(*channel, *at).unwrap_or_default();
            varint::write(&mut bytes, began - last);
            varint::write(&mut bytes, ended - began);
            varint::write(&mut bytes, places.get(channel).copied().unwrap_or_default());
            varint::write_signed(&mut bytes, at.seq.wrapping_sub(before.seq));
            varint::write_signed(&mut bytes, at.rev.wrapping_sub(before.rev));
            last = *began;
        }
        bytes
    }

    /// Reads deliveries. `None` if they are of a version that this node does not know, or damaged.
    pub(super) fn decode(epoch: i64, upto: u64, bytes: &[u8]) -> Option<Self> {
        let (version, mut bytes) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        let mut channels = Vec::new();
        for _ in 0..varint::read(&mut bytes)? {
            let (id, rest) = bytes.split_first_chunk::<16>()?;
            channels.push(Uuid::from_bytes(*id));
            bytes = rest;
        }
        let (mut last, mut known) = (0_u64, HashMap::<Uuid, Place>::new());
        let mut deliveries = Vec::new();
        for _ in 0..varint::read(&mut bytes)? {
            let began = last.checked_add(varint::read(&mut bytes)?)?;
            let ended = began.checked_add(varint::read(&mut bytes)?)?;
            let channel = *channels.get(usize::try_from(varint::read(&mut bytes)?).ok()?)?;
            let before = known.get(&channel).copied().unwrap_or_default();
            let seq = before.seq.wrapping_add(varint::read_signed(&mut bytes)?);
            let at = Place { seq, rev: before.rev.wrapping_add(varint::read_signed(&mut bytes)?) };
            known.insert(channel, at);
            deliveries.push(Delivery { began, ended, channel, at });
            last = began;
        }
        bytes.is_empty().then_some(Self { epoch, upto, deliveries })
    }
}

/// The version of the encoding.
const VERSION: u8 = 1;
/// The most deliveries that wait to be stored. With more, the database was away for long while events came from
/// elsewhere; clients that leave then get new sessions.
const DELIVERIES_MAX: usize = 262_144;

/// With as many deliveries that are not stored, none runs alone: so much happens that threads would wait for each other.
const WAITING_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn channel(n: u8) -> Uuid {
        Uuid::from_bytes([n; 16])
    }

    fn place(seq: i64, rev: i64) -> Place {
        Place { seq, rev }
    }

    /// Begins a delivery that does not run alone.
    fn begin(journal: &Journal, n: u8, seq: i64) -> Mark {
        journal.begin(channel(n), place(seq, 0), false).mark
    }

    #[test]
    fn a_part_ends_before_the_first_delivery_that_is_under_way() {
        let journal = Journal::new(7);
        assert_eq!(journal.take(0), None, "nothing has happened");
        let (first, second) = (begin(&journal, 1, 1), begin(&journal, 2, 1));
        journal.end(second);
        assert_eq!(journal.take(0), None, "the first one is under way");
        journal.end(first);
        let part = journal.take(0).unwrap();
        let times: Vec<_> = part.deliveries.iter().map(|it| (it.began, it.ended)).collect();
        assert_eq!((times, part.upto), (vec![(1, 4), (2, 3)], 4));
        assert_eq!(journal.take(4), None);
        assert_eq!(journal.moment(), Mark { epoch: 7, number: 6 });
        assert_eq!(journal.take(4).unwrap().upto, 6, "a moment is part of the journal");
    }

    #[test]
    fn a_journal_that_nobody_stores_starts_over_under_another_number() {
        let journal = Journal::new(7);
        let first = begin(&journal, 1, 0);
        for n in 1..=DELIVERIES_MAX {
            begin(&journal, 1, n as i64);
        }
        journal.end(first);
        assert_eq!(journal.epoch(), 8);
        assert_eq!(journal.state.lock().deliveries.len(), 1, "the memory is bounded");
    }

    #[test]
    fn a_short_delivery_runs_alone_until_it_has_ended() {
        let journal = Journal::new(7);
        let first = journal.begin(channel(1), place(1, 0), true);
        assert!(first.trail.is_whole());
        assert!(journal.try_begin(channel(2), place(1, 0), false).is_none(), "it waits");
        std::thread::scope(|scope| {
            let second = scope.spawn(|| journal.begin(channel(2), place(1, 0), true));
            journal.end(first.mark);
            journal.end(second.join().unwrap().mark);
        });
        let long = begin(&journal, 3, 1);
        let beside = journal.begin(channel(1), place(2, 0), true);
        assert!(
            !beside.trail.is_whole(),
            "beside a long one nobody knows which of the two clients got first"
        );
        journal.end(long);
        journal.end(beside.mark);
        assert!(journal.begin(channel(1), place(3, 0), true).trail.is_whole());
        journal.start_over();
        for n in 1..=WAITING_MAX as i64 {
            let begun = journal.begin(channel(1), place(n, 0), true);
            assert!(begun.trail.is_whole());
            journal.end(begun.mark);
        }
        assert!(!journal.begin(channel(1), place(99, 0), true).trail.is_whole(), "too much happens");
    }

    proptest! {
        #[test]
        fn what_is_stored_is_read_again(steps in proptest::collection::vec((0..5_u8, 0..i64::MAX, 0..i64::MAX, 0..9_u64, 1..9_u64), 0..50)) {
            let mut began = 0;
            let deliveries: Vec<Delivery> = steps.iter().map(|(n, seq, rev, gap, length)| {
                began += gap + 1;
                Delivery { began, ended: began + length, channel: channel(*n), at: place(*seq, *rev) }
            }).collect();
            let part = Part { epoch: 3, upto: began + 9, deliveries };
            prop_assert_eq!(Part::decode(3, part.upto, &part.encode()), Some(part));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Part::decode(1, 1, &bytes);
            let mut bytes = bytes;
            bytes.insert(0, VERSION);
            let _ = Part::decode(1, 1, &bytes);
        }
    }
}
