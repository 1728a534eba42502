//! The interface to a broker: what Redis, NATS and PostgreSQL have to offer. Everything else about a pipe
//! (queues, subscriptions, probes, reconnects) is in [`super::broker_pipe`].

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::{BoxFuture, BusState, metrics};
use crate::error::{ImksError, ImksResult};

/// A broker, and the way to connect to it.
pub(crate) trait Broker: Send + Sync + 'static {
    /// Returns the name for logs, health and metrics.
    fn name(&self) -> &'static str;

    /// Returns host and port of each server, without user and password.
    fn place(&self) -> String;

    /// Returns the error for a reason why the broker cannot be used.
    fn error(&self, why: String) -> ImksError;

    /// Opens a connection, which passes the messages of its subscriptions to `arrivals`. The library behind it
    /// must not reconnect by itself: a connection that fails once is replaced.
    fn connect(&self, arrivals: Arrivals) -> BoxFuture<'_, ImksResult<Arc<dyn Connection>>>;
}

/// A connection to a broker. Dropping it closes it.
pub(crate) trait Connection: Send + Sync {
    /// Subscribes to channels. Messages may arrive later than this returns.
    fn subscribe<'a>(&'a self, channels: &'a [Arc<str>]) -> BoxFuture<'a, ImksResult<()>>;

    /// Ends subscriptions.
    fn unsubscribe<'a>(&'a self, channels: &'a [Arc<str>]) -> BoxFuture<'a, ImksResult<()>>;

    /// Publishes messages in this order. A message that the broker will never accept is dropped and counted.
    ///
    /// # Errors
    /// An error of the broker. Some of the messages may have been published.
    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, ImksResult<()>>;

    /// Publishes one message. Returns whether somebody received it; true if that is not known.
    fn publish_counted(&self, message: Outgoing) -> BoxFuture<'_, ImksResult<bool>>;

    /// Returns the number of nodes that subscribed to a channel, if the broker knows it.
    fn subscribers<'a>(&'a self, _channel: &'a str) -> BoxFuture<'a, Option<usize>> {
        Box::pin(async { None })
    }

    /// Waits until the connection has failed, and returns why.
    fn failed(&self) -> BoxFuture<'_, String>;

    /// Closes the connection after everything has been sent.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A message to all subscribers of a channel.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) channel: Arc<str>,
    pub(crate) message: Bytes,
}

/// A message of a subscription.
pub(crate) struct Arrival {
    pub(crate) channel: Box<str>,
    pub(crate) message: Bytes,
    /// The bytes of the queue that it takes up.
    _space: OwnedSemaphorePermit,
}

/// The place where a connection puts what it receives. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Arrivals {
    sender: mpsc::Sender<Arrival>,
    /// The bytes that are left.
    space: Arc<Semaphore>,
    state: watch::Sender<BusState>,
}

impl Arrivals {
    /// Creates both ends of the queue of arrivals. Losses are counted in `state`.
    pub(super) fn new(state: watch::Sender<BusState>) -> (Self, mpsc::Receiver<Arrival>) {
        let (sender, receiver) = mpsc::channel(ARRIVALS_MAX);
        let space = Arc::new(Semaphore::new(ARRIVALS_BYTES_MAX as usize));
        (Self { sender, space, state }, receiver)
    }

    /// Passes a message on. Waits while the queue is full, which takes as long as the distribution of a
    /// message to inboxes that never wait. Returns false once the connection is not used any more.
    pub(crate) async fn push(&self, channel: &str, message: Bytes) -> bool {
        // A message that is larger than the whole queue waits until it has the queue to itself.
        let bytes = u32::try_from(message.len()).unwrap_or(u32::MAX).min(ARRIVALS_BYTES_MAX);
        let Ok(space) = self.space.clone().acquire_many_owned(bytes).await else { return false };
        self.sender.send(Arrival { channel: channel.into(), message, _space: space }).await.is_ok()
    }

    /// Counts messages that the broker or its library dropped.
    pub(crate) fn lost(&self, messages: u64) {
        lost(&self.state, metrics::Drop::Broker, messages);
    }
}

/// Counts lost messages.
pub(super) fn lost(state: &watch::Sender<BusState>, reason: metrics::Drop, messages: u64) {
    if messages > 0 {
        metrics::MESSAGES_DROPPED.of(reason).add(messages);
        state.send_modify(|state| state.lost += messages);
    }
}

/// The maximum number of messages between a connection and the inboxes. It waits when they are that many.
const ARRIVALS_MAX: usize = 1_024;
/// The maximum size of the messages between a connection and the inboxes in bytes. It waits when they are that large.
const ARRIVALS_BYTES_MAX: u32 = 16 << 20;
