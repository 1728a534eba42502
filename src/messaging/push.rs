//! Events that the server sends.

use std::marker::PhantomData;

use serde::Serialize;
use uuid::Uuid;

use crate::ImksResult;
use crate::socket::{Namespace, Socket};

/// An event that the server sends, with the type of its payload.
pub struct Push<T: ?Sized> {
    name: &'static str,
    payload: PhantomData<T>,
}

impl<T: Serialize + ?Sized> Push<T> {
    /// Creates an event with this name.
    pub const fn new(name: &'static str) -> Self {
        Self { name, payload: PhantomData }
    }

    /// Returns the name of the event.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Sends the event to all devices of a user.
    pub(super) fn to_user(&self, namespace: &Namespace, user: Uuid, payload: &T) {
        self.log(namespace.emit_to_room(&user_room(user), self.name, payload));
    }

    /// Sends the event to all devices of the socket's user except this one. Creates the payload only if there
    /// can be others.
    pub(super) fn to_other_devices(&self, socket: &Socket, user: Uuid, payload: impl FnOnce() -> T)
    where
        T: Sized,
    {
        let room = user_room(user);
        let namespace = socket.namespace();
        let others = namespace.rooms().get(&room).is_some_and(|room| room.len() > 1);
        if others || !namespace.cluster().others().is_empty() {
            self.log(socket.to(&room).emit(self.name, &payload()));
        }
    }

    /// Sends the event to everybody in a room, on all nodes. Clients that cannot take it right then get the last one with
    /// this key, or miss it.
    pub(super) fn to_room(&self, namespace: &Namespace, room: &str, key: &str, payload: &T) {
        self.log(namespace.to(room).volatile().latest(key).emit(self.name, payload));
    }

    /// Sends the event to everybody in a room except one socket, on all nodes, as [`Push::to_room`] does.
    pub(super) fn to_room_except(&self, socket: &Socket, room: &str, key: &str, payload: &T) {
        self.log(socket.to(room).volatile().latest(key).emit(self.name, payload));
    }

    /// Sends the event to everybody in a room except the devices of one user, on all nodes, as [`Push::to_room`] does.
    pub(super) fn to_others_in_room(&self, namespace: &Namespace, room: &str, user: Uuid, payload: &T) {
        let key = format!("{}:{user}", self.name);
        let others =
            namespace.to(room).except(&user_room(user)).volatile().latest(&key).emit(self.name, payload);
        self.log(others);
    }

    /// Sends the event to the sockets of this node in a room. Clients that do not keep up get the last one.
    pub(super) fn to_local_room(&self, namespace: &Namespace, room: &str, payload: &T) {
        self.log(namespace.to(room).local().latest(self.name).emit(self.name, payload));
    }

    /// Sends the event to the sockets of this node that are in any of the rooms, once each.
    pub(super) fn to_local_rooms(&self, namespace: &Namespace, rooms: &[String], payload: &T) {
        let Some((first, others)) = rooms.split_first() else { return };
        let all = others.iter().fold(namespace.to(first), |all, room| all.to(room));
        self.log(all.local().emit(self.name, payload));
    }

    /// Sends the event to everybody in any of the rooms except one socket, once each, on all nodes.
    pub(super) fn to_rooms_but(&self, socket: &Socket, rooms: &[String], payload: &T) {
        let Some((first, others)) = rooms.split_first() else { return };
        let all = others.iter().fold(socket.to(first), |all, room| all.to(room));
        self.log(all.emit(self.name, payload));
    }

    /// Sends the event to all devices of a user except this one.
    pub(super) fn to_devices_but(&self, socket: &Socket, user: Uuid, payload: &T) {
        self.log(socket.to(&user_room(user)).emit(self.name, payload));
    }

    /// Sends the event to one socket.
    pub(super) fn to_socket(&self, socket: &Socket, payload: &T) {
        self.log(socket.emit(self.name, payload));
    }

    /// Logs a failure, since no caller waits for it. A client that missed an event learns of it by `sync`.
    fn log(&self, outcome: ImksResult<()>) {
        if let Err(error) = outcome {
            tracing::debug!(event = self.name, %error, "event not sent");
        }
    }
}

/// Returns the room of all devices of a user. The prefix separates it from the rooms of channels: bare ids.
pub fn user_room(user: Uuid) -> String {
    format!("user:{user}")
}
