//! What is stored of a session: where it stands in each of its channels. Pure.

use std::collections::HashMap;

use uuid::Uuid;

use super::journal::{Mark, Place};
use super::varint;
use crate::auth::Membership;
use crate::models::channel_state::ChannelHead;
use crate::socket::stamped::Offset;

/// A session, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::messaging) struct Record {
    /// When it began, in the journal of its node. An offset with this mark is of a client that got the beginning alone.
    pub(super) began: Mark,
    /// The greatest number in the user's own stream among the read positions that it began with.
    pub(super) user_rev: i64,
    /// Whether its client gets digests.
    pub(super) is_light: bool,
    /// Its channels.
    pub(super) channels: HashMap<Uuid, Standing>,
}

/// Where a session stands in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It follows the channel.
    Follows {
        /// What the client was told of when it began to.
        from: Place,
        /// A fingerprint of what else it was told of the channel; 0 if it was told nothing.
        facts: u32,
    },
    /// The client has left a channel that it would follow otherwise.
    Left,
    /// It had to leave the channel. It may not have heard of it.
    Ended,
}

/// A fingerprint of what a client is told of a channel beside its numbers; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::messaging) struct Facts(pub(super) u32);

impl Facts {
    /// Returns the fingerprint of a channel, for the member that it is told to.
    pub(in crate::messaging) fn of(membership: &Membership, head: &ChannelHead) -> Self {
        let Membership { name, notify_level, muted_until, .. } = membership;
        let (muted, horizon) =
            (muted_until.unwrap_or_default().to_be_bytes(), head.horizon_seq.to_be_bytes());
        let parts: [&[u8]; 4] = [name.as_bytes(), notify_level.as_str().as_bytes(), &muted, &horizon];
        let bytes = parts.iter().flat_map(|part| part.iter().chain(&[0xff]));
        // FNV-1a: the same on all nodes.
        Self(
            bytes.fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
                | 1,
        )
    }
}

/// A session before it was continued, for as long as its client may not have heard of that.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Former {
    pub(super) record: Record,
    /// The number of the offset with which its client came back.
    pub(super) number: u64,
}

impl Former {
    /// Returns a session and the number of an offset as bytes.
    pub(super) fn encode(record: &Record, number: u64) -> Vec<u8> {
        let mut bytes = record.began.epoch.to_be_bytes().to_vec();
        varint::write(&mut bytes, record.began.number);
        varint::write(&mut bytes, number);
        varint::write_signed(&mut bytes, record.user_rev);
        bytes.extend(record.encode());
        bytes
    }

    /// Reads a session. `None` if it is of a version that this node does not know, or damaged.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (epoch, mut bytes) = bytes.split_first_chunk()?;
        let began = Mark { epoch: i64::from_be_bytes(*epoch), number: varint::read(&mut bytes)? };
        let (number, user_rev) = (varint::read(&mut bytes)?, varint::read_signed(&mut bytes)?);
        Some(Self { record: Record::decode(began, user_rev, bytes)?, number })
    }

    /// Whether its client came back with this offset.
    pub(super) fn is_known_by(&self, offset: &Offset) -> bool {
        (self.record.began.epoch, self.number) == (offset.epoch, offset.number)
    }
}

impl Record {
    /// Returns the channels as bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![if self.is_light { LIGHT } else { FULL }];
        varint::write(&mut bytes, self.channels.len() as u64);
        for (channel, standing) in &self.channels {
            bytes.extend(channel.as_bytes());
            match standing {
                Standing::Left => bytes.push(LEFT),
                Standing::Ended => bytes.push(ENDED),
                Standing::Follows { from, facts } => {
                    bytes.push(FOLLOWS);
                    varint::write_signed(&mut bytes, from.seq);
                    varint::write_signed(&mut bytes, from.rev);
                    varint::write(&mut bytes, u64::from(*facts));
                }
            }
        }
        bytes
    }

    /// Reads channels. `None` if they are of a version that this node does not know, or damaged.
    pub(super) fn decode(began: Mark, user_rev: i64, bytes: &[u8]) -> Option<Self> {
        let (version, mut bytes) = bytes.split_first()?;
        let is_light = match *version {
            FULL => false,
            LIGHT => true,
            _ => return None,
        };
        let mut channels = HashMap::new();
        for _ in 0..varint::read(&mut bytes)? {
            let (id, rest) = bytes.split_first_chunk::<16>()?;
            let (kind, rest) = rest.split_first()?;
            bytes = rest;
            let standing = match *kind {
                LEFT => Standing::Left,
                ENDED => Standing::Ended,
                FOLLOWS => {
                    let seq = varint::read_signed(&mut bytes)?;
                    let from = Place { seq, rev: varint::read_signed(&mut bytes)? };
                    Standing::Follows { from, facts: u32::try_from(varint::read(&mut bytes)?).ok()? }
                }
                _ => return None,
            };
            channels.insert(Uuid::from_bytes(*id), standing);
        }
        bytes.is_empty().then_some(Self { began, user_rev, is_light, channels })
    }

    /// Returns the channels that the session follows, and where it began in each.
    pub(super) fn followed(&self) -> impl Iterator<Item = (Uuid, Place, u32)> {
        self.channels.iter().filter_map(|(channel, standing)| match standing {
            Standing::Follows { from, facts } => Some((*channel, *from, *facts)),
            Standing::Left | Standing::Ended => None,
        })
    }

    /// Whether the client has left a channel by itself.
    pub(super) fn has_left(&self, channel: Uuid) -> bool {
        self.channels.get(&channel) == Some(&Standing::Left)
    }
}

/// The version of the encoding, for clients that get everything.
const FULL: u8 = 1;
/// The version of the encoding, for clients that get digests.
const LIGHT: u8 = 2;
const LEFT: u8 = 0;
const FOLLOWS: u8 = 1;
const ENDED: u8 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn standing() -> impl Strategy<Value = Standing> {
        prop_oneof![
            Just(Standing::Left),
            Just(Standing::Ended),
            (any::<i64>(), any::<i64>(), any::<u32>())
                .prop_map(|(seq, rev, facts)| Standing::Follows { from: Place { seq, rev }, facts }),
        ]
    }

    proptest! {
        #[test]
        fn a_session_is_read_as_it_was_stored(is_light in any::<bool>(), channels in proptest::collection::hash_map(any::<u128>().prop_map(Uuid::from_u128), standing(), 0..20)) {
            let record = Record { began: Mark { epoch: -1, number: 9 }, user_rev: 3, is_light, channels };
            prop_assert_eq!(Former::decode(&Former::encode(&record, 12)), Some(Former { record: record.clone(), number: 12 }));
            prop_assert_eq!(Record::decode(record.began, 3, &record.encode()), Some(record));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Record::decode(Mark { epoch: 1, number: 1 }, 0, &bytes);
            let _ = Former::decode(&bytes);
        }
    }
}
