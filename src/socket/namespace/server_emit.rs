//! Server events: sent by one node and handled by all other nodes of the cluster.

use std::time::Duration;

use super::namespace::Namespace;
use crate::error::ImksResult;
use crate::node::NodeId;
use crate::socket::codec::arguments::Arguments;
use crate::socket::codec::encoder::{EncodedPacket, encode_event};
use crate::socket::codec::packet::Args;

/// The answers of the other nodes to [`Namespace::server_side_emit_with_ack`].
#[derive(Debug, Default)]
pub struct ServerAnswers {
    /// The answers, in the order in which they arrived.
    pub answers: Vec<(NodeId, Args)>,
    /// The nodes that did not answer in time, or do not handle the event.
    pub silent: Vec<NodeId>,
}

impl Namespace {
    /// Sends an event to all nodes except this one. There,
    /// [`NamespaceBuilder::on_server_event`](crate::socket::NamespaceBuilder::on_server_event) handles it.
    pub fn server_side_emit(&self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        self.cluster().server_side_emit(self.path(), &self.encode(event, args)?)
    }

    /// Sends an event to all other nodes and waits until each has answered, for at most `timeout`.
    /// While a recovery log that nodes share is away, this takes up to two seconds longer: what was sent before goes first.
    pub async fn server_side_emit_with_ack(
        &self,
        event: &str,
        args: &impl Arguments,
        timeout: Duration,
    ) -> ImksResult<ServerAnswers> {
        let event = self.encode(event, args)?;
        self.delivery().settle().await;
        let request = self.cluster().server_side_emit_with_ack(self.path(), &event, timeout)?;
        let (answers, silent) = request.await;
        Ok(ServerAnswers { answers, silent })
    }

    fn encode(&self, event: &str, args: &impl Arguments) -> ImksResult<EncodedPacket> {
        encode_event(self.path(), None, event, args)
    }
}
