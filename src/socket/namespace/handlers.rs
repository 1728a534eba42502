//! The handlers of a namespace and their arguments. They are complete before the first client arrives.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::connect::{Accept, ConnectPayload, Owner};
use super::namespace::Namespace;
use super::refusal::{ConnectError, ErrorAnswer, EventError};
use super::socket::Socket;
use crate::bus::{BoxFuture, Pipe};
use crate::engine::{Lane, Reservation, SendError, WhenFull};
use crate::error::{ImksError, ImksResult};
use crate::node::NodeId;
use crate::socket::codec::arguments::{Arguments, One};
use crate::socket::codec::encoder::{encode_ack, encode_event};
use crate::socket::codec::packet::{Args, MAIN_NAMESPACE};
use crate::socket::data::RestoreValue;
use crate::socket::reason::DisconnectReason;

/// An event from a client, as its handler sees it.
#[derive(Debug)]
pub struct Event {
    socket: Socket,
    id: Option<u64>,
    args: Args,
    /// Since when it has waited for its handler; `None` if it did not have to.
    waits_since: Option<Instant>,
}

impl Event {
    pub(crate) fn new(socket: Socket, id: Option<u64>, args: Args, waits_since: Option<Instant>) -> Self {
        Self { socket, id, args, waits_since }
    }

    /// Returns since when the event has waited for its handler, behind others of its client; `None` if it did not have to.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        self.waits_since
    }

    /// Returns the socket of the client that sent the event.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Returns the name of the event.
    pub fn name(&self) -> &str {
        self.args.name()
    }

    /// Returns the name of the event as a log shows it, because a client chose it: truncated, and without characters that
    /// are not seen.
    pub fn logged_name(&self) -> Cow<'_, str> {
        self.args.logged_name()
    }

    /// Returns the arguments of the event.
    pub fn args(&self) -> &Args {
        &self.args
    }

    /// Deserializes the first argument.
    pub fn first<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        self.args.first()
    }

    /// Deserializes all arguments as a tuple or a list, and the only argument as any other type; see [`Args::parse`].
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        self.args.parse()
    }

    /// Replaces the name and the arguments of the event; meant for packet middleware.
    ///
    /// # Errors
    /// [`ImksError::InvalidSocketPacketFormat`] if clients may
    /// not use the name.
    pub fn replaced(self, name: &str, args: &impl Arguments) -> ImksResult<Self> {
        let args = encode_event(MAIN_NAMESPACE, None, name, args)?.args()?;
        Ok(Self { args, ..self })
    }

    /// Whether the client waits for an ack that has not been taken yet.
    pub fn wants_ack(&self) -> bool {
        self.id.is_some()
    }

    /// Takes the ack, if the client wants one. It can be taken once.
    pub fn take_ack(&mut self) -> Option<Ack> {
        let id = self.id.take()?;
        Some(Ack::new(self.socket.clone(), id))
    }
}

/// The ack that a client waits for. If it is dropped, the client runs into its own timeout.
#[derive(Debug)]
pub struct Ack {
    socket: Socket,
    id: u64,
    lane: Lane,
}

impl Ack {
    pub(crate) fn new(socket: Socket, id: u64) -> Self {
        Self { socket, id, lane: Lane::Chat }
    }

    /// Sets the lane in which the ack waits for a client that does not keep up: behind everything else with
    /// [`Lane::Bulk`], and otherwise with messages, which is the default.
    #[must_use]
    pub fn lane(mut self, lane: Lane) -> Self {
        self.lane = lane;
        self
    }

    /// Sends the ack with one value.
    pub fn send(self, value: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.send_args(&One(value))
    }

    /// Sends the ack with any arguments. It is not an error if the client has left.
    ///
    /// # Errors
    /// [`ImksError::LimitReached`] if too much waits for the recovery log that nodes share.
    pub fn send_args(self, args: &impl Arguments) -> ImksResult<()> {
        self.answer(args, |_| None)
    }

    /// Sends the ack with one value, and holds a reservation while it is in the outbox.
    ///
    /// `hold` gets the size of the ack in bytes. The reservation is released when the ack has been sent or is
    /// lost with the connection.
    pub fn send_holding(
        self,
        value: &(impl Serialize + ?Sized),
        hold: impl FnOnce(usize) -> Reservation,
    ) -> ImksResult<()> {
        self.answer(&One(value), |bytes| Some(hold(bytes)))
    }

