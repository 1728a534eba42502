//! One event for many sockets, on all nodes.

use serde::Serialize;
use smallvec::SmallVec;

use super::message_bus::{Operation, Target};
use super::namespace::Namespace;
use super::parser::{self, Arguments, One};
use super::socket::Socket;
use crate::error::ImksResult;

/// Chooses who gets an event, then sends it: the union of the rooms, each socket once, minus the exceptions.
#[derive(Debug)]
#[must_use = "nothing is sent before `emit`"]
pub struct Broadcast<'a> {
    namespace: &'a Namespace,
    rooms: SmallVec<[&'a str; 2]>,
    except: SmallVec<[&'a str; 2]>,
    sender: Option<&'a Socket>,
    volatile: bool,
}

impl<'a> Broadcast<'a> {
    pub(super) fn new(namespace: &'a Namespace) -> Self {
        Self { namespace, rooms: SmallVec::new(), except: SmallVec::new(), sender: None, volatile: false }
    }

    pub(super) fn without(mut self, sender: &'a Socket) -> Self {
        self.sender = Some(sender);
        self
    }

    /// Those in this room as well.
    pub fn to(mut self, room: &'a str) -> Self {
        self.rooms.push(room);
        self
    }

    /// Not those in this room.
    pub fn except(mut self, room: &'a str) -> Self {
        self.except.push(room);
        self
    }

    /// Dropped for each client that cannot take it right now.
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// Sends an event with one argument. It is encoded once, for all clients of all nodes.
    pub fn emit(self, event: &str, data: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.emit_args(event, &One(data))
    }

    /// Sends an event with any arguments. It is encoded once, for all clients of all nodes.
    pub fn emit_args(self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        let frames = parser::encode_event(self.namespace.path(), None, event, args)?;
        self.execute(&Operation::Broadcast { frames: &frames, volatile: self.volatile })
    }

    /// Makes them all enter a room.
    pub fn sockets_join(self, room: &str) -> ImksResult<()> {
        self.execute(&Operation::Join { room })
    }

    /// Makes them all leave a room.
    pub fn sockets_leave(self, room: &str) -> ImksResult<()> {
        self.execute(&Operation::Leave { room })
    }

    /// Makes them all leave the namespace; with `close` their connections end.
    pub fn disconnect_sockets(self, close: bool) -> ImksResult<()> {
        self.execute(&Operation::Disconnect { close })
    }

    fn execute(&self, operation: &Operation<'_>) -> ImksResult<()> {
        let target = Target { rooms: &self.rooms, except: &self.except };
        self.namespace.bus().execute(self.namespace, &target, self.sender, operation)
    }
}
