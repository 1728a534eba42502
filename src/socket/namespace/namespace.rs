//! A namespace: its sockets, rooms and handlers.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;

use super::cluster_link::{ClusterLink, Target};
use super::delivery::Delivery;
use super::handlers::{Events, Handlers, Hooks, Listeners, ServerHandler};
use super::rooms::{Room, Rooms};
use super::socket::Socket;
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::packet::logged;
use crate::socket::metrics::{Path, SOCKETS};
use crate::socket::recovery::config::RecoveryStatus;
use crate::socket::socket_id::SocketId;

/// A namespace of a running server. Cheap to clone.
#[derive(Clone)]
pub struct Namespace(Arc<Inner>);

struct Inner {
    path: Box<str>,
    handlers: Arc<Handlers>,
    rooms: Rooms<Socket>,
    /// All sockets of the namespace in a dense array, for broadcasts to everybody.
    everybody: Room<Socket>,
    by_id: DashMap<SocketId, Entry>,
    /// The number of sockets whose id has the form of Socket.IO v2.
    of_version2: AtomicUsize,
    ack_ids: AtomicU64,
    cluster: Arc<dyn ClusterLink>,
    /// Whether anything watches the events that clients send, in the namespace or at one socket.
    watch_incoming: AtomicBool,
    /// Whether anything watches the events that are sent to clients.
    watch_outgoing: AtomicBool,
    delivery: Delivery,
    /// Called when a client that had joined or tried to join has left. Set for namespaces that count their
    /// clients.
    on_client_gone: Option<OnClientGone>,
}

/// A callback that gets the path of the namespace.
pub(crate) type OnClientGone = Box<dyn Fn(&str) + Send + Sync>;

struct Entry {
    socket: Socket,
    slot: u32,
}

impl Namespace {
    pub(crate) fn new(
        path: &str,
        handlers: Arc<Handlers>,
        cluster: Arc<dyn ClusterLink>,
        delivery: Delivery,
        on_client_gone: Option<OnClientGone>,
    ) -> Self {
        Self(Arc::new(Inner {
            path: path.into(),
            watch_incoming: AtomicBool::new(handlers.listeners.watch_incoming()),
            watch_outgoing: AtomicBool::new(handlers.listeners.watch_outgoing()),
            handlers,
            rooms: Rooms::default(),
            everybody: Room::new(Arc::from("")),
            by_id: DashMap::new(),
            of_version2: AtomicUsize::new(0),
            ack_ids: AtomicU64::new(0),
            cluster,
            delivery,
            on_client_gone,
        }))
    }

    /// Returns the path, for example `/` or `/admin`.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// Returns the number of sockets on this node.
    pub fn len(&self) -> usize {
        self.0.by_id.len()
    }

    /// Whether the namespace has no socket on this node.
    pub fn is_empty(&self) -> bool {
        self.0.by_id.is_empty()
    }

    /// Returns the names of the rooms with members on this node, without the sockets' own rooms.
    pub fn room_names(&self) -> Vec<Arc<str>> {
        self.0.rooms.names()
    }

    /// Returns the number of rooms with members on this node.
    pub fn rooms_len(&self) -> usize {
        self.0.rooms.len()
    }

    /// Returns the socket of this node with this id.
    pub fn socket(&self, id: &str) -> Option<Socket> {
        let key = match SocketId::parse(id) {
            Some(key) => key,
            None if self.0.of_version2.load(Ordering::Relaxed) > 0 => SocketId::of_version2(id),
            None => return None,
        };
        self.0.by_id.get(&key).map(|entry| entry.socket.clone()).filter(|socket| socket.id() == id)
    }

    /// Whether this node has a socket in the room.
    pub fn has_room(&self, room: &str) -> bool {
        self.rooms().get(room).is_some()
    }

    /// Returns the sockets of this node that are in a room.
    pub fn sockets_in(&self, room: &str) -> Vec<Socket> {
        let mut sockets = Vec::new();
        if let Some(room) = self.0.rooms.get(room) {
            room.for_each(|socket| sockets.push(socket.clone()));
        }
        sockets.extend(self.socket(room));
        sockets
    }

    /// Returns all sockets of this node.
    pub fn sockets(&self) -> Vec<Socket> {
        self.0.by_id.iter().map(|entry| entry.socket.clone()).collect()
    }

    /// Returns what is stored for clients that may return, or `None` without recovery.
    pub fn recovery_status(&self) -> Option<RecoveryStatus> {
        self.delivery().status()
    }

    pub(crate) fn delivery(&self) -> &Delivery {
        &self.0.delivery
    }

    pub(crate) fn cluster(&self) -> &dyn ClusterLink {
        &*self.0.cluster
    }

    pub(crate) fn events(&self) -> &Events {
        &self.0.handlers.events
    }

    pub(crate) fn server_handler(&self, event: &str) -> Option<ServerHandler> {
        self.0.handlers.server_events.get(event).cloned()
    }

    pub(crate) fn hooks(&self) -> &Hooks {
        &self.0.handlers.hooks
    }

    pub(crate) fn listeners(&self) -> &Listeners {
        &self.0.handlers.listeners
    }

