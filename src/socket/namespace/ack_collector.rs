//! The ack collector, which gathers the acks of many clients to one event.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Notify;

use crate::error::ImksResult;
use crate::node::NodeId;
use crate::socket::codec::packet::Args;
use crate::socket::socket_id::SocketId;

/// The result of [`Broadcast::emit_with_ack`](crate::socket::Broadcast::emit_with_ack).
#[derive(Debug, Default)]
pub struct Answers {
    /// The acks, in the order in which they arrived.
    pub answers: Vec<Answer>,
    /// The clients that got the event but left or did not answer in time.
    pub silent: Vec<SocketId>,
    /// The nodes that did not report in time which clients they asked.
    pub silent_nodes: Vec<NodeId>,
}

/// The ack of one client.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The socket that answered; [`SocketId::UNNAMED`] if its server is one of Node.js, which does not say.
    pub socket: SocketId,
    /// The arguments of the ack.
    pub args: Args,
}

impl Answers {
    /// Whether every client that was asked has answered.
    pub fn is_complete(&self) -> bool {
        self.silent.is_empty() && self.silent_nodes.is_empty()
    }

    /// Deserializes the first argument of every ack.
    pub fn first<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<Vec<T>> {
        self.answers.iter().map(|answer| answer.args.first()).collect()
    }
}

/// A receiver for the acks of sockets of this node.
pub(crate) trait AckSink: Send + Sync {
    /// Called when a socket answers.
    fn acked(&self, socket: SocketId, args: Args);

    /// Called when a socket leaves or cannot be asked.
    fn gone(&self, socket: SocketId);
}

/// The pending ack of one socket, one of many. Dropping it reports that the socket will not answer.
pub(crate) struct PendingAck {
    socket: SocketId,
    sink: Option<Arc<dyn AckSink>>,
}

impl PendingAck {
    pub(crate) fn new(socket: SocketId, sink: Arc<dyn AckSink>) -> Self {
        Self { socket, sink: Some(sink) }
    }

    /// Passes the ack to its sink.
    pub(crate) fn resolve(mut self, args: Args) {
        if let Some(sink) = self.sink.take() {
            sink.acked(self.socket, args);
        }
    }
}

impl Drop for PendingAck {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.gone(self.socket);
        }
    }
}

/// Collects the acks from all nodes.
#[derive(Debug)]
pub(crate) struct AckCollector {
    here: NodeId,
    state: Mutex<State>,
    done: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The nodes that have not yet reported which sockets they asked.
    nodes: HashSet<NodeId>,
    /// The sockets that have not answered yet, and the node of each.
    asked: HashMap<SocketId, NodeId>,
    /// The acks that arrived before the report of their node. The bus does not keep messages in order.
    early: HashMap<(NodeId, SocketId), Option<Args>>,
    /// The sockets without a name that have not answered yet.
    unnamed: usize,
    result: Answers,
}

impl AckCollector {
    /// Creates a collector that waits for `here` and for the other nodes.
    pub(crate) fn new(here: NodeId, others: impl IntoIterator<Item = NodeId>) -> Self {
        let nodes = others.into_iter().chain([here]).collect();
        Self { here, state: Mutex::new(State { nodes, ..State::default() }), done: Notify::new() }
    }

    /// Records which sockets a node asked. A second report of the same node changes nothing.
    pub(crate) fn asked(&self, node: NodeId, sockets: &[SocketId]) {
        self.change(|state| {
            if !state.nodes.remove(&node) {
                return;
            }
            for socket in sockets {
                match state.early.remove(&(node, *socket)) {
                    Some(outcome) => state.settle(*socket, outcome),
                    None => drop(state.asked.insert(*socket, node)),
                }
            }
        });
    }

    /// Records that a socket of a node answered or, with `None`, that it never will.
    pub(crate) fn outcome(&self, node: NodeId, socket: SocketId, outcome: Option<Args>) {
        self.change(|state| {
            if state.nodes.contains(&node) && state.early.len() < EARLY_MAX {
                state.early.entry((node, socket)).or_insert(outcome);
            } else if state.asked.get(&socket) == Some(&node) {
                state.asked.remove(&socket);
                state.settle(socket, outcome);
            }
        });
    }

    /// Records how many sockets a node asked that names neither itself nor them.
    pub(crate) fn asked_unnamed(&self, sockets: usize) {
        self.change(|state| {
            let Some(node) = state.nodes.iter().find(|node| **node != self.here).copied() else { return };
            state.nodes.remove(&node);
            state.unnamed = state.unnamed.saturating_add(sockets);
        });
    }

    /// Records that one of the sockets without a name answered. Such nodes say first how many there are.
    pub(crate) fn acked_unnamed(&self, args: Args) {
        self.change(|state| {
            if let Some(left) = state.unnamed.checked_sub(1) {
                state.unnamed = left;
                state.settle(SocketId::UNNAMED, Some(args));
            }
        });
    }

    /// Waits until every socket that was asked has answered or left.
    pub(crate) async fn wait(&self) {
        loop {
            let done = self.done.notified();
            if self.state.lock().is_complete() {
                return;
            }
            done.await;
        }
    }

    /// Returns what has been collected so far. Sockets and nodes that are still missing count as silent.
    pub(crate) fn take(&self) -> Answers {
        let mut state = self.state.lock();
        let mut result = std::mem::take(&mut state.result);
        result.silent.extend(state.asked.drain().map(|(socket, _)| socket));
        let unnamed = std::mem::take(&mut state.unnamed);
        result.silent.extend(std::iter::repeat_n(SocketId::UNNAMED, unnamed));
        result.silent_nodes.extend(state.nodes.drain());
        result
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        if state.is_complete() {
            self.done.notify_waiters();
        }
    }
}

impl State {
    fn is_complete(&self) -> bool {
        self.nodes.is_empty() && self.asked.is_empty() && self.unnamed == 0
    }

    fn settle(&mut self, socket: SocketId, outcome: Option<Args>) {
        match outcome {
            Some(args) => self.result.answers.push(Answer { socket, args }),
            None => self.result.silent.push(socket),
        }
    }
}

/// Receives the acks of the sockets of this node.
impl AckSink for AckCollector {
    fn acked(&self, socket: SocketId, args: Args) {
        self.outcome(self.here, socket, Some(args));
    }

    fn gone(&self, socket: SocketId) {
        self.outcome(self.here, socket, None);
    }
}

/// The maximum number of stored acks that arrived before the report of their node.
const EARLY_MAX: usize = 65_536;
