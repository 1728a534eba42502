//! A socket of any node, as far as other nodes may see it.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ack_collector::Answers;
use super::broadcast::Broadcast;
use super::namespace::Namespace;
use super::socket::Socket;
use crate::clock::Micros;
use crate::engine::Handshake;
use crate::error::{ImksError, ImksResult};
use crate::socket::cluster::wire::{WireSocket, parse_id};
use crate::socket::codec::packet::Args;
use crate::socket::codec::parser::{Arguments, One};
use crate::socket::socket_id::{NodeId, SocketId};

/// A socket of this node or another one: a snapshot of the facts, and means to reach it.
#[derive(Debug, Clone)]
pub struct RemoteSocket {
    pub(crate) id: SocketId,
    pub(crate) node: NodeId,
    pub(crate) namespace: Namespace,
    pub(crate) handshake: Arc<RemoteHandshake>,
    pub(crate) rooms: Vec<String>,
    pub(crate) data: serde_json::Value,
}

/// What [`Broadcast::fetch_sockets`] found.
#[derive(Debug)]
pub struct FetchedSockets {
    /// Of all nodes that replied.
    pub sockets: Vec<RemoteSocket>,
    /// Nodes that did not say all in time.
    pub silent: Vec<NodeId>,
}

/// What a client told about itself when it opened its connection. Without the `auth` option: secrets do not
/// travel between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteHandshake {
    /// Address and port of the other end.
    pub address: String,
    /// Path and query of the first request.
    pub url: String,
    /// Whether it came over TLS.
    pub secure: bool,
    /// When it came, in microseconds since 1970.
    pub issued: Micros,
    /// The transport it came over.
    pub transport: String,
    /// Whether it came from a page of another origin.
    pub xdomain: bool,
    /// Headers in their order, names in lower case; those with credentials left out: `authorization`,
    /// `proxy-authorization` and `cookie`.
    pub headers: Vec<(String, String)>,
}

impl RemoteHandshake {
    pub(crate) fn of(handshake: &Handshake) -> Self {
        let public = handshake.headers().filter(|(name, _)| !SECRET_HEADERS.contains(name));
        Self {
            address: handshake.peer.to_string(),
            url: handshake.url().to_owned(),
            secure: handshake.secure,
            issued: handshake.issued,
            transport: handshake.transport.name().to_owned(),
            xdomain: handshake.xdomain(),
            headers: public.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }
}

impl RemoteSocket {
    pub(crate) fn of(socket: &Socket, node: NodeId) -> Self {
        Self {
            id: socket.socket_id(),
            node,
            namespace: socket.namespace().clone(),
            handshake: Arc::new(RemoteHandshake::of(socket.handshake())),
            rooms: socket.rooms().iter().map(|room| room.to_string()).collect(),
            data: socket.shared_data(),
        }
    }

    pub(crate) fn from_wire(wire: WireSocket<'_>, node: NodeId, namespace: &Namespace) -> ImksResult<Self> {
        Ok(Self {
            id: parse_id(wire.id)?,
            node,
            namespace: namespace.clone(),
            handshake: Arc::new(wire.handshake),
            rooms: wire.rooms,
            data: serde_json::from_str(&wire.data)?,
        })
    }

    pub(crate) fn to_wire(&self) -> WireSocket<'_> {
        WireSocket {
            id: self.id(),
            rooms: self.rooms.clone(),
            handshake: RemoteHandshake::clone(&self.handshake),
            data: self.data.to_string(),
        }
    }

    /// Public id, unique in the cluster.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// The node it is connected to.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What the client told about itself.
    pub fn handshake(&self) -> &RemoteHandshake {
        &self.handshake
    }

    /// Its rooms when it was fetched, the room of its own id included.
    pub fn rooms(&self) -> &[String] {
        &self.rooms
    }

    /// What its node keeps with [`Socket::share_data`], as one JSON object.
    pub fn data(&self) -> &serde_json::Value {
        &self.data
    }

    /// Sends it an event with one argument.
    pub fn emit(&self, event: &str, data: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.emit_args(event, &One(data))
    }

    /// Sends it an event with any arguments.
    pub fn emit_args(&self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        self.reach().emit_args(event, args)
    }

    /// Sends it an event and waits for its answer, for at most `timeout`.
    ///
    /// # Errors
    /// [`ImksError::Timeout`] without an answer.
    pub async fn emit_with_ack(
        &self,
        event: &str,
        args: &impl Arguments,
        timeout: Duration,
    ) -> ImksResult<Args> {
        let Answers { answers, .. } = self.reach().emit_with_ack(event, args, timeout).await?;
        let answer = answers.into_iter().find(|answer| answer.socket == self.id);
        answer.map(|answer| answer.args).ok_or(ImksError::Timeout("the client did not acknowledge in time"))
    }

    /// Makes it enter a room.
    pub fn join(&self, room: &str) -> ImksResult<()> {
        self.reach().sockets_join(room)
    }

    /// Makes it leave a room.
    pub fn leave(&self, room: &str) -> ImksResult<()> {
        self.reach().sockets_leave(room)
    }

    /// Makes it leave the namespace; with `close` its connection ends.
    pub fn disconnect(&self, close: bool) -> ImksResult<()> {
        self.reach().disconnect_sockets(close)
    }

    fn reach(&self) -> Broadcast<'_> {
        self.namespace.to(self.id())
    }
}

/// Headers that are nobody else's business.
const SECRET_HEADERS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];
