//! The bus between nodes: a [`Pipe`] carries bytes on named channels and does not interpret them.
//!
//! A pipe may lose and reorder messages. Anything that must arrive is recovered from the database. Known
//! losses are counted, so that the recovering side knows when to look.

#[cfg(any(test, feature = "server"))]
pub(crate) mod broker;
#[cfg(any(test, feature = "server"))]
pub(crate) mod broker_pipe;
mod inbox;
#[doc(hidden)]
pub mod metrics;
#[cfg(any(test, feature = "server"))]
mod outgoing;
#[cfg(any(test, feature = "server"))]
mod probes;
#[cfg(any(test, feature = "server"))]
mod routes;
#[cfg(any(test, feature = "testing"))]
pub mod sim;

use std::pin::Pin;

use bytes::Bytes;
use tokio::sync::watch;

pub use self::inbox::{Inbox, Subscription, subscription};
use crate::error::ImksResult;
use crate::node::NodeId;

/// A boxed future, which trait objects can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connection to the other nodes. A server has exactly one, chosen where the program is assembled.
pub trait Pipe: Send + Sync + 'static {
    /// Returns the name for logs and metrics.
    fn name(&self) -> &'static str;

    /// Whether there can be other nodes. If not, nothing is encoded for them.
    fn reaches_others(&self) -> bool;

    /// Queues a message for every node that subscribed to the channel. The sender's own subscriptions may
    /// receive it too. Never waits: if the queue is full, the message is dropped and counted as lost.
    fn publish(&self, channel: &str, message: Bytes);

    /// Subscribes to a channel. Dropping the subscription ends it.
    fn subscribe(&self, channel: &str) -> Subscription;

    /// Subscribes to several channels, whose messages arrive in the order in which they were published. Where the channels
    /// of a pipe have patterns, one that ends with `*` stands for all channels that begin with what precedes it. Returns a
    /// subscription that has ended if the pipe cannot do that, as by default.
    fn subscribe_all(&self, _channels: &[&str]) -> Subscription {
        subscription(watch::Sender::new(BusState::default())).1
    }

    /// Subscribes to messages that other nodes send to this one.
    fn receive(&self, node: NodeId) -> Subscription;

    /// Sends a message to one node.
    ///
    /// # Errors
    /// [`NoReceiver`] if it is known that no node received the message. Success does not guarantee delivery.
    fn send_to(&self, node: NodeId, message: Bytes) -> BoxFuture<'_, Result<(), NoReceiver>>;

    /// Returns a receiver of the current and all later states of the pipe.
    fn state(&self) -> watch::Receiver<BusState>;

    /// Returns the number of nodes that subscribed to a channel, if the pipe knows it.
    fn subscribers<'a>(&'a self, _channel: &'a str) -> BoxFuture<'a, Option<usize>> {
        Box::pin(async { None })
    }

    /// Sends a message to this node through the pipe and waits for it, for health checks.
    ///
    /// # Errors
    /// The error of the last attempt to connect, or of the message.
    fn ping(&self) -> BoxFuture<'_, ImksResult<()>> {
        Box::pin(async { Ok(()) })
    }

    /// Sends everything that is queued, then closes the pipe.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// The state of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusState {
    /// The number of reconnects. Messages published during an outage may be missing.
    pub epoch: u64,
    /// Whether the pipe is connected.
    pub up: bool,
    /// The number of messages known to be lost.
    pub lost: u64,
}

impl Default for BusState {
    /// Returns the state of a pipe that is connected and has lost nothing.
    fn default() -> Self {
        Self { epoch: 0, up: true, lost: 0 }
    }
}

/// The error of a message that reached no node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no node of this name is there")]
pub struct NoReceiver;
