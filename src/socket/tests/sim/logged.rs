//! What sessions must get through the log that nodes share: exactly the events that are for them, in its order, across
//! all connections and nodes.
//!
//! The truth is the journal of the log, and what the nodes have shown of each session: where it was opened, with which
//! rooms, and the rooms that were entered or left without the log. What no client was told may be lost with its node.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use serde::Deserialize;

use super::observer::Emit;

/// A position in the log: its epoch, and the number of the entry.
pub(super) type Place = (u64, u64);

/// The sessions of all clients, by the id of their socket.
#[derive(Default)]
pub(super) struct Sessions(pub(super) HashMap<String, Session>);

/// One session.
#[derive(Default)]
pub(super) struct Session {
    /// The times that a node had it, one after the other.
    tenures: Vec<Tenure>,
    /// What its client got.
    pub(super) received: Vec<(Place, u64)>,
}

/// The time for which one node has a session.
#[derive(Debug)]
struct Tenure {
    process: u64,
    at: Place,
    rooms: BTreeSet<String>,
    moves: Vec<Move>,
}

/// A room that was entered or left without the log.
#[derive(Debug)]
struct Move {
    room: String,
    joined: bool,
    at: u64,
    /// The number of the request of the client.
    id: Option<u64>,
    /// Whether the client has an answer.
    is_told: bool,
    /// Whether the node no longer had the session.
    is_void: bool,
}

/// An entry of the log, as far as it matters here.
#[derive(Debug, Deserialize)]
enum Entry {
    Event { target: Target, event: Event },
    One { id: String, event: Event },
    Change { target: Target, change: Change },
    Taken {},
}

#[derive(Debug, Deserialize)]
struct Target {
    rooms: Vec<String>,
    except: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Event {
    json: String,
}

#[derive(Debug, Deserialize)]
enum Change {
    Join { room: String },
    Leave { room: String },
    Disconnect {},
}

/// Whether something is so. In doubt both is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Truth {
    No,
    Maybe,
    Yes,
}

/// The entries of all logs that there were, by place.
pub(super) struct Journal(BTreeMap<Place, Entry>);

impl Journal {
    pub(super) fn read(entries: Vec<(u64, u64, Bytes)>) -> Self {
        let read = |(epoch, position, entry): (u64, u64, Bytes)| {
            ((epoch, position), rmp_serde::from_slice(&entry).unwrap())
        };
        Self(entries.into_iter().map(read).collect())
    }

    /// Returns the entries as lines.
    pub(super) fn story(&self) -> String {
        self.0.iter().map(|(place, entry)| format!("{place:?} {entry:?}\n")).collect()
    }

    /// Checks that the events of each sender are in the log in their order, and once.
    pub(super) fn check(&self, emits: &[Emit]) -> Result<(), String> {
        let mut last = HashMap::new();
        for ((epoch, position), entry) in &self.0 {
            let Some(number) = entry.number() else { continue };
            let sender = emits[number as usize].sender;
            if last.insert((*epoch, sender), number).is_some_and(|last| last >= number) {
                return Err(format!("event {number} is in the log at {position}, after a later one"));
            }
        }
        Ok(())
    }
}

impl Entry {
    fn number(&self) -> Option<u64> {
        match self {
            Self::Event { event, .. } | Self::One { event, .. } => {
                Some(serde_json::from_str::<(String, u64)>(&event.json).unwrap().1)
            }
            _ => None,
        }
    }
}

impl Sessions {
    /// Notes that a node has opened a session.
    pub(super) fn opened(
        &mut self,
        sid: &str,
        process: u64,
        at: Place,
        recovered: bool,
        rooms: BTreeSet<String>,
    ) -> Result<(), String> {
        let session = self.0.entry(sid.to_owned()).or_default();
        let before = session.tenures.last().map(|tenure| tenure.at);
        let is_right =
            recovered == before.is_some() && before.is_none_or(|before| before.0 == at.0 && before.1 <= at.1);
        session.tenures.push(Tenure { process, at, rooms, moves: Vec::new() });
        if is_right {
            Ok(())
        } else {
            Err(format!("opened at {at:?}, recovered {recovered}, before at {before:?}"))
        }
    }

