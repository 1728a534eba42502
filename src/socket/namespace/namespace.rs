//! A namespace: who may join, who is in it, what its events do, and how to reach everybody.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;
use serde::Serialize;

use super::ack_collector::{Answers, Asking, Questioner, Tickets};
use super::broadcast::Broadcast;
use super::builder::{Description, Hooks};
use super::connect::{Accept, ConnectError, ConnectPayload};
use super::events::{BoxFuture, Events};
use super::listeners::{Listeners, args_of, show_outgoing};
use super::remote_socket::FetchedSockets;
use super::rooms::{Room, Rooms};
use super::server_events::{ServerAnswers, ServerHandler};
use super::socket::Socket;
use crate::error::{ImksError, ImksResult};
use crate::socket::DisconnectReason;
use crate::socket::cluster::message_bus::{MessageBus, Target};
use crate::socket::codec::parser::{self, Arguments};
use crate::socket::recovery::session_store::{RecoveryStatus, SessionStore};
use crate::socket::server::dynamic::Dynamic;
use crate::socket::socket_id::SocketId;

/// A namespace of a running server. Cheap to clone.
#[derive(Clone)]
pub struct Namespace(Arc<Inner>);

struct Inner {
    path: Box<str>,
    description: Arc<Description>,
    rooms: Rooms,
    /// Every socket of the namespace, dense, for broadcasts to all.
    everybody: Room,
    by_id: DashMap<SocketId, Entry>,
    /// Sockets whose id has the form of Socket.IO v2.
    of_version2: AtomicUsize,
    ack_ids: AtomicU64,
    bus: Arc<MessageBus>,
    /// Somebody wants to see what clients send, here or at one socket.
    watch_incoming: AtomicBool,
    /// Somebody wants to see what is sent to clients.
    watch_outgoing: AtomicBool,
    /// Who counts its users, if it was made on demand.
    home: Option<Weak<Dynamic>>,
    /// For clients that come back after a short absence.
    sessions: Option<Arc<SessionStore>>,
}

struct Entry {
    socket: Socket,
    slot: u32,
}

impl Namespace {
    pub(crate) fn new(
        path: &str,
        description: Arc<Description>,
        bus: Arc<MessageBus>,
        home: Option<Weak<Dynamic>>,
        sessions: Option<Arc<SessionStore>>,
    ) -> Self {
        Self(Arc::new(Inner {
            path: path.into(),
            watch_incoming: AtomicBool::new(description.listeners.watch_incoming()),
            watch_outgoing: AtomicBool::new(description.listeners.watch_outgoing()),
            description,
            rooms: Rooms::default(),
            everybody: Room::new(Arc::from("")),
            by_id: DashMap::new(),
            of_version2: AtomicUsize::new(0),
            ack_ids: AtomicU64::new(0),
            bus,
            home,
            sessions,
        }))
    }

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
        let place = match SocketId::parse(id) {
            Some(place) => place,
            None if self.0.of_version2.load(Ordering::Relaxed) > 0 => SocketId::of_version2(id),
            None => return None,
        };
        self.0.by_id.get(&place).map(|entry| entry.socket.clone()).filter(|socket| socket.id() == id)
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

    /// Sends an event with any arguments to everybody.
    pub fn emit_args(&self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        Broadcast::new(self).emit_args(event, args)
    }

    /// Asks everybody in the namespace; see [`Broadcast::emit_with_ack`].
    pub async fn emit_with_ack(
        &self,
        event: &str,
        args: &impl Arguments,
        timeout: Duration,
    ) -> ImksResult<Answers> {
        Broadcast::new(self).emit_with_ack(event, args, timeout).await
    }

    /// Everybody, on all nodes; see [`Broadcast::fetch_sockets`].
    pub async fn fetch_sockets(&self) -> ImksResult<FetchedSockets> {
        Broadcast::new(self).fetch_sockets().await
    }

