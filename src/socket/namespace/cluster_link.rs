//! What a namespace asks of the other nodes, without knowing how they are reached.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ack_collector::AckCollector;
use super::socket_info::SocketInfo;
use crate::bus::BoxFuture;
use crate::error::ImksResult;
use crate::node::NodeId;
use crate::socket::codec::encoder::EncodedPacket;
use crate::socket::codec::packet::{Args, PacketType};

/// The other nodes, as a namespace sees them.
pub(crate) trait ClusterLink: Send + Sync {
    /// Name of this node.
    fn node(&self) -> NodeId;

    /// Whether there can be other nodes.
    fn reaches_others(&self) -> bool;

    /// Nodes known to be alive, this one not counted.
    fn others(&self) -> Vec<NodeId>;

    /// Makes all other nodes do the same to their sockets.
    fn publish(&self, namespace: &str, target: &Target<'_>, operation: &Operation<'_>) -> ImksResult<()>;

    /// Sends an event to clients of all other nodes, whose acks go to `acks` until the guard is dropped.
    fn request_acks(
        &self,
        namespace: &str,
        target: &Target<'_>,
        event: &EncodedPacket,
        timeout: Duration,
        acks: Arc<AckCollector>,
    ) -> ImksResult<Guard>;

    /// Asks all other nodes for their sockets.
    fn fetch_sockets(
        &self,
        namespace: &str,
        target: &Target<'_>,
    ) -> ImksResult<BoxFuture<'static, NodeSockets>>;

    /// Sends an event to the handlers of all other nodes.
    fn server_side_emit(&self, namespace: &str, event: &EncodedPacket) -> ImksResult<()>;

    /// Sends an event to the handlers of all other nodes, which answer it.
    fn server_side_emit_with_ack(
        &self,
        namespace: &str,
        event: &EncodedPacket,
        timeout: Duration,
    ) -> ImksResult<BoxFuture<'static, NodeAnswers>>;
}

/// Ends a request when it is dropped.
pub(crate) type Guard = Box<dyn Send + Sync>;

/// Sockets that other nodes named, and the nodes that did not name all of theirs in time.
pub(crate) type NodeSockets = (Vec<(NodeId, SocketInfo)>, Vec<NodeId>);

/// What other nodes answered, and the nodes that did not answer in time.
pub(crate) type NodeAnswers = (Vec<(NodeId, Args)>, Vec<NodeId>);

/// The sockets that are meant: those in any of the rooms (all if there are none) that are in none of the exceptions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Target<'a> {
    #[serde(borrow)]
    pub(crate) rooms: Vec<&'a str>,
    #[serde(borrow)]
    pub(crate) except: Vec<&'a str>,
}

/// What happens to the sockets that are meant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Operation<'a> {
    /// They get an event.
    Broadcast {
        #[serde(borrow)]
        event: PacketData<'a>,
        volatile: bool,
    },
    /// They are changed.
    Change(#[serde(borrow)] Change<'a>),
}

/// How sockets are changed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Change<'a> {
    Join { room: &'a str },
    Leave { room: &'a str },
    Disconnect { close: bool },
}

/// The payload of an event or ack on its way between nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PacketData<'a> {
    /// The array of arguments, behind the name for an event.
    json: &'a str,
    #[serde(borrow)]
    attachments: Vec<&'a serde_bytes::Bytes>,
    /// Whether clients may get it compressed.
    pub(crate) compress: bool,
}

impl<'a> PacketData<'a> {
    /// The payload of a packet.
    pub(crate) fn of(packet: &'a EncodedPacket) -> Self {
        Self {
            json: packet.json(),
            attachments: packet.attachments().map(serde_bytes::Bytes::new).collect(),
            compress: packet.is_compressible(),
        }
    }

    /// Name and arguments of an event, checked as if a client had sent them.
    pub(crate) fn event(&self) -> ImksResult<Args> {
        self.args(PacketType::Event)
    }

    /// Arguments of an ack, checked as if a client had sent them.
    pub(crate) fn ack(&self) -> ImksResult<Args> {
        self.args(PacketType::Ack)
    }

    fn args(&self, kind: PacketType) -> ImksResult<Args> {
        let attachments = self.attachments.iter().map(|bytes| Bytes::copy_from_slice(bytes)).collect();
        Args::from_parts(kind, self.json, attachments)
    }
}

/// Which nodes are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// This one.
    Local,
    /// All.
    Cluster,
}