    fn answer(
        self,
        args: &impl Arguments,
        hold: impl FnOnce(usize) -> Option<Reservation>,
    ) -> ImksResult<()> {
        let packet = encode_ack(self.socket.namespace().path(), self.id, args)?;
        match self.socket.answer(packet, hold, self.lane) {
            Err(SendError::Slow) => return Err(ImksError::LimitReached("what waits for the recovery log")),
            Err(SendError::Closed) => {
                tracing::debug!(socket_sid = %self.socket.id(), "client left before its answer");
            }
            Ok(()) => {}
        }
        Ok(())
    }

    /// Sends the ack as an error.
    pub(crate) fn refuse(self, error: &EventError) -> ImksResult<()> {
        self.send(&ErrorAnswer { error })
    }
}

/// An event that another node sent with [`Namespace::server_side_emit`].
pub struct ServerEvent {
    namespace: Namespace,
    node: NodeId,
    args: Args,
    reply: Option<ServerReply>,
}

/// The callback that sends an answer to the requester; `None` means that there is no answer.
pub(crate) type ServerReply = Box<dyn FnOnce(Option<Args>) + Send>;

impl ServerEvent {
    pub(crate) fn new(namespace: Namespace, node: NodeId, args: Args, reply: Option<ServerReply>) -> Self {
        Self { namespace, node, args, reply }
    }

    /// Returns the namespace in which the event was sent.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns the node that sent the event.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Returns the arguments of the event.
    pub fn args(&self) -> &Args {
        &self.args
    }

    /// Deserializes all arguments as a tuple or a list, and the only argument as any other type; see [`Args::parse`].
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        self.args.parse()
    }

    /// Answers with one value. Does nothing if no answer is wanted or one was given already.
    pub fn answer(&mut self, value: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.answer_args(&One(value))
    }

    /// Answers with any arguments. Does nothing if no answer is wanted or one was given already.
    pub fn answer_args(&mut self, args: &impl Arguments) -> ImksResult<()> {
        let args = encode_ack(MAIN_NAMESPACE, 0, args)?.args()?;
        if let Some(reply) = self.reply.take() {
            reply(Some(args));
        }
        Ok(())
    }
}

impl Drop for ServerEvent {
    /// Reports that there is no answer, so that the requester does not wait for one.
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            reply(None);
        }
    }
}

impl fmt::Debug for ServerEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ServerEvent").field("args", &self.args).finish_non_exhaustive()
    }
}

/// The handler of one event.
pub(crate) enum Handler {
    /// A handler that is done when the call returns.
    Sync(Box<dyn Fn(Event) + Send + Sync>),
    /// A handler that is done when its future is. The future is polled at once, so that handlers start in the
    /// order in which their events arrived.
    Async(Box<dyn Fn(Event) -> BoxFuture<'static, ()> + Send + Sync>),
}

pub(crate) type ServerHandler = Arc<dyn Fn(ServerEvent) -> BoxFuture<'static, ()> + Send + Sync>;

/// The handlers by event name.
#[derive(Default)]
pub(crate) struct Events {
    pub(crate) by_name: HashMap<Box<str>, Handler>,
    pub(crate) fallback: Option<Handler>,
}

impl Events {
    /// Returns the handler for this name, or the fallback.
    pub(crate) fn get(&self, name: &str) -> Option<&Handler> {
        self.by_name.get(name).or(self.fallback.as_ref())
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.by_name.keys()).finish()
    }
}

type PacketMiddleware = Arc<dyn Fn(Event) -> BoxFuture<'static, Result<Event, EventError>> + Send + Sync>;
type IncomingListener = Arc<dyn Fn(&Event) + Send + Sync>;
type OutgoingListener = Arc<dyn Fn(&Socket, &Args) + Send + Sync>;

/// The packet middleware and catch-all listeners of a namespace or of one socket, in the order added.
#[derive(Default, Clone)]
pub(crate) struct Listeners {
    pub(crate) middleware: Vec<PacketMiddleware>,
    pub(crate) incoming: Vec<IncomingListener>,
    pub(crate) outgoing: Vec<OutgoingListener>,
}

impl Listeners {
    pub(crate) fn add_middleware<F, Fut>(&mut self, step: F)
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Event, EventError>> + Send + 'static,
    {
        self.middleware.push(Arc::new(move |event| Box::pin(step(event))));
    }

    /// Whether anything watches the events that clients send.
    pub(crate) fn watch_incoming(&self) -> bool {
        !self.middleware.is_empty() || !self.incoming.is_empty()
    }

