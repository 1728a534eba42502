//! The record of a session: its owner, its state, and its rooms over time.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::log::{Addressees, Made};
use super::sent::{Position, SentPositions};
use crate::socket::data::SavedData;
use crate::socket::socket_id::SocketId;

/// A session of one namespace.
pub(super) struct Record {
    pub(super) id: SocketId,
    /// The owner, if the connect hook named one.
    pub(super) owner: Option<Box<str>>,
    pub(super) data: SavedData,
    pub(super) memberships: Memberships,
    pub(super) state: State,
    /// The positions of the packets sent to the client.
    pub(super) sent: Arc<SentPositions>,
    /// Whether the connect hook sent events.
    pub(super) greeted: bool,
    /// The socket whose connect hook is running.
    pub(super) joining: Option<Joining>,
    /// How the session is stored in the shared log, if there is one.
    pub(super) stored: Stored,
}

/// How a session is stored in the shared log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    /// The number of nodes that have taken the session, counted from 1.
    pub(super) generation: u64,
    /// How often this node has changed the session otherwise than by entries of the log.
    pub(super) version: u64,
    /// Whether this node is taking the session, so that its generation may be one higher already.
    pub(super) taking: bool,
    /// The version of the stored session that this is a copy of, until this node has taken it.
    pub(super) copy_of: Option<u64>,
    /// The position of the last packet for the session, if what is stored says so.
    pub(super) quiet: Option<Position>,
    /// When it was stored last.
    pub(super) at: Option<Instant>,
}

impl Default for Stored {
    fn default() -> Self {
        Self { generation: 1, version: 0, taking: false, copy_of: None, quiet: None, at: None }
    }
}

impl Record {
    /// Whether this claim is the connected socket.
    pub(super) fn is_held_by(&self, claim: u64) -> bool {
        matches!(self.state, State::Live(held) if held == claim)
    }

    /// Whether the shared log may hold what this node has stored of the session.
    pub(super) fn is_stored_by_us(&self) -> bool {
        let Stored { generation, copy_of, at, .. } = self.stored;
        copy_of.is_none() && (at.is_some() || generation > 1)
    }

    /// Applies a change that was made to the sockets of all nodes.
    pub(super) fn change(&mut self, to: &Addressees, made: &Made, at: Position, first: Position) -> Outcome {
        if !to.include(self.id, &self.memberships, at) {
            return Outcome::Unchanged;
        }
        match made {
            Made::Join(room) => self.memberships.joined(room.clone(), at),
            Made::Leave(room) => self.memberships.left(room, at, first),
            Made::Disconnect => return Outcome::Over,
        }
        Outcome::Changed
    }
}

/// What an entry of the log means for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Unchanged,
    Changed,
    /// The session does not go on.
    Over,
}

/// The state of the client.
#[derive(Debug)]
pub(super) enum State {
    /// The client has not joined yet.
    New,
    /// The client is connected, with this claim.
    Live(u64),
    /// The connection has ended.
    Away {
        /// The key in the queue of absent clients.
        since: (Instant, u64),
        /// The position of the newest packet at that time.
        position: Position,
    },
}

/// A socket that tries to open the session.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) claim: u64,
    pub(super) memberships: Memberships,
    /// The rooms of the session that the connect hook removed.
    pub(super) dropped: HashSet<Box<str>>,
}

/// The rooms of a session over time, which decide the packets it gets.
///
/// A packet is for the sockets that are in its rooms at its position, so rooms are stored with the positions
/// at which they were entered and left.
#[derive(Debug, Clone)]
pub(super) struct Memberships {
    /// The position before the first packet that may be for the session.
    began: Position,
    /// The position at which the session joined the namespace.
    member: Option<Position>,
    rooms: HashMap<Arc<str>, Position>,
    left: VecDeque<PastMembership>,
    /// The position before which memberships are no longer known.
    known_from: Position,
}

/// A room that the session has left.
#[derive(Debug, Clone)]
pub(super) struct PastMembership {
    room: Arc<str>,
    from: Position,
    to: Position,
}

