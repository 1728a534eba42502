//! The open questions of this node to Node.js servers. These do not say who they are, so answers are counted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::family::unreadable;
use super::super::requests::REQUESTS_MAX;
use super::rooms::Room;
use super::sockets;
use super::wire::{Content, LIMITS};
use crate::error::{ImksError, ImksResult};
use crate::node::NodeId;
use crate::socket::codec::msgpack::servers::read_ack;
use crate::socket::codec::packet::{Args, PacketType};
use crate::socket::namespace::ack_collector::AckCollector;
use crate::socket::namespace::socket_info::SocketInfo;

/// The open questions of this node in one namespace.
#[derive(Default)]
pub(super) struct Questions {
    open: Mutex<HashMap<u64, Open>>,
    next: AtomicU64,
}

struct Open {
    /// The nodes that have not answered.
    missing: usize,
    /// The nodes that have an answer that cannot be used, or none.
    silent: usize,
    /// The nodes whose answer was used.
    answered: usize,
    /// The size of the answers so far in bytes.
    bytes: usize,
    answers: Answers,
    done: Arc<Notify>,
}

/// The answers collected so far.
pub(super) enum Answers {
    Sockets(Vec<(NodeId, SocketInfo)>),
    Rooms(BTreeSet<String>),
    Server(Vec<(NodeId, Args)>),
    Acks(Arc<AckCollector>),
}

impl Questions {
    /// Opens a question to this many nodes.
    pub(super) fn open(self: &Arc<Self>, nodes: usize, answers: Answers) -> ImksResult<OpenQuestion> {
        let done = Arc::new(Notify::new());
        let open = Open { missing: nodes, silent: 0, answered: 0, bytes: 0, answers, done: done.clone() };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut all = self.open.lock();
        if all.len() >= REQUESTS_MAX {
            return Err(ImksError::LimitReached("requests to other nodes"));
        }
        all.insert(number, open);
        Ok(OpenQuestion { questions: self.clone(), number, done })
    }

    /// Adds an answer of `bytes` bytes. One to a question that is not open is ignored.
    pub(super) fn take(&self, number: u64, content: &Content<'_>, bytes: usize) -> ImksResult<()> {
        let mut all = self.open.lock();
        let Some(open) = all.get_mut(&number) else { return Ok(()) };
        let taken = open.take(content, bytes);
        if taken.is_err() {
            // Nobody has to wait for what has come, even if it cannot be used.
            open.settle(false);
        }
        taken
    }
}

impl Open {
    fn take(&mut self, content: &Content<'_>, bytes: usize) -> ImksResult<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > ANSWERS_BYTES_MAX {
            return Err(ImksError::LimitReached("bytes of answers to one question"));
        }
        if let Answers::Acks(acks) = &self.answers {
            return match content {
                Content::Clients(clients) => {
                    acks.asked_unnamed(usize::try_from(*clients).unwrap_or(usize::MAX));
                    Ok(())
                }
                Content::Ack(value) => {
                    acks.acked_unnamed(read_ack(value, &LIMITS)?);
                    Ok(())
                }
                _ => Err(unreadable("a response to another request")),
            };
        }
        if self.missing == 0 {
            return Ok(());
        }
        let node = unnamed(self.answered);
        match (&mut self.answers, content) {
            (Answers::Sockets(all), Content::Sockets(some)) => {
                let some = sockets::read(some.get()).map_err(unreadable)?;
                all.extend(some.into_iter().map(|socket| (node, socket)));
            }
            (Answers::Rooms(all), Content::Rooms(some)) => {
                let some: Vec<Room<'_>> = serde_json::from_str(some.get()).map_err(unreadable)?;
                all.extend(some.into_iter().map(|Room(name)| name.into_owned()));
            }
            (Answers::Server(all), Content::Answer(Some(answer))) => {
                let array = format!("[{}]", answer.get());
                all.push((node, Args::from_parts(PacketType::Ack, &array, Vec::new())?));
            }
            // It does not handle the event, or its handler has no answer.
            (Answers::Server(_), Content::Answer(None)) => {
                self.settle(false);
                return Ok(());
            }
            _ => return Err(unreadable("a response to another request")),
        }
        self.settle(true);
        Ok(())
    }

    fn settle(&mut self, answered: bool) {
        let Some(missing) = self.missing.checked_sub(1) else { return };
        self.missing = missing;
        *(if answered { &mut self.answered } else { &mut self.silent }) += 1;
        if missing == 0 {
            self.done.notify_one();
        }
    }
}

/// An open question. Dropping it closes it.
pub(super) struct OpenQuestion {
    questions: Arc<Questions>,
    pub(super) number: u64,
    done: Arc<Notify>,
}

impl OpenQuestion {
    /// Waits until all nodes have answered or `timeout` has passed. Returns the answers, and ids that stand for the silent
    /// nodes.
    pub(super) async fn wait(self, timeout: Duration) -> (Option<Answers>, Vec<NodeId>) {
        let complete = self.questions.open.lock().get(&self.number).is_none_or(|open| open.missing == 0);
        if !complete {
            // A timeout is not an error: the result counts the nodes that are missing.
            let _ = tokio::time::timeout(timeout, self.done.notified()).await;
        }
        match self.questions.open.lock().remove(&self.number) {
            Some(open) => {
                let silent = open.answered..open.answered + open.silent + open.missing;
                (Some(open.answers), silent.map(unnamed).collect())
            }
            None => (None, Vec::new()),
        }
    }
}

impl Drop for OpenQuestion {
    fn drop(&mut self) {
        self.questions.open.lock().remove(&self.number);
    }
}

/// Returns the id that stands for a node without a name: the `number`-th that answers or should.
pub(super) fn unnamed(number: usize) -> NodeId {
    let [.., a, b] = number.saturating_add(1).to_be_bytes();
    NodeId::from_bytes([0, 0, 0, a, b])
}

/// The maximum size of all answers to one question in bytes.
const ANSWERS_BYTES_MAX: usize = 64 << 20;
