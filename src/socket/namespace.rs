//! A namespace: who may join, who is in it, what its events do, and how to reach everybody.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::DisconnectReason;
use super::events::{BoxFuture, Event, Events, Handler};
use super::message_bus::{MessageBus, Operation, Target};
use super::parser::{self, Arguments, Frames, One};
use super::rooms::{Room, Rooms};
use super::socket::{Socket, SocketId};
use crate::error::{ImksError, ImksResult};

/// A namespace of a running server. Cheap to clone.
#[derive(Clone)]
pub struct Namespace(Arc<Inner>);

struct Inner {
    path: Box<str>,
    hooks: Hooks,
    events: Events,
    rooms: Rooms,
    /// Every socket of the namespace, dense, for broadcasts to all.
    everybody: Room,
    by_id: DashMap<SocketId, Entry>,
    ack_ids: AtomicU64,
    bus: Arc<MessageBus>,
}

struct Entry {
    socket: Socket,
    slot: u32,
}

/// What a client sends along when it joins a namespace.
#[derive(Debug)]
pub struct ConnectPayload(pub(super) Option<String>);

impl ConnectPayload {
    /// The `auth` option as JSON; `{}` where the client gave none.
    pub fn json(&self) -> &str {
        self.0.as_deref().unwrap_or("{}")
    }

    /// The `auth` option as a type.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        Ok(serde_json::from_str(self.json())?)
    }
}

/// The client may join. Events added here reach it right after the CONNECT reply, before any other event.
#[derive(Debug, Default)]
pub struct Accept(Vec<(Box<str>, Box<serde_json::value::RawValue>)>);

impl Accept {
    /// Adds an event with one argument.
    pub fn with_event(mut self, event: &str, data: &impl Serialize) -> ImksResult<Self> {
        self.0.push((event.into(), serde_json::value::to_raw_value(data)?));
        Ok(self)
    }

    pub(super) fn encode(&self, namespace: &str) -> ImksResult<Vec<Frames>> {
        self.0.iter().map(|(event, data)| parser::encode_event(namespace, None, event, &One(data))).collect()
    }
}

impl From<()> for Accept {
    fn from((): ()) -> Self {
        Self::default()
    }
}

/// Why a client may not join; it gets both as the `connect_error` event.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectError {
    /// For people.
    pub message: String,
    /// For programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

impl ConnectError {
    /// Without data.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None }
    }

    /// With data.
    pub fn with_data(message: impl Into<String>, data: serde_json::Value) -> Self {
        Self { message: message.into(), data: Some(data) }
    }
}

type ConnectHook =
    Box<dyn Fn(Socket, ConnectPayload) -> BoxFuture<Result<Accept, ConnectError>> + Send + Sync>;
type ConnectedHook = Box<dyn Fn(Socket) -> BoxFuture<()> + Send + Sync>;
type DisconnectHook = Box<dyn Fn(&Socket, DisconnectReason) + Send + Sync>;

#[derive(Default)]
struct Hooks {
    connect: Option<ConnectHook>,
    connected: Option<ConnectedHook>,
    disconnecting: Option<DisconnectHook>,
    disconnected: Option<DisconnectHook>,
}

/// Says what a namespace does, before its server is built.
#[derive(Default)]
pub struct NamespaceBuilder {
    hooks: Hooks,
    events: Events,
}

impl NamespaceBuilder {
    /// Decides whether a client may join. Runs before the CONNECT reply: authenticate here, join rooms here; what
    /// is sent to the socket meanwhile waits behind the reply. Packets of the client wait as well.
    pub fn on_connect<F, Fut, A>(&mut self, hook: F) -> &mut Self
    where
        F: Fn(Socket, ConnectPayload) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, ConnectError>> + Send + 'static,
        A: Into<Accept>,
    {
        self.hooks.connect = Some(Box::new(move |socket, payload| {
            let joining = hook(socket, payload);
            Box::pin(async move { joining.await.map(Into::into) })
        }));
        self
    }

