//! The end of an offset: where every channel was in which something had happened since the journal of the node was last stored.
//! A node that is killed takes that part of its journal with it; this is what is left of it, if it is short. Pure.
//!
//! ```text
//! varint      how many numbers after the last stored one
//! 7 bytes     for each of these channels, that of the event first: 24 bits of its id, 16 of its rev, 16 of its seq
//! ```

use std::collections::VecDeque;

use uuid::Uuid;

use super::Places;
use super::journal::{Delivery, Place};
use super::offset::{Hint, low, widen};
use super::varint;
use crate::socket::stamped::TRAIL_MAX;

/// Where channels were after an event that was delivered while no other was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trail {
    /// Up to this number of the journal, or further, everything was stored.
    stored: u64,
    /// The channel of the event, and then the others in which something has happened since.
    lows: Vec<Low>,
}

/// The low bits of the id of a channel, and of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Low {
    channel: u64,
    seq: u64,
    rev: u64,
}

/// What an offset says of its client, if its node did not live to store the delivery.
pub(super) struct Beyond {
    pub(super) hint: Hint,
    pub(super) trail: Option<Trail>,
    /// The number up to which its node did.
    pub(super) stored: u64,
}

/// The channels in which something has happened, and where they are since.
#[derive(Debug, Default)]
pub(super) struct Moved(Vec<(Uuid, Place)>);

impl Trail {
    /// Returns the trail of an event after which its channel is at a place: `moved` are the deliveries before it that are not
    /// stored. `None` if they are of too many channels.
    pub(super) fn new(stored: u64, channel: Uuid, at: Place, moved: [&Moved; 2]) -> Option<Self> {
        let mut all = Moved(vec![(channel, at)]);
        let has_room = |(channel, at): &(Uuid, Place)| all.note(*channel, *at);
        let is_short = moved.iter().flat_map(|moved| &moved.0).all(has_room);
        let lows = || all.0.iter().map(|(channel, at)| Low::new(*channel, *at)).collect();
        is_short.then(|| Self { stored, lows: lows() })
    }

    /// Returns the trail of the event with this number as bytes.
    pub(super) fn encode(&self, number: u64) -> Box<[u8]> {
        let mut bytes = Vec::new();
        varint::write(&mut bytes, number.saturating_sub(self.stored));
        self.lows.iter().for_each(|low| bytes.extend(low.bytes()));
        bytes.into()
    }

    /// Reads the trail of the event with this number. `None` if there is none.
    pub(super) fn decode(number: u64, mut bytes: &[u8]) -> Option<Self> {
        let stored = number.checked_sub(varint::read(&mut bytes)?)?;
        let (lows, rest) = bytes.as_chunks::<LOW_BYTES>();
        let is_whole = rest.is_empty() && (1..=CHANNELS_MAX).contains(&lows.len());
        is_whole.then(|| Self { stored, lows: lows.iter().map(Low::read).collect() })
    }

    /// Returns where the client of the event is in each channel, if it had come as far as `before` by what was stored up to a
    /// number, and the channels are at `now`. `None` if that is not certain.
    pub(super) fn find(&self, before: &Places, stored: u64, now: &Places) -> Option<Places> {
        let mut has = (self.stored <= stored).then(|| before.clone())?;
        for (n, low) in self.lows.iter().enumerate() {
            let mut channels = before.iter().filter(|(channel, _)| low.is_of(**channel));
            match (channels.next(), channels.next()) {
                (Some((channel, from)), None) => {
                    has.insert(*channel, low.place(*from, *now.get(channel)?)?);
                }
                // The client does not follow it, but it followed the channel of the event.
                (None, _) if n > 0 => {}
                _ => return None,
            }
        }
        Some(has)
    }
}

impl Low {
    fn new(channel: Uuid, at: Place) -> Self {
        let channel = channel.as_u128() as u64;
        Self {
            channel: low(channel, CHANNEL_BITS),
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
        Self {
            channel: bits >> (2 * PLACE_BITS),
            seq: low(bits, PLACE_BITS),
            rev: low(bits >> PLACE_BITS, PLACE_BITS),
        }
    }

    /// Whether it may be a place of this channel.
    fn is_of(self, channel: Uuid) -> bool {
        self.channel == low(channel.as_u128() as u64, CHANNEL_BITS)
    }

    /// Returns how far somebody has come who was at `from` before, if the channel is at `now`.
    fn place(self, from: Place, now: Place) -> Option<Place> {
        let seq = widen((self.seq, PLACE_BITS), BEHIND_MAX, from.seq, now.seq)?;
        Some(Place { seq, rev: widen((self.rev, PLACE_BITS), BEHIND_MAX, from.rev, now.rev)? })
    }
}

impl Beyond {
    /// Returns how far the client has come in each channel, if that was as far as `before` by what was stored, and the channels
    /// are at `now`. `None` if nobody knows.
    pub(super) fn find(&self, before: &Places, now: &Places) -> Option<Places> {
        let by_trail = self.trail.as_ref().and_then(|trail| trail.find(before, self.stored, now));
        by_trail.or_else(|| {
            let (channel, place) = self.hint.find(before, now)?;
            let mut has = before.clone();
            has.insert(channel, place);
            Some(has)
        })
    }
}

impl Moved {
    /// Returns those of some deliveries.
    pub(super) fn of(deliveries: &VecDeque<Delivery>) -> Self {
        let mut moved = Self::default();
        deliveries.iter().take_while(|it| moved.note(it.channel, it.at)).for_each(drop);
        moved
    }

