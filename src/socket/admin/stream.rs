//! The live stream of development mode: every socket, room and event.

use std::hash::BuildHasher;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::json;

use super::Admin;
use super::shapes::{FACTS, ShownEvent, ShownSocket};
use crate::clock::{Timestamp, now_micros};
use crate::engine::{Outbox, Transport};
use crate::socket::codec::packet::Args;
use crate::socket::codec::parser::One;
use crate::socket::namespace::builder::NamespaceBuilder;
use crate::socket::namespace::handlers::RoomChange;
use crate::socket::namespace::namespace::Namespace;
use crate::socket::namespace::remote_socket::RemoteSocket;
use crate::socket::namespace::socket::Socket;
use crate::socket::reason::DisconnectReason;
use crate::socket::server::server::Server;

/// Adds hooks that report what happens in a namespace. They run before the namespace's own hooks.
pub(super) fn observe(admin: &Arc<Admin>, shows_events: bool, builder: &mut NamespaceBuilder) {
    let hooks = builder.hooks_mut();
    let (watcher, hook) = (admin.clone(), hooks.connected.take());
    hooks.connected = Some(Box::new(move |socket| {
        watcher.connected(&socket);
        match &hook {
            Some(hook) => hook(socket),
            None => Box::pin(async {}),
        }
    }));
    let (watcher, hook) = (admin.clone(), hooks.disconnecting.take());
    hooks.disconnecting = Some(Box::new(move |socket, reason| {
        watcher.disconnecting(socket, reason);
        hook.iter().for_each(|hook| hook(socket, reason));
    }));
    let (watcher, hook) = (admin.clone(), hooks.room.take());
    hooks.room = Some(Box::new(move |socket, change| {
        watcher.room_changed(socket, change);
        hook.iter().for_each(|hook| hook(socket, change));
    }));
    let watcher = admin.clone();
    hooks.data = Some(Box::new(move |socket| watcher.data_changed(socket)));
    if shows_events {
        let watcher = admin.clone();
        builder.on_any(move |event| watcher.event("event_received", event.socket(), event.args()));
        let watcher = admin.clone();
        builder.on_any_outgoing(move |socket, args| watcher.event("event_sent", socket, args));
    }
}

/// Returns the sockets of all namespaces on all nodes that respond.
pub(super) async fn all_sockets(admin: &Admin, server: &Server) -> Vec<ShownSocket> {
    let found = stream::iter(server.every_namespace())
        .map(|namespace| sockets_of(namespace, server))
        .buffered(NAMESPACES_AT_ONCE);
    let mut found = std::pin::pin!(found);
    let mut all = Vec::new();
    while let Some(sockets) = found.next().await {
        all.extend(sockets);
        if all.len() > SOCKETS_SHOWN_MAX {
            tracing::warn!(
                shown = SOCKETS_SHOWN_MAX,
                namespace = admin.namespace,
                "more sockets than the page gets"
            );
            all.truncate(SOCKETS_SHOWN_MAX);
            break;
        }
    }
    all
}

/// Returns the sockets of a namespace: those of this node directly, those of others as their nodes describe
/// them.
async fn sockets_of(namespace: Namespace, server: &Server) -> Vec<ShownSocket> {
    let ours = namespace.sockets();
    let mut sockets: Vec<_> = ours.iter().map(shown).collect();
    if !server.reaches_others() {
        return sockets;
    }
    match namespace.fetch_sockets().await {
        Ok(found) => {
            let theirs = found.sockets.iter().filter(|socket| socket.node() != server.node());
            sockets.extend(theirs.map(|socket| ShownSocket::new(socket, socket.id(), namespace.path())));
        }
        Err(error) => {
            tracing::warn!(%error, namespace = namespace.path(), "sockets of other nodes not shown")
        }
    }
    sockets
}

fn shown(socket: &Socket) -> ShownSocket {
    let snapshot = RemoteSocket::of(socket);
    ShownSocket::new(&snapshot, socket.id(), socket.namespace().path())
}

