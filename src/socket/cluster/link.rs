//! The cluster link of namespaces, implemented by the message bus.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::message::Request;
use super::message_bus::MessageBus;
use super::requests::Responses;
use crate::bus::BoxFuture;
use crate::error::ImksResult;
use crate::node::NodeId;
use crate::socket::codec::encoder::EncodedPacket;
use crate::socket::namespace::ack_collector::AckCollector;
use crate::socket::namespace::cluster_link::{
    ClusterLink, Guard, NodeAnswers, NodeSockets, Operation, PacketData, Target,
};

impl ClusterLink for MessageBus {
    fn node(&self) -> NodeId {
        self.node
    }

    fn reaches_others(&self) -> bool {
        self.pipe.reaches_others()
    }

    fn others(&self) -> Vec<NodeId> {
        self.members.lock().alive(Instant::now()).collect()
    }

    fn asked(&self) -> Vec<NodeId> {
        self.members.lock().expected(Instant::now()).collect()
    }

    fn publish(&self, namespace: &str, target: &Target<'_>, operation: &Operation<'_>) -> ImksResult<()> {
        self.publish_operation(namespace, target.clone(), operation.clone())
    }

    fn request_acks(
        &self,
        namespace: &str,
        target: &Target<'_>,
        event: &EncodedPacket,
        timeout: Duration,
        acks: Arc<AckCollector>,
    ) -> ImksResult<Guard> {
        let request = Request::EmitWithAck {
            target: target.clone(),
            event: PacketData::of(event),
            timeout_millis: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        Ok(Box::new(self.request(namespace, request, Responses::Acks(acks))?))
    }

    fn fetch_sockets(
        &self,
        namespace: &str,
        target: &Target<'_>,
    ) -> ImksResult<BoxFuture<'static, NodeSockets>> {
        let responses = Responses::Sockets { parts: HashMap::new(), sockets: Vec::new() };
        let request = Request::FetchSockets { target: target.clone() };
        let (open, timeout) = (self.request(namespace, request, responses)?, self.request_timeout);
        Ok(Box::pin(async move {
            match open.wait(timeout).await {
                (Some(Responses::Sockets { sockets, .. }), silent) => (sockets, silent),
                (_, silent) => (Vec::new(), silent),
            }
        }))
    }

    fn server_side_emit(&self, namespace: &str, event: &EncodedPacket) -> ImksResult<()> {
        let request = Request::ServerSideEmit { event: PacketData::of(event), ack: false };
        self.request(namespace, request, Responses::ServerAcks(Vec::new())).map(drop)
    }

    fn server_side_emit_with_ack(
        &self,
        namespace: &str,
        event: &EncodedPacket,
        timeout: Duration,
    ) -> ImksResult<BoxFuture<'static, NodeAnswers>> {
        let request = Request::ServerSideEmit { event: PacketData::of(event), ack: true };
        let open = self.request(namespace, request, Responses::ServerAcks(Vec::new()))?;
        Ok(Box::pin(async move {
            match open.wait(timeout).await {
                (Some(Responses::ServerAcks(answers)), silent) => (answers, silent),
                (_, silent) => (Vec::new(), silent),
            }
        }))
    }
}
