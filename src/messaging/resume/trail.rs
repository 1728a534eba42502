//! The end of an offset: where channels were after the event. A node that is killed takes the newest part of its journal with it;
//! this is what is left of that part. Pure.
//!
//! ```text
//! 1 byte      whether every channel is there in which something has happened since the journal was last stored
//! varint      how many numbers after the last stored one
//! 7 bytes     for each channel, that of the event first: 24 bits of its id, 16 of its rev, 16 of its seq
//! ```

use std::collections::VecDeque;

use uuid::Uuid;

use super::Places;
use super::journal::{Delivery, Place};
use super::varint;
use crate::socket::stamped::TRAIL_MAX;

/// Where channels were after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trail {
    /// Up to this number of the journal, or further, everything was stored.
    stored: u64,
    /// Whether every channel is there in which something had happened since, and no other delivery ran at the same time.
    is_whole: bool,
    /// The channel of the event, and then the others.
    lows: Vec<Low>,
}

/// The low bits of the id of a channel, and of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Low {
    channel: u64,
    seq: u64,
    rev: u64,
}

/// The channels in which something has happened, and where they are since.
#[derive(Debug, Default)]
pub(super) struct Moved(Vec<(Uuid, Place)>);

impl Trail {
    /// Returns the trail of an event that says nothing of other channels than its own.
    pub(super) fn of_one(stored: u64, channel: Uuid, at: Place) -> Self {
        Self { stored, is_whole: false, lows: vec![Low::new(channel, at)] }
    }

    /// Returns the whole trail of an event after which its channel is at a place: `moved` are the deliveries before it that are
    /// not stored. `None` if they are of too many channels, or of channels whose ids look alike.
    pub(super) fn whole(stored: u64, channel: Uuid, at: Place, moved: [&Moved; 2]) -> Option<Self> {
        let mut all = Moved(vec![(channel, at)]);
        let earlier = moved.iter().flat_map(|moved| &moved.0);
        let is_short = earlier.fold(true, |is_short, (channel, at)| is_short && all.note(*channel, *at));
        let lows: Vec<Low> = all.0.iter().map(|(channel, at)| Low::new(*channel, *at)).collect();
        let is_clear =
            lows.iter().enumerate().all(|(n, low)| lows[..n].iter().all(|it| it.channel != low.channel));
        (is_short && is_clear).then_some(Self { stored, is_whole: true, lows })
    }

    /// Whether it says everything that the journal would.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Returns the trail of the event with this number as bytes.
    pub(super) fn encode(&self, number: u64) -> Box<[u8]> {
        let mut bytes = vec![u8::from(self.is_whole)];
        varint::write(&mut bytes, number.saturating_sub(self.stored));
        self.lows.iter().for_each(|low| bytes.extend(low.bytes()));
        bytes.into()
    }

    /// Reads the trail of the event with this number. `None` if there is none.
    pub(super) fn decode(number: u64, bytes: &[u8]) -> Option<Self> {
        let (is_whole, mut bytes) = bytes.split_first()?;
        let stored = number.checked_sub(varint::read(&mut bytes)?)?;
        let (lows, rest) = bytes.as_chunks::<LOW_BYTES>();
        let is_one = rest.is_empty() && *is_whole <= 1 && (1..=CHANNELS_MAX).contains(&lows.len());
        let lows = lows.iter().map(Low::read).collect();
        is_one.then_some(Self { stored, is_whole: *is_whole == 1, lows })
    }

    /// Returns how far the client of the event has come in each channel, if it had come as far as `before` by what was stored up
    /// to a number, and the channels are at `now`. `None` if that is not certain.
    pub(super) fn find(&self, before: &Places, stored: u64, now: &Places) -> Option<Places> {
        match self.is_whole && self.stored <= stored {
            true => self.find_all(before, now),
            false => self.find_one(before, now),
        }
    }

    fn find_all(&self, before: &Places, now: &Places) -> Option<Places> {
        let mut has = before.clone();
        for low in &self.lows {
            let mut alike = before.iter().filter(|(channel, _)| low.is_of(**channel));
            match (alike.next(), alike.next()) {
                (Some((channel, from)), None) => {
                    has.insert(*channel, low.place(*from, *now.get(channel)?)?);
                }
                (Some(_), Some(_)) => return None,
                // The session does not follow it.
                (None, _) => {}
            }
        }
        Some(has)
    }

