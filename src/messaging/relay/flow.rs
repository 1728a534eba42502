//! The flow of a channel's events on one node: in order, without holes or repeats, whatever the bus does. Pure:
//! `now` is an argument.
//!
//! Every event of a channel raises `seq` or `rev` by one, so their sum numbers the events without holes.

use std::collections::BTreeMap;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Duration, Instant};
use uuid::Uuid;

/// The numbers of a channel after an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seq: i64,
    pub(super) rev: i64,
}

impl Head {
    /// Returns the place in the order of all events of the channel.
    pub(super) fn place(self) -> i64 {
        self.seq + self.rev
    }
}

/// An event that came too early.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) head: Head,
    pub(super) name: Box<str>,
    pub(super) json: Box<str>,
    pub(super) state_of: Option<Uuid>,
    /// The bytes that it takes up of those that all channels together may hold, until it is dropped.
    pub(super) _space: OwnedSemaphorePermit,
}

/// What to do with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next one.
    Deliver,
    /// It was delivered before.
    Repeat,
    /// Events before it are missing.
    Early,
}

/// The state of one channel.
#[derive(Debug)]
pub(super) struct Flow {
    /// The place after which it began: earlier events are told to nobody here.
    began: i64,
    /// The numbers after the last event that was delivered.
    head: Head,
    held: BTreeMap<i64, Held>,
    /// The place of the newest event that is known to exist.
    known: i64,
    /// Since when events have been missing.
    hole: Option<Instant>,
}

impl Flow {
    /// Starts after the event with these numbers.
    pub(super) fn after(head: Head) -> Self {
        Self { began: head.place(), head, held: BTreeMap::new(), known: head.place(), hole: None }
    }

    /// Returns the place after which it began.
    pub(super) fn began(&self) -> i64 {
        self.began
    }

    /// Returns the place of the newest event that is known to exist.
    pub(super) fn known(&self) -> i64 {
        self.known
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Returns since when events have been missing.
    pub(super) fn hole(&self) -> Option<Instant> {
        self.hole
    }

    /// Decides about an event. One to deliver counts as delivered.
    pub(super) fn accept(&mut self, head: Head, now: Instant) -> Verdict {
        let next = self.head.place() + 1;
        match head.place() {
            place if place < next => Verdict::Repeat,
            place if place == next => {
                self.head = head;
                self.settle(now);
                Verdict::Deliver
            }
            place => {
                self.knows(place, now);
                Verdict::Early
            }
        }
    }

    /// Keeps an event that came too early. Beyond [`HELD_MAX`], it is read from the database instead.
    pub(super) fn hold(&mut self, event: Held) {
        if self.held.len() < HELD_MAX {
            self.held.insert(event.head.place(), event);
        }
    }

    /// Returns the next event that was held, if it is its turn. It counts as delivered.
    pub(super) fn release(&mut self, now: Instant) -> Option<Held> {
        let entry = self.held.first_entry()?;
        if *entry.key() != self.head.place() + 1 {
            return None;
        }
        let event = entry.remove();
        self.head = event.head;
        self.settle(now);
        Some(event)
    }

    /// Records that an event at this place exists.
    pub(super) fn knows(&mut self, place: i64, now: Instant) {
        self.known = self.known.max(place);
        if self.known > self.head.place() {
            self.hole.get_or_insert(now);
        }
    }

    /// Records that everything up to `head` was delivered from the database, which was read when `known` was known. The
    /// database is the truth: what is still missing is only what was committed after it was read.
    pub(super) fn healed(&mut self, head: Head, known: i64, now: Instant) {
        if head.place() > self.head.place() {
            self.head = head;
        }
        self.held = self.held.split_off(&(self.head.place() + 1));
        let held = self.held.last_key_value().map_or(self.head.place(), |(place, _)| *place);
        self.known = if self.known > known { self.known.max(held) } else { held };
        self.hole = None;
        self.settle(now);
    }

    /// Tries again later, because the database did not answer.
    pub(super) fn retry_at(&mut self, at: Instant) {
        if let Some(hole) = &mut self.hole {
            *hole = at;
        }
    }

    fn settle(&mut self, now: Instant) {
        self.hole = (self.known > self.head.place()).then(|| self.hole.unwrap_or(now));
    }
}

/// How long an event that came too early waits for those before it.
pub(super) const HOLD: Duration = Duration::from_millis(75);

/// The maximum number of events of one channel that are held.
pub(super) const HELD_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The head after the event at a place: a third of the events are changes.
    fn head(place: i64) -> Head {
        Head { seq: place - place / 3, rev: place / 3 }
    }

