//! A socket of any node, as far as other nodes may see it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::ack_collector::Answers;
use super::broadcast::Broadcast;
use super::namespace::Namespace;
use super::socket::Socket;
use super::socket_info::{RemoteHandshake, SocketInfo};
use crate::error::{ImksError, ImksResult};
use crate::node::NodeId;
use crate::socket::codec::arguments::{Arguments, One};
use crate::socket::codec::packet::Args;

/// A socket of this node or another one: a snapshot of the facts, and means to reach it.
#[derive(Debug, Clone)]
pub struct RemoteSocket {
    info: Arc<SocketInfo>,
    node: NodeId,
    namespace: Namespace,
}

/// What [`Broadcast::fetch_sockets`] found.
#[derive(Debug)]
pub struct FetchedSockets {
    /// Of all nodes that replied.
    pub sockets: Vec<RemoteSocket>,
    /// Nodes that did not say all in time.
    pub silent: Vec<NodeId>,
}

impl RemoteSocket {
    /// The snapshot of a socket of this node.
    pub(crate) fn of(socket: &Socket) -> Self {
        let info = SocketInfo {
            id: socket.socket_id(),
            handshake: RemoteHandshake::of(socket.handshake()),
            rooms: socket.rooms().iter().map(|room| room.to_string()).collect(),
            data: socket.shared_data(),
        };
        Self::new(info, socket.namespace().cluster().node(), socket.namespace())
    }

    /// The snapshot of a socket of any node.
    pub(crate) fn new(info: SocketInfo, node: NodeId, namespace: &Namespace) -> Self {
        Self { info: Arc::new(info), node, namespace: namespace.clone() }
    }

    /// The facts, as they travel between nodes.
    pub(crate) fn info(&self) -> &SocketInfo {
        &self.info
    }

    /// Public id, unique in the cluster.
    pub fn id(&self) -> &str {
        self.info.id.as_str()
    }

    /// The node it is connected to.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What the client told about itself.
    pub fn handshake(&self) -> &RemoteHandshake {
        &self.info.handshake
    }

    /// Its rooms when it was fetched, the room of its own id included.
    pub fn rooms(&self) -> &[String] {
        &self.info.rooms
    }

    /// What its node keeps with [`Socket::share_data`], as one JSON object.
    pub fn data(&self) -> &serde_json::Value {
        &self.info.data
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
        let answer = answers.into_iter().find(|answer| answer.socket == self.info.id);
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