    /// Everybody, to make them join or leave rooms, or to choose with operators.
    pub fn everybody(&self) -> Broadcast<'_> {
        Broadcast::new(self)
    }

    /// Sends an event to all other nodes, where
    /// [`NamespaceBuilder::on_server_event`](crate::socket::NamespaceBuilder::on_server_event) handles it. Not to this one.
    pub fn server_side_emit(&self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        self.0.bus.server_event(self, event, args)
    }

    /// As [`Namespace::server_side_emit`], and waits until all nodes answered, for at most `timeout`.
    pub async fn server_side_emit_with_ack(
        &self,
        event: &str,
        args: &impl Arguments,
        timeout: Duration,
    ) -> ImksResult<ServerAnswers> {
        self.0.bus.server_question(self, event, args)?.answers(timeout).await
    }

    /// Sends an event with one argument to everybody in a room, on all nodes.
    pub fn emit_to_room(&self, room: &str, event: &str, data: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.to(room).emit(event, data)
    }

    /// What is kept for clients that come back; `None` where they cannot.
    pub fn recovery_status(&self) -> Option<RecoveryStatus> {
        self.sessions().map(SessionStore::status)
    }

    pub(crate) fn sessions(&self) -> Option<&SessionStore> {
        self.0.sessions.as_deref()
    }

    pub(crate) fn events(&self) -> &Events {
        &self.0.description.events
    }

    pub(crate) fn server_handler(&self, event: &str) -> Option<ServerHandler> {
        self.0.description.server_events.get(event)
    }

    /// Prepares to ask all of them at once, under one ack id.
    pub(crate) fn question(
        &self,
        target: &Target<'_>,
        skip: Option<&Socket>,
        event: &str,
        args: &impl Arguments,
        questioner: Arc<dyn Questioner>,
    ) -> ImksResult<Asking> {
        let id = self.next_ack_id();
        let frames = parser::encode_event(self.path(), Some(id), event, args)?;
        let mut sockets = Vec::new();
        self.for_each_target(target, skip, |socket| sockets.push(socket.clone()));
        if self.watches_outgoing() {
            let args = args_of(&frames)?;
            sockets.iter().for_each(|socket| show_outgoing(socket, &args));
        }
        Ok(Asking { tickets: Tickets { id, sockets }, frames, questioner })
    }

    pub(crate) fn hooks(&self) -> &Hooks {
        &self.0.description.hooks
    }

    pub(crate) fn listeners(&self) -> &Listeners {
        &self.0.description.listeners
    }

    pub(crate) fn bus(&self) -> &Arc<MessageBus> {
        &self.0.bus
    }

    /// One load: whether an event of a client has to be shown to anybody but its handler.
    pub(crate) fn watches_incoming(&self) -> bool {
        self.0.watch_incoming.load(Ordering::Relaxed)
    }

    /// One load: whether an event to clients has to be shown to anybody.
    pub(crate) fn watches_outgoing(&self) -> bool {
        self.0.watch_outgoing.load(Ordering::Relaxed)
    }

    /// A socket of this namespace has listeners of its own from now on.
    pub(crate) fn watch(&self, listeners: &Listeners) {
        if listeners.watch_incoming() {
            self.0.watch_incoming.store(true, Ordering::Relaxed);
        }
        if listeners.watch_outgoing() {
            self.0.watch_outgoing.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn rooms(&self) -> &Rooms {
        &self.0.rooms
    }

    pub(crate) fn next_ack_id(&self) -> u64 {
        self.0.ack_ids.fetch_add(1, Ordering::Relaxed)
    }

    /// The verdict of middleware and connect hook on a client; without them everybody may join.
    pub(crate) fn admit(
        &self,
        socket: Socket,
        payload: ConnectPayload,
    ) -> Option<BoxFuture<Result<Accept, ConnectError>>> {
        self.hooks().admit(socket, payload)
    }

    pub(crate) fn connected(&self, socket: Socket) -> Option<BoxFuture<()>> {
        self.hooks().connected.as_ref().map(|hook| hook(socket))
    }

    /// Takes a socket in, so that broadcasts reach it.
    pub(crate) fn insert(&self, socket: &Socket) {
        if socket.is_of_version2() {
            self.0.of_version2.fetch_add(1, Ordering::Relaxed);
        }
        let slot = self.0.everybody.insert(socket.clone());
        let earlier = self.0.by_id.insert(socket.socket_id(), Entry { socket: socket.clone(), slot });
        // Who comes back may find itself still leaving.
        if let Some(earlier) = earlier {
            self.0.everybody.remove(earlier.slot);
        }
    }

    /// Lets a socket go, whoever asks first: hooks, rooms, registry.
    pub(crate) fn remove(&self, socket: &Socket, reason: DisconnectReason) {
        // Another socket may have the same id: it came back, or wants to.
        let is_it = |entry: &Entry| entry.socket.is_same(socket);
        let was_member = self.0.by_id.get(&socket.socket_id()).is_some_and(|entry| is_it(&entry));
        if !socket.shut() {
            return;
        }
        if let Some((store, link)) = socket.session() {
            store.depart(link, reason.is_recoverable());
        }
        if let Some(hook) = self.hooks().disconnecting.as_ref().filter(|_| was_member) {
            hook(socket, reason);
        }
        socket.release();
        if let Some((_, entry)) = self.0.by_id.remove_if(&socket.socket_id(), |_, entry| is_it(entry)) {
            self.0.everybody.remove(entry.slot);
            if socket.is_of_version2() {
                self.0.of_version2.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if let Some(hook) = self.hooks().disconnected.as_ref().filter(|_| was_member) {
            hook(socket, reason);
        }
        self.let_go();
        tracing::debug!(socket_sid = %socket.id(), namespace = self.path(), reason = reason.as_str(), "socket left");
    }

    /// One user less of a namespace that was made on demand.
    pub(crate) fn let_go(&self) {
        if let Some(home) = self.0.home.as_ref().and_then(Weak::upgrade) {
            home.release(self.path());
        }
    }

    /// Calls `visit` once for each socket of this node that a broadcast is for.
    pub(crate) fn for_each_target(
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

/// Rules for a namespace path: starts with `/`, at most 256 characters, no control characters.
pub(crate) fn check_path(path: &str) -> ImksResult<()> {
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
