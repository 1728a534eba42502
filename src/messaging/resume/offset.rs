//! The number in the offset of an event: where it stands in the journal of its node, and a few bits of where its channel
//! was then. A node that is killed takes the newest part of its journal with it; these bits are what is left of that. Pure.
//!
//! ```text
//! bit 63..58    57..50       49..41       40         39..0
//!     channel   rev          seq          1          number in the journal
//!     the low bits of each                there they are
//! ```

use uuid::Uuid;

use super::Places;
use super::journal::Place;
use crate::models::message_sync::SYNC_LIMIT;

/// What the number in the offset of an event says of its channel: the low bits of its id, and of its place after the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hint {
    channel: u64,
    seq: u64,
    rev: u64,
}

impl Hint {
    /// Returns the hint of an event after which its channel is at this place.
    pub(super) fn new(channel: Uuid, at: Place) -> Self {
        Self {
            channel: low(channel.as_u128() as u64, CHANNEL_BITS),
            seq: low(at.seq as u64, SEQ_BITS),
            rev: low(at.rev as u64, REV_BITS),
        }
    }

    /// Returns how far the client of the event has come in the channel, if that was `from` before and the channel is at `now`. `None`
    /// if the event is not of this channel, or more has happened than the bits can tell apart.
    pub(super) fn place(self, channel: Uuid, from: Place, now: Place) -> Option<Place> {
        let seq = widen((self.seq, SEQ_BITS), BEHIND_MAX, from.seq, now.seq)?;
        let rev = widen((self.rev, REV_BITS), BEHIND_MAX, from.rev, now.rev)?;
        (Self::new(channel, from).channel == self.channel).then_some(Place { seq, rev })
    }

    /// Returns the channel of the event and where it was after it, if the event was the last one for a client that had come as
    /// far as `has` before, and the channels are at `now`. `None` if something has happened in another channel too: the
    /// client may have it or not.
    pub(super) fn find(self, has: &Places, now: &Places) -> Option<(Uuid, Place)> {
        let mut moved = None;
        for (channel, from) in has {
            let now = now.get(channel)?;
            if now != from && moved.replace((*channel, *from, *now)).is_some() {
                return None;
            }
        }
        let (channel, from, now) = moved?;
        Some((channel, self.place(channel, from, now)?))
    }
}

/// Returns the low bits of a number.
pub(super) fn low(number: u64, bits: u32) -> u64 {
    number & ((1 << bits) - 1)
}

/// Returns how far a client has come that was at `from` and gets an event with these low bits of a number, where the newest
/// is `now`. The event may be up to `behind` older than `from`, which is where the channel was when the session began: its
/// node may not have been as far. `None` if more has happened than the bits can tell apart, or nothing that fits.
pub(super) fn widen((number, bits): (u64, u32), behind: i64, from: i64, now: i64) -> Option<i64> {
    let (size, moved) = (1 << bits, now.checked_sub(from)?);
    let further = (number as i64).wrapping_sub(from).rem_euclid(size);
    let is_clear = moved < size - behind;
    match further < size - behind {
        true => from.checked_add(further).filter(|number| is_clear && *number <= now),
        false => is_clear.then_some(from),
    }
}

/// Returns the number in an offset.
pub(super) fn join(number: u64, hint: Option<Hint>) -> u64 {
    let hint = hint
        .map_or(0, |Hint { channel, seq, rev }| 1 | (((channel << REV_BITS | rev) << SEQ_BITS | seq) << 1));
    number | hint << NUMBER_BITS
}

/// Returns the number in the journal and the hint.
pub(super) fn split(number: u64) -> (u64, Option<Hint>) {
    let bits = number >> NUMBER_BITS;
    let place = Place { seq: (bits >> 1) as i64, rev: (bits >> (1 + SEQ_BITS)) as i64 };
    let channel = Uuid::from_u128(u128::from(bits >> (1 + SEQ_BITS + REV_BITS)));
    (number & NUMBER_MAX, (bits & 1 == 1).then(|| Hint::new(channel, place)))
}

