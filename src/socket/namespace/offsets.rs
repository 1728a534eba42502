//! The offsets of events in sessions that the application keeps itself, and what a socket has got without them.
#![cfg_attr(
    not(feature = "server"),
    allow(dead_code, reason = "the messaging server alone has such sessions")
)]

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;

/// The offset of an event: what a client says about the last one that it got. Opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offset {
    /// Whose numbers these are.
    pub(crate) epoch: i64,
    /// The number.
    pub(crate) number: u64,
    /// What else the application wants to know of the client, in [`TRAIL_MAX`] bytes at most.
    pub(crate) trail: Box<[u8]>,
}

impl Offset {
    /// Returns the offset as it is on the wire: Base64 of the bytes.
    pub(crate) fn text(&self) -> String {
        let numbers = [self.epoch.to_be_bytes(), self.number.to_be_bytes()];
        URL_SAFE_NO_PAD.encode([numbers.as_flattened(), &self.trail].concat())
    }

    /// Reads an offset. Anything else is `None`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; NUMBERS + TRAIL_MAX];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (epoch, rest) = bytes.get(..read)?.split_first_chunk()?;
        let (number, trail) = rest.split_first_chunk()?;
        let (epoch, number) = (i64::from_be_bytes(*epoch), u64::from_be_bytes(*number));
        Some(Self { epoch, number, trail: trail.into() })
    }
}

/// The bytes of the numbers.
const NUMBERS: usize = 16;
/// The most bytes of a trail.
pub(crate) const TRAIL_MAX: usize = 74;

/// What an event is about, and its place among all events about that. There are two kinds of them; those of a kind come in
/// their order, but some of one kind may come before earlier ones of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) of: u128,
    /// The number of the newest event of each kind, after this one.
    pub(crate) at: Numbers,
    /// The kind of this event: 0 or 1.
    pub(crate) kind: usize,
}

/// The numbers of the newest events of both kinds about something.
pub(crate) type Numbers = [i64; 2];

/// What an event carries for clients that may come back.
#[derive(Debug)]
pub(crate) struct Stamp {
    pub(crate) offset: Offset,
    /// `None` for an event that every client gets, whatever it has.
    pub(crate) subject: Option<Subject>,
}

/// The session of a client, as its connect hook gives it.
pub(crate) struct Session {
    /// The private id: whoever knows it can claim the session.
    pub(crate) pid: Box<str>,
    /// The offset of a client that got the first events and nothing else.
    pub(crate) offset: String,
    /// The offset of a client that got a part of what it had missed.
    pub(crate) in_part: String,
    /// Up to which numbers the first events tell everything, by subject. What arrived while the client joined is left out as
    /// far as that.
    pub(crate) covered: HashMap<u128, Numbers>,
    /// Those of them that this node may still deliver, although they are covered. Then they are left out too.
    pub(crate) late: HashMap<u128, Numbers>,
}

/// Whether a socket gets offsets, and what it has got before it is delivered. In one byte, because every event reads it.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    state: AtomicU8,
    late: Mutex<HashMap<u128, Numbers>>,
}

impl Offsets {
    pub(super) fn keep(&self) {
        self.state.fetch_max(KEEPS, Ordering::AcqRel);
    }

    pub(super) fn keeps(&self) -> bool {
        self.state.load(Ordering::Acquire) != NONE
    }

    /// Sets what is left out, before the socket is open.
    pub(super) fn leave_out(&self, late: &HashMap<u128, Numbers>) {
        if !late.is_empty() {
            self.late.lock().clone_from(late);
            self.state.store(LATE, Ordering::Release);
        }
    }

    /// Whether an event comes late, after the client has got it otherwise. With the first that is beyond the numbers of both
    /// kinds, nothing more of its subject is late.
    pub(super) fn is_late(&self, subject: Subject) -> bool {
        if self.state.load(Ordering::Acquire) != LATE {
            return false;
        }
        let mut late = self.late.lock();
        let Some(end) = late.get(&subject.of).copied() else { return false };
        if subject.is_within(end) {
            return true;
        }
        let is_beyond = subject.at.iter().zip(end).all(|(at, end)| *at >= end);
        if is_beyond && late.remove(&subject.of).is_some() && late.is_empty() {
            *late = HashMap::new();
            self.state.store(KEEPS, Ordering::Release);
        }
        false
    }
}

/// The client gets no offsets.
const NONE: u8 = 0;
/// It gets offsets.
const KEEPS: u8 = 1;
/// It gets offsets, and some events must be left out.
const LATE: u8 = 2;

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Whether an event that arrived while the client joined is among those that it gets first.
    pub(super) fn covers(&self, subject: Option<Subject>) -> bool {
        subject.is_some_and(|it| self.covered.get(&it.of).is_some_and(|end| it.is_within(*end)))
    }
}

impl Subject {
    /// Whether it is among the events up to these numbers.
    fn is_within(self, end: Numbers) -> bool {
        self.at.iter().zip(end).nth(self.kind).is_some_and(|(at, end)| *at <= end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_offset_is_read_as_it_was_written(epoch in any::<i64>(), number in any::<u64>(), trail in proptest::collection::vec(any::<u8>(), 0..=TRAIL_MAX)) {
            let offset = Offset { epoch, number, trail: trail.into() };
            prop_assert_eq!(Offset::parse(&offset.text()), Some(offset));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".*") {
            let _ = Offset::parse(&text);
        }
    }

    #[test]
    fn what_was_told_first_covers_what_came_meanwhile_and_nothing_else() {
        let covered = HashMap::from([(1, [7, 2])]);
        let (offset, in_part) = (String::new(), String::new());
        let session = Session { pid: "".into(), offset, in_part, covered, late: HashMap::new() };
        let covers = |of, at, kind| session.covers(Some(Subject { of, at, kind }));
        assert_eq!((covers(1, [7, 2], 0), covers(1, [8, 2], 0), covers(2, [1, 1], 0)), (true, false, false));
        assert!(covers(1, [9, 2], 1), "a change that comes after later messages");
        assert!(!covers(1, [8, 0], 0), "a message that comes before earlier changes");
        assert!(!session.covers(None));
    }

    #[test]
    fn what_a_client_has_got_otherwise_is_left_out_until_the_first_that_is_new() {
        let offsets = Offsets::default();
        assert!(!offsets.keeps());
        offsets.keep();
        offsets.leave_out(&HashMap::from([(1, [7, 2]), (2, [3, 0])]));
        let is_late = |of, at, kind| offsets.is_late(Subject { of, at, kind });
        assert_eq!(
            [is_late(1, [6, 0], 0), is_late(1, [7, 0], 0), is_late(3, [1, 1], 0)],
            [true, true, false]
        );
        assert!(!is_late(1, [8, 0], 0) && is_late(1, [8, 2], 1), "messages first, and then the changes");
        assert!(!is_late(1, [8, 3], 1) && !is_late(2, [4, 0], 0));
        assert_eq!((offsets.keeps(), offsets.state.load(Ordering::Acquire)), (true, KEEPS));
    }
}