    fn held(place: i64) -> Held {
        let space = std::sync::Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
        Held {
            head: head(place),
            name: "event".into(),
            json: place.to_string().into(),
            state_of: None,
            _space: space,
        }
    }

    /// Passes an event to a flow, and returns the places that are delivered.
    fn pass(flow: &mut Flow, place: i64, now: Instant) -> Vec<i64> {
        let mut delivered = Vec::new();
        match flow.accept(head(place), now) {
            Verdict::Deliver => delivered.push(place),
            Verdict::Repeat => {}
            Verdict::Early => flow.hold(held(place)),
        }
        while let Some(event) = flow.release(now) {
            delivered.push(event.head.place());
        }
        delivered
    }

    #[test]
    fn an_event_that_overtook_another_waits_for_it() {
        let (mut flow, now) = (Flow::after(head(4)), Instant::now());
        assert_eq!(pass(&mut flow, 6, now), [0_i64; 0]);
        assert_eq!(flow.hole(), Some(now));
        assert_eq!(pass(&mut flow, 5, now + HOLD / 2), [5, 6]);
        assert_eq!((flow.hole(), flow.head()), (None, head(6)));
        assert_eq!(pass(&mut flow, 6, now), [0_i64; 0], "a repeat");
    }

    #[test]
    fn a_hole_that_is_healed_releases_what_came_later() {
        let (mut flow, now) = (Flow::after(head(0)), Instant::now());
        assert_eq!(pass(&mut flow, 3, now), [0_i64; 0]);
        assert_eq!(pass(&mut flow, 5, now), [0_i64; 0]);
        flow.healed(head(3), 5, now);
        assert!(flow.hole().is_some(), "4 is still missing");
        assert_eq!(pass(&mut flow, 4, now), [4, 5]);
        assert_eq!(flow.hole(), None);
    }

    #[test]
    fn a_lost_tail_is_a_hole_once_it_is_known() {
        let (mut flow, now) = (Flow::after(head(7)), Instant::now());
        flow.knows(7, now);
        assert_eq!(flow.hole(), None);
        flow.knows(9, now);
        assert_eq!(flow.hole(), Some(now));
        flow.healed(head(9), 9, now);
        assert_eq!(flow.hole(), None);
        flow.knows(99, now);
        flow.healed(head(9), 99, now);
        assert_eq!(flow.hole(), None, "the database knows better");
    }

    #[test]
    fn what_is_learned_while_the_database_is_read_is_not_forgotten() {
        let (mut flow, now) = (Flow::after(head(7)), Instant::now());
        flow.knows(9, now);
        let known = flow.known();
        flow.knows(10, now);
        flow.healed(head(9), known, now + HOLD);
        assert_eq!(flow.hole(), Some(now + HOLD), "10 was committed after it was read");
        flow.healed(head(10), flow.known(), now);
        assert_eq!(flow.hole(), None);
    }

    proptest! {
        #[test]
        fn whatever_arrives_everything_is_delivered_once_and_in_order(
            arrivals in prop::collection::vec(1_i64..40, 0..200), heal_after in 0_usize..200,
        ) {
            let (mut flow, now) = (Flow::after(head(0)), Instant::now());
            let mut delivered = Vec::new();
            for (index, place) in arrivals.iter().enumerate() {
                delivered.extend(pass(&mut flow, *place, now));
                if index == heal_after {
                    delivered.extend(flow.head().place() + 1..=20);
                    flow.healed(head(20), flow.known(), now);
                    while let Some(event) = flow.release(now) {
                        delivered.push(event.head.place());
                    }
                }
            }
            let last = flow.head().place();
            prop_assert_eq!(delivered, (1..=last).collect::<Vec<_>>());
            prop_assert_eq!(flow.hole().is_some(), arrivals.iter().any(|place| *place > last));
        }
    }
}