    /// Runs right after the CONNECT reply, before the client's first event.
    pub fn on_connected<F, Fut>(&mut self, hook: F) -> &mut Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.hooks.connected = Some(Box::new(move |socket| Box::pin(hook(socket))));
        self
    }

    /// Runs when a client goes, while it is still in its rooms.
    pub fn on_disconnecting(
        &mut self,
        hook: impl Fn(&Socket, DisconnectReason) + Send + Sync + 'static,
    ) -> &mut Self {
        self.hooks.disconnecting = Some(Box::new(hook));
        self
    }

    /// Runs when a client has gone and left its rooms.
    pub fn on_disconnect(
        &mut self,
        hook: impl Fn(&Socket, DisconnectReason) + Send + Sync + 'static,
    ) -> &mut Self {
        self.hooks.disconnected = Some(Box::new(hook));
        self
    }

    /// Handles an event. Handlers of one connection start in the order its events arrived; one that waits does not
    /// hold up the next.
    pub fn on<F, Fut>(&mut self, event: &str, handler: F) -> &mut Self
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.events.insert(event, Handler::Async(Box::new(move |event| Box::pin(handler(event)))));
        self
    }

    /// Handles an event without ever waiting: the cheapest way.
    pub fn on_sync(&mut self, event: &str, handler: impl Fn(Event) + Send + Sync + 'static) -> &mut Self {
        self.events.insert(event, Handler::Sync(Box::new(handler)));
        self
    }

    /// Handles events that have no handler of their own; without it they are ignored.
    pub fn on_unknown<F, Fut>(&mut self, handler: F) -> &mut Self
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.events.set_fallback(Handler::Async(Box::new(move |event| Box::pin(handler(event)))));
        self
    }

    pub(super) fn build(self, path: &str, bus: Arc<MessageBus>) -> Namespace {
        Namespace(Arc::new(Inner {
            path: path.into(),
            hooks: self.hooks,
            events: self.events,
            rooms: Rooms::default(),
            everybody: Room::new(Arc::from("")),
            by_id: DashMap::new(),
            ack_ids: AtomicU64::new(0),
            bus,
        }))
    }
}

impl Namespace {
    /// Path, for example `/` or `/admin`.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// How many sockets of this node are in it.
    pub fn len(&self) -> usize {
        self.0.by_id.len()
    }

    /// Whether no socket of this node is in it.
    pub fn is_empty(&self) -> bool {
        self.0.by_id.is_empty()
    }

    /// Names of the rooms that have members on this node, own rooms of sockets aside.
    pub fn room_names(&self) -> Vec<Arc<str>> {
        self.0.rooms.names()
    }

    /// How many rooms have members on this node.
    pub fn rooms_len(&self) -> usize {
        self.0.rooms.len()
    }

    /// A socket of this node.
    pub fn socket(&self, id: &str) -> Option<Socket> {
        self.0.by_id.get(&SocketId::parse(id)?).map(|entry| entry.socket.clone())
    }

    /// All sockets of this node that are in a room.
    pub fn sockets_in(&self, room: &str) -> Vec<Socket> {
        let mut sockets = Vec::new();
        if let Some(room) = self.0.rooms.get(room) {
            room.for_each(|socket| sockets.push(socket.clone()));
        }
        sockets.extend(self.socket(room));
        sockets
    }

    /// All sockets of this node.
    pub fn sockets(&self) -> Vec<Socket> {
        self.0.by_id.iter().map(|entry| entry.socket.clone()).collect()
    }

    /// Everybody in a room.
    pub fn to<'a>(&'a self, room: &'a str) -> Broadcast<'a> {
        Broadcast::new(self).to(room)
    }

    /// Everybody but those in a room.
    pub fn except<'a>(&'a self, room: &'a str) -> Broadcast<'a> {
        Broadcast::new(self).except(room)
    }

    /// Sends an event with one argument to everybody.
    pub fn emit(&self, event: &str, data: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        Broadcast::new(self).emit(event, data)
    }

    /// Sends an event with one argument to everybody in a room, on all nodes.
    pub fn emit_to_room(&self, room: &str, event: &str, data: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.to(room).emit(event, data)
    }

    pub(super) fn events(&self) -> &Events {
        &self.0.events
    }

    pub(super) fn rooms(&self) -> &Rooms {
        &self.0.rooms
    }

    pub(super) fn next_ack_id(&self) -> u64 {
        self.0.ack_ids.fetch_add(1, Ordering::Relaxed)
    }

    /// The connect hook's verdict on a client; without a hook everybody may join.
    pub(super) fn admit(
        &self,
        socket: Socket,
        payload: ConnectPayload,
    ) -> Option<BoxFuture<Result<Accept, ConnectError>>> {
        self.0.hooks.connect.as_ref().map(|hook| hook(socket, payload))
    }

    pub(super) fn connected(&self, socket: Socket) -> Option<BoxFuture<()>> {
        self.0.hooks.connected.as_ref().map(|hook| hook(socket))
    }

    /// Takes a socket in, so that broadcasts reach it.
    pub(super) fn insert(&self, socket: &Socket) {
        let slot = self.0.everybody.insert(socket.clone());
        self.0.by_id.insert(socket.socket_id(), Entry { socket: socket.clone(), slot });
    }

    /// Lets a socket go, whoever asks first: hooks, rooms, registry.
    pub(super) fn remove(&self, socket: &Socket, reason: DisconnectReason) {
        if !socket.shut() {
            return;
        }
        let was_member = self.0.by_id.contains_key(&socket.socket_id());
        if let Some(hook) = self.0.hooks.disconnecting.as_ref().filter(|_| was_member) {
            hook(socket, reason);
        }
        socket.release();
        if let Some((_, entry)) = self.0.by_id.remove(&socket.socket_id()) {
            self.0.everybody.remove(entry.slot);
        }
        if let Some(hook) = self.0.hooks.disconnected.as_ref().filter(|_| was_member) {
            hook(socket, reason);
        }
        tracing::debug!(socket_sid = %socket.id(), namespace = self.path(), reason = reason.as_str(), "socket left");
    }

