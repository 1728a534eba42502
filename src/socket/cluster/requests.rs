//! The open requests of this node. Each has a deadline, and its result names the nodes that did not respond.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::family::unreadable;
use super::message::Response;
use crate::error::{ImksError, ImksResult};
use crate::node::NodeId;
use crate::socket::codec::packet::Args;
use crate::socket::namespace::ack_collector::AckCollector;
use crate::socket::namespace::socket_info::SocketInfo;

/// The open requests of this node.
pub(super) struct Requests {
    pending: Mutex<HashMap<u64, Pending>>,
    next: AtomicU64,
}

struct Pending {
    waiting: HashSet<NodeId>,
    answered: HashSet<NodeId>,
    responses: Responses,
    done: Arc<Notify>,
}

/// The responses collected so far.
pub(super) enum Responses {
    Sockets { parts: HashMap<NodeId, HashSet<u32>>, sockets: Vec<(NodeId, SocketInfo)> },
    ServerAcks(Vec<(NodeId, Args)>),
    Acks(Arc<AckCollector>),
}

/// The progress of a node's response.
enum Progress {
    Part,
    All,
    /// The node has no answer.
    Nothing,
}

impl Requests {
    pub(super) fn new() -> ImksResult<Self> {
        // A process that begins again under the name of its node must not repeat the numbers of the one before: others
        // would take its requests for copies.
        Ok(Self { pending: Mutex::default(), next: AtomicU64::new(getrandom::u64()?) })
    }

    /// Opens a request to these nodes.
    pub(super) fn open(
        self: &Arc<Self>,
        nodes: impl IntoIterator<Item = NodeId>,
        responses: Responses,
    ) -> ImksResult<OpenRequest> {
        let done = Arc::new(Notify::new());
        let waiting = nodes.into_iter().collect();
        let pending = Pending { waiting, answered: HashSet::new(), responses, done: done.clone() };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut all = self.pending.lock();
        if all.len() >= REQUESTS_MAX {
            return Err(ImksError::LimitReached("requests to other nodes"));
        }
        all.insert(id, pending);
        Ok(OpenRequest { requests: self.clone(), id, done })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pending.lock().len()
    }

    /// Adds the response of a node. Ignores duplicates and late responses.
    pub(super) fn take(&self, node: NodeId, id: u64, response: Response<'_>) -> ImksResult<()> {
        let mut pending = self.pending.lock();
        let Some(pending) = pending.get_mut(&id) else { return Ok(()) };
        if pending.answered.contains(&node) {
            return Ok(());
        }
        match pending.responses.take(node, response)? {
            Progress::Part => return Ok(()),
            Progress::All => drop(pending.waiting.remove(&node)),
            // The node counts as silent, but is not waited for.
            Progress::Nothing => {}
        }
        pending.answered.insert(node);
        if pending.is_complete() {
            pending.done.notify_one();
        }
        Ok(())
    }
}

impl Pending {
    fn is_complete(&self) -> bool {
        self.waiting.is_subset(&self.answered)
    }
}

impl Responses {
    fn take(&mut self, node: NodeId, response: Response<'_>) -> ImksResult<Progress> {
        match (self, response) {
            (Self::Sockets { parts, sockets }, Response::Sockets { part, parts: all, sockets: some }) => {
                if part >= all || all > PARTS_MAX {
                    return Err(unreadable("a part that cannot be"));
                }
                let arrived = parts.entry(node).or_default();
                if arrived.insert(part) {
                    sockets.extend(some.into_iter().map(|socket| (node, socket)));
                }
                Ok(if arrived.len() >= all as usize { Progress::All } else { Progress::Part })
            }
            (Self::ServerAcks(answers), Response::ServerAck { ack: Some(ack) }) => {
                answers.push((node, ack.ack()?));
                Ok(Progress::All)
            }
            (Self::ServerAcks(_), Response::ServerAck { ack: None }) => Ok(Progress::Nothing),
            (Self::Acks(acks), Response::AckRequested { sockets }) => {
                acks.asked(node, &sockets);
                Ok(Progress::Part)
            }
            (Self::Acks(acks), Response::Ack { socket, ack }) => {
                acks.outcome(node, socket, Some(ack.ack()?));
                Ok(Progress::Part)
            }
            (Self::Acks(acks), Response::NoAck { socket }) => {
                acks.outcome(node, socket, None);
                Ok(Progress::Part)
            }
            _ => Err(unreadable("a response to another request")),
        }
    }
}

/// An open request. Dropping it closes it.
pub(super) struct OpenRequest {
    requests: Arc<Requests>,
    pub(super) id: u64,
    done: Arc<Notify>,
}

impl OpenRequest {
    /// Waits until all nodes have responded or `timeout` has passed. Returns the responses and the silent
    /// nodes.
    pub(super) async fn wait(self, timeout: Duration) -> (Option<Responses>, Vec<NodeId>) {
        let complete = self.requests.pending.lock().get(&self.id).is_none_or(Pending::is_complete);
        if !complete {
            // A timeout is not an error: the result names the nodes that are missing.
            let _ = tokio::time::timeout(timeout, self.done.notified()).await;
        }
        match self.requests.pending.lock().remove(&self.id) {
            Some(pending) => (Some(pending.responses), pending.waiting.into_iter().collect()),
            None => (None, Vec::new()),
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.requests.pending.lock().remove(&self.id);
    }
}

/// The maximum number of open requests of this node. More are refused.
pub(crate) const REQUESTS_MAX: usize = 1_024;

/// The maximum number of messages in one node's list of sockets.
const PARTS_MAX: u32 = 65_536;
