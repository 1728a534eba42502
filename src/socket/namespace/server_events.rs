//! Events between the servers of a cluster: sent by one node, handled by all others.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::events::BoxFuture;
use super::namespace::Namespace;
use crate::error::ImksResult;
use crate::socket::cluster::responses::Caller;
use crate::socket::codec::packet::Args;
use crate::socket::codec::parser::{Arguments, One};
use crate::socket::socket_id::NodeId;

/// An event that another node sent with [`Namespace::server_side_emit`].
pub struct ServerEvent {
    namespace: Namespace,
    args: Args,
    caller: Caller,
    answer: bool,
}

impl ServerEvent {
    pub(crate) fn new(namespace: Namespace, args: Args, caller: Caller, answer: bool) -> Self {
        Self { namespace, args, caller, answer }
    }

    /// Where it was sent.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Who sent it.
    pub fn node(&self) -> NodeId {
        self.caller.node
    }

    /// Its arguments.
    pub fn args(&self) -> &Args {
        &self.args
    }

    /// All arguments as a tuple.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        self.args.parse()
    }

    /// Answers with one value. Does nothing where no answer is wanted, or one was given.
    pub fn answer(&mut self, value: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.answer_args(&One(value))
    }

    /// Answers with any arguments.
    pub fn answer_args(&mut self, args: &impl Arguments) -> ImksResult<()> {
        if !std::mem::take(&mut self.answer) {
            return Ok(());
        }
        self.caller.answer(Some(args))
    }
}

impl Drop for ServerEvent {
    /// An answer that nobody gave need not be waited for.
    fn drop(&mut self) {
        if self.answer
            && let Err(error) = self.caller.answer(None::<&()>)
        {
            tracing::warn!(%error, "another node was not answered");
        }
    }
}

impl fmt::Debug for ServerEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ServerEvent").field("args", &self.args).finish_non_exhaustive()
    }
}

/// What the other nodes answered to [`Namespace::server_side_emit_with_ack`].
#[derive(Debug, Default)]
pub struct ServerAnswers {
    /// In the order they arrived.
    pub answers: Vec<(NodeId, Args)>,
    /// Nodes that did not answer in time, or do not handle the event.
    pub silent: Vec<NodeId>,
}

pub(crate) type ServerHandler = Arc<dyn Fn(ServerEvent) -> BoxFuture<()> + Send + Sync>;

/// The handlers of one namespace.
#[derive(Default)]
pub(crate) struct ServerHandlers(HashMap<Box<str>, ServerHandler>);

impl ServerHandlers {
    pub(crate) fn insert(&mut self, event: &str, handler: ServerHandler) {
        self.0.insert(event.into(), handler);
    }

    pub(crate) fn get(&self, event: &str) -> Option<ServerHandler> {
        self.0.get(event).cloned()
    }
}