    /// Calls `visit` once for each socket of this node that a broadcast is for.
    pub(super) fn for_each_target(
        &self,
        target: &Target<'_>,
        skip: Option<&Socket>,
        mut visit: impl FnMut(&Socket),
    ) {
        let excluded = self.excluded(target.except);
        let mut visit = |socket: &Socket| {
            let skipped = skip.is_some_and(|skip| skip.is_same(socket));
            if !skipped && (excluded.is_empty() || !excluded.contains(&socket.socket_id())) {
                visit(socket);
            }
        };
        match target.rooms {
            [] => self.0.everybody.for_each(visit),
            [room] => self.for_each_in(room, &mut visit),
            rooms => {
                let mut seen = std::collections::HashSet::new();
                let mut visit_once = |socket: &Socket| {
                    if seen.insert(socket.socket_id()) {
                        visit(socket);
                    }
                };
                rooms.iter().for_each(|room| self.for_each_in(room, &mut visit_once));
            }
        }
    }

    /// A room's members, and the socket whose own room has this name.
    fn for_each_in(&self, room: &str, visit: &mut impl FnMut(&Socket)) {
        let own = self.socket(room);
        if let Some(room) = self.0.rooms.get(room) {
            room.for_each(|socket| {
                if own.as_ref().is_none_or(|own| !own.is_same(socket)) {
                    visit(socket);
                }
            });
        }
        if let Some(socket) = own {
            visit(&socket);
        }
    }

    fn excluded(&self, rooms: &[&str]) -> std::collections::HashSet<SocketId> {
        let mut excluded = std::collections::HashSet::new();
        for room in rooms {
            self.for_each_in(room, &mut |socket: &Socket| {
                excluded.insert(socket.socket_id());
            });
        }
        excluded
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Namespace").field(&self.path()).finish()
    }
}

impl fmt::Debug for NamespaceBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("NamespaceBuilder").field(&self.events).finish()
    }
}

/// Chooses who gets an event, then sends it: the union of the rooms, each socket once, minus the exceptions.
#[derive(Debug)]
#[must_use = "nothing is sent before `emit`"]
pub struct Broadcast<'a> {
    namespace: &'a Namespace,
    rooms: SmallVec<[&'a str; 2]>,
    except: SmallVec<[&'a str; 2]>,
    sender: Option<&'a Socket>,
    volatile: bool,
}

impl<'a> Broadcast<'a> {
    pub(super) fn new(namespace: &'a Namespace) -> Self {
        Self { namespace, rooms: SmallVec::new(), except: SmallVec::new(), sender: None, volatile: false }
    }

    pub(super) fn without(mut self, sender: &'a Socket) -> Self {
        self.sender = Some(sender);
        self
    }

    /// Those in this room as well.
    pub fn to(mut self, room: &'a str) -> Self {
        self.rooms.push(room);
        self
    }

    /// Not those in this room.
    pub fn except(mut self, room: &'a str) -> Self {
        self.except.push(room);
        self
    }

    /// Dropped for each client that cannot take it right now.
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// Sends an event with one argument. It is encoded once, for all clients of all nodes.
    pub fn emit(self, event: &str, data: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.emit_args(event, &One(data))
    }

    /// Sends an event with any arguments. It is encoded once, for all clients of all nodes.
    pub fn emit_args(self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        let frames = parser::encode_event(self.namespace.path(), None, event, args)?;
        self.execute(&Operation::Broadcast { frames: &frames, volatile: self.volatile })
    }

    /// Makes them all enter a room.
    pub fn sockets_join(self, room: &str) -> ImksResult<()> {
        self.execute(&Operation::Join { room })
    }

    /// Makes them all leave a room.
    pub fn sockets_leave(self, room: &str) -> ImksResult<()> {
        self.execute(&Operation::Leave { room })
    }

    /// Makes them all leave the namespace; with `close` their connections end.
    pub fn disconnect_sockets(self, close: bool) -> ImksResult<()> {
        self.execute(&Operation::Disconnect { close })
    }

    fn execute(&self, operation: &Operation<'_>) -> ImksResult<()> {
        let target = Target { rooms: &self.rooms, except: &self.except };
        self.namespace.0.bus.execute(self.namespace, &target, self.sender, operation)
    }
}

/// Rules for a namespace path: starts with `/`, at most 256 characters, no control characters.
pub(super) fn check_path(path: &str) -> ImksResult<()> {
    if !path.starts_with('/') {
        return Err(ImksError::Namespace("does not start with /"));
    }
    if path.chars().count() > NAMESPACE_CHARS_MAX {
        return Err(ImksError::Namespace("longer than 256 characters"));
    }
    if path.chars().any(char::is_control) {
        return Err(ImksError::Namespace("has control characters"));
    }
    Ok(())
}

/// Longest path of a namespace.
pub const NAMESPACE_CHARS_MAX: usize = 256;
