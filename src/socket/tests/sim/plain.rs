//! What sockets may get over the bus alone: nothing twice, nothing late of one sender, nothing outside a membership.

use std::collections::HashMap;

use tokio::time::Instant;

use super::observer::Emit;

/// The sockets of all clients, by id.
#[derive(Default)]
pub(super) struct Sockets(HashMap<String, Seen>);

/// What one socket did and got.
#[derive(Default)]
struct Seen {
    stays: Vec<Stay>,
    /// The last event of each sender.
    last: HashMap<u64, u64>,
}

/// A stay in a room, which may go on.
struct Stay {
    room: String,
    from: Instant,
    to: Option<Instant>,
}

impl Sockets {
    /// Notes that a socket has entered or left a room.
    pub(super) fn moved(&mut self, sid: &str, room: &str, joined: bool) {
        let (seen, now) = (self.0.entry(sid.to_owned()).or_default(), Instant::now());
        if joined {
            seen.stays.push(Stay { room: room.to_owned(), from: now, to: None });
        } else if let Some(stay) = seen.stays.iter_mut().rfind(|stay| stay.room == room) {
            stay.to = Some(now);
        }
    }

    /// Notes an event, and checks it.
    pub(super) fn received(&mut self, sid: &str, number: u64, emit: &Emit) -> Result<(), String> {
        let (seen, now) = (self.0.entry(sid.to_owned()).or_default(), Instant::now());
        if let Some(last) = seen.last.insert(emit.sender, number).filter(|last| *last >= number) {
            return Err(format!("event {number} of process {} arrived after {last}", emit.sender));
        }
        let is_meant =
            emit.rooms.is_empty() || emit.rooms.iter().any(|room| room == sid || seen.was_in(room, now));
        if !is_meant || emit.except.iter().any(|room| seen.stayed_in(room, now)) {
            return Err(format!("event {number} arrived outside a membership"));
        }
        Ok(())
    }
}

impl Seen {
    fn was_in(&self, room: &str, now: Instant) -> bool {
        self.stays.iter().any(|stay| stay.room == room && stay.to.is_none_or(|to| to >= now))
    }

    /// Whether the socket was in the room before and after this time.
    fn stayed_in(&self, room: &str, now: Instant) -> bool {
        self.stays
            .iter()
            .any(|stay| stay.room == room && stay.from < now && stay.to.is_none_or(|to| to > now))
    }
}
