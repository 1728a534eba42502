//! The message bus, which carries operations, requests and responses between this node and the others.
//!
//! Every node applies the operations of the others to its own sockets, and responds to their requests.
//! Membership is by heartbeats: in the ten seconds after a node has died, requests wait for it until their
//! deadline. A duplicate request is performed once, and a response without an open request is dropped.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::family::Family;
use super::members::{HEARTBEAT_INTERVAL, Members};
use super::message::{Body, ClusterMessage, Place, Request, Response};
use super::recent::{LastPlaces, RecentRequests};
use super::requests::{OpenRequest, Requests, Responses};
use super::responses::Requester;
use crate::background;
use crate::bus::{BusState, Pipe, Subscription, metrics};
use crate::error::{ImksError, ImksResult};
use crate::node::NodeId;
use crate::socket::namespace::cluster_link::{ClusterLink, Operation, Target};
use crate::socket::namespace::namespace::Namespace;

/// The connection of this node to the others.
pub(crate) struct MessageBus {
    pub(super) node: NodeId,
    pub(super) pipe: Arc<dyn Pipe>,
    family: Arc<dyn Family>,
    pub(super) request_timeout: Duration,
    pub(super) members: Mutex<Members>,
    requests: Arc<Requests>,
    /// A random number of this process, and how many operations it has numbered.
    process: u32,
    operations: Mutex<u64>,
    recent: Mutex<RecentRequests>,
    /// The queue of responses to other nodes.
    responses: mpsc::Sender<(NodeId, Bytes)>,
    unsent: Mutex<Option<mpsc::Receiver<(NodeId, Bytes)>>>,
    /// The tokens that end the subscriptions of namespaces.
    namespaces: Mutex<HashMap<Box<str>, CancellationToken>>,
    /// The permits for requests of other nodes in progress.
    work: Arc<Semaphore>,
    work_tasks: TaskTracker,
    loops: TaskTracker,
    running: AtomicBool,
    stop: CancellationToken,
    warned: Mutex<Option<Instant>>,
}

/// A function that finds a namespace of this node by its path.
type Find = dyn Fn(&str) -> Option<Namespace> + Send + Sync;

impl MessageBus {
    pub(crate) fn new(
        node: NodeId,
        pipe: Arc<dyn Pipe>,
        family: Arc<dyn Family>,
        request_timeout: Duration,
    ) -> ImksResult<Self> {
        let (responses, unsent) = mpsc::channel(RESPONSES_MAX);
        Ok(Self {
            node,
            pipe,
            family,
            request_timeout,
            members: Mutex::default(),
            requests: Arc::new(Requests::new()?),
            process: getrandom::u32()?,
            operations: Mutex::new(0),
            recent: Mutex::default(),
            responses,
            unsent: Mutex::new(Some(unsent)),
            namespaces: Mutex::default(),
            work: Arc::new(Semaphore::new(WORK_MAX)),
            work_tasks: TaskTracker::new(),
            loops: TaskTracker::new(),
            running: AtomicBool::new(false),
            stop: CancellationToken::new(),
            warned: Mutex::default(),
        })
    }

    /// Joins the cluster. `find` returns the namespaces of this node by path.
    pub(crate) fn start(self: &Arc<Self>, find: impl Fn(&str) -> Option<Namespace> + Send + Sync + 'static) {
        if !self.pipe.reaches_others() || self.running.swap(true, Ordering::Relaxed) {
            return;
        }
        let to_all = self.pipe.subscribe(&self.family.subscription(None));
        let to_this = self.pipe.receive(self.node);
        let find: Arc<Find> = Arc::new(find);
        let receiving = self.clone().receive_own(to_this, find.clone());
        self.loops.spawn(background::essential("cluster_own_messages", receiving));
        self.loops.spawn(background::essential("cluster_messages", self.clone().run(to_all, find)));
        if let Some(unsent) = self.unsent.lock().take() {
            self.loops.spawn(background::essential("cluster_answers", self.clone().send_responses(unsent)));
        }
    }

    /// Starts to apply the operations of other nodes to this namespace.
    pub(crate) fn listen(self: &Arc<Self>, namespace: &Namespace) {
        if !self.pipe.reaches_others() {
            return;
        }
        let stop = self.stop.child_token();
        let subscription = self.pipe.subscribe(&self.family.subscription(Some(namespace.path())));
        if let Some(earlier) = self.namespaces.lock().insert(namespace.path().into(), stop.clone()) {
            earlier.cancel();
        }
        let applying = self.clone().apply_operations(namespace.clone(), subscription, stop);
        self.loops.spawn(background::essential("cluster_operations", applying));
    }

