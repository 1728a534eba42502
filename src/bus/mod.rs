//! Bytes between nodes. A [`Pipe`] knows named channels and nothing of what is said on them.
//!
//! Lossy and unordered by contract: what must arrive is healed from the database. What is known to be lost is
//! counted, so that whoever heals knows when to look.

mod inbox;
#[doc(hidden)]
pub mod metrics;
#[cfg(any(test, feature = "testing"))]
pub mod sim;

use std::pin::Pin;

use bytes::Bytes;
use tokio::sync::watch;

pub use self::inbox::{Inbox, Subscription, subscription};
use crate::node::NodeId;

/// A future that a trait object can give.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A pipe to the other nodes. A server has one; it is chosen where the program is put together.
pub trait Pipe: Send + Sync + 'static {
    /// Name for logs and metrics.
    fn name(&self) -> &'static str;

    /// Whether there can be other nodes; if not, nothing is encoded for them.
    fn reaches_others(&self) -> bool;

    /// Queues a message for every node that subscribed to the channel; the sender's own subscriptions may get it too.
    /// Never waits: a full queue drops the message and counts it as lost.
    fn publish(&self, channel: &str, message: Bytes);

    /// Subscribes to a channel, or to all whose names begin alike. Dropping the subscription ends it.
    fn subscribe(&self, topic: Topic<'_>) -> Subscription;

    /// Subscribes to what other nodes send to this one.
    fn receive(&self, node: NodeId) -> Subscription;

    /// Sends a message to one node.
    ///
    /// # Errors
    /// [`NoReceiver`] where it is known that nobody got it. Without an error it may be lost nevertheless.
    fn send_to(&self, node: NodeId, message: Bytes) -> BoxFuture<'_, Result<(), NoReceiver>>;

    /// How the pipe is, now and from now on.
    fn state(&self) -> watch::Receiver<BusState>;

    /// The number of nodes that subscribed to a channel, where the pipe can tell.
    fn subscribers<'a>(&'a self, _channel: &'a str) -> BoxFuture<'a, Option<usize>> {
        Box::pin(async { None })
    }

    /// Sends what is queued, then closes the pipe.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// What is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic<'a> {
    /// One channel.
    Channel(&'a str),
    /// All channels whose names begin like this.
    Prefix(&'a str),
}

impl Topic<'_> {
    /// Whether messages on this channel belong to the topic.
    pub fn matches(&self, channel: &str) -> bool {
        match self {
            Self::Channel(name) => *name == channel,
            Self::Prefix(prefix) => channel.starts_with(prefix),
        }
    }
}

/// How a pipe is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusState {
    /// Rises with every reconnect: what was published meanwhile may be missing.
    pub epoch: u64,
    /// Whether the pipe is connected.
    pub up: bool,
    /// Messages known to be lost.
    pub lost: u64,
}

impl Default for BusState {
    /// The state of a pipe that is connected and has lost nothing.
    fn default() -> Self {
        Self { epoch: 0, up: true, lost: 0 }
    }
}

/// A message had nobody to go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no node of this name is there")]
pub struct NoReceiver;