    /// Notes that a socket enters or leaves a room without the log.
    pub(super) fn moved(
        &mut self,
        sid: &str,
        process: u64,
        at: Place,
        (room, joined): (&str, bool),
        id: Option<u64>,
    ) {
        let Some(tenure) = self.0.get_mut(sid).and_then(|session| session.tenures.last_mut()) else { return };
        let is_void = tenure.process != process || tenure.at.0 != at.0;
        tenure.moves.push(Move { room: room.to_owned(), joined, at: at.1, id, is_told: false, is_void });
    }

    /// Notes that a client got the answer to a request.
    pub(super) fn told(&mut self, sid: &str, id: u64) {
        let moves = self.0.get_mut(sid).into_iter().flat_map(|session| &mut session.tenures);
        moves
            .flat_map(|tenure| &mut tenure.moves)
            .filter(|it| it.id == Some(id))
            .for_each(|it| it.is_told = true);
    }

    /// Notes what a client got.
    pub(super) fn received(&mut self, sid: &str, place: Place, number: u64) -> Result<(), String> {
        let received = &mut self.0.entry(sid.to_owned()).or_default().received;
        let last = received.last().map(|(last, _)| *last);
        received.push((place, number));
        match last {
            Some(last) if last.0 != place.0 || last.1 >= place.1 => {
                Err(format!("event at {place:?} after {last:?}"))
            }
            _ => Ok(()),
        }
    }
}

impl Session {
    /// Returns what the nodes did with the session, and what its client got.
    pub(super) fn story(&self) -> String {
        format!("{:#?}\ngot {:?}", self.tenures, self.received)
    }

    /// Checks that the client got what it should, up to the last event that it got, or to the end of the log.
    pub(super) fn check(&self, sid: &str, journal: &Journal, to_the_end: bool) -> Result<(), String> {
        let Some(first) = self.tenures.first() else { return Ok(()) };
        let last = self.received.last().map(|(place, _)| *place);
        let upto = match (to_the_end, last) {
            (true, _) => (first.at.0, u64::MAX),
            (false, Some(last)) => last,
            (false, None) => first.at,
        };
        let received: BTreeMap<Place, u64> = self.received.iter().copied().collect();
        for (n, tenure) in self.tenures.iter().enumerate() {
            let next = self.tenures.get(n + 1);
            tenure
                .check(sid, journal, next, upto, &received)
                .map_err(|wrong| format!("tenure {n}: {wrong}"))?;
        }
        let early = received.keys().find(|place| **place <= first.at);
        early.map_or(Ok(()), |place| Err(format!("event at {place:?} before the session")))
    }
}

impl Tenure {
    /// Checks what the client got while the node had the session, until the next one took it.
    fn check(
        &self,
        sid: &str,
        journal: &Journal,
        next: Option<&Self>,
        upto: Place,
        received: &BTreeMap<Place, u64>,
    ) -> Result<(), String> {
        let end = next.map_or((self.at.0, u64::MAX), |next| next.at);
        let mut doubts = BTreeSet::new();
        loop {
            let mut rooms = Rooms::new(sid, &self.rooms);
            let mut outcome = self.walk(journal, end, upto, &doubts, &mut rooms, received);
            let Some(next) = next else { return outcome };
            if rooms.is_over {
                return Err("it goes on after its end".to_owned());
            }
            if let Some(room) = rooms.difference(&next.rooms) {
                outcome = Err(format!("room {room} differs when the session is taken at {end:?}"));
            }
            // What nobody was told may be lost with its node, and all that followed from it.
            let in_doubt = |it: &&Move| !it.is_told && !doubts.contains(&it.room);
            match self.moves.iter().find(in_doubt) {
                Some(untold) if outcome.is_err() => doubts.insert(untold.room.clone()),
                _ => return outcome,
            };
        }
    }

