//! An event for many sockets of this node that each answer with an ack.

use std::sync::Arc;

use super::ack_collector::{AckSink, PendingAck};
use super::cluster_link::Target;
use super::namespace::Namespace;
use super::observers::show_outgoing;
use super::socket::Socket;
use crate::error::ImksResult;
use crate::socket::codec::arguments::Arguments;
use crate::socket::codec::dialect::Renderings;
use crate::socket::codec::encoder::{EncodedPacket, encode_event};
use crate::socket::socket_id::SocketId;

/// An event with one ack id, ready to be sent to sockets of this node.
pub(crate) struct AckRequest {
    pending: ExpectedAcks,
    packet: EncodedPacket,
    sink: Arc<dyn AckSink>,
}

impl AckRequest {
    /// Finds the sockets and encodes the event.
    pub(crate) fn new(
        namespace: &Namespace,
        target: &Target<'_>,
        skip: Option<&Socket>,
        (event, args): (&str, &impl Arguments),
        compress: bool,
        sink: Arc<dyn AckSink>,
    ) -> ImksResult<Self> {
        let id = namespace.next_ack_id();
        let packet = encode_event(namespace.path(), Some(id), event, args)?.compress(compress);
        let sockets = namespace.targets(target, skip);
        if namespace.watches_outgoing() {
            let args = packet.args()?;
            sockets.iter().for_each(|socket| show_outgoing(socket, &args));
        }
        Ok(Self { pending: ExpectedAcks { id, sockets }, packet, sink })
    }

    /// Returns the ids of the sockets that get the event.
    pub(crate) fn socket_ids(&self) -> Vec<SocketId> {
        self.pending.sockets.iter().map(Socket::socket_id).collect()
    }

    /// Returns the encoded event.
    pub(crate) fn packet(&self) -> &EncodedPacket {
        &self.packet
    }

    /// Sends the event. Keep the returned guard for as long as acks are wanted.
    pub(crate) fn send(self) -> ExpectedAcks {
        let Self { pending, packet, sink } = self;
        let renderings = Renderings::new(&packet);
        for socket in &pending.sockets {
            let ack = PendingAck::new(socket.socket_id(), sink.clone());
            if socket.expect_ack_among_many(pending.id, ack).is_ok()
                && socket.deliver(&renderings, None).is_err()
            {
                socket.pending_acks().forget(pending.id);
            }
        }
        pending
    }
}

/// The pending acks of sockets. Dropping it forgets them.
pub(crate) struct ExpectedAcks {
    id: u64,
    sockets: Vec<Socket>,
}

impl Drop for ExpectedAcks {
    fn drop(&mut self) {
        self.sockets.iter().for_each(|socket| socket.pending_acks().forget(self.id));
    }
}
