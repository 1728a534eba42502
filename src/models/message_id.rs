//! Message ids: UUIDv7 that sort by `seq` inside a channel.
//!
//! ```text
//! 48 bits  milliseconds, never below those of the channel's previous message
//!  4 bits  version 7
//! 12 bits  seq, bits 39..28
//!  2 bits  variant
//! 28 bits  seq, bits 27..0
//! 34 bits  random
//! ```

use uuid::{Builder, Uuid};

use crate::ImksResult;

/// The bits of `seq` in an id, enough for more than 10^12 messages per channel.
const SEQ_BITS: u32 = 40;
const LOW_SEQ_BITS: u32 = 28;
const RANDOM_BITS: u32 = 34;

/// Returns the id of message `seq`, created in millisecond `ms`. `random` distinguishes ids of different
/// channels; its upper 30 bits are ignored.
pub fn new(ms: i64, seq: i64, random: u64) -> Uuid {
    let ms = u64::try_from(ms).unwrap_or(0) & ((1 << 48) - 1);
    let seq = u64::try_from(seq).unwrap_or(0) & ((1 << SEQ_BITS) - 1);
    let high = (ms << 16) | (0x7 << 12) | (seq >> LOW_SEQ_BITS);
    let low_seq = seq & ((1 << LOW_SEQ_BITS) - 1);
    let low = (0b10 << 62) | (low_seq << RANDOM_BITS) | (random & ((1 << RANDOM_BITS) - 1));
    Builder::from_u128((u128::from(high) << 64) | u128::from(low)).into_uuid()
}

/// Returns the `seq` in a message id, a position in the channel even if the message no longer exists.
pub fn seq_of(id: Uuid) -> i64 {
    let (high, low) = id.as_u64_pair();
    let seq = ((high & 0xfff) << LOW_SEQ_BITS) | ((low >> RANDOM_BITS) & ((1 << LOW_SEQ_BITS) - 1));
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// Returns `count` random numbers with one call to the operating system.
///
/// # Errors
/// [`crate::ImksError::Randomness`] when the system cannot provide random numbers.
pub(crate) fn random_numbers(count: usize) -> ImksResult<Vec<u64>> {
    let mut bytes = vec![0; count * size_of::<u64>()];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.as_chunks().0.iter().map(|chunk| u64::from_ne_bytes(*chunk)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_are_valid_v7_and_sort_by_time_then_seq(ms in 0_i64..1 << 48, seq in 0_i64..1 << 40, a: u64, b: u64) {
            let (one, next) = (new(ms, seq, a), new(ms, seq + 1, b));
            prop_assert_eq!((one.get_version_num(), one.get_variant()), (7, uuid::Variant::RFC4122));
            prop_assert_eq!(seq_of(one), seq);
            prop_assert!(seq + 1 == 1 << 40 || one < next);
            prop_assert!(ms + 1 == 1 << 48 || next < new(ms + 1, 0, 0));
            let (seconds, nanos) = one.get_timestamp().unwrap().to_unix();
            prop_assert_eq!(seconds * 1_000 + u64::from(nanos) / 1_000_000, u64::try_from(ms).unwrap());
        }
    }
}
