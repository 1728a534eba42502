//! The responses of this node to requests of other nodes.

use std::sync::Arc;
use std::time::Duration;

use super::ack_relay::{AckRequester, relay_acks};
use super::message::{Request, Response};
use super::message_bus::MessageBus;
use crate::error::ImksResult;
use crate::node::NodeId;
use crate::socket::codec::encoder::encode_ack;
use crate::socket::codec::packet::{Args, MAIN_NAMESPACE};
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
                let timeout = Duration::from_millis(*timeout_millis);
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
        bus.spawn(relay_acks(self, namespace, target, &args, event.compress, timeout)?)
    }
}

impl AckRequester for Requester {
    fn asked(&self, sockets: Vec<SocketId>) {
        self.respond(Response::AckRequested { sockets });
    }

    fn acked(&self, socket: SocketId, args: &Args) {
        match encode_ack(MAIN_NAMESPACE, 0, args) {
            Ok(packet) => self.respond(Response::Ack { socket, ack: PacketData::of(&packet) }),
            Err(error) => tracing::warn!(%error, "ack not passed on"),
        }
    }

    fn gone(&self, socket: SocketId) {
        self.respond(Response::NoAck { socket });
    }
}

/// The maximum number of sockets per message. A socket takes a few hundred bytes.
const SOCKETS_PER_PART: usize = 1_000;
