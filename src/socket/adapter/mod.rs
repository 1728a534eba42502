//! What carries bytes between nodes. The protocol spoken over it is in [`super::message_bus`]; an adapter only
//! knows named channels.

pub mod local;

use bytes::Bytes;
use tokio::sync::mpsc;

/// A pipe to all other nodes. Lossy and unordered by contract: whoever needs more heals from the database.
pub trait Adapter: Send + Sync + 'static {
    /// For logs and metrics.
    fn name(&self) -> &'static str;

    /// Whether there can be other nodes; if not, nothing is encoded for them.
    fn reaches_others(&self) -> bool;

    /// Queues a message for every other node that subscribed to the channel. Never waits: a full queue drops the
    /// message and counts it.
    fn publish(&self, channel: &str, message: Bytes);

    /// Sends messages of other nodes on this channel into `inbox`; a full inbox drops them and counts it.
    fn subscribe(&self, channel: &str, inbox: mpsc::Sender<Bytes>);

    /// Stops that.
    fn unsubscribe(&self, channel: &str);
}