    /// Adds those of later deliveries.
    pub(super) fn extend(&mut self, later: Self) {
        later.0.into_iter().take_while(|(channel, at)| self.note(*channel, *at)).for_each(drop);
    }

    /// Notes where a channel is. Returns false if there are too many.
    pub(super) fn note(&mut self, channel: Uuid, at: Place) -> bool {
        if self.is_too_many() {
            return false;
        }
        match self.0.iter_mut().find(|(known, _)| *known == channel) {
            Some((_, place)) => *place = place.and(at),
            None => self.0.push((channel, at)),
        }
        !self.is_too_many()
    }

    fn is_too_many(&self) -> bool {
        self.0.len() > CHANNELS_MAX
    }
}

/// The most channels of a trail: what happens in 50 ms on a node where 100 things happen per second, each in another channel.
const CHANNELS_MAX: usize = 9;
const CHANNEL_BITS: u32 = 24;
const PLACE_BITS: u32 = 16;
const LOW_BYTES: usize = 7;
/// How far a node may be behind the place where a session began: half of the numbers are for those.
const BEHIND_MAX: i64 = 1 << (PLACE_BITS - 1);
// With ten bytes for the number.
const _: () = assert!(10 + CHANNELS_MAX * LOW_BYTES <= TRAIL_MAX);

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
        let trail = Trail::new(40, channel(2), place(9, 2), [&earlier[0], &earlier[1]]).unwrap();
        let before = places([(1, place(3, 0)), (2, place(7, 2)), (3, place(6, 6))]);
        let now = places([(1, place(80, 9)), (2, place(90, 2)), (3, place(60, 8))]);
        let has = places([(1, place(5, 0)), (2, place(9, 2)), (3, place(6, 6))]);
        assert_eq!(trail.find(&before, 40, &now), Some(has.clone()));
        assert_eq!(trail.find(&before, 41, &now), Some(has), "stored since");
        assert_eq!(trail.find(&before, 39, &now), None, "nobody knows what has happened from 39 to 40");
        let of_others = places([(1, place(3, 0)), (3, place(6, 6))]);
        assert_eq!(trail.find(&of_others, 40, &now), None, "it did not follow the channel of the event");
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
    fn two_channels_that_look_alike_leave_a_doubt() {
        let [one, two] = [5_u128, 5 | 1 << 100].map(Uuid::from_u128);
        let trail =
            Trail::new(0, channel(1), place(1, 0), [&moved(&[(5, place(2, 0))]), &Moved::default()]).unwrap();
        let before = Places::from([(channel(1), place(0, 0)), (one, place(1, 0)), (two, place(1, 0))]);
        assert_eq!(trail.find(&before, 0, &before), None);
    }

    #[test]
    fn a_trail_of_too_many_channels_is_none() {
        let all: Vec<_> = (1..=9).map(|n| (n, place(1, 0))).collect();
        let trail = |moved: &[(u8, Place)], n: u8| {
            let mut later = Moved::default();
            later.extend(self::moved(moved));
            Trail::new(0, channel(n), place(2, 0), [&Moved::default(), &later])
        };
        assert!(trail(&all, 9).is_some() && trail(&all[..8], 20).is_some());
        assert!(trail(&all, 20).is_none());
        let deliveries =
            all.iter().map(|(n, at)| Delivery { began: 1, ended: 2, channel: channel(*n), at: *at });
        assert_eq!(Moved::of(&deliveries.collect()).0.len(), 9);
    }

    #[test]
    fn who_began_beyond_what_the_node_had_told_keeps_what_it_was_told() {
        let trail = Trail::new(0, channel(1), place(3, 90), [&Moved::default(), &Moved::default()]).unwrap();
        let before = places([(1, place(1_000, 80))]);
        let now = places([(1, place(1_900, 95))]);
        assert_eq!(trail.find(&before, 0, &now), Some(places([(1, place(1_000, 90))])));
    }

    proptest! {
        #[test]
        fn what_is_in_a_trail_is_read_again(number in any::<u64>(), back in any::<u64>(), others in proptest::collection::vec((any::<u8>(), 0..i64::MAX, 0..i64::MAX), 0..8)) {
            let others: Vec<_> = others.into_iter().map(|(n, seq, rev)| (n, place(seq, rev))).collect();
            let trail = Trail::new(number.saturating_sub(back), channel(1), place(3, 4), [&moved(&others), &Moved::default()]).unwrap();
            let bytes = trail.encode(number);
            prop_assert!(bytes.len() <= TRAIL_MAX);
            prop_assert_eq!(Trail::decode(number, &bytes), Some(trail));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(number in any::<u64>(), bytes in proptest::collection::vec(any::<u8>(), 0..70), [a, b, c, d] in any::<[i64; 4]>()) {
            let places = |seq, rev| places([(1, place(seq, rev)), (2, place(rev, seq))]);
            let _ = Trail::decode(number, &bytes).and_then(|trail| trail.find(&places(a, b), 1, &places(c, d)));
        }
    }
}
