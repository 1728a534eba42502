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
    /// The channels with more events than one channel may have here: where the first is that was left out.
    left_out: HashMap<Uuid, Position>,
    /// The most events of one channel.
    share: usize,
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
            left_out: HashMap::new(),
            share: CHANNEL_EVENTS_MAX,
            read,
        }
    }

    /// Whether more events may be read.
    pub(super) fn has_room(&self) -> bool {
        self.open.len() < EVENTS_MAX && self.bytes < BYTES_MAX && self.left_out.len() < LEFT_OUT_MAX
    }

    /// Adds events that were read, and where the next ones are. Those of a channel that has its share already are left
    /// out.
    pub(super) fn push(&mut self, events: Vec<Event>, read: Position) {
        for event in events {
            if self.left_out.contains_key(&event.channel_id) {
                continue;
            }
            if let Err(event) = self.add(event) {
                self.left_out.insert(event.channel_id, event.place);
            }
        }
        self.read = read;
    }

    /// Returns a channel that has room again for events that were left out, and where the first of them is.
    pub(super) fn left_out(&self) -> Option<(Uuid, Position)> {
        let has_room =
            |channel: &&Uuid| self.waiting.get(*channel).map_or(0, VecDeque::len) <= self.share / 2;
        let channel = self.left_out.keys().find(has_room)?;
        Some((*channel, self.left_out[channel]))
    }

    /// Adds events of a channel that were left out, and where the next ones are. From where all channels are read on,
    /// they come with the others.
    pub(super) fn push_left_out(&mut self, channel: Uuid, events: Vec<Event>, next: Position) {
        let read = self.read;
        let mut next = Some(next).filter(|next| *next < read);
        for event in events.into_iter().filter(|event| event.place < read) {
            if let Err(event) = self.add(event) {
                next = Some(event.place);
                break;
            }
        }
        match next {
            Some(next) => self.left_out.insert(channel, next),
            None => self.left_out.remove(&channel),
        };
    }

    /// Adds an event, unless its channel has its share.
    fn add(&mut self, event: Event) -> Result<(), Event> {
        let channel = event.channel_id;
        let (count, is_busy) =
            (self.waiting.get(&channel).map_or(0, VecDeque::len), self.busy.contains(&channel));
        if count + usize::from(is_busy) >= self.share {
            return Err(event);
        }
        self.open.insert(event.place);
        self.bytes += event.message.len();
        self.waiting.entry(channel).or_default().push_back(event);
        if count == 0 && !is_busy {
            self.ready.push_back(channel);
        }
        Ok(())
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
        self.open.first().into_iter().chain(self.left_out.values()).min().copied().unwrap_or(self.read)
    }
}

/// The most events of a receiver in memory. One page more is read before this is checked again.
const EVENTS_MAX: usize = 500;
/// The most events of one channel in memory, so that a channel that is refused leaves room for the others.
const CHANNEL_EVENTS_MAX: usize = 50;
/// The most channels with events that were left out and are read again later.
const LEFT_OUT_MAX: usize = 1_000;
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

    #[test]
    fn a_channel_that_is_refused_leaves_room_for_the_others_and_misses_nothing() {
        let many = i64::try_from(2 * EVENTS_MAX).unwrap();
        let mut window = Window::new(at(0));
        window.push((0..many).map(|place| event(place, 1)).collect(), at(many));
        assert!(window.has_room());
        let refused = window.start().unwrap();
        window.push(vec![event(many, 2)], at(many + 1));
        let other = window.start().unwrap();
        assert_eq!((other.channel_id, window.left_out()), (Uuid::from_u128(2), None));
        window.finish(&other);
        window.finish(&refused);
        assert_eq!(window.cursor(), at(1));
        let share = i64::try_from(CHANNEL_EVENTS_MAX).unwrap();
        for place in 1..share {
            let event = window.start().unwrap();
            assert_eq!(event.place, at(place));
            window.finish(&event);
        }
        assert_eq!((window.start().map(|it| it.place), window.cursor()), (None, at(share)));
        assert_eq!(window.left_out(), Some((Uuid::from_u128(1), at(share))));
    }

    /// What a sender reads: the next events of all, or of one channel.
    fn read(events: &[Event], from: Position, channel: Option<Uuid>) -> (Vec<Event>, Position) {
        let rest = events.iter().skip_while(|event| event.place < from).take(3);
        let next = rest.clone().last().map_or(from, |event| event.next);
        (rest.filter(|event| channel.is_none_or(|of| event.channel_id == of)).cloned().collect(), next)
    }

    proptest! {
        #[test]
        fn each_channel_is_sent_in_order_and_everything_is_sent(
            channels in prop::collection::vec(0_u128..4, 1..60),
            choices in prop::collection::vec((0..4, any::<usize>()), 0..200),
            share in 1_usize..6,
        ) {
            let mut window = Window { share, ..Window::new(at(0)) };
            let events: Vec<Event> = (0..).zip(&channels).map(|(place, channel)| event(place, *channel)).collect();
            let (mut flying, mut done) = (Vec::<Event>::new(), Vec::new());
            let drain = (0..16 * events.len()).map(|turn| (turn % 4, turn));
            for (what, which) in choices.into_iter().map(|(what, which)| (what as usize, which)).chain(drain) {
                match what {
                    0 => {
                        let (some, next) = read(&events, window.read, None);
                        window.push(some, next);
                    }
                    1 => if let Some((channel, from)) = window.left_out() {
                        let (some, next) = read(&events, from, Some(channel));
                        window.push_left_out(channel, some, next);
                    }
                    2 => if let Some(event) = window.start() {
                        prop_assert!(!flying.iter().any(|other| other.channel_id == event.channel_id));
                        flying.push(event);
                    }
                    _ => if !flying.is_empty() {
                        let event = flying.swap_remove(which % flying.len());
                        window.finish(&event);
                        done.push((event.channel_id, event.seq));
                    }
                }
                let is_done = |place: &i64| done.iter().any(|(_, seq)| seq == place);
                let first_open = (0..window.read.index).find(|place| !is_done(place));
                prop_assert!(window.cursor() <= at(first_open.unwrap_or(window.read.index)));
                prop_assert!(window.waiting.values().all(|waiting| waiting.len() <= share));
            }
            prop_assert_eq!((done.len(), window.cursor()), (events.len(), window.read));
            for channel in 0..4 {
                let of: Vec<i64> = done.iter().filter(|(of, _)| *of == Uuid::from_u128(channel)).map(|(_, seq)| *seq).collect();
                prop_assert!(of.is_sorted());
            }
        }
    }
}