    /// If something has happened in one channel alone, the client has that one up to the event. If in another one too, it may have
    /// the newest of that or not.
    fn find_one(&self, before: &Places, now: &Places) -> Option<Places> {
        let mut moved = None;
        for (channel, from) in before {
            let now = now.get(channel)?;
            if now != from && moved.replace((*channel, *from, *now)).is_some() {
                return None;
            }
        }
        let (channel, from, now) = moved?;
        let low = self.lows.first().filter(|low| low.is_of(channel))?;
        let mut has = before.clone();
        has.insert(channel, low.place(from, now)?);
        Some(has)
    }
}

impl Low {
    fn new(channel: Uuid, at: Place) -> Self {
        Self {
            channel: low(channel.as_u128() as u64, CHANNEL_BITS),
            seq: low(at.seq as u64, PLACE_BITS),
            rev: low(at.rev as u64, PLACE_BITS),
        }
    }

    fn bytes(self) -> [u8; LOW_BYTES] {
        let bits = (self.channel << PLACE_BITS | self.rev) << PLACE_BITS | self.seq;
        let [_, bytes @ ..] = bits.to_be_bytes();
        bytes
    }

    fn read(bytes: &[u8; LOW_BYTES]) -> Self {
        let bits = bytes.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        let (seq, rev) = (low(bits, PLACE_BITS), low(bits >> PLACE_BITS, PLACE_BITS));
        Self { channel: bits >> (2 * PLACE_BITS), seq, rev }
    }

    /// Whether it may be a place of this channel.
    fn is_of(self, channel: Uuid) -> bool {
        self.channel == low(channel.as_u128() as u64, CHANNEL_BITS)
    }

    /// Returns how far a client has come that was at `from` and gets an event after which the channel is at this place, where
    /// the channel is at `now`. `None` if more has happened than the bits can tell apart, or nothing that fits.
    fn place(self, from: Place, now: Place) -> Option<Place> {
        Some(Place { seq: widen(self.seq, from.seq, now.seq)?, rev: widen(self.rev, from.rev, now.rev)? })
    }
}

/// Returns the low bits of a number.
fn low(number: u64, bits: u32) -> u64 {
    number & ((1 << bits) - 1)
}

/// Returns the number from `from` to `now` that has these low bits. An event may be older than where the session began,
/// since its node may not have told everything then: half of the numbers are for those, and the client stays at `from`.
fn widen(low: u64, from: i64, now: i64) -> Option<i64> {
    const SIZE: i64 = 1 << PLACE_BITS;
    let further = (low as i64).wrapping_sub(from).rem_euclid(SIZE);
    let is_clear = now.checked_sub(from)? < SIZE / 2;
    let number = if further < SIZE / 2 { from.checked_add(further)? } else { from };
    (is_clear && number <= now).then_some(number)
}

impl Moved {
    /// Returns those of some deliveries.
    pub(super) fn of(deliveries: &VecDeque<Delivery>) -> Self {
        let mut moved = Self::default();
        for delivery in deliveries {
            if !moved.note(delivery.channel, delivery.at) {
                break;
            }
        }
        moved
    }

    /// Adds those of later deliveries.
    pub(super) fn extend(&mut self, later: Self) {
        for (channel, at) in later.0 {
            self.note(channel, at);
        }
    }

    /// Notes where a channel is. Returns false if there are too many: then nothing more is noted.
    pub(super) fn note(&mut self, channel: Uuid, at: Place) -> bool {
        if self.0.len() > CHANNELS_MAX {
            return false;
        }
        match self.0.iter_mut().find(|(known, _)| *known == channel) {
            Some((_, place)) => *place = place.and(at),
            None => self.0.push((channel, at)),
        }
        self.0.len() <= CHANNELS_MAX
    }
}