    /// Stops applying operations to this namespace.
    pub(crate) fn unlisten(&self, path: &str) {
        if let Some(stop) = self.namespaces.lock().remove(path) {
            stop.cancel();
        }
    }

    /// Leaves the cluster. The other nodes have been notified and the pipe is closed when this returns.
    pub(crate) async fn leave(&self) {
        self.stop.cancel();
        self.loops.close();
        self.loops.wait().await;
        self.pipe.close().await;
    }

    /// Receives the messages that are for this node alone.
    async fn receive_own(self: Arc<Self>, mut messages: Subscription, find: Arc<Find>) {
        while let Some(Some(message)) = self.stop.run_until_cancelled(messages.recv()).await {
            self.receive(&message, &*find);
        }
    }

    async fn run(self: Arc<Self>, mut to_all: Subscription, find: Arc<Find>) {
        let confirmed = tokio::select! {
            () = self.stop.cancelled() => false,
            confirmed = to_all.confirmed() => confirmed,
        };
        if confirmed {
            self.tell(Body::Hello);
            self.talk(to_all, &*find).await;
        }
        self.tell(Body::Bye);
    }

    /// Receives messages and sends heartbeats until this node leaves or the pipe is closed.
    async fn talk(self: &Arc<Self>, mut to_all: Subscription, find: &Find) {
        let mut heartbeat = tokio::time::interval(HEARTBEAT_INTERVAL);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.tick().await;
        let mut state = self.pipe.state();
        let mut epoch = state.borrow().epoch;
        self.members.lock().connected(state.borrow().up, Instant::now());
        loop {
            tokio::select! {
                // What is rare comes first, so that nothing has to wait for ever; and a simulation can be repeated.
                biased;
                () = self.stop.cancelled() => return,
                _ = heartbeat.tick() => {
                    self.tell(Body::Heartbeat);
                    metrics::MEMBERS.set(self.others().len() as i64);
                }
                // After a reconnect, ask all nodes to announce themselves again.
                Ok(()) = state.changed() => {
                    let BusState { epoch: now, up, .. } = *state.borrow_and_update();
                    self.members.lock().connected(up, Instant::now());
                    if std::mem::replace(&mut epoch, now) != now {
                        self.tell(Body::Hello);
                    }
                }
                Some(message) = to_all.recv() => self.receive(&message, find),
                else => return,
            }
        }
    }

    async fn apply_operations(
        self: Arc<Self>,
        namespace: Namespace,
        mut messages: Subscription,
        stop: CancellationToken,
    ) {
        let find = move |path: &str| (path == namespace.path()).then(|| namespace.clone());
        let mut last = LastPlaces::default();
        while let Some(Some(message)) = stop.run_until_cancelled(messages.recv()).await {
            let handled = self.handle(&message, &find, Some(&mut last));
            self.count_unreadable(handled);
        }
    }

    async fn send_responses(self: Arc<Self>, mut unsent: mpsc::Receiver<(NodeId, Bytes)>) {
        while let Some(Some((node, message))) = self.stop.run_until_cancelled(unsent.recv()).await {
            if self.pipe.send_to(node, message).await.is_err() {
                tracing::debug!(%node, "another node has gone before it was answered");
            }
        }
    }

    fn receive(self: &Arc<Self>, message: &[u8], find: &Find) {
        let handled = self.handle(message, find, None);
        self.count_unreadable(handled);
    }

    fn count_unreadable(&self, handled: ImksResult<()>) {
        let Err(error) = handled else { return };
        metrics::MESSAGES_DROPPED.of(metrics::Drop::Unreadable).increment();
        let mut warned = self.warned.lock();
        // Limit the log rate, so that a flood on the bus does not become one in the log.
        if warned.is_none_or(|last| last.elapsed() >= WARNING_INTERVAL) {
            *warned = Some(Instant::now());
            tracing::warn!(%error, pipe = self.pipe.name(), "messages of other nodes dropped");
        }
    }

