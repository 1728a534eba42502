//! One event for many sockets, on all nodes.

use std::time::Duration;

use serde::Serialize;
use smallvec::SmallVec;

use super::ack_collector::Answers;
use super::namespace::Namespace;
use super::remote_socket::FetchedSockets;
use super::socket::Socket;
use crate::error::ImksResult;
use crate::socket::cluster::message_bus::{MessageBus, Operation, Reach, Target};
use crate::socket::cluster::requests::Asked;
use crate::socket::codec::dialect::with_compression;
use crate::socket::codec::parser::{self, Arguments, One};
use crate::socket::recovery::event::Unstamped;

/// Chooses who gets an event, then sends it: the union of the rooms, each socket once, minus the exceptions.
#[derive(Debug)]
#[must_use = "nothing is sent before `emit`"]
pub struct Broadcast<'a> {
    namespace: &'a Namespace,
    rooms: SmallVec<[&'a str; 2]>,
    except: SmallVec<[&'a str; 2]>,
    sender: Option<&'a Socket>,
    volatile: bool,
    local: bool,
    compress: bool,
}

impl<'a> Broadcast<'a> {
    pub(crate) fn new(namespace: &'a Namespace) -> Self {
        Self {
            namespace,
            rooms: SmallVec::new(),
            except: SmallVec::new(),
            sender: None,
            volatile: false,
            local: false,
            compress: true,
        }
    }

    pub(crate) fn without(mut self, sender: &'a Socket) -> Self {
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

    /// Only those connected to this node.
    pub fn local(mut self) -> Self {
        self.local = true;
        self
    }

    /// Whether the event may be compressed on its way, which is so unless it is said otherwise here. On a WebSocket it
    /// is where [`Config::per_message_deflate`](crate::engine::Config::per_message_deflate) is on and the client can; a
    /// polling answer is, if some packet in it may be.
    pub fn compress(mut self, compress: bool) -> Self {
        self.compress = compress;
        self
    }

    /// Asks them all with one event, and waits until everybody answered or left, for at most `timeout`. What is
    /// there by then is the result, which also names who did not answer.
    pub async fn emit_with_ack(
        self,
        event: &str,
        args: &impl Arguments,
        timeout: Duration,
    ) -> ImksResult<Answers> {
        let asked = self.bus().ask(
            self.namespace,
            &self.target(),
            self.sender,
            Asked { event, args, compress: self.compress },
            self.scope(timeout),
        )?;
        Ok(asked.answers(timeout).await)
    }

    /// The sockets of all nodes, with what their nodes tell about them. Other nodes are given
    /// [`Config::request_timeout`](crate::socket::Config::request_timeout).
    pub async fn fetch_sockets(self) -> ImksResult<FetchedSockets> {
        let asked = self.bus().fetch(self.namespace, &self.target(), self.sender, self.local)?;
        Ok(asked.sockets().await)
    }

    /// Sends an event with one argument. It is encoded once, for all clients of all nodes.
    pub fn emit(self, event: &str, data: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.emit_args(event, &One(data))
    }

    /// Sends an event with any arguments. It is encoded once, for all clients of all nodes.
    pub fn emit_args(self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        if let Some(store) = self.namespace.sessions().filter(|_| !self.volatile) {
            let event = Unstamped::event(self.namespace.path(), event, args)?;
            let event = event.with_compression(self.compress);
            let (target, reach) = (self.target(), self.reach());
            return self.bus().publish(store, self.namespace, &target, self.sender, event, reach);
        }
        let frames = parser::encode_event(self.namespace.path(), None, event, args)?;
        let frames = with_compression(frames, self.compress);
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
        self.bus().execute(self.namespace, &self.target(), self.sender, operation, self.reach())
    }

    fn reach(&self) -> Reach {
        if self.local { Reach::Local } else { Reach::All }
    }

    fn scope(&self, timeout: Duration) -> Option<Duration> {
        (!self.local).then_some(timeout)
    }

    fn target(&self) -> Target<'_> {
        Target { rooms: &self.rooms, except: &self.except }
    }

    fn bus(&self) -> &'a MessageBus {
        self.namespace.bus()
    }
}
