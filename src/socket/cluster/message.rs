//! Cluster messages: the closed set of messages between nodes, in any family. Received ones are untrusted.

use serde::{Deserialize, Serialize};

use crate::node::NodeId;
use crate::socket::namespace::cluster_link::{Operation, PacketData, Target};
use crate::socket::namespace::socket_info::SocketInfo;
use crate::socket::socket_id::SocketId;

/// A message and the node that sent it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClusterMessage<'a> {
    /// The sender. A node ignores its own messages.
    pub(crate) node: NodeId,
    #[serde(borrow)]
    pub(crate) body: Body<'a>,
}

/// The content of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Body<'a> {
    /// A new node announces itself; all others respond with a heartbeat.
    Hello,
    /// A node is alive.
    Heartbeat,
    /// A node leaves the cluster.
    Bye,
    /// Every node applies the operation to its sockets.
    Operation {
        /// Where the operation stands among those of its process. Older versions do not say it.
        #[serde(default)]
        place: Option<Place>,
        namespace: &'a str,
        #[serde(borrow)]
        target: Target<'a>,
        #[serde(borrow)]
        operation: Operation<'a>,
    },
    /// Every node responds to the request.
    Request {
        id: u64,
        namespace: &'a str,
        #[serde(borrow)]
        request: Request<'a>,
    },
    /// A response to the requester.
    Response {
        id: u64,
        #[serde(borrow)]
        response: Response<'a>,
    },
}

/// The place of an operation among those of a process. Each has a higher number than the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// A random number of the process: one that begins again under the same name of its node counts anew.
    pub(crate) process: u32,
    pub(crate) number: u64,
}

/// A request to all other nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Request<'a> {
    /// Asks for sockets. The response is `Sockets`.
    FetchSockets {
        #[serde(borrow)]
        target: Target<'a>,
    },
    /// Sends a server event. The response is `ServerAck` if `ack` is set.
    ServerSideEmit {
        #[serde(borrow)]
        event: PacketData<'a>,
        ack: bool,
    },
    /// Sends an event with ack. The response is `AckRequested` at once, then `Ack` or `NoAck` for each
    /// socket.
    EmitWithAck {
        #[serde(borrow)]
        target: Target<'a>,
        #[serde(borrow)]
        event: PacketData<'a>,
        timeout_millis: u64,
    },
}

/// A response of one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Response<'a> {
    /// Part `part` of `parts`, counted from 0.
    Sockets { part: u32, parts: u32, sockets: Vec<SocketInfo> },
    /// The answer of a handler. `None` if the node does not handle the event, or its handler did not answer.
    ServerAck {
        #[serde(borrow)]
        ack: Option<PacketData<'a>>,
    },
    /// The sockets that got the event.
    AckRequested { sockets: Vec<SocketId> },
    /// A client answered.
    Ack {
        socket: SocketId,
        #[serde(borrow)]
        ack: PacketData<'a>,
    },
    /// A client left or cannot be asked.
    NoAck { socket: SocketId },
}
