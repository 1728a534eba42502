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
    /// An event with this name.
    pub const fn new(name: &'static str) -> Self {
        Self { name, payload: PhantomData }
    }

    /// Sends it to all devices of a user.
    pub(super) fn to_user(&self, namespace: &Namespace, user: Uuid, payload: &T) {
        self.log(namespace.emit_to_room(&user_room(user), self.name, payload));
    }

    /// Sends it to one socket.
    pub(super) fn to_socket(&self, socket: &Socket, payload: &T) {
        self.log(socket.emit(self.name, payload));
    }

    /// Logs a failure. Whoever missed an event learns of it by `sync`; nobody is there to be told now.
    fn log(&self, outcome: ImksResult<()>) {
        if let Err(error) = outcome {
            tracing::debug!(event = self.name, %error, "event not sent");
        }
    }
}

/// The room of all devices of a user. The prefix keeps it apart from channels, whose rooms are bare ids.
pub fn user_room(user: Uuid) -> String {
    format!("user:{user}")
}
