//! The pipe of a single node, which reaches no other nodes.

use bytes::Bytes;
use tokio::sync::watch;

use crate::bus::{BoxFuture, BusState, NoReceiver, Pipe, Subscription, subscription};
use crate::node::NodeId;

/// The adapter of a single node.
#[derive(Debug, Default, Clone, Copy)]
pub struct LocalAdapter;

impl Pipe for LocalAdapter {
    fn name(&self) -> &'static str {
        "local"
    }

    fn reaches_others(&self) -> bool {
        false
    }

    fn publish(&self, _channel: &str, _message: Bytes) {}

    fn subscribe(&self, _channel: &str) -> Subscription {
        let (inbox, subscription) = subscription(watch::Sender::new(BusState::default()));
        inbox.confirm();
        subscription
    }

    fn receive(&self, node: NodeId) -> Subscription {
        self.subscribe(&node.to_string())
    }

    fn send_to(&self, _node: NodeId, _message: Bytes) -> BoxFuture<'_, Result<(), NoReceiver>> {
        Box::pin(async { Err(NoReceiver) })
    }

    fn state(&self) -> watch::Receiver<BusState> {
        watch::Sender::new(BusState::default()).subscribe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