    fn walk(
        &self,
        journal: &Journal,
        end: Place,
        upto: Place,
        doubts: &BTreeSet<String>,
        rooms: &mut Rooms<'_>,
        received: &BTreeMap<Place, u64>,
    ) -> Result<(), String> {
        let mut moves: Vec<&Move> = self.moves.iter().collect();
        moves.sort_by_key(|it| it.at);
        let (mut moves, mut outcome) = (moves.into_iter().peekable(), Ok(()));
        let after = (std::ops::Bound::Excluded(self.at), std::ops::Bound::Included(end.max(self.at)));
        for (place, entry) in journal.0.range(after) {
            while let Some(it) = moves.next_if(|it| it.at < place.1) {
                rooms.make(it, doubts);
            }
            let is_meant = rooms.apply(entry);
            let has_got = received.contains_key(place);
            let is_right = match is_meant {
                Truth::Yes => has_got || *place > upto,
                Truth::No => !has_got,
                Truth::Maybe => true,
            };
            if !is_right && outcome.is_ok() {
                outcome = Err(format!("at {place:?} {entry:?}: meant {is_meant:?}, got {has_got}"));
            }
        }
        moves.filter(|it| it.at <= end.1).for_each(|it| rooms.make(it, doubts));
        outcome
    }
}

/// The rooms of a session at a position.
struct Rooms<'a> {
    sid: &'a str,
    rooms: BTreeMap<String, Truth>,
    is_over: bool,
}

impl<'a> Rooms<'a> {
    fn new(sid: &'a str, rooms: &BTreeSet<String>) -> Self {
        Self { sid, rooms: rooms.iter().map(|room| (room.clone(), Truth::Yes)).collect(), is_over: false }
    }

    fn is_in(&self, room: &str) -> Truth {
        if room == self.sid { Truth::Yes } else { self.rooms.get(room).copied().unwrap_or(Truth::No) }
    }

    fn make(&mut self, it: &Move, doubts: &BTreeSet<String>) {
        let truth = match it.joined {
            _ if it.is_void || doubts.contains(&it.room) => Truth::Maybe,
            true => Truth::Yes,
            false => Truth::No,
        };
        self.rooms.insert(it.room.clone(), truth);
    }

    fn includes(&self, target: &Target) -> Truth {
        let rooms = target.rooms.iter().map(|room| self.is_in(room)).max();
        let except = target.except.iter().map(|room| self.is_in(room)).max().unwrap_or(Truth::No);
        match (rooms.unwrap_or(Truth::Yes), except) {
            (Truth::No, _) | (_, Truth::Yes) => Truth::No,
            (Truth::Yes, Truth::No) => Truth::Yes,
            _ => Truth::Maybe,
        }
    }

    /// Applies an entry. Returns whether it is an event for the session.
    fn apply(&mut self, entry: &Entry) -> Truth {
        match entry {
            _ if self.is_over => Truth::No,
            Entry::Event { target, .. } => self.includes(target),
            Entry::One { id, .. } => {
                if id == self.sid {
                    Truth::Yes
                } else {
                    Truth::No
                }
            }
            Entry::Change { target, change } => {
                let is_meant = self.includes(target);
                self.change(is_meant, change);
                Truth::No
            }
            Entry::Taken {} => Truth::No,
        }
    }

    fn change(&mut self, is_meant: Truth, change: &Change) {
        let (room, wanted) = match change {
            Change::Join { room } => (room, Truth::Yes),
            Change::Leave { room } => (room, Truth::No),
            Change::Disconnect {} => {
                self.is_over |= is_meant == Truth::Yes;
                return;
            }
        };
        match is_meant {
            Truth::Yes => drop(self.rooms.insert(room.clone(), wanted)),
            Truth::Maybe if self.is_in(room) != wanted => drop(self.rooms.insert(room.clone(), Truth::Maybe)),
            Truth::Maybe | Truth::No => {}
        }
    }

    /// Returns a room about which these rooms and others cannot both be right.
    fn difference(&self, others: &BTreeSet<String>) -> Option<String> {
        let names: BTreeSet<&String> = self.rooms.keys().chain(others).collect();
        let differs = |room: &&String| {
            let other = if others.contains(*room) { Truth::Yes } else { Truth::No };
            ![other, Truth::Maybe].contains(&self.is_in(room))
        };
        names.into_iter().find(differs).cloned()
    }
}
