//! The interface through which a namespace reaches the other nodes.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ack_collector::AckCollector;
use super::socket_info::SocketInfo;
use crate::bus::BoxFuture;
use crate::engine::Lane;
use crate::error::ImksResult;
use crate::node::NodeId;
use crate::socket::codec::encoder::EncodedPacket;
use crate::socket::codec::non_json::Note;
use crate::socket::codec::packet::{Args, PacketType};

/// The other nodes, as a namespace sees them.
pub(crate) trait ClusterLink: Send + Sync {
    /// Returns the id of this node.
    fn node(&self) -> NodeId;

    /// Whether there can be other nodes.
    fn reaches_others(&self) -> bool;

    /// Returns the other nodes that are known to be alive.
    fn others(&self) -> Vec<NodeId>;

    /// Returns the other nodes without whose answers an answer of the cluster is not complete. While this node is cut off, these
    /// are more than those that it hears.
    fn asked(&self) -> Vec<NodeId> {
        self.others()
    }

    /// Learns how many other nodes there are, where these do not announce themselves.
    fn count_others(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// Makes all other nodes apply the operation to their sockets.
    fn publish(&self, namespace: &str, target: &Target<'_>, operation: &Operation<'_>) -> ImksResult<()>;

    /// Sends an event to clients of all other nodes. Their acks go to `acks` until the guard is dropped.
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

    /// Asks all other nodes for their rooms, the own rooms of sockets among them.
    fn all_rooms(&self, namespace: &str) -> ImksResult<BoxFuture<'static, NodeRooms>> {
        let fetching = self.fetch_sockets(namespace, &Target::default())?;
        Ok(Box::pin(async move {
            let (sockets, silent) = fetching.await;
            (sockets.into_iter().flat_map(|(_, socket)| socket.rooms).collect(), silent)
        }))
    }

    /// Sends a server event to the handlers of all other nodes.
    fn server_side_emit(&self, namespace: &str, event: &EncodedPacket) -> ImksResult<()>;

    /// Sends a server event to the handlers of all other nodes and collects their answers.
    fn server_side_emit_with_ack(
        &self,
        namespace: &str,
        event: &EncodedPacket,
        timeout: Duration,
    ) -> ImksResult<BoxFuture<'static, NodeAnswers>>;
}

/// A guard that ends a request when it is dropped.
pub(crate) type Guard = Box<dyn Send + Sync>;

/// The sockets of other nodes, and the nodes that did not send all of theirs in time.
pub(crate) type NodeSockets = (Vec<(NodeId, SocketInfo)>, Vec<NodeId>);

/// The rooms of other nodes, and the nodes that did not answer in time.
pub(crate) type NodeRooms = (BTreeSet<String>, Vec<NodeId>);

/// The answers of other nodes, and the nodes that did not answer in time.
pub(crate) type NodeAnswers = (Vec<(NodeId, Args)>, Vec<NodeId>);

/// A selection of sockets: those in any of the rooms (all, if there are no rooms) and in none of the
/// exceptions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Target<'a> {
    #[serde(borrow)]
    pub(crate) rooms: Vec<&'a str>,
    #[serde(borrow)]
    pub(crate) except: Vec<&'a str>,
}

/// An operation on the selected sockets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Operation<'a> {
    /// Sends an event to the selected sockets.
    Broadcast {
        #[serde(borrow)]
        event: PacketData<'a>,
        volatile: bool,
        /// The key of an event that replaces an earlier one. Older versions do not know it, and replace nothing.
        #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
        latest: Option<&'a str>,
        /// The lane in which the event waits. Older versions do not know it, and then it is that of messages.
        #[serde(default, skip_serializing_if = "is_chat")]
        lane: Lane,
    },
    /// Changes the selected sockets.
    Change(#[serde(borrow)] Change<'a>),
    /// Tells of new entries in the recovery log that nodes share, with their content unless it is large.
    Logged {
        epoch: u64,
        first: u64,
        last: u64,
        #[serde(borrow)]
        entries: Vec<&'a serde_bytes::Bytes>,
    },
}

/// How an event waits for a client that does not keep up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waits<'a> {
    /// The key of an earlier one that it replaces.
    pub(crate) latest: Option<&'a str>,
    pub(crate) lane: Lane,
}

/// How an event waits, for later.
pub(super) struct OwnedWaits {
    latest: Option<String>,
    lane: Lane,
}

impl OwnedWaits {
    pub(super) fn of(waits: Waits<'_>) -> Self {
        Self { latest: waits.latest.map(str::to_owned), lane: waits.lane }
    }

    pub(super) fn borrowed(&self) -> Waits<'_> {
        Waits { latest: self.latest.as_deref(), lane: self.lane }
    }
}

impl<'a> Operation<'a> {
    /// Creates the operation that sends an event.
    pub(crate) fn broadcast(packet: &'a EncodedPacket, volatile: bool, waits: Waits<'a>) -> Self {
        Self::Broadcast { event: PacketData::of(packet), volatile, latest: waits.latest, lane: waits.lane }
    }
}

fn is_chat(lane: &Lane) -> bool {
    *lane == Lane::Chat
}

/// A change of sockets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Change<'a> {
    Join { room: &'a str },
    Leave { room: &'a str },
    Disconnect { close: bool },
}

/// The payload of an event or ack in transit between nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PacketData<'a> {
    /// The array of arguments. For an event, the name is its first element.
    pub(crate) json: &'a str,
    #[serde(borrow)]
    pub(crate) attachments: Vec<&'a serde_bytes::Bytes>,
    /// Whether the packet may be compressed for clients.
    pub(crate) compress: bool,
    /// The values that JSON does not have, by their position in `json`.
    #[serde(default, skip_serializing_if = "<[Note]>::is_empty")]
    pub(crate) non_json: Cow<'a, [Note]>,
}

impl<'a> PacketData<'a> {
    /// Borrows the payload of a packet.
    pub(crate) fn of(packet: &'a EncodedPacket) -> Self {
        Self {
            json: packet.json(),
            attachments: packet.attachments().map(serde_bytes::Bytes::new).collect(),
            compress: packet.is_compressible(),
            non_json: Cow::Borrowed(packet.non_json()),
        }
    }

    /// Returns the size of the payload in bytes.
    pub(crate) fn size(&self) -> usize {
        self.json.len() + self.attachments.iter().map(|attachment| attachment.len()).sum::<usize>()
    }

    /// Returns the name and arguments of an event, validated like those of a client.
    pub(crate) fn event(&self) -> ImksResult<Args> {
        self.args(PacketType::Event)
    }

    /// Returns the arguments of an ack, validated like those of a client.
    pub(crate) fn ack(&self) -> ImksResult<Args> {
        self.args(PacketType::Ack)
    }

    fn args(&self, kind: PacketType) -> ImksResult<Args> {
        let attachments = self.attachments.iter().map(|bytes| Bytes::copy_from_slice(bytes)).collect();
        Ok(Args::from_parts(kind, self.json, attachments)?.with_non_json(&self.non_json))
    }
}

/// The nodes on which something takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// This node only.
    Local,
    /// All nodes.
    Cluster,
}
