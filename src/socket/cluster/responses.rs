//! The responses of this node to requests of other nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::message::{Request, Response};
use super::message_bus::MessageBus;
use crate::error::ImksResult;
use crate::node::NodeId;
use crate::socket::codec::encoder::encode_ack;
use crate::socket::codec::packet::{Args, MAIN_NAMESPACE};
use crate::socket::namespace::ack_collector::AckSink;
use crate::socket::namespace::ack_request::{AckRequest, ExpectedAcks};
use crate::socket::namespace::cluster_link::{PacketData, Target};
use crate::socket::namespace::handlers::{ServerEvent, ServerReply};
use crate::socket::namespace::namespace::Namespace;
use crate::socket::namespace::remote_socket::RemoteSocket;
use crate::socket::socket_id::SocketId;

/// A request of another node, and the means to respond to it.
#[derive(Clone)]
pub(super) struct Requester {
    pub(super) bus: Arc<MessageBus>,
    pub(super) node: NodeId,
    pub(super) id: u64,
}

impl Requester {
    /// Performs the request. A namespace that does not exist here counts as one without sockets and handlers.
    pub(super) fn perform(self, namespace: Option<Namespace>, request: &Request<'_>) -> ImksResult<()> {
        match request {
            Request::FetchSockets { target } => {
                self.name_sockets(namespace.as_ref(), target);
                Ok(())
            }
            Request::ServerSideEmit { event, ack } => self.server_event(namespace, event.event()?, *ack),
            Request::EmitWithAck { target, event, timeout_millis } => {
                let timeout = Duration::from_millis(*timeout_millis).min(ACK_TIMEOUT_MAX);
                self.request_acks(namespace.as_ref(), target, event, timeout)
            }
        }
    }

    fn respond(&self, response: Response<'_>) {
        self.bus.respond(self.node, self.id, response);
    }

    fn name_sockets(&self, namespace: Option<&Namespace>, target: &Target<'_>) {
        let sockets = namespace.map(|namespace| namespace.targets(target, None)).unwrap_or_default();
        let parts = sockets.len().div_ceil(SOCKETS_PER_PART).max(1) as u32;
        for part in 0..parts {
            let some = sockets.iter().skip(part as usize * SOCKETS_PER_PART).take(SOCKETS_PER_PART);
            let sockets = some.map(|socket| RemoteSocket::of(socket).info().clone()).collect();
            self.respond(Response::Sockets { part, parts, sockets });
        }
    }

    fn server_event(self, namespace: Option<Namespace>, args: Args, ack: bool) -> ImksResult<()> {
        let handler = namespace.and_then(|namespace| {
            let handler = namespace.server_handler(args.name())?;
            Some((namespace, handler))
        });
        let Some((namespace, handler)) = handler else {
            if ack {
                self.respond(Response::ServerAck { ack: None });
            }
            return Ok(());
        };
        let (bus, node) = (self.bus.clone(), self.node);
        let reply = ack.then(|| -> ServerReply { Box::new(move |args| self.server_ack(args.as_ref())) });
        let event = ServerEvent::new(namespace, node, args, reply);
        bus.spawn(async move { handler(event).await })
    }

    fn server_ack(&self, args: Option<&Args>) {
        let Some(args) = args else { return self.respond(Response::ServerAck { ack: None }) };
        match encode_ack(MAIN_NAMESPACE, 0, args) {
            Ok(packet) => self.respond(Response::ServerAck { ack: Some(PacketData::of(&packet)) }),
            Err(error) => tracing::warn!(%error, "another node was not answered"),
        }
    }

    fn request_acks(
        self,
        namespace: Option<&Namespace>,
        target: &Target<'_>,
        event: &PacketData<'_>,
        timeout: Duration,
    ) -> ImksResult<()> {
        let Some(namespace) = namespace else {
            self.respond(Response::AckRequested { sockets: Vec::new() });
            return Ok(());
        };
        let (bus, args) = (self.bus.clone(), event.event()?);
        let sink = Arc::new(ResponseSink::new(self));
        let event_and_args = (args.name(), &args);
        let request = AckRequest::new(namespace, target, None, event_and_args, event.compress, sink.clone())?;
        let sockets = request.socket_ids();
        sink.left.store(sockets.len(), Ordering::Release);
        sink.requester.respond(Response::AckRequested { sockets });
        let pending = request.send();
        bus.spawn(wait_for_acks(sink, pending, timeout))
    }
}

/// Keeps the acks pending until all have arrived or `timeout` has passed.
async fn wait_for_acks(sink: Arc<ResponseSink>, pending: ExpectedAcks, timeout: Duration) {
    // The requester has the same deadline, and knows itself which acks are missing.
    let _ = tokio::time::timeout(timeout, sink.wait()).await;
    sink.over.store(true, Ordering::Release);
    drop(pending);
}

/// Sends the acks of this node's sockets to the requester.
struct ResponseSink {
    requester: Requester,
    left: AtomicUsize,
    done: Notify,
    over: AtomicBool,
}

impl ResponseSink {
    fn new(requester: Requester) -> Self {
        Self { requester, left: AtomicUsize::new(0), done: Notify::new(), over: AtomicBool::new(false) }
    }

    async fn wait(&self) {
        while self.left.load(Ordering::Acquire) > 0 {
            self.done.notified().await;
        }
    }

    fn one_less(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }
}

impl AckSink for ResponseSink {
    fn acked(&self, socket: SocketId, args: Args) {
        match encode_ack(MAIN_NAMESPACE, 0, &args) {
            Ok(packet) => self.requester.respond(Response::Ack { socket, ack: PacketData::of(&packet) }),
            Err(error) => tracing::warn!(%error, "ack not passed on"),
        }
        self.one_less();
    }

    fn gone(&self, socket: SocketId) {
        if !self.over.load(Ordering::Acquire) {
            self.requester.respond(Response::NoAck { socket });
            self.one_less();
        }
    }
}

/// The maximum number of sockets per message. A socket takes a few hundred bytes.
const SOCKETS_PER_PART: usize = 1_000;

/// The maximum time for which acks are awaited on behalf of another node.
const ACK_TIMEOUT_MAX: Duration = Duration::from_secs(600);