impl Admin {
    fn connected(&self, socket: &Socket) {
        let client_id = self.client_id(socket);
        socket.socket_data().share(FACTS, PageInfo { client_id, outbox: socket.outbox().clone() });
        let (nsp, id, now) = (socket.namespace().path(), socket.id(), now());
        self.tell("room_joined", &(nsp, id, id, now));
        self.tell("socket_connected", &(shown(socket), now));
        if socket.transport() == Transport::Polling {
            let mut polling = self.polling.lock();
            if polling.len() == polling.capacity() {
                polling.retain(Socket::is_connected);
            }
            polling.push(socket.clone());
        }
    }

    fn disconnecting(&self, socket: &Socket, reason: DisconnectReason) {
        let (nsp, id, now) = (socket.namespace().path(), socket.id(), now());
        self.tell("socket_disconnected", &(nsp, id, reason.as_str(), now));
        self.tell("room_left", &(nsp, id, id, now));
    }

    fn room_changed(&self, socket: &Socket, change: RoomChange<'_>) {
        let (event, room) = match change {
            RoomChange::Joined(room) => ("room_joined", room),
            RoomChange::Left(room) => ("room_left", room),
            RoomChange::Created(_) | RoomChange::Deleted(_) => return,
        };
        self.tell(event, &(socket.namespace().path(), room, socket.id(), now()));
    }

    fn data_changed(&self, socket: &Socket) {
        // Before it is connected, the page does not know the socket; its data is then sent with
        // `socket_connected`.
        if socket.data::<PageInfo>().is_none() {
            return;
        }
        let mut data = socket.shared_data();
        data.as_object_mut().and_then(|data| data.remove(FACTS));
        let update = json!({ "id": socket.id(), "nsp": socket.namespace().path(), "data": data });
        self.tell("socket_updated", &One(&update));
    }

    fn event(&self, direction: &str, socket: &Socket, args: &Args) {
        let (nsp, id, at) = (socket.namespace().path(), socket.id(), now());
        self.tell(direction, &ShownEvent { nsp, id, args, at });
    }

    /// Reports sockets that have upgraded from polling. Checking periodically costs connections nothing.
    pub(super) fn look_for_upgrades(&self) {
        let mut upgraded = Vec::new();
        self.polling.lock().retain(|socket| {
            let polls = socket.transport() == Transport::Polling;
            if !polls && socket.is_connected() {
                upgraded.push(socket.clone());
            }
            polls && socket.is_connected()
        });
        for socket in upgraded {
            let (nsp, transport) = (socket.namespace().path(), socket.transport().name());
            let update = json!({ "id": socket.id(), "nsp": nsp, "transport": transport });
            self.tell("socket_updated", &One(&update));
        }
    }

    /// Returns an id for the connection. The reference shows a part of the session id, which is a secret
    /// here, so this is a hash of it.
    fn client_id(&self, socket: &Socket) -> String {
        let hash = self.hasher.hash_one(socket.handshake().sid.expose());
        format!("{:012x}", hash & CLIENT_ID_MASK)
    }
}

fn now() -> Timestamp {
    Timestamp(now_micros())
}

/// The information about a socket for pages on other nodes, in its shared data.
struct PageInfo {
    client_id: String,
    outbox: Outbox,
}

impl Serialize for PageInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut facts = serializer.serialize_map(Some(2))?;
        facts.serialize_entry("clientId", &self.client_id)?;
        // The transport at the time of the request.
        facts.serialize_entry("transport", self.outbox.transport().name())?;
        facts.end()
    }
}

/// The mask for twelve hexadecimal digits.
const CLIENT_ID_MASK: u64 = 0xffff_ffff_ffff;
/// The maximum number of sockets in `all_sockets`: more than a page can show, but still a packet that can be
/// sent.
const SOCKETS_SHOWN_MAX: usize = 10_000;
/// The maximum number of namespaces that other nodes are asked about concurrently.
const NAMESPACES_AT_ONCE: usize = 16;
