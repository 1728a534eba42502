//! The log of the last packets of a namespace, by position. It shares frames with outboxes, so an entry uses
//! memory for its bytes only after all receivers have sent theirs.

use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::record::{Memberships, Outcome, Record};
use super::sent::Position;
use crate::error::ImksResult;
use crate::socket::codec::encoder::EncodedPacket;
use crate::socket::recovery::event::OFFSET_CHARACTERS;
use crate::socket::socket_id::SocketId;

/// The random id of a log, which is part of its offsets.
///
/// An offset is opaque to clients: 16 bytes as base64url that hold epoch and position. Offsets of a lost log
/// or of another namespace have another epoch and are rejected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Epoch(pub(super) u64);

impl Epoch {
    pub(super) fn random() -> ImksResult<Self> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes)?;
        Ok(Self(u64::from_be_bytes(bytes)))
    }

    /// Returns the offset for a position.
    pub(super) fn offset(self, position: Position) -> OffsetText {
        let bytes = u128::from(self.0) << 64 | u128::from(position);
        let mut text = [0; OFFSET_CHARACTERS];
        // Base64 turns 16 bytes into 22 characters, so the text fits.
        let written = URL_SAFE_NO_PAD.encode_slice(bytes.to_be_bytes(), &mut text);
        debug_assert_eq!(written.ok(), Some(OFFSET_CHARACTERS));
        OffsetText(text)
    }

    /// Returns the position in an offset of this epoch.
    pub(super) fn position(self, offset: &str) -> Option<Position> {
        let mut bytes = [0; 16];
        let read = URL_SAFE_NO_PAD.decode_slice(offset, &mut bytes).ok()?;
        let value = u128::from_be_bytes(bytes);
        (read == bytes.len() && (value >> 64) as u64 == self.0).then_some(value as u64)
    }
}

/// An offset as text on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OffsetText([u8; OFFSET_CHARACTERS]);

impl OffsetText {
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The sockets that a packet is for.
#[derive(Debug)]
pub(crate) enum Addressees {
    /// One socket.
    One(SocketId),
    /// The union of the rooms (everybody, if there are none) except `skip` and the members of the `except`
    /// rooms.
    Rooms { rooms: Names, except: Names, skip: Option<SocketId> },
}

/// Names of rooms.
pub(crate) type Names = SmallVec<[Box<str>; 1]>;

impl Addressees {
    /// Whether a session got the packet, or would have if its client had been connected.
    pub(super) fn include(&self, id: SocketId, memberships: &Memberships, position: Position) -> bool {
        match self {
            Self::One(one) => *one == id && memberships.began_before(position),
            Self::Rooms { rooms, except, skip } => {
                let was_in = |name: &str| {
                    if name == id.as_str() {
                        memberships.was_member(position)
                    } else {
                        memberships.was_in(name, position)
                    }
                };
                let meant = if rooms.is_empty() {
                    memberships.was_member(position)
                } else {
                    rooms.iter().any(|room| was_in(room))
                };
                meant && *skip != Some(id) && !except.iter().any(|room| was_in(room))
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Rooms { rooms, except, .. } => rooms.iter().chain(except).map(|name| name.len()).sum(),
        }
    }
}

/// What stands at a position of the log.
#[derive(Debug)]
pub(crate) enum Logged {
    /// A packet.
    Packet(Addressees, EncodedPacket),
    /// A change that was made to the sockets of all nodes.
    Change(Addressees, Made),
    /// A node has taken the session of a socket, whose generation is this one since then.
    Taken(SocketId, u64),
    /// Something that this version cannot read: a client that may have missed it gets a new session.
    Unreadable,
}

/// A change that was made to sockets.
#[derive(Debug)]
pub(crate) enum Made {
    Join(Arc<str>),
    Leave(Arc<str>),
    Disconnect,
}

impl Logged {
    fn bytes(&self) -> usize {
        match self {
            Self::Packet(addressees, packet) => {
                addressees.bytes() + packet.iter().map(crate::engine::Frame::len).sum::<usize>()
            }
            Self::Change(addressees, Made::Join(room) | Made::Leave(room)) => addressees.bytes() + room.len(),
            Self::Change(addressees, Made::Disconnect) => addressees.bytes(),
            Self::Taken(..) | Self::Unreadable => 0,
        }
    }

    /// Makes the change of this entry, if it is one, to a session.
    pub(super) fn change(&self, record: &mut Record, at: Position, first: Position) -> Outcome {
        let lost = match self {
            Self::Change(to, made) => return record.change(to, made, at, first),
            Self::Taken(id, generation) => *id == record.id && *generation > record.stored.generation,
            Self::Packet(..) => false,
            Self::Unreadable => true,
        };
        if lost { Outcome::Over } else { Outcome::Unchanged }
    }
}

/// An entry of the log.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) logged: Logged,
    at: Instant,
    bytes: usize,
}

/// The last packets, without gaps.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    /// The position of the newest packet, stored or not.
    last: Position,
    bytes: usize,
}

impl Log {
    /// Returns the position of the newest packet.
    pub(super) fn last(&self) -> Position {
        self.last
    }

    /// Returns the position of the oldest stored packet or, if there is none, the next position.
    pub(super) fn first(&self) -> Position {
        self.last + 1 - self.entries.len() as u64
    }

    /// Advances the position without storing a packet, because there is no session to recover.
    pub(super) fn skip(&mut self) -> Position {
        self.last += 1;
        self.entries.clear();
        self.bytes = 0;
        self.last
    }

    /// Starts over, empty, after a position.
    pub(super) fn begin_after(&mut self, last: Position) {
        *self = Self { last, ..Self::default() };
    }

    /// Stores an entry at the next position, and drops the oldest ones if the log is full.
    pub(super) fn push(&mut self, logged: Logged, at: Instant, bounds: Bounds) {
        let bytes = ENTRY_BYTES + logged.bytes();
        self.last += 1;
        self.bytes += bytes;
        self.entries.push_back(Entry { logged, at, bytes });
        while self.entries.len() > bounds.packets_max || self.bytes > bounds.bytes_max {
            self.pop();
        }
    }

    /// Returns the packets after a position, oldest first.
    pub(super) fn after(&self, position: Position) -> impl Iterator<Item = (Position, &Entry)> {
        let first = self.first();
        let skipped = usize::try_from((position + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        self.entries.iter().enumerate().skip(skipped).map(move |(n, entry)| (first + n as u64, entry))
    }

    /// Drops the packets that are older than `before`.
    pub(super) fn purge(&mut self, before: Instant) {
        while self.entries.front().is_some_and(|entry| entry.at < before) {
            self.pop();
        }
    }

    /// Drops all packets and frees their memory. The position is unchanged.
    pub(super) fn clear(&mut self) {
        self.entries = VecDeque::new();
        self.bytes = 0;
    }

    /// Returns the position before which a client that got nothing since then is at risk: what it got last leaves the log
    /// within half of its length, or is older than `before`.
    pub(super) fn quiet_before(&self, before: Instant) -> Position {
        let half = self.first() + self.entries.len() as u64 / 2;
        let older = self.entries.partition_point(|entry| entry.at < before) as u64;
        half.max(self.first() + older)
    }

    /// Returns the time of the oldest packet.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.entries.front().map(|entry| entry.at)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn pop(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.bytes;
        }
    }
}

/// The limits of a log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) packets_max: usize,
    pub(super) bytes_max: usize,
}

/// The size of an entry without its bytes.
const ENTRY_BYTES: usize = size_of::<Entry>();
