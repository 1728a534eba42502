//! The memberships of a socket: the rooms that it has joined.
//!
//! They have a lock of their own, apart from the buffer of a joining socket: a join holds this lock while it waits for
//! the lock of the room, and a broadcast holds the lock of the room while it buffers packets.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::phase::Phase;
use super::rooms::Membership;

/// The rooms of one socket, except its own.
pub(super) struct Memberships<M>(Mutex<HashMap<Arc<str>, Membership<M>>>);

impl<M> Default for Memberships<M> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<M> Memberships<M> {
    /// Adds a room with `join`, unless the socket is closed or already in the room. Returns the name of the
    /// room and the outcome of `join`.
    pub(super) fn add<R>(
        &self,
        room: &str,
        phase: &Phase,
        join: impl FnOnce() -> (Membership<M>, R),
    ) -> Option<(Arc<str>, R)> {
        let mut rooms = self.0.lock();
        // Checked under the lock, because a closed socket's rooms are taken under it afterwards.
        if phase.is_closed() || rooms.contains_key(room) {
            return None;
        }
        let (membership, outcome) = join();
        let name = membership.room().clone();
        rooms.insert(name.clone(), membership);
        Some((name, outcome))
    }

    /// Removes a room. Returns the membership, which must be given back to the room.
    pub(super) fn remove(&self, room: &str) -> Option<Membership<M>> {
        self.0.lock().remove(room)
    }

    /// Whether the socket has joined the room.
    pub(super) fn contains(&self, room: &str) -> bool {
        self.0.lock().contains_key(room)
    }

    /// Returns the number of rooms.
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Returns the names of the rooms.
    pub(super) fn rooms(&self) -> Vec<Arc<str>> {
        self.0.lock().keys().cloned().collect()
    }

    /// Removes and returns all memberships.
    pub(super) fn take(&self) -> HashMap<Arc<str>, Membership<M>> {
        std::mem::take(&mut *self.0.lock())
    }
}