    /// Whether an event from a client must be shown to listeners or middleware. Costs one atomic load.
    pub(crate) fn watches_incoming(&self) -> bool {
        self.0.watch_incoming.load(Ordering::Relaxed)
    }

    /// Whether an event to clients must be shown to listeners. Costs one atomic load.
    pub(crate) fn watches_outgoing(&self) -> bool {
        self.0.watch_outgoing.load(Ordering::Relaxed)
    }

    /// Notes that a socket of this namespace has listeners of its own.
    pub(crate) fn watch(&self, listeners: &Listeners) {
        if listeners.watch_incoming() {
            self.0.watch_incoming.store(true, Ordering::Relaxed);
        }
        if listeners.watch_outgoing() {
            self.0.watch_outgoing.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn rooms(&self) -> &Rooms<Socket> {
        &self.0.rooms
    }

    pub(crate) fn next_ack_id(&self) -> u64 {
        self.0.ack_ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a socket, so that broadcasts reach it.
    pub(crate) fn insert(&self, socket: &Socket) {
        if socket.is_of_version2() {
            self.0.of_version2.fetch_add(1, Ordering::Relaxed);
        }
        let slot = self.0.everybody.insert(socket.clone());
        let earlier = self.0.by_id.insert(socket.socket_id(), Entry { socket: socket.clone(), slot });
        // The earlier socket of a returning client may still be leaving.
        match earlier {
            Some(earlier) => drop(self.0.everybody.remove(earlier.slot)),
            None => SOCKETS.of(Path::of(self.path())).add(1),
        }
    }

    /// Whether this socket is in the namespace. Another socket with the same id does not count.
    pub(crate) fn contains(&self, socket: &Socket) -> bool {
        self.0.by_id.get(&socket.socket_id()).is_some_and(|entry| entry.socket.is_same(socket))
    }

    /// Removes a socket, if it was added.
    pub(crate) fn remove_entry(&self, socket: &Socket) {
        let removed = self.0.by_id.remove_if(&socket.socket_id(), |_, entry| entry.socket.is_same(socket));
        if let Some((_, entry)) = removed {
            self.0.everybody.remove(entry.slot);
            SOCKETS.of(Path::of(self.path())).add(-1);
            if socket.is_of_version2() {
                self.0.of_version2.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Reports that a client that had joined, or tried to join, has left.
    pub(crate) fn client_gone(&self) {
        if let Some(hook) = &self.0.on_client_gone {
            hook(self.path());
        }
    }

    /// Whether nobody here, present or away, can get what goes to these rooms.
    pub(crate) fn is_for_nobody(&self, target: &Target<'_>) -> bool {
        let is_unknown = |room: &&str| !self.has_room(room) && self.socket(room).is_none();
        self.delivery().is_plain() && !target.rooms.is_empty() && target.rooms.iter().all(is_unknown)
    }

    /// Returns the sockets of this node that the target selects.
    pub(crate) fn targets(&self, target: &Target<'_>, skip: Option<&Socket>) -> Vec<Socket> {
        let mut sockets = Vec::new();
        self.for_each_target(target, skip, |socket| sockets.push(socket.clone()));
        sockets
    }

    /// Calls `visit` once for each socket of this node that the target selects.
    fn for_each_target(&self, target: &Target<'_>, skip: Option<&Socket>, mut visit: impl FnMut(&Socket)) {
        let excluded = self.excluded(&target.except);
        let mut visit = |socket: &Socket| {
            let skipped = skip.is_some_and(|skip| skip.is_same(socket));
            if !skipped && (excluded.is_empty() || !excluded.contains(&socket.socket_id())) {
                visit(socket);
            }
        };
        match &target.rooms[..] {
            [] => self.0.everybody.for_each(visit),
            [room] => self.for_each_in(room, &mut visit),
            rooms => {
                let mut seen = HashSet::new();
                let mut visit_once = |socket: &Socket| {
                    if seen.insert(socket.socket_id()) {
                        visit(socket);
                    }
                };
                rooms.iter().for_each(|room| self.for_each_in(room, &mut visit_once));
            }
        }
    }

    /// Calls `send` once for each socket of this node that the target selects, and logs how many they are.
    pub(super) fn send_to_each(
        &self,
        target: &Target<'_>,
        skip: Option<&Socket>,
        mut send: impl FnMut(&Socket),
    ) {
        let mut receivers = 0_usize;
        self.for_each_target(target, skip, |socket| {
            receivers += 1;
            send(socket);
        });
        tracing::debug!(
            namespace = self.path(),
            room = target.rooms.first().map(|room| logged(room).into_owned()),
            rooms = target.rooms.len(),
            receivers,
            "broadcast"
        );
    }

    /// Visits the members of a room, and the socket whose own room has this name.
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

    fn excluded(&self, rooms: &[&str]) -> HashSet<SocketId> {
        let mut excluded = HashSet::new();
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

/// Checks a namespace path: it starts with `/`, has at most 256 characters and no control characters.
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

/// The maximum number of characters in the path of a namespace.
pub const NAMESPACE_CHARS_MAX: usize = 256;
