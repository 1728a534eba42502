//! The events that a sender holds: those of one channel one after the other, those of several channels at once. Pure.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use uuid::Uuid;

use crate::models::feed::{Event, Position};

/// The events that were read and not finished yet.
pub(super) struct Window {
    /// The events that wait, by channel.
    waiting: HashMap<Uuid, VecDeque<Event>>,
    /// The channels with an event that is being sent.
    busy: HashSet<Uuid>,
    /// The channels whose next event may be sent.
    ready: VecDeque<Uuid>,
    /// The places of all events that are not finished.
    open: BTreeSet<Position>,
    /// The bytes of the events that are not finished.
    bytes: usize,
    /// Where the next events are read.
    read: Position,
}

impl Window {
    pub(super) fn new(read: Position) -> Self {
        Self {
            waiting: HashMap::new(),
            busy: HashSet::new(),
            ready: VecDeque::new(),
            open: BTreeSet::new(),
            bytes: 0,
            read,
        }
    }

    /// Whether more events may be read.
    pub(super) fn has_room(&self) -> bool {
        self.open.len() < EVENTS_MAX && self.bytes < BYTES_MAX
    }

    /// Adds events that were read, and where the next ones are.
    pub(super) fn push(&mut self, events: Vec<Event>, read: Position) {
        for event in events {
            self.open.insert(event.place);
            self.bytes += event.message.len();
            let channel = event.channel_id;
            let waiting = self.waiting.entry(channel).or_default();
            waiting.push_back(event);
            if waiting.len() == 1 && !self.busy.contains(&channel) {
                self.ready.push_back(channel);
            }
        }
        self.read = read;
    }

    /// Takes the next event to send.
    pub(super) fn start(&mut self) -> Option<Event> {
        let channel = self.ready.pop_front()?;
        let waiting = self.waiting.get_mut(&channel)?;
        let event = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&channel);
        }
        self.busy.insert(channel);
        event
    }

    /// Records that nothing more is to be done about an event.
    pub(super) fn finish(&mut self, event: &Event) {
        self.open.remove(&event.place);
        self.bytes -= event.message.len();
        self.busy.remove(&event.channel_id);
        if self.waiting.contains_key(&event.channel_id) {
            self.ready.push_back(event.channel_id);
        }
    }

    /// Returns where a successor has to go on: with the first event that is not finished.
    pub(super) fn cursor(&self) -> Position {
        self.open.first().copied().unwrap_or(self.read)
    }
}

/// The most events of a receiver in memory. One page more is read before this is checked again.
const EVENTS_MAX: usize = 500;
/// The most bytes of a receiver's events in memory. One page more is read before this is checked again.
const BYTES_MAX: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(place: i64, channel: u128) -> Event {
        Event {
            name: "message:new",
            channel_id: Uuid::from_u128(channel),
            seq: place,
            rev: 0,
            actor_id: Uuid::nil(),
            at: 0,
            message: "{}".into(),
            place: at(place),
            next: at(place + 1),
        }
    }

    fn at(index: i64) -> Position {
        Position { batch: 1, index }
    }

    #[test]
    fn the_cursor_never_passes_an_event_that_is_not_finished() {
        let mut window = Window::new(at(0));
        window.push(vec![event(0, 1), event(1, 2), event(2, 1)], at(3));
        let (first, other) = (window.start().unwrap(), window.start().unwrap());
        assert!(window.start().is_none(), "the third is of the first channel");
        window.finish(&other);
        assert_eq!(window.cursor(), at(0));
        window.finish(&first);
        assert_eq!(window.cursor(), at(2));
        let last = window.start().unwrap();
        window.finish(&last);
        assert_eq!((window.cursor(), window.bytes), (at(3), 0));
    }

    proptest! {
        #[test]
        fn each_channel_is_sent_in_order_and_everything_is_sent(
            channels in prop::collection::vec(0_u128..4, 1..60),
            choices in prop::collection::vec(any::<(bool, usize)>(), 0..200),
        ) {
            let mut window = Window::new(at(0));
            let events: Vec<Event> = (0..).zip(&channels).map(|(place, channel)| event(place, *channel)).collect();
            let (mut given, mut flying, mut done) = (0, Vec::<Event>::new(), Vec::new());
            let drain = std::iter::repeat_n((true, 0), 3 * events.len());
            for (finish, which) in choices.into_iter().chain(drain) {
                if !finish && given < events.len() {
                    window.push(vec![events[given].clone()], at(given as i64 + 1));
                    given += 1;
                } else if let Some(event) = window.start() {
                    prop_assert!(!flying.iter().any(|other| other.channel_id == event.channel_id));
                    flying.push(event);
                } else if !flying.is_empty() {
                    let event = flying.swap_remove(which % flying.len());
                    window.finish(&event);
                    done.push((event.channel_id, event.seq));
                } else if given < events.len() {
                    window.push(vec![events[given].clone()], at(given as i64 + 1));
                    given += 1;
                }
                let first_open = (0..given as i64).find(|place| !done.iter().any(|(_, seq)| seq == place));
                prop_assert_eq!(window.cursor(), at(first_open.unwrap_or(given as i64)));
            }
            prop_assert_eq!(done.len(), events.len());
            for channel in 0..4 {
                let of: Vec<i64> = done.iter().filter(|(of, _)| *of == Uuid::from_u128(channel)).map(|(_, seq)| *seq).collect();
                prop_assert!(of.is_sorted());
            }
        }
    }
}
