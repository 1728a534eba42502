//! Event name → handler. The registry of one namespace, complete before the first client arrives.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use super::listeners::args_of;
use super::socket::Socket;
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::packet::Args;
use crate::socket::codec::parser::{self, Arguments, MAIN_NAMESPACE, One};

/// What a handler works on: an event that a client sent.
#[derive(Debug)]
pub struct Event {
    socket: Socket,
    id: Option<u64>,
    args: Args,
}

impl Event {
    pub(crate) fn new(socket: Socket, id: Option<u64>, args: Args) -> Self {
        Self { socket, id, args }
    }

    /// Who sent it.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Name of the event.
    pub fn name(&self) -> &str {
        self.args.name()
    }

    /// Its arguments.
    pub fn args(&self) -> &Args {
        &self.args
    }

    /// The first argument as a type.
    pub fn first<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        self.args.first()
    }

    /// All arguments as a tuple.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        self.args.parse()
    }

    /// The same event with another name and other arguments, for packet middleware that replaces it.
    ///
    /// # Errors
    /// [`ImksError::InvalidSocketPacketFormat`] for a name that clients may not use.
    pub fn replaced(self, name: &str, args: &impl Arguments) -> ImksResult<Self> {
        let frames = parser::encode_event(MAIN_NAMESPACE, None, name, args)?;
        Ok(Self { args: args_of(&frames)?, ..self })
    }

    /// Whether the client waits for an answer that was not taken yet.
    pub fn wants_ack(&self) -> bool {
        self.id.is_some()
    }

    /// Means to answer, if the client wants an answer. It can be taken once.
    pub fn take_ack(&mut self) -> Option<Ack> {
        let id = self.id.take()?;
        Some(Ack { socket: self.socket.clone(), id })
    }
}

/// Why an event was not handled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventError {
    /// For people.
    pub message: String,
    /// For programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

impl EventError {
    /// Without data.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None }
    }

    /// With data.
    pub fn with_data(message: impl Into<String>, data: serde_json::Value) -> Self {
        Self { message: message.into(), data: Some(data) }
    }
}

impl From<ImksError> for EventError {
    fn from(error: ImksError) -> Self {
        Self { message: error.client_message(), data: None }
    }
}

/// The client waits for this answer. Dropping it leaves the client to its own timeout.
#[derive(Debug)]
pub struct Ack {
    socket: Socket,
    id: u64,
}

impl Ack {
    /// Answers with one value.
    pub fn send(self, value: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.send_args(&One(value))
    }

    /// Answers with any arguments. A client that is gone needs no answer: that is no error.
    pub fn send_args(self, args: &impl Arguments) -> ImksResult<()> {
        let frames = parser::encode_ack(self.socket.namespace().path(), self.id, args)?;
        if self.socket.deliver_owned(frames).is_err() {
            tracing::debug!(socket_sid = %self.socket.id(), "client left before its answer");
        }
        Ok(())
    }
}

/// A future that a connection's task runs to its end.
pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How one event is handled.
pub(crate) enum Handler {
    /// Done when the call returns.
    Sync(Box<dyn Fn(Event) + Send + Sync>),
    /// Done when the future is; it is polled at once, so handlers start in the order their events arrived.
    Async(Box<dyn Fn(Event) -> BoxFuture<()> + Send + Sync>),
}

/// The handlers of one namespace.
#[derive(Default)]
pub(crate) struct Events {
    by_name: HashMap<Box<str>, Handler>,
    fallback: Option<Handler>,
}

impl Events {
    /// Handles an event to its end.
    pub(crate) async fn handle(&self, event: Event) {
        match self.get(event.name()) {
            Some(Handler::Sync(handler)) => handler(event),
            Some(Handler::Async(handler)) => handler(event).await,
            None => {
                tracing::debug!(socket_sid = event.socket().id(), event = event.name(), "no handler");
            }
        }
    }

    pub(crate) fn insert(&mut self, name: &str, handler: Handler) {
        self.by_name.insert(name.into(), handler);
    }

    pub(crate) fn set_fallback(&mut self, handler: Handler) {
        self.fallback = Some(handler);
    }

    /// The handler for this name, or the one for names without a handler.
    pub(crate) fn get(&self, name: &str) -> Option<&Handler> {
        self.by_name.get(name).or(self.fallback.as_ref())
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.by_name.keys()).finish()
    }
}