/// The largest number in a journal.
pub(super) const NUMBER_MAX: u64 = (1 << NUMBER_BITS) - 1;
/// At 100,000 events per second, a journal has numbers for two months. Then another one begins.
const NUMBER_BITS: u32 = 40;
/// Enough for what a client may have missed of one channel.
const SEQ_BITS: u32 = 9;
const REV_BITS: u32 = 8;
const CHANNEL_BITS: u32 = 6;
/// How far a node may be behind in a channel of which it tells what happened one by one.
const BEHIND_MAX: i64 = SYNC_LIMIT as i64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(seq: i64, rev: i64) -> Place {
        Place { seq, rev }
    }

    #[test]
    fn more_than_the_bits_can_tell_apart_says_nothing() {
        let channel = Uuid::from_u128(5);
        let hint = Hint::new(channel, place(300, 0));
        assert_eq!(hint.place(channel, place(299, 0), place(310, 0)), Some(place(300, 0)));
        assert_eq!(
            hint.place(channel, place(300, 0), place(300, 0)),
            Some(place(300, 0)),
            "nothing has moved"
        );
        assert_eq!(hint.place(channel, place(60, 0), place(310, 0)), Some(place(300, 0)));
        assert_eq!(hint.place(channel, place(0, 0), place(312, 0)), None, "too much has happened");
        assert_eq!(
            hint.place(channel, place(500, 0), place(550, 0)),
            Some(place(500, 0)),
            "the session began beyond what its node had told"
        );
        assert_eq!(hint.place(channel, place(299, 0), place(299, 9)), None, "it is not there yet");
        assert_eq!(hint.place(Uuid::from_u128(6), place(299, 0), place(310, 0)), None, "of another channel");
        assert_eq!(hint.place(channel, place(299, 0), place(298, 0)), None, "of another history");
        let edited = Hint::new(channel, place(300, 129));
        assert_eq!(edited.place(channel, place(300, 120), place(300, 140)), Some(place(300, 129)));
        assert_eq!(edited.place(channel, place(300, 329), place(300, 384)), Some(place(300, 329)));
        assert_eq!(edited.place(channel, place(300, 84), place(300, 140)), None, "too many changes");
        let [first, last] = [place(i64::MIN, 0), place(i64::MAX, 0)];
        assert_eq!(hint.place(channel, first, last), None);
    }

    #[test]
    fn an_event_of_the_only_channel_in_which_something_has_happened_is_found() {
        let [one, two, three] = [1, 2, 3].map(Uuid::from_u128);
        let has = Places::from([(one, place(4, 0)), (two, place(8, 2))]);
        let hint = Hint::new(two, place(10, 2));
        let now = |of_one: i64, of_two: i64| Places::from([(one, place(of_one, 0)), (two, place(of_two, 2))]);
        assert_eq!(hint.find(&has, &now(4, 12)), Some((two, place(10, 2))));
        assert_eq!(hint.find(&has, &now(5, 12)), None, "nobody knows whether it has the one of the other");
        assert_eq!(hint.find(&has, &now(4, 8)), None, "the event is not there any more");
        assert_eq!(hint.find(&has, &now(5, 8)), None, "it was not of that channel");
        let unknown = Places::from([(three, place(1, 0)), (two, place(8, 2))]);
        assert_eq!(hint.find(&unknown, &now(4, 12)), None, "nobody knows what has happened in the third");
    }

    proptest! {
        #[test]
        fn what_is_in_an_offset_is_read_again(number in 0..=NUMBER_MAX, seq in 0..i64::MAX, rev in 0..i64::MAX, channel in any::<u128>(), has_hint in any::<bool>()) {
            let hint = has_hint.then(|| Hint::new(Uuid::from_u128(channel), place(seq, rev)));
            prop_assert_eq!(split(join(number, hint)), (number, hint));
        }

        #[test]
        fn no_offset_makes_the_reader_panic(number in any::<u64>(), [a, b, c, d] in any::<[i64; 4]>()) {
            let (_, hint) = split(number);
            let _ = hint.and_then(|hint| hint.place(Uuid::nil(), place(a, b), place(c, d)));
        }

        #[test]
        fn a_place_on_the_way_is_found(from in 0..1_000_i64, at in 0..200_i64, then in 0..55_i64, rev in 0..1_000_i64, edits in 0..35_i64) {
            let (channel, at) = (Uuid::from_u128(9), place(from + at, rev + edits));
            let now = place(at.seq + then, at.rev + 20);
            prop_assert_eq!(Hint::new(channel, at).place(channel, place(from, rev), now), Some(at));
        }
    }
}
