//! A socket of any node, as other nodes see it.

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
use crate::socket::socket_id::SocketId;

/// A socket of this node or another one: a snapshot of its state, and methods to reach it.
#[derive(Debug, Clone)]
pub struct RemoteSocket {
    info: Arc<SocketInfo>,
    node: NodeId,
    namespace: Namespace,
}

/// The result of [`Broadcast::fetch_sockets`].
#[derive(Debug)]
pub struct FetchedSockets {
    /// The sockets of all nodes that responded.
    pub sockets: Vec<RemoteSocket>,
    /// The nodes that did not send all of their sockets in time.
    pub silent: Vec<NodeId>,
}

impl RemoteSocket {
    /// Creates the snapshot of a socket of this node.
    pub(crate) fn of(socket: &Socket) -> Self {
        let info = SocketInfo {
            id: socket.socket_id(),
            handshake: RemoteHandshake::of(socket.handshake()),
            rooms: socket.rooms().iter().map(|room| room.to_string()).collect(),
            data: socket.shared_data(),
        };
        Self::new(info, socket.namespace().cluster().node(), socket.namespace())
    }

    /// Creates the snapshot of a socket of any node.
    pub(crate) fn new(info: SocketInfo, node: NodeId, namespace: &Namespace) -> Self {
        Self { info: Arc::new(info), node, namespace: namespace.clone() }
    }

    /// Returns the snapshot in the form in which nodes exchange it.
    pub(crate) fn info(&self) -> &SocketInfo {
        &self.info
    }

    /// Returns the public id, which is unique in the cluster.
    pub fn id(&self) -> &str {
        self.info.id.as_str()
    }

    /// Returns the node that the socket is connected to.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Returns the client's handshake.
    pub fn handshake(&self) -> &RemoteHandshake {
        &self.info.handshake
    }

    /// Returns the rooms at the time of the snapshot, including the socket's own room.
    pub fn rooms(&self) -> &[String] {
        &self.info.rooms
    }

    /// Returns the data that its node shares with [`Socket::share_data`], as one JSON object.
    pub fn data(&self) -> &serde_json::Value {
        &self.info.data
    }

    /// Sends an event with one argument to the socket.
    pub fn emit(&self, event: &str, data: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.emit_args(event, &One(data))
    }

    /// Sends an event with any arguments to the socket.
    pub fn emit_args(&self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        self.reach().emit_args(event, args)
    }

    /// Sends an event to the socket and waits for the ack, for at most `timeout`.
    ///
    /// # Errors
    /// [`ImksError::Timeout`] if no ack arrives.
    pub async fn emit_with_ack(
        &self,
        event: &str,
        args: &impl Arguments,
        timeout: Duration,
    ) -> ImksResult<Args> {
        let Answers { answers, .. } = self.reach().emit_with_ack(event, args, timeout).await?;
        let answer =
            answers.into_iter().find(|answer| [self.info.id, SocketId::UNNAMED].contains(&answer.socket));
        answer.map(|answer| answer.args).ok_or(ImksError::Timeout("the client did not acknowledge in time"))
    }

    /// Makes the socket join a room.
    pub fn join(&self, room: &str) -> ImksResult<()> {
        self.reach().sockets_join(room)
    }

    /// Makes the socket leave a room.
    pub fn leave(&self, room: &str) -> ImksResult<()> {
        self.reach().sockets_leave(room)
    }

    /// Removes the socket from the namespace and, with `close`, closes its connection.
    pub fn disconnect(&self, close: bool) -> ImksResult<()> {
        self.reach().disconnect_sockets(close)
    }

    fn reach(&self) -> Broadcast<'_> {
        self.namespace.to(self.id())
    }
}