impl Memberships {
    pub(super) fn new(began: Position) -> Self {
        Self { began, member: None, rooms: HashMap::new(), left: VecDeque::new(), known_from: began }
    }

    /// Returns the form in which memberships are stored.
    pub(super) fn save(&self) -> SavedMemberships<'_> {
        SavedMemberships {
            began: self.began,
            member: self.member,
            rooms: self.rooms.iter().map(|(room, from)| (Cow::Borrowed(&**room), *from)).collect(),
            left: self.left.iter().map(|stay| (Cow::Borrowed(&*stay.room), stay.from, stay.to)).collect(),
            known_from: self.known_from,
        }
    }

    /// Creates memberships from the form in which they are stored.
    pub(super) fn restore(saved: SavedMemberships<'_>) -> Self {
        let past =
            |(room, from, to): (Cow<'_, str>, _, _)| PastMembership { room: (&*room).into(), from, to };
        Self {
            began: saved.began,
            member: saved.member,
            rooms: saved.rooms.into_iter().map(|(room, from)| ((&*room).into(), from)).collect(),
            left: saved.left.into_iter().map(past).collect(),
            known_from: saved.known_from,
        }
    }

    pub(super) fn began(&self) -> Position {
        self.began
    }

    pub(super) fn known_from(&self) -> Position {
        self.known_from
    }

    pub(super) fn rooms(&self) -> impl Iterator<Item = &Arc<str>> {
        self.rooms.keys()
    }

    pub(super) fn became_member(&mut self, at: Position) {
        self.member.get_or_insert(at);
    }

    pub(super) fn joined(&mut self, room: Arc<str>, at: Position) {
        self.rooms.entry(room).or_insert(at);
    }

    /// Records that a room was left. `first` is the oldest position that can still be requested.
    pub(super) fn left(&mut self, room: &str, at: Position, first: Position) {
        let Some((room, from)) = self.rooms.remove_entry(room) else { return };
        while self.left.front().is_some_and(|stay| stay.to < first) {
            self.left.pop_front();
        }
        if from == at {
            return;
        }
        if self.left.len() >= LEFT_ROOMS_MAX
            && let Some(oldest) = self.left.pop_front()
        {
            self.known_from = self.known_from.max(oldest.to);
        }
        self.left.push_back(PastMembership { room, from, to: at });
    }

    /// Removes these rooms, including past memberships.
    pub(super) fn forget(&mut self, rooms: &HashSet<Box<str>>) {
        self.rooms.retain(|room, _| !rooms.contains(&**room));
        self.left.retain(|stay| !rooms.contains(&*stay.room));
    }

    /// Adds the rooms that a joining socket entered and left.
    pub(super) fn merge(&mut self, other: &Self) {
        for (room, at) in &other.rooms {
            self.joined(room.clone(), *at);
        }
        self.left.extend(other.left.iter().cloned());
        if other.known_from > other.began {
            self.known_from = self.known_from.max(other.known_from);
        }
    }

    pub(super) fn began_before(&self, position: Position) -> bool {
        position > self.began
    }

    pub(super) fn was_member(&self, position: Position) -> bool {
        self.member.is_some_and(|since| position > since)
    }

    pub(super) fn is_in(&self, room: &str) -> bool {
        self.rooms.contains_key(room)
    }

    pub(super) fn was_in(&self, room: &str, position: Position) -> bool {
        self.rooms.get(room).is_some_and(|since| position > *since)
            || self.left.iter().any(|stay| position > stay.from && position <= stay.to && *stay.room == *room)
    }
}

/// Memberships as they are stored in the shared log.
#[derive(Serialize, Deserialize)]
pub(super) struct SavedMemberships<'a> {
    began: Position,
    member: Option<Position>,
    #[serde(borrow)]
    rooms: Vec<(Cow<'a, str>, Position)>,
    #[serde(borrow)]
    left: Vec<(Cow<'a, str>, Position, Position)>,
    known_from: Position,
}

/// The maximum number of past memberships. Packets from before the dropped ones are not replayed.
const LEFT_ROOMS_MAX: usize = 64;
