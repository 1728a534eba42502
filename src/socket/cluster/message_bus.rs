//! The cluster protocol, once, over any [`Adapter`]: what one node does to its sockets, all nodes do to theirs.
//!
//! Wire format: msgpack of [`Message`], a closed and versioned schema. Input from the bus is hostile input: it is
//! size-capped, decoded strictly, and dropped with a log line when it is not ours.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::node::Cluster;
use super::wire::{MESSAGE_BYTES_MAX, VERSION, unreadable};
use crate::engine::Frame;
use crate::error::{ImksError, ImksResult};
use crate::socket::adapter::Adapter;
use crate::socket::codec::dialect::{Parcel, with_compression};
use crate::socket::codec::parser::Frames;
use crate::socket::metrics;
use crate::socket::namespace::delivery;
use crate::socket::namespace::listeners::{args_of, show_outgoing};
use crate::socket::namespace::namespace::Namespace;
use crate::socket::namespace::socket::Socket;
use crate::socket::recovery::event::{self, Unstamped};
use crate::socket::recovery::session_store::SessionStore;
use crate::socket::socket_id::NodeId;

/// This node's end of the bus.
pub(crate) struct MessageBus {
    node: NodeId,
    adapter: Arc<dyn Adapter>,
    cluster: Arc<Cluster>,
    request_timeout: Duration,
    /// One per namespace, which ends when its subscription does.
    tasks: TaskTracker,
}

/// Who is meant: the union of the rooms (everybody if there are none), minus the exceptions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) rooms: &'a [&'a str],
    pub(crate) except: &'a [&'a str],
}

/// Which nodes do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Local,
    All,
}

/// What happens to them.
#[derive(Debug)]
pub(crate) enum Operation<'a> {
    Broadcast { frames: &'a Frames, volatile: bool },
    Join { room: &'a str },
    Leave { room: &'a str },
    Disconnect { close: bool },
}

/// One message on the bus.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<'a> {
    version: u8,
    /// Who sent it; a node ignores its own.
    node: String,
    #[serde(borrow)]
    rooms: Vec<&'a str>,
    #[serde(borrow)]
    except: Vec<&'a str>,
    #[serde(borrow)]
    operation: WireOperation<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum WireOperation<'a> {
    Broadcast {
        /// Socket.IO packet without its Engine.IO type character.
        text: &'a str,
        #[serde(borrow)]
        attachments: Vec<&'a serde_bytes::Bytes>,
        volatile: bool,
        compress: bool,
    },
    Join {
        room: &'a str,
    },
    Leave {
        room: &'a str,
    },
    Disconnect {
        close: bool,
    },
}

impl MessageBus {
    pub(crate) fn new(adapter: Arc<dyn Adapter>, request_timeout: Duration) -> ImksResult<Self> {
        let node = NodeId::random()?;
        let cluster = Arc::new(Cluster::new(node, adapter.clone()));
        Ok(Self { node, adapter, cluster, request_timeout, tasks: TaskTracker::new() })
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Whether there can be other nodes.
    pub(crate) fn reaches_others(&self) -> bool {
        self.adapter.reaches_others()
    }

    /// From now on does in this namespace what other nodes ask for.
    pub(crate) fn listen(self: &Arc<Self>, namespace: &Namespace) {
        if !self.adapter.reaches_others() {
            return;
        }
        let (inbox, messages) = mpsc::channel(BUS_INBOX_MAX);
        self.adapter.subscribe(namespace.path(), inbox);
        self.tasks.spawn(apply_messages(self.clone(), namespace.clone(), messages));
    }

    /// Stops that.
    pub(crate) fn unlisten(&self, path: &str) {
        if self.adapter.reaches_others() {
            self.adapter.unsubscribe(path);
        }
    }

    /// Does it here, and asks all other nodes to do the same.
    pub(crate) fn execute(
        &self,
        namespace: &Namespace,
        target: &Target<'_>,
        skip: Option<&Socket>,
        operation: &Operation<'_>,
        reach: Reach,
    ) -> ImksResult<()> {
        apply(namespace, target, skip, operation);
        if reach == Reach::All && self.adapter.reaches_others() {
            let message = self.encode(target, skip, operation)?;
            self.adapter.publish(namespace.path(), message);
        }
        Ok(())
    }

    /// Sends an event that clients who are away get when they come back.
    pub(crate) fn publish(
        &self,
        store: &SessionStore,
        namespace: &Namespace,
        target: &Target<'_>,
        skip: Option<&Socket>,
        event: Unstamped,
        reach: Reach,
    ) -> ImksResult<()> {
        if namespace.watches_outgoing() {
            show(namespace, target, skip, &event.plain());
        }
        let message = if reach == Reach::All && self.adapter.reaches_others() {
            let broadcast = Operation::Broadcast { frames: &event.plain(), volatile: false };
            Some(self.encode(target, skip, &broadcast)?)
        } else {
            None
        };
        delivery::publish(store, namespace, target, skip, event);
        if let Some(message) = message {
            self.adapter.publish(namespace.path(), message);
        }
        Ok(())
    }

    /// Does here what another node asked for.
    pub(crate) fn receive(&self, namespace: &Namespace, message: &[u8]) -> ImksResult<()> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(ImksError::PayloadTooLarge);
        }
        let message: Message<'_> = rmp_serde::from_slice(message).map_err(unreadable)?;
        if message.version != VERSION {
            return Err(unreadable(format!("version {} is not ours", message.version)));
        }
        if message.node == self.node.as_str() {
            return Ok(());
        }
        let target = Target { rooms: &message.rooms, except: &message.except };
        match message.operation {
            WireOperation::Broadcast { text, attachments, volatile, compress } => {
                if let Some(store) = namespace.sessions().filter(|_| !volatile && event::is_plain_event(text))
                {
                    let attachments =
                        attachments.iter().map(|attachment| Frame::binary(attachment)).collect();
                    let event = Unstamped::foreign(text, attachments)?;
                    let event = event.with_compression(compress);
                    delivery::publish(store, namespace, &target, None, event);
                    return Ok(());
                }
                let mut frames = Frames::new();
                frames.push(Frame::text(text));
                frames.extend(attachments.iter().map(|attachment| Frame::binary(attachment)));
                let frames = with_compression(frames, compress);
                apply(namespace, &target, None, &Operation::Broadcast { frames: &frames, volatile });
            }
            WireOperation::Join { room } => apply(namespace, &target, None, &Operation::Join { room }),
            WireOperation::Leave { room } => apply(namespace, &target, None, &Operation::Leave { room }),
            WireOperation::Disconnect { close } => {
                apply(namespace, &target, None, &Operation::Disconnect { close })
            }
        }
        Ok(())
    }

    fn encode(
        &self,
        target: &Target<'_>,
        skip: Option<&Socket>,
        operation: &Operation<'_>,
    ) -> ImksResult<Bytes> {
        let operation = match operation {
            Operation::Broadcast { frames, volatile } => wire_broadcast(frames, *volatile)?,
            Operation::Join { room } => WireOperation::Join { room },
            Operation::Leave { room } => WireOperation::Leave { room },
            Operation::Disconnect { close } => WireOperation::Disconnect { close: *close },
        };
        let mut except = target.except.to_vec();
        except.extend(skip.map(Socket::id));
        let node = self.node.as_str().to_owned();
        let message = Message { version: VERSION, node, rooms: target.rooms.to_vec(), except, operation };
        rmp_serde::to_vec(&message).map(Bytes::from).map_err(unreadable)
    }
}

