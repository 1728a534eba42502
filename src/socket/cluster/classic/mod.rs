//! A namespace that imks and Node.js servers share (npm `@socket.io/redis-adapter` 8, `createAdapter`): this node on the
//! channels of such a cluster.
//!
//! Nodes do not announce themselves there. Their number is that of the subscribers to the channel of requests, so a node
//! subscribes to it once and answers every request; answers do not say who gives them and are counted.

mod encode;
mod link;
mod questions;
mod receive;
mod rooms;
mod sockets;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::questions::Questions;
use super::members::NODES_MAX;
use super::message_bus::WORK_MAX;
use crate::background;
use crate::bus::{Pipe, Subscription, metrics};
use crate::error::{ImksError, ImksResult};
use crate::node::NodeId;
use crate::socket::namespace::namespace::Namespace;

/// This node in the cluster of one namespace. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ClassicLink(Arc<Inner>);

struct Inner {
    node: NodeId,
    /// The name of this node in messages.
    uid: Box<str>,
    path: Box<str>,
    pipe: Arc<dyn Pipe>,
    channels: Channels,
    request_timeout: Duration,
    /// The number of other nodes when they were last counted.
    others: AtomicUsize,
    /// Whether this node takes part already.
    listens: AtomicBool,
    /// Whether this node counts as a subscriber.
    subscribed: AtomicBool,
    questions: Arc<Questions>,
    /// The permits for requests of other nodes in progress.
    work: Arc<Semaphore>,
    tasks: TaskTracker,
    work_tasks: TaskTracker,
    stop: CancellationToken,
    warned: Mutex<Option<Instant>>,
}

/// The channels of a namespace, without the prefix that the pipe adds.
struct Channels {
    /// Broadcasts, and the beginning of the channels of broadcasts to one room.
    broadcast: String,
    requests: String,
    responses: String,
}

impl Channels {
    fn of(path: &str) -> Self {
        Self {
            broadcast: format!("#{path}#"),
            requests: format!("-request#{path}#"),
            responses: format!("-response#{path}#"),
        }
    }

    /// Returns the pattern of all channels of broadcasts.
    fn broadcasts(&self) -> String {
        format!("{}*", self.broadcast)
    }

    /// Returns the channel of broadcasts to these rooms.
    fn to(&self, rooms: &[&str]) -> String {
        match rooms {
            [room] => format!("{}{room}#", self.broadcast),
            _ => self.broadcast.clone(),
        }
    }

    /// Returns the channel of responses to one node.
    fn responses_to(&self, uid: &str) -> String {
        format!("{}{uid}#", self.responses)
    }
}

impl ClassicLink {
    /// Creates the link of a namespace over a pipe with the channels of Node.js servers.
    ///
    /// # Errors
    /// [`ImksError::Namespace`] for a path whose channels could be those of a room of another namespace.
    pub(crate) fn new(
        node: NodeId,
        path: &str,
        pipe: Arc<dyn Pipe>,
        request_timeout: Duration,
    ) -> ImksResult<Self> {
        if path.contains('#') {
            return Err(ImksError::Namespace("cannot be shared with Node.js servers because of the # in it"));
        }
        Ok(Self(Arc::new(Inner {
            node,
            uid: node.to_string().into(),
            path: path.into(),
            pipe,
            channels: Channels::of(path),
            request_timeout,
            others: AtomicUsize::new(0),
            listens: AtomicBool::new(false),
            subscribed: AtomicBool::new(false),
            questions: Arc::default(),
            work: Arc::new(Semaphore::new(WORK_MAX)),
            tasks: TaskTracker::new(),
            work_tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            warned: Mutex::default(),
        })))
    }

    /// Starts to take part in the cluster. From now on other nodes count on answers of this one.
    pub(crate) fn listen(&self, namespace: &Namespace) {
        let inner = &self.0;
        if inner.listens.swap(true, Ordering::Relaxed) {
            return;
        }
        let (channels, pipe) = (&inner.channels, &inner.pipe);
        // In one order: a node may make sockets join a room, and then send to it.
        let messages = pipe.subscribe_all(&[&channels.broadcasts(), &channels.requests]);
        let responses = pipe.subscribe_all(&[&channels.responses, &channels.responses_to(&inner.uid)]);
        let taking_part = self.clone().take_part(namespace.clone(), messages, responses);
        inner.tasks.spawn(background::essential("classic_messages", taking_part));
    }

    /// Stops to take part.
    pub(crate) fn unlisten(&self) {
        self.0.stop.cancel();
    }

    /// Stops to take part, and closes the pipe.
    pub(crate) async fn leave(&self) {
        self.unlisten();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.pipe.close().await;
    }

    async fn take_part(self, namespace: Namespace, mut messages: Subscription, mut responses: Subscription) {
        let Some(true) = self.0.stop.run_until_cancelled(messages.confirmed()).await else { return };
        self.0.subscribed.store(true, Ordering::Relaxed);
        loop {
            let handled = tokio::select! {
                () = self.0.stop.cancelled() => return,
                Some(message) = messages.recv() => self.handle(&namespace, &message),
                Some(message) = responses.recv() => self.answered(&message),
                else => return,
            };
            if let Err(error) = handled {
                self.refuse(&error);
            }
        }
    }

    /// Counts a message that could not be used, and logs it at a limited rate: a flood on the bus is none in the log.
    fn refuse(&self, error: &ImksError) {
        metrics::MESSAGES_DROPPED.of(metrics::Drop::Unreadable).increment();
        let mut warned = self.0.warned.lock();
        if warned.is_none_or(|last| last.elapsed() >= WARNING_INTERVAL) {
            *warned = Some(Instant::now());
            let why = error.to_string();
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(why, cause, namespace = %self.0.path, "messages of Node.js servers dropped");
        }
    }

    /// Counts the other nodes. Returns whether that was possible.
    async fn count(&self) -> bool {
        let Some(all) = self.0.pipe.subscribers(&self.0.channels.requests).await else { return false };
        let own = usize::from(self.0.subscribed.load(Ordering::Relaxed));
        self.0.others.store(all.saturating_sub(own).min(NODES_MAX), Ordering::Relaxed);
        true
    }

    fn publish_request(&self, request: Bytes) {
        self.0.pipe.publish(&self.0.channels.requests, request);
    }

    /// Publishes a response where every version and configuration of Node.js servers receives it.
    fn respond(&self, response: ImksResult<Bytes>) {
        match response {
            Ok(response) => self.0.pipe.publish(&self.0.channels.responses, response),
            Err(error) => tracing::warn!(%error, "a Node.js server was not answered"),
        }
    }

    /// Spawns work for another node, unless too much of it is in progress.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> ImksResult<()> {
        let permit = self.0.work.clone().try_acquire_owned();
        let permit = permit.map_err(|_| ImksError::LimitReached("requests of other nodes"))?;
        self.0.work_tasks.spawn(async move {
            work.await;
            drop(permit);
        });
        Ok(())
    }

    /// Returns the id of a question, as messages name it.
    fn request_id(&self, number: u64) -> String {
        format!("{}-{number:x}", self.0.uid)
    }

    /// Returns the number of a question of this node.
    fn own_number(&self, id: &str) -> Option<u64> {
        let number = id.strip_prefix(&*self.0.uid)?.strip_prefix('-')?;
        u64::from_str_radix(number, 16).ok()
    }
}

/// The minimum time between two log messages about dropped messages.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