/// The most channels of a trail: what happens in 50 ms on a node where 100 things happen per second, each in another channel.
const CHANNELS_MAX: usize = 9;
const CHANNEL_BITS: u32 = 24;
const PLACE_BITS: u32 = 16;
const LOW_BYTES: usize = 7;
// With the flag, and ten bytes for the number.
const _: () = assert!(1 + 10 + CHANNELS_MAX * LOW_BYTES <= TRAIL_MAX);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(seq: i64, rev: i64) -> Place {
        Place { seq, rev }
    }

    fn moved(all: &[(u8, Place)]) -> Moved {
        let mut moved = Moved::default();
        all.iter().for_each(|(n, at)| {
            moved.note(channel(*n), *at);
        });
        moved
    }

    fn channel(n: u8) -> Uuid {
        Uuid::from_u128(u128::from(n))
    }

    fn places<const N: usize>(all: [(u8, Place); N]) -> Places {
        all.map(|(n, at)| (channel(n), at)).into()
    }

    #[test]
    fn a_client_of_busy_channels_is_known_whatever_has_happened_since() {
        let earlier =
            [moved(&[(1, place(4, 0)), (7, place(1, 1))]), moved(&[(2, place(8, 2)), (1, place(5, 0))])];
        let trail = Trail::whole(40, channel(2), place(9, 2), [&earlier[0], &earlier[1]]).unwrap();
        let before = places([(1, place(3, 0)), (2, place(7, 2)), (3, place(6, 6))]);
        let now = places([(1, place(80, 9)), (2, place(90, 2)), (3, place(60, 8))]);
        let has = places([(1, place(5, 0)), (2, place(9, 2)), (3, place(6, 6))]);
        assert_eq!(trail.find(&before, 40, &now), Some(has.clone()));
        assert_eq!(trail.find(&before, 41, &now), Some(has), "stored since");
        assert_eq!(trail.find(&before, 39, &now), None, "nobody knows what has happened from 39 to 40");
        let of_others = places([(1, place(3, 0)), (3, place(6, 6))]);
        let has = places([(1, place(5, 0)), (3, place(6, 6))]);
        assert_eq!(
            trail.find(&of_others, 40, &now),
            Some(has),
            "it was added to the channel of the event only then"
        );
        let later = places([(1, place(7, 0)), (2, place(7, 2))]);
        assert_eq!(
            trail.find(&later, 40, &now).unwrap()[&channel(1)],
            place(7, 0),
            "its session began after that"
        );
        let far = places([(1, place(40_000, 0)), (2, place(90, 2)), (3, place(60, 8))]);
        assert_eq!(trail.find(&before, 40, &far), None, "too much has happened to tell the numbers apart");
    }

    #[test]
    fn an_event_of_the_only_channel_in_which_something_has_happened_is_found() {
        let trail = Trail::of_one(0, channel(2), place(10, 2));
        let has = places([(1, place(4, 0)), (2, place(8, 2))]);
        let now = |of_one: i64, of_two: i64| places([(1, place(of_one, 0)), (2, place(of_two, 2))]);
        let found = places([(1, place(4, 0)), (2, place(10, 2))]);
        assert_eq!(trail.find(&has, 0, &now(4, 12)), Some(found));
        assert_eq!(
            trail.find(&has, 0, &now(5, 12)),
            None,
            "nobody knows whether it has the one of the other"
        );
        assert_eq!(trail.find(&has, 0, &now(4, 9)), None, "the event is not there any more");
        assert_eq!(trail.find(&has, 0, &now(5, 8)), None, "it was not of that channel");
        let unknown = places([(3, place(1, 0)), (2, place(8, 2))]);
        assert_eq!(trail.find(&unknown, 0, &now(4, 12)), None, "nobody knows what has happened in the third");
    }

    #[test]
    fn more_than_the_bits_can_tell_apart_says_nothing() {
        let low = |seq, rev| Low::new(channel(1), place(seq, rev));
        assert_eq!(low(70_000, 0).place(place(69_990, 0), place(70_010, 0)), Some(place(70_000, 0)));
        assert_eq!(low(70_000, 0).place(place(40_000, 0), place(72_767, 0)), Some(place(70_000, 0)));
        assert_eq!(low(70_000, 0).place(place(40_000, 0), place(72_768, 0)), None, "too much has happened");
        assert_eq!(low(70_000, 9).place(place(69_990, 0), place(70_010, 8)), None, "it is not there yet");
        assert_eq!(low(70_000, 0).place(place(70_300, 5), place(70_400, 6)), Some(place(70_300, 5)), "older");
        assert_eq!(low(70_000, 0).place(place(5, 0), place(4, 0)), None, "of another history");
        assert_eq!(low(1, 0).place(place(i64::MIN, 0), place(i64::MAX, 0)), None);
    }

    #[test]
    fn two_channels_that_look_alike_leave_a_doubt() {
        let [one, two] = [5_u128, 5 | 1 << 100].map(Uuid::from_u128);
        let trail =
            Trail::whole(0, channel(1), place(1, 0), [&moved(&[(5, place(2, 0))]), &Moved::default()])
                .unwrap();
        let before = Places::from([(channel(1), place(0, 0)), (one, place(1, 0)), (two, place(1, 0))]);
        assert_eq!(trail.find(&before, 0, &before), None);
        let moved = Moved(vec![(one, place(1, 0)), (two, place(1, 0))]);
        assert_eq!(Trail::whole(0, channel(1), place(1, 0), [&moved, &Moved::default()]), None);
    }

    #[test]
    fn a_trail_of_too_many_channels_is_none() {
        let all: Vec<_> = (1..=9).map(|n| (n, place(1, 0))).collect();
        let trail = |moved: &[(u8, Place)], n: u8| {
            let mut later = Moved::default();
            later.extend(self::moved(moved));
            Trail::whole(0, channel(n), place(2, 0), [&Moved::default(), &later])
        };
        assert!(trail(&all, 9).is_some() && trail(&all[..8], 20).is_some());
        assert!(trail(&all, 20).is_none());
        let deliveries =
            all.iter().map(|(n, at)| Delivery { began: 1, ended: 2, channel: channel(*n), at: *at });
        assert_eq!(Moved::of(&deliveries.collect()).0.len(), 9);
    }

    #[test]
    fn who_began_beyond_what_the_node_had_told_keeps_what_it_was_told() {
        let trail =
            Trail::whole(0, channel(1), place(3, 90), [&Moved::default(), &Moved::default()]).unwrap();
        let before = places([(1, place(1_000, 80))]);
        let now = places([(1, place(1_900, 95))]);
        assert_eq!(trail.find(&before, 0, &now), Some(places([(1, place(1_000, 90))])));
    }

    proptest! {
        #[test]
        fn what_is_in_a_trail_is_read_again(number in any::<u64>(), back in any::<u64>(), others in proptest::collection::vec((any::<u8>(), 0..i64::MAX, 0..i64::MAX), 0..8)) {
            let others: Vec<_> = others.into_iter().map(|(n, seq, rev)| (n, place(seq, rev))).collect();
            let trail = Trail::whole(number.saturating_sub(back), channel(1), place(3, 4), [&moved(&others), &Moved::default()]).unwrap();
            for trail in [trail, Trail::of_one(0, channel(1), place(3, 4))] {
                let bytes = trail.encode(number);
                prop_assert!(bytes.len() <= TRAIL_MAX);
                prop_assert_eq!(Trail::decode(number, &bytes), Some(trail));
            }
        }

        #[test]
        fn a_place_on_the_way_is_found(from in 0..1_000_000_i64, at in 0..16_000_i64, then in 0..16_000_i64, rev in 0..1_000_i64, edits in 0..30_000_i64) {
            let at = place(from + at, rev + edits);
            let now = place(at.seq + then, at.rev + 20);
            prop_assert_eq!(Low::new(channel(9), at).place(place(from, rev), now), Some(at));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(number in any::<u64>(), bytes in proptest::collection::vec(any::<u8>(), 0..70), [a, b, c, d] in any::<[i64; 4]>()) {
            let places = |seq, rev| places([(1, place(seq, rev)), (2, place(rev, seq))]);
            let _ = Trail::decode(number, &bytes).and_then(|trail| trail.find(&places(a, b), 1, &places(c, d)));
        }
    }
}