    /// Whether anything watches the events that are sent to clients.
    pub(crate) fn watch_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [self.middleware.len(), self.incoming.len(), self.outgoing.len()];
        formatter.debug_tuple("Listeners").field(&counts).finish()
    }
}

type Admission = BoxFuture<'static, Result<Accept, ConnectError>>;
type ConnectHook = Box<dyn Fn(Socket, ConnectPayload) -> Admission + Send + Sync>;
type Middleware =
    Arc<dyn Fn(Socket, ConnectPayload) -> BoxFuture<'static, Result<(), ConnectError>> + Send + Sync>;
type ConnectedHook = Box<dyn Fn(Socket) -> BoxFuture<'static, ()> + Send + Sync>;
type DisconnectHook = Box<dyn Fn(&Socket, DisconnectReason) + Send + Sync>;
type RoomHook = Box<dyn Fn(&Socket, RoomChange<'_>) + Send + Sync>;
type DescribeHook = Box<dyn Fn(&Socket) -> Option<(&'static str, serde_json::Value)> + Send + Sync>;
type DataHook = Box<dyn Fn(&Socket) + Send + Sync>;
type RefusedHook = Box<dyn Fn(&Socket, &EventError) + Send + Sync>;
type RefusedAnswer = Box<dyn Fn(&Socket, &EventError, Option<Ack>) + Send + Sync>;

/// The hooks that run when sockets join, leave and change.
#[derive(Default)]
pub(crate) struct Hooks {
    /// What happens when the queue of a client is full.
    pub(crate) when_full: WhenFull,
    /// The pipe to Node.js servers that share the namespace.
    pub(crate) classic: Option<Arc<dyn Pipe>>,
    pub(crate) middleware: Vec<Middleware>,
    pub(crate) connect: Option<ConnectHook>,
    pub(crate) connected: Option<ConnectedHook>,
    pub(crate) disconnecting: Option<DisconnectHook>,
    pub(crate) disconnected: Option<DisconnectHook>,
    pub(crate) room: Option<RoomHook>,
    pub(crate) refused: Option<RefusedHook>,
    pub(crate) refused_answer: Option<RefusedAnswer>,
    /// Returns a value of a socket that other nodes may see, with its name.
    pub(crate) described: Option<DescribeHook>,
    /// Called when the data that a socket shares with other nodes changes.
    pub(crate) data: Option<DataHook>,
    /// How values of sockets are made of what another node has stored, by name.
    pub(crate) restored: HashMap<&'static str, RestoreValue>,
}

impl Hooks {
    /// Whether every event reaches its clients, or closes their connections.
    pub(crate) fn never_drops(&self) -> bool {
        self.when_full == WhenFull::Close
    }

    /// Runs the middleware in order, then the connect hook. `None` means that everybody may join.
    pub(crate) fn admit(&self, socket: Socket, payload: ConnectPayload) -> Option<Admission> {
        if self.middleware.is_empty() {
            return self.connect.as_ref().map(|hook| hook(socket, payload));
        }
        let (chain, namespace) = (self.middleware.clone(), socket.namespace().clone());
        Some(Box::pin(async move {
            for step in chain {
                step(socket.clone(), payload.clone()).await?;
            }
            let accept = match namespace.hooks().connect.as_ref().map(|hook| hook(socket.clone(), payload)) {
                Some(hook) => hook.await?,
                None => Accept::default(),
            };
            Ok(match socket.data::<Owner>() {
                Some(owner) if accept.owner().is_none() => accept.with_owner(owner.0.clone()),
                _ => accept,
            })
        }))
    }
}

/// A change of a room; see
/// [`NamespaceBuilder::on_room_change`](crate::socket::NamespaceBuilder::on_room_change).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomChange<'a> {
    /// The room is new; `Joined` follows for its first socket.
    Created(&'a str),
    /// The socket entered the room.
    Joined(&'a str),
    /// The socket left the room.
    Left(&'a str),
    /// The last socket of this node left the room.
    Deleted(&'a str),
}

/// The handlers of a namespace. The children of a dynamic namespace share one instance.
#[derive(Default)]
pub(crate) struct Handlers {
    pub(crate) hooks: Hooks,
    pub(crate) events: Events,
    pub(crate) listeners: Listeners,
    pub(crate) server_events: HashMap<Box<str>, ServerHandler>,
}
