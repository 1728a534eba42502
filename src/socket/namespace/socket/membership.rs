//! A socket and its rooms.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{CLOSED, Socket};
use crate::socket::namespace::builder::RoomChange;
use crate::socket::namespace::rooms::Entered;

impl Socket {
    /// Enters a room. Does nothing once disconnected.
    pub fn join(&self, room: &str) {
        let entered = match self.session() {
            Some((store, link)) => store.join(link, || self.enter(room)),
            None => self.enter(room),
        };
        if let Some((_, created)) = entered {
            self.tell_entered(room, created);
        }
    }

    /// The room's name and whether it is new, unless the socket is in it already or gone.
    pub(crate) fn enter(&self, room: &str) -> Option<(Arc<str>, bool)> {
        let mut rooms = self.0.rooms.lock();
        // Checked under the lock: whoever closes the socket empties the map under it afterwards.
        if self.0.state.load(Ordering::Acquire) == CLOSED || rooms.contains_key(room) {
            return None;
        }
        let Entered { membership, created } = self.0.namespace.rooms().join(Arc::from(room), self.clone());
        let name = membership.room().clone();
        rooms.insert(name.clone(), membership);
        Some((name, created))
    }

    pub(crate) fn tell_entered(&self, room: &str, created: bool) {
        if let Some(hook) = &self.0.namespace.hooks().room {
            if created {
                hook(self, RoomChange::Created(room));
            }
            hook(self, RoomChange::Joined(room));
        }
    }

    /// Leaves a room.
    pub fn leave(&self, room: &str) {
        let exit = || {
            let membership = self.0.rooms.lock().remove(room)?;
            Some(self.0.namespace.rooms().leave(membership))
        };
        let left = match self.session() {
            Some((store, link)) => store.leave(link, room, exit),
            None => exit(),
        };
        if let Some(deleted) = left {
            self.tell_left(room, deleted);
        }
    }

    pub(super) fn tell_left(&self, room: &str, deleted: bool) {
        let Some(hook) = &self.0.namespace.hooks().room else { return };
        hook(self, RoomChange::Left(room));
        if deleted {
            hook(self, RoomChange::Deleted(room));
        }
    }

    /// Whether it is in a room; everybody is in the room of their own id.
    pub fn is_in(&self, room: &str) -> bool {
        room == self.id() || self.0.rooms.lock().contains_key(room)
    }

    /// Its rooms, the room of its own id included.
    pub fn rooms(&self) -> Vec<Arc<str>> {
        let mut rooms: Vec<_> = self.0.rooms.lock().keys().cloned().collect();
        rooms.push(Arc::from(self.id()));
        rooms
    }
}
