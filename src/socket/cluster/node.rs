//! Questions to all nodes at once: each has a deadline, and an answer that names the nodes that gave none.
//!
//! Membership is by heartbeats: a node that dies costs the questions of the next ten seconds their deadline, and
//! nothing afterwards. A call that arrives twice is done once; a reply that nobody waits for is dropped.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::members::{HEARTBEAT_INTERVAL, Members};
use super::responses::Caller;
use super::wire::{Body, Call, Envelope, Reply, parse_id, unreadable};
use crate::error::{ImksError, ImksResult};
use crate::socket::adapter::Adapter;
use crate::socket::codec::packet::Args;
use crate::socket::metrics;
use crate::socket::namespace::ack_collector::Gathering;
use crate::socket::namespace::namespace::Namespace;
use crate::socket::namespace::remote_socket::RemoteSocket;
use crate::socket::socket_id::NodeId;

/// This node among the others.
pub(crate) struct Cluster {
    pub(crate) node: NodeId,
    adapter: Arc<dyn Adapter>,
    members: Mutex<Members>,
    pending: Mutex<HashMap<u64, Pending>>,
    requests: AtomicU64,
    done_lately: Mutex<DoneLately>,
    /// Calls of other nodes that are being worked on.
    work: Arc<Semaphore>,
    tasks: TaskTracker,
    running: AtomicBool,
    stop: CancellationToken,
}

/// A question that waits for its replies.
struct Pending {
    waiting: HashSet<NodeId>,
    replied: HashSet<NodeId>,
    collected: Collected,
    done: Arc<Notify>,
}

/// How much of a node's reply has arrived.
enum Heard {
    Part,
    All,
    /// It has nothing to say.
    Nothing,
}

/// What replies are collected into.
pub(crate) enum Collected {
    Sockets { namespace: Namespace, parts: HashMap<NodeId, HashSet<u32>>, sockets: Vec<RemoteSocket> },
    Answers(Vec<(NodeId, Args)>),
    Clients(Arc<Gathering>),
}

/// Calls that were done, so that a copy is not done again.
#[derive(Default)]
struct DoneLately {
    known: HashSet<(NodeId, u64)>,
    order: VecDeque<(NodeId, u64)>,
}

impl DoneLately {
    fn is_new(&mut self, call: (NodeId, u64)) -> bool {
        if !self.known.insert(call) {
            return false;
        }
        self.order.push_back(call);
        if self.order.len() > DONE_LATELY_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

impl Cluster {
    pub(crate) fn new(node: NodeId, adapter: Arc<dyn Adapter>) -> Self {
        Self {
            node,
            adapter,
            members: Mutex::default(),
            pending: Mutex::default(),
            requests: AtomicU64::new(0),
            done_lately: Mutex::default(),
            work: Arc::new(Semaphore::new(CALLS_IN_FLIGHT_MAX)),
            tasks: TaskTracker::new(),
            running: AtomicBool::new(false),
            stop: CancellationToken::new(),
        }
    }

    /// Joins the others. `find` gives the namespaces of this node by path.
    pub(crate) fn start(self: &Arc<Self>, find: impl Fn(&str) -> Option<Namespace> + Send + 'static) {
        if !self.adapter.reaches_others() || self.running.swap(true, Ordering::Relaxed) {
            return;
        }
        let (inbox, messages) = mpsc::channel(INBOX_MAX);
        self.adapter.subscribe(CHANNEL, inbox.clone());
        self.adapter.subscribe(&channel_of(self.node), inbox);
        self.tasks.spawn(self.clone().run(messages, find));
    }

    /// Leaves the others.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Nodes known to be alive, this one not counted.
    pub(crate) fn others(&self) -> Vec<NodeId> {
        self.members.lock().alive(Instant::now()).collect()
    }

    async fn run(
        self: Arc<Self>,
        mut messages: mpsc::Receiver<Bytes>,
        find: impl Fn(&str) -> Option<Namespace>,
    ) {
        let mut heartbeat = tokio::time::interval(HEARTBEAT_INTERVAL);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.tick().await;
        self.tell(Body::Hello);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                _ = heartbeat.tick() => self.tell(Body::Heartbeat),
                message = messages.recv() => match message {
                    Some(message) => self.receive(&message, &find),
                    None => break,
                },
            }
        }
        self.tell(Body::Bye);
        self.adapter.unsubscribe(CHANNEL);
        self.adapter.unsubscribe(&channel_of(self.node));
    }