    /// Handles a message. `last` has the places of the operations that came on the same subscription.
    fn handle(
        self: &Arc<Self>,
        message: &[u8],
        find: &Find,
        last: Option<&mut LastPlaces>,
    ) -> ImksResult<()> {
        let Some(ClusterMessage { node, body }) = self.family.decode(message, self.node)? else {
            return Ok(());
        };
        if !matches!(body, Body::Operation { .. } | Body::Bye) {
            self.members.lock().heard(node, Instant::now());
        }
        match body {
            Body::Operation { place, namespace, target, operation } => {
                if place.zip(last).is_some_and(|(place, last)| !last.advance(node, place)) {
                    metrics::MESSAGES_DROPPED.of(metrics::Drop::Late).increment();
                    return Ok(());
                }
                let Some(namespace) = find(namespace) else { return Ok(()) };
                if matches!(operation, Operation::Broadcast { .. }) && namespace.is_for_nobody(&target) {
                    metrics::MESSAGES_FOR_NOBODY.increment();
                    return Ok(());
                }
                return namespace.apply(&target, &operation);
            }
            Body::Request { id, namespace, request } => {
                if self.recent.lock().is_new((node, id)) {
                    return Requester { bus: self.clone(), node, id }.perform(find(namespace), &request);
                }
            }
            Body::Response { id, response } => return self.requests.take(node, id, response),
            Body::Hello => self.tell(Body::Heartbeat),
            Body::Bye => self.members.lock().left(node),
            Body::Heartbeat => {}
        }
        Ok(())
    }

    /// Opens a request, and publishes it if there are other nodes.
    pub(super) fn request(
        &self,
        namespace: &str,
        request: Request<'_>,
        responses: Responses,
    ) -> ImksResult<OpenRequest> {
        let others = self.asked();
        let nobody = others.is_empty();
        let open = self.requests.open(others, responses)?;
        if !nobody {
            self.publish_body(Body::Request { id: open.id, namespace, request })?;
        }
        Ok(open)
    }

    /// Numbers an operation and publishes it. Entries of a recovery log have their order without that.
    pub(super) fn publish_operation(
        &self,
        namespace: &str,
        target: Target<'_>,
        operation: Operation<'_>,
    ) -> ImksResult<()> {
        if matches!(operation, Operation::Logged { .. }) {
            return self.publish_body(Body::Operation { place: None, namespace, target, operation });
        }
        // Held until the message is queued: other nodes drop what is queued after a higher number.
        let mut number = self.operations.lock();
        *number += 1;
        let place = Some(Place { process: self.process, number: *number });
        self.publish_body(Body::Operation { place, namespace, target, operation })
    }

    /// Queues a response for another node.
    pub(super) fn respond(&self, node: NodeId, id: u64, response: Response<'_>) {
        let message = ClusterMessage { node: self.node, body: Body::Response { id, response } };
        let sent = self.family.encode(&message).map(|message| self.responses.try_send((node, message)));
        match sent {
            Ok(Ok(())) => {}
            // The requester reports this node as silent.
            Ok(Err(_)) => metrics::MESSAGES_DROPPED.of(metrics::Drop::ResponsesFull).increment(),
            Err(error) => tracing::warn!(%error, "another node was not answered"),
        }
    }

    /// Spawns work for another node, unless too much of it is in progress.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> ImksResult<()> {
        let permit = self.work.clone().try_acquire_owned();
        let permit = permit.map_err(|_| ImksError::LimitReached("requests of other nodes"))?;
        self.work_tasks.spawn(async move {
            work.await;
            drop(permit);
        });
        Ok(())
    }

    /// Returns what this node keeps for others and for its own requests: the name of each table, its size and its bound.
    #[cfg(test)]
    pub(crate) fn tables(&self) -> Vec<(&'static str, usize, usize)> {
        vec![
            ("open requests", self.requests.len(), super::requests::REQUESTS_MAX),
            ("responses", RESPONSES_MAX - self.responses.capacity(), RESPONSES_MAX),
            ("work", WORK_MAX - self.work.available_permits(), WORK_MAX),
        ]
    }

    fn tell(&self, body: Body<'_>) {
        if let Err(error) = self.publish_body(body) {
            tracing::warn!(%error, "other nodes not told");
        }
    }

    pub(super) fn publish_body(&self, body: Body<'_>) -> ImksResult<()> {
        let message = ClusterMessage { node: self.node, body };
        let bytes = self.family.encode(&message)?;
        self.pipe.publish(&self.family.channel(&message.body), bytes);
        Ok(())
    }
}

/// The maximum number of queued responses. More are dropped and counted, and the requester reports this node
/// as silent.
pub(crate) const RESPONSES_MAX: usize = 4_096;

/// The maximum number of requests of other nodes in progress. More are dropped and counted.
pub(crate) const WORK_MAX: usize = 1_024;

/// The minimum time between two log messages about dropped messages.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
