//! Acks of many clients to one event: who was asked, who answered, who is still to answer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Notify;

use crate::error::ImksResult;
use crate::node::NodeId;
use crate::socket::codec::packet::Args;
use crate::socket::socket_id::SocketId;

/// What [`Broadcast::emit_with_ack`](crate::socket::Broadcast::emit_with_ack) came to.
#[derive(Debug, Default)]
pub struct Answers {
    /// In the order they arrived.
    pub answers: Vec<Answer>,
    /// Clients that were asked and did not answer in time, or left.
    pub silent: Vec<SocketId>,
    /// Nodes that did not say in time whom they asked.
    pub silent_nodes: Vec<NodeId>,
}

/// One client's answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The socket that answered.
    pub socket: SocketId,
    /// What.
    pub args: Args,
}

impl Answers {
    /// Whether everybody who was asked answered.
    pub fn is_complete(&self) -> bool {
        self.silent.is_empty() && self.silent_nodes.is_empty()
    }

    /// The first argument of every answer as a type.
    pub fn first<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<Vec<T>> {
        self.answers.iter().map(|answer| answer.args.first()).collect()
    }
}

/// Hears of the acks of sockets of this node.
pub(crate) trait AckSink: Send + Sync {
    /// A socket answered.
    fn acked(&self, socket: SocketId, args: Args);

    /// A socket left, or cannot be asked.
    fn gone(&self, socket: SocketId);
}

/// One of many acks that a socket owes. Dropped without one, it says that there will be none.
pub(crate) struct PendingAck {
    socket: SocketId,
    sink: Option<Arc<dyn AckSink>>,
}

impl PendingAck {
    pub(crate) fn new(socket: SocketId, sink: Arc<dyn AckSink>) -> Self {
        Self { socket, sink: Some(sink) }
    }

    /// Hands the ack over.
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

/// Collects the answers of all nodes.
#[derive(Debug)]
pub(crate) struct AckCollector {
    here: NodeId,
    state: Mutex<State>,
    done: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Nodes that have not said whom they asked.
    nodes: HashSet<NodeId>,
    /// Sockets that are still to answer, and the node of each.
    asked: HashMap<SocketId, NodeId>,
    /// What arrived before its node said whom it asked: the bus does not keep the order.
    early: HashMap<(NodeId, SocketId), Option<Args>>,
    result: Answers,
}

impl AckCollector {
    /// Waits for these nodes, `here` among them.
    pub(crate) fn new(here: NodeId, others: impl IntoIterator<Item = NodeId>) -> Self {
        let nodes = others.into_iter().chain([here]).collect();
        Self { here, state: Mutex::new(State { nodes, ..State::default() }), done: Notify::new() }
    }

    /// A node says whom it asked. The second time changes nothing.
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

    /// A socket of a node answered, or (`None`) never will.
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

    /// Until everybody answered or left.
    pub(crate) async fn wait(&self) {
        loop {
            let done = self.done.notified();
            if self.state.lock().is_complete() {
                return;
            }
            done.await;
        }
    }

    /// What is known now.
    pub(crate) fn take(&self) -> Answers {
        let mut state = self.state.lock();
        let mut result = std::mem::take(&mut state.result);
        result.silent.extend(state.asked.drain().map(|(socket, _)| socket));
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
        self.nodes.is_empty() && self.asked.is_empty()
    }

    fn settle(&mut self, socket: SocketId, outcome: Option<Args>) {
        match outcome {
            Some(args) => self.result.answers.push(Answer { socket, args }),
            None => self.result.silent.push(socket),
        }
    }
}

/// Takes the acks of this node's own sockets.
impl AckSink for AckCollector {
    fn acked(&self, socket: SocketId, args: Args) {
        self.outcome(self.here, socket, Some(args));
    }

    fn gone(&self, socket: SocketId) {
        self.outcome(self.here, socket, None);
    }
}

/// Answers kept that came before their node said whom it asked.
const EARLY_MAX: usize = 65_536;