    fn receive(self: &Arc<Self>, message: &[u8], find: impl Fn(&str) -> Option<Namespace>) {
        if let Err(error) = self.handle(message, find) {
            metrics::BUS_MESSAGES_DROPPED.increment();
            tracing::warn!(%error, "message of another node dropped");
        }
    }

    fn handle(self: &Arc<Self>, message: &[u8], find: impl Fn(&str) -> Option<Namespace>) -> ImksResult<()> {
        let Envelope { node, body, .. } = Envelope::decode(message)?;
        let node = parse_id(node)?;
        if node == self.node {
            return Ok(());
        }
        if matches!(body, Body::Bye) {
            self.members.lock().left(node);
            return Ok(());
        }
        self.members.lock().heard(node, Instant::now());
        match body {
            Body::Hello => self.tell(Body::Heartbeat),
            Body::Call { request, namespace, call } => {
                if self.done_lately.lock().is_new((node, request)) {
                    return Caller { cluster: self.clone(), node, request }.perform(find(namespace), &call);
                }
            }
            Body::Reply { request, reply } => return self.take_reply(node, request, reply),
            Body::Heartbeat | Body::Bye => {}
        }
        Ok(())
    }

    fn take_reply(&self, node: NodeId, request: u64, reply: Reply<'_>) -> ImksResult<()> {
        let mut pending = self.pending.lock();
        // Too late, or never asked: neither is worth a warning.
        let Some(pending) = pending.get_mut(&request) else { return Ok(()) };
        if pending.replied.contains(&node) {
            return Ok(());
        }
        match pending.take(node, reply)? {
            Heard::Part => return Ok(()),
            Heard::All => drop(pending.waiting.remove(&node)),
            // Counted as silent, but not waited for.
            Heard::Nothing => {}
        }
        pending.replied.insert(node);
        if pending.is_complete() {
            pending.done.notify_one();
        }
        Ok(())
    }

    /// Asks all others. What `collected` gathers is complete when [`Question::wait`] says so.
    pub(crate) fn ask(
        self: &Arc<Self>,
        namespace: &str,
        call: Call<'_>,
        collected: Collected,
    ) -> ImksResult<Question> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let done = Arc::new(Notify::new());
        let waiting: HashSet<_> = self.others().into_iter().collect();
        let nobody = waiting.is_empty();
        let pending = Pending { waiting, replied: HashSet::new(), collected, done: done.clone() };
        {
            let mut all = self.pending.lock();
            if all.len() >= PENDING_MAX {
                return Err(ImksError::LimitReached("questions to other nodes"));
            }
            all.insert(request, pending);
        }
        let question = Question { cluster: self.clone(), request, done };
        if !nobody {
            let body = Body::Call { request, namespace, call };
            self.adapter.publish(CHANNEL, Envelope::encode(self.node, body)?);
        }
        Ok(question)
    }

    pub(crate) fn reply(&self, to: NodeId, request: u64, reply: Reply<'_>) -> ImksResult<()> {
        let message = Envelope::encode(self.node, Body::Reply { request, reply })?;
        self.adapter.publish(&channel_of(to), message);
        Ok(())
    }

    /// Runs what another node asked for, unless there is too much of it already.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> ImksResult<()> {
        let permit = self.work.clone().try_acquire_owned();
        let permit = permit.map_err(|_| ImksError::LimitReached("calls of other nodes"))?;
        self.tasks.spawn(async move {
            work.await;
            drop(permit);
        });
        Ok(())
    }

    fn tell(&self, body: Body<'_>) {
        match Envelope::encode(self.node, body) {
            Ok(message) => self.adapter.publish(CHANNEL, message),
            Err(error) => tracing::warn!(%error, "other nodes not told"),
        }
    }
}

