//! What nodes say to each other: one closed set of messages, whatever family carries them. Input is hostile.

use serde::{Deserialize, Serialize};

use crate::node::NodeId;
use crate::socket::namespace::cluster_link::{Operation, PacketData, Target};
use crate::socket::namespace::socket_info::SocketInfo;
use crate::socket::socket_id::SocketId;

/// One message and the node that sent it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClusterMessage<'a> {
    /// A node ignores its own messages.
    pub(crate) node: NodeId,
    #[serde(borrow)]
    pub(crate) body: Body<'a>,
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Body<'a> {
    /// A node is new; all others answer with a heartbeat.
    Hello,
    /// A node is there.
    Heartbeat,
    /// A node leaves.
    Bye,
    /// Every node does this to its sockets.
    Operation {
        namespace: &'a str,
        #[serde(borrow)]
        target: Target<'a>,
        #[serde(borrow)]
        operation: Operation<'a>,
    },
    /// Every node answers this.
    Request {
        id: u64,
        namespace: &'a str,
        #[serde(borrow)]
        request: Request<'a>,
    },
    /// To the node that asked.
    Response {
        id: u64,
        #[serde(borrow)]
        response: Response<'a>,
    },
}

/// What a node asks all others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Request<'a> {
    /// Answered with `Sockets`.
    FetchSockets {
        #[serde(borrow)]
        target: Target<'a>,
    },
    /// Answered with `ServerAck` if an answer is wanted.
    ServerSideEmit {
        #[serde(borrow)]
        event: PacketData<'a>,
        ack: bool,
    },
    /// Answered with `AckRequested` at once, then with `Ack` or `NoAck` for each socket.
    EmitWithAck {
        #[serde(borrow)]
        target: Target<'a>,
        #[serde(borrow)]
        event: PacketData<'a>,
        timeout_millis: u64,
    },
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Response<'a> {
    /// Part `part` of `parts`, counted from 0.
    Sockets { part: u32, parts: u32, sockets: Vec<SocketInfo> },
    /// Without an answer: the node does not know the event, or its handler did not answer.
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
    /// A client left, or cannot be asked.
    NoAck { socket: SocketId },
}
