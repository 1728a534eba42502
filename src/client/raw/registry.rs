//! The connections of a server, by number and room, and what goes to many of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;
use tungstenite::Message as Frame;

use super::connection::{Message, RawConnection, RawSender};
use crate::client::error::{ClientError, ClientResult};
use crate::error::ImksError;

/// The connections that are there. Cloning it is cheap, and all clones are the same registry.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<RwLock<Registered>>);

#[derive(Debug, Default)]
struct Registered {
    next: u64,
    senders: BTreeMap<u64, RawSender>,
    rooms: BTreeMap<Arc<str>, BTreeSet<u64>>,
    /// The rooms of each connection that is in one, so that whoever leaves looks at no others.
    memberships: BTreeMap<u64, BTreeSet<Arc<str>>>,
}

/// What became of a message for many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// How many connections will send it.
    pub accepted: usize,
    /// The numbers of those for which so much waits already that they do not get it.
    pub too_slow: Vec<u64>,
}

impl Registry {
    /// Creates a registry without connections.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a connection, and returns its number.
    pub fn add(&self, connection: &RawConnection) -> u64 {
        let mut registered = self.0.write();
        registered.next += 1;
        let number = registered.next;
        registered.senders.insert(number, connection.sender());
        number
    }

    /// Removes a connection, from its rooms too. Returns whether it was there.
    pub fn remove(&self, number: u64) -> bool {
        let mut registered = self.0.write();
        let Registered { senders, rooms, memberships, .. } = &mut *registered;
        for room in memberships.remove(&number).into_iter().flatten() {
            vacate(rooms, &room, number);
        }
        senders.remove(&number).is_some()
    }

    fn remove_all(&self, numbers: Vec<u64>) {
        for number in numbers {
            self.remove(number);
        }
    }

    /// Puts a connection into a room, which exists while somebody is in it. Returns whether the connection is there and
    /// was not in it.
    ///
    /// # Errors
    /// [`ClientError::Full`] if the connection is in 256 rooms; [`ClientError::InvalidMessage`] if the name of the room has
    /// more than 256 bytes, because most names come from clients.
    pub fn join(&self, number: u64, room: &str) -> ClientResult<bool> {
        if room.len() > ROOM_BYTES_MAX {
            return Err(ClientError::invalid(ImksError::LimitReached("bytes of the name of a room")));
        }
        let mut registered = self.0.write();
        let Registered { senders, rooms, memberships, .. } = &mut *registered;
        let own = memberships.get(&number);
        if !senders.contains_key(&number) || own.is_some_and(|own| own.contains(room)) {
            return Ok(false);
        }
        if own.is_some_and(|own| own.len() == ROOMS_MAX) {
            return Err(ClientError::Full);
        }
        let room = rooms.get_key_value(room).map_or_else(|| room.into(), |(known, _)| known.clone());
        rooms.entry(room.clone()).or_default().insert(number);
        memberships.entry(number).or_default().insert(room);
        Ok(true)
    }

    /// Takes a connection out of a room. Returns whether it was in it.
    pub fn leave(&self, number: u64, room: &str) -> bool {
        let mut registered = self.0.write();
        let Registered { rooms, memberships, .. } = &mut *registered;
        let Some(own) = memberships.get_mut(&number) else { return false };
        if !own.remove(room) {
            return false;
        }
        if own.is_empty() {
            memberships.remove(&number);
        }
        vacate(rooms, room, number);
        true
    }

    /// Whether a connection is in a room.
    pub fn is_in(&self, number: u64, room: &str) -> bool {
        self.0.read().rooms.get(room).is_some_and(|members| members.contains(&number))
    }

    /// Returns the numbers of the connections in a room.
    pub fn members(&self, room: &str) -> Vec<u64> {
        self.0.read().rooms.get(room).into_iter().flatten().copied().collect()
    }

    /// Returns the handle of a connection.
    pub fn get(&self, number: u64) -> Option<RawSender> {
        self.0.read().senders.get(&number).cloned()
    }

    /// Returns how many connections are there.
    pub fn len(&self) -> usize {
        self.0.read().senders.len()
    }

    /// Whether no connection is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends a message to all connections but one. It waits for nobody: a connection for which 64 messages wait is left
    /// out, and one that is gone is removed. A message that cannot be sent, such as a ping of more than 125 bytes, reaches
    /// nobody. All connections share its bytes.
    pub fn broadcast_except(&self, message: &Message, except: Option<u64>) -> Sent {
        let Ok(frame) = message.clone().into_frame() else { return Sent::default() };
        let (sent, gone) = send(&frame, self.0.read().senders.iter(), except);
        self.remove_all(gone);
        sent
    }

    /// Sends a message to all connections in a room but one, as [`Registry::broadcast_except`] does.
    pub fn broadcast_to_room(&self, room: &str, message: &Message, except: Option<u64>) -> Sent {
        let Ok(frame) = message.clone().into_frame() else { return Sent::default() };
        let (sent, gone) = {
            let registered = self.0.read();
            let members = registered.rooms.get(room).into_iter().flatten();
            send(&frame, members.filter_map(|number| registered.senders.get_key_value(number)), except)
        };
        self.remove_all(gone);
        sent
    }
}

/// Takes a connection out of a room, which is gone with the last one.
fn vacate(rooms: &mut BTreeMap<Arc<str>, BTreeSet<u64>>, room: &str, number: u64) {
    let Some(members) = rooms.get_mut(room) else { return };
    members.remove(&number);
    if members.is_empty() {
        rooms.remove(room);
    }
}

/// Sends a frame to some connections but one. Also returns those that are gone.
fn send<'a>(
    frame: &Frame,
    senders: impl Iterator<Item = (&'a u64, &'a RawSender)>,
    except: Option<u64>,
) -> (Sent, Vec<u64>) {
    let (mut sent, mut gone) = (Sent::default(), Vec::new());
    for (number, sender) in senders.filter(|(number, _)| Some(**number) != except) {
        match sender.try_send_frame(frame.clone()) {
            Ok(()) => sent.accepted += 1,
            Err(ClientError::Full) => sent.too_slow.push(*number),
            Err(_) => gone.push(*number),
        }
    }
    (sent, gone)
}

/// The maximum number of rooms that one connection is in.
const ROOMS_MAX: usize = 256;

/// The maximum number of bytes in the name of a room.
const ROOM_BYTES_MAX: usize = 256;