impl Pending {
    fn is_complete(&self) -> bool {
        self.waiting.is_subset(&self.replied)
    }

    /// Takes a reply in.
    fn take(&mut self, node: NodeId, reply: Reply<'_>) -> ImksResult<Heard> {
        match (&mut self.collected, reply) {
            (
                Collected::Sockets { namespace, parts, sockets },
                Reply::Sockets { part, parts: all, sockets: some },
            ) => {
                if part >= all || all > PARTS_MAX {
                    return Err(unreadable("a part that cannot be"));
                }
                let arrived = parts.entry(node).or_default();
                if arrived.insert(part) {
                    let some =
                        some.into_iter().map(|socket| RemoteSocket::from_wire(socket, node, namespace));
                    sockets.extend(some.collect::<ImksResult<Vec<_>>>()?);
                }
                Ok(if arrived.len() >= all as usize { Heard::All } else { Heard::Part })
            }
            (Collected::Answers(answers), Reply::Answer { packet: Some(packet) }) => {
                answers.push((node, packet.args()?));
                Ok(Heard::All)
            }
            (Collected::Answers(_), Reply::Answer { packet: None }) => Ok(Heard::Nothing),
            (Collected::Clients(gathering), reply) => {
                take_client_reply(gathering, node, &reply).map(|()| Heard::Part)
            }
            _ => Err(unreadable("a reply to another question")),
        }
    }
}

fn take_client_reply(gathering: &Gathering, node: NodeId, reply: &Reply<'_>) -> ImksResult<()> {
    match reply {
        Reply::Asked { sockets } => {
            let sockets = sockets.iter().map(|socket| parse_id(socket)).collect::<ImksResult<Vec<_>>>()?;
            gathering.asked(node, &sockets);
        }
        Reply::ClientAnswer { socket, packet } => {
            gathering.outcome(node, parse_id(socket)?, Some(packet.args()?));
        }
        Reply::ClientGone { socket } => gathering.outcome(node, parse_id(socket)?, None),
        Reply::Sockets { .. } | Reply::Answer { .. } => {
            return Err(unreadable("a reply to another question"));
        }
    }
    Ok(())
}

/// A question that was asked. Dropping it ends it.
pub(crate) struct Question {
    cluster: Arc<Cluster>,
    request: u64,
    done: Arc<Notify>,
}

impl Question {
    /// Until all nodes replied or the time is over: what was collected, and who did not reply.
    pub(crate) async fn wait(self, timeout: Duration) -> (Option<Collected>, Vec<NodeId>) {
        let complete = self.cluster.pending.lock().get(&self.request).is_none_or(Pending::is_complete);
        if !complete {
            // Running out of time is no error: the result names who is missing.
            let _ = tokio::time::timeout(timeout, self.done.notified()).await;
        }
        match self.cluster.pending.lock().remove(&self.request) {
            Some(pending) => (Some(pending.collected), pending.waiting.into_iter().collect()),
            None => (None, Vec::new()),
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.cluster.pending.lock().remove(&self.request);
    }
}

fn channel_of(node: NodeId) -> String {
    format!("node:{node}")
}

/// Where every node listens. Namespaces begin with `/`, so nothing of theirs is mixed up with it.
const CHANNEL: &str = "cluster";

/// Messages of other nodes that wait to be read; more are dropped by the adapter, and counted.
const INBOX_MAX: usize = 4_096;

/// Questions of this node that may be open at once; more are refused.
pub(crate) const PENDING_MAX: usize = 1_024;

/// Calls of other nodes that may be worked on at once; more are dropped and counted.
pub(crate) const CALLS_IN_FLIGHT_MAX: usize = 1_024;

/// Calls remembered to recognise copies.
const DONE_LATELY_MAX: usize = 4_096;

/// Messages one node may need to name its sockets.
const PARTS_MAX: u32 = 65_536;