async fn apply_messages(bus: Arc<MessageBus>, namespace: Namespace, mut messages: mpsc::Receiver<Bytes>) {
    while let Some(message) = messages.recv().await {
        if let Err(error) = bus.receive(&namespace, &message) {
            metrics::BUS_MESSAGES_DROPPED.increment();
            tracing::warn!(%error, namespace = namespace.path(), "message of another node dropped");
        }
    }
}

fn wire_broadcast(frames: &Frames, volatile: bool) -> ImksResult<WireOperation<'_>> {
    let (packet, attachments) =
        frames.split_first().ok_or(ImksError::Internal("broadcast without a packet"))?;
    let text = std::str::from_utf8(packet.payload().get(1..).unwrap_or_default()).map_err(unreadable)?;
    let attachments = attachments.iter().map(|frame| serde_bytes::Bytes::new(frame.payload())).collect();
    Ok(WireOperation::Broadcast { text, attachments, volatile, compress: packet.is_compressible() })
}

fn apply(namespace: &Namespace, target: &Target<'_>, skip: Option<&Socket>, operation: &Operation<'_>) {
    if namespace.watches_outgoing()
        && let Operation::Broadcast { frames, .. } = operation
    {
        show(namespace, target, skip, frames);
    }
    match operation {
        Operation::Broadcast { frames, volatile: false } => {
            let parcel = Parcel::new(frames);
            namespace.for_each_target(target, skip, |socket| {
                if let Err(error) = socket.deliver_parcel(&parcel) {
                    tracing::trace!(socket_sid = %socket.id(), ?error, "not delivered");
                }
            });
        }
        Operation::Broadcast { frames, volatile: true } => {
            let parcel = Parcel::new(frames);
            namespace.for_each_target(target, skip, |socket| socket.deliver_volatile(&parcel));
        }
        _ => {
            if let Some(store) = namespace.sessions() {
                delivery::apply_to_absent(store, target, skip, operation);
            }
            // Joining and leaving change the rooms that are being walked.
            let mut sockets = Vec::new();
            namespace.for_each_target(target, skip, |socket| sockets.push(socket.clone()));
            for socket in sockets {
                match operation {
                    Operation::Join { room } => socket.join(room),
                    Operation::Leave { room } => socket.leave(room),
                    Operation::Disconnect { close } => socket.disconnect(*close),
                    Operation::Broadcast { .. } => {}
                }
            }
        }
    }
}

/// Shows a broadcast to those who watch what is sent, once per receiver.
fn show(namespace: &Namespace, target: &Target<'_>, skip: Option<&Socket>, frames: &Frames) {
    let args = match args_of(frames) {
        Ok(args) => args,
        Err(error) => return tracing::debug!(%error, "broadcast not shown to listeners"),
    };
    // Listeners may join and leave rooms, which are locked while they are walked.
    let mut sockets = Vec::new();
    namespace.for_each_target(target, skip, |socket| sockets.push(socket.clone()));
    sockets.iter().for_each(|socket| show_outgoing(socket, &args));
}

/// Messages of other nodes that wait to be applied; more are dropped by the adapter, and counted.
const BUS_INBOX_MAX: usize = 4_096;
