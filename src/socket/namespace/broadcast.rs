//! Broadcasts: one event for many sockets on all nodes.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::ack_collector::{AckCollector, Answers};
use super::ack_request::AckRequest;
use super::cluster_link::{Change, Scope, Target, Waits};
use super::namespace::Namespace;
use super::remote_socket::{FetchedSockets, RemoteSocket};
use super::room_names::RoomNames;
use super::socket::Socket;
use crate::engine::Lane;
use crate::error::ImksResult;
use crate::socket::codec::arguments::{Arguments, One};
use crate::socket::codec::encoder::encode_event;

/// A broadcast under construction. It goes to the union of the rooms minus the exceptions, once per socket.
#[derive(Debug)]
#[must_use = "nothing is sent before `emit`"]
pub struct Broadcast<'a> {
    namespace: &'a Namespace,
    target: Target<'a>,
    /// Whether rooms were named, if only none: an empty list is nobody, not everybody.
    is_limited: bool,
    sender: Option<&'a Socket>,
    volatile: bool,
    waits: Waits<'a>,
    scope: Scope,
    compress: bool,
}

impl<'a> Broadcast<'a> {
    pub(crate) fn new(namespace: &'a Namespace) -> Self {
        Self {
            namespace,
            target: Target::default(),
            is_limited: false,
            sender: None,
            volatile: false,
            waits: Waits::default(),
            scope: Scope::Cluster,
            compress: true,
        }
    }

    pub(crate) fn without(mut self, sender: &'a Socket) -> Self {
        self.sender = Some(sender);
        self
    }

    /// Adds the sockets in these rooms: one name, or several in an array, a slice or a vector. An empty list adds
    /// nobody, and alone it reaches nobody.
    pub fn to(mut self, rooms: impl RoomNames<'a>) -> Self {
        self.is_limited = true;
        rooms.for_each(|room| self.target.rooms.push(room));
        self
    }

    /// Excludes the sockets in these rooms: one name, or several in an array, a slice or a vector.
    pub fn except(mut self, rooms: impl RoomNames<'a>) -> Self {
        rooms.for_each(|room| self.target.except.push(room));
        self
    }

    /// Drops the event for each client that cannot take it right now.
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// Makes the event replace an earlier one with the same rooms and key that still waits for a client which does not keep
    /// up: such a client gets the latest state, and not every state on the way to it.
    ///
    /// The event goes to the end of what waits, so it overtakes nothing. Together with [`Broadcast::volatile`] it waits
    /// behind messages for a client that cannot take it right now, as long as few others do. An event with ack is never replaced.
    ///
    /// ```
    /// # fn run(namespace: &imks::socket::Namespace) -> imks::ImksResult<()> {
    /// namespace.to("game:7").latest("score").emit("score", &[3, 2])
    /// # }
    /// ```
    pub fn latest(mut self, key: &'a str) -> Self {
        self.waits.latest = Some(key);
        self
    }

    /// Sets the lane in which the event waits for a client that does not keep up; the default is [`Lane::Chat`].
    ///
    /// With [`Lane::Ephemeral`] it is volatile, and waits behind messages as long as few others do. With [`Lane::Bulk`] it
    /// waits behind everything else, unless the namespace restores sessions: there, and with ack, the order of all events
    /// matters more. [`Broadcast::volatile`] with [`Broadcast::latest`] is [`Lane::Ephemeral`] too.
    ///
    /// ```
    /// # fn run(namespace: &imks::socket::Namespace) -> imks::ImksResult<()> {
    /// namespace.to("map:7").lane(imks::socket::Lane::Ephemeral).emit("cursor", &[3, 2])
    /// # }
    /// ```
    pub fn lane(mut self, lane: Lane) -> Self {
        self.waits.lane = lane;
        self
    }

    /// Restricts the broadcast to sockets connected to this node.
    pub fn local(mut self) -> Self {
        self.scope = Scope::Local;
        self
    }

    /// Sets whether the event may be compressed in transit; the default is `true`.
    ///
    /// A WebSocket compresses it if
    /// [`Config::per_message_deflate`](crate::engine::Config::per_message_deflate) is set and the client
    /// supports that. A polling response is compressed if any packet in it may be.
    pub fn compress(mut self, compress: bool) -> Self {
        self.compress = compress;
        self
    }

    /// Sends an event to all sockets and waits until each has answered or left, for at most `timeout`.
    /// While a recovery log that nodes share is away, this takes up to two seconds longer: what was sent before goes first.
    ///
    /// The result holds the acks that have arrived by then and names the sockets that did not answer.
    pub async fn emit_with_ack(
        self,
        event: &str,
        args: &impl Arguments,
        timeout: Duration,
    ) -> ImksResult<Answers> {
        if self.reaches_nobody() {
            return Ok(Answers { answers: Vec::new(), silent: Vec::new(), silent_nodes: Vec::new() });
        }
        self.namespace.delivery().settle().await;
        let cluster = self.namespace.cluster();
        let others = match self.scope {
            Scope::Local => Vec::new(),
            Scope::Cluster => {
                cluster.count_others().await;
                cluster.asked()
            }
        };
        let is_alone = others.is_empty();
        let acks = Arc::new(AckCollector::new(cluster.node(), others));
        let request = AckRequest::new(
            self.namespace,
            &self.target,
            self.sender,
            (event, args),
            self.compress,
            acks.clone(),
        )?;
        let remote = match is_alone {
            true => None,
            false => {
                let (path, target) = (self.namespace.path(), self.target.without(self.sender));
                Some(cluster.request_acks(path, &target, request.packet(), timeout, acks.clone())?)
            }
        };
        acks.asked(cluster.node(), &request.socket_ids());
        let pending = request.send();
        // A timeout is not an error: the result names the sockets that are missing.
        let _ = tokio::time::timeout(timeout, acks.wait()).await;
        drop((pending, remote));
        Ok(acks.take())
    }

    /// Returns the sockets of this node.
    pub fn sockets(&self) -> Vec<Socket> {
        if self.reaches_nobody() {
            return Vec::new();
        }
        self.namespace.targets(&self.target, self.sender)
    }

    /// Returns the sockets of all nodes, as their nodes describe them. Other nodes have
    /// [`Config::request_timeout`](crate::socket::Config::request_timeout) to respond.
    /// While a recovery log that nodes share is away, this takes up to two seconds longer: what was sent before goes first.
    pub async fn fetch_sockets(self) -> ImksResult<FetchedSockets> {
        self.namespace.delivery().settle().await;
        let cluster = self.namespace.cluster();
        let mut sockets: Vec<_> = self.sockets().iter().map(RemoteSocket::of).collect();
        if self.scope == Scope::Local || self.reaches_nobody() {
            return Ok(FetchedSockets { sockets, silent: Vec::new() });
        }
        let target = self.target.without(self.sender);
        let (found, silent) = cluster.fetch_sockets(self.namespace.path(), &target)?.await;
        sockets.extend(found.into_iter().map(|(node, info)| RemoteSocket::new(info, node, self.namespace)));
        Ok(FetchedSockets { sockets, silent })
    }

    /// Sends an event with one argument. It is encoded once for all clients on all nodes.
    pub fn emit(self, event: &str, data: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.emit_args(event, &One(data))
    }

    /// Sends an event with any arguments. It is encoded once for all clients on all nodes.
    pub fn emit_args(self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        if self.reaches_nobody() {
            return Ok(());
        }
        let (namespace, target) = (self.namespace, &self.target);
        if self.volatile || self.waits.lane == Lane::Ephemeral {
            let packet = encode_event(namespace.path(), None, event, args)?.compress(self.compress);
            return namespace.broadcast_volatile(target, self.sender, &packet, self.scope, self.waits);
        }
        let event = namespace.delivery().encode(namespace.path(), event, args)?.compress(self.compress);
        namespace.broadcast(target, self.sender, event, self.scope, self.waits)
    }

    /// Makes all the sockets join a room.
    pub fn sockets_join(self, room: &str) -> ImksResult<()> {
        self.change(Change::Join { room })
    }

    /// Makes all the sockets leave a room.
    pub fn sockets_leave(self, room: &str) -> ImksResult<()> {
        self.change(Change::Leave { room })
    }

    /// Removes all the sockets from the namespace and, with `close`, closes their connections.
    pub fn disconnect_sockets(self, close: bool) -> ImksResult<()> {
        self.change(Change::Disconnect { close })
    }

    fn reaches_nobody(&self) -> bool {
        self.is_limited && self.target.rooms.is_empty()
    }

    fn change(&self, change: Change<'_>) -> ImksResult<()> {
        if self.reaches_nobody() {
            return Ok(());
        }
        self.namespace.change(&self.target, self.sender, change, self.scope)
    }
}

impl Socket {
    /// Starts a broadcast to everybody in a room, or in several, except this socket; see [`Broadcast::to`].
    pub fn to<'a>(&'a self, rooms: impl RoomNames<'a>) -> Broadcast<'a> {
        self.broadcast().to(rooms)
    }

    /// Starts a broadcast to everybody except this socket and those in a room, or in several.
    pub fn except<'a>(&'a self, rooms: impl RoomNames<'a>) -> Broadcast<'a> {
        self.broadcast().except(rooms)
    }

    /// Starts a broadcast to everybody in the namespace except this socket.
    pub fn broadcast(&self) -> Broadcast<'_> {
        Broadcast::new(self.namespace()).without(self)
    }
}

impl Namespace {
    /// Returns the number of nodes that share this namespace, including this one.
    pub async fn server_count(&self) -> usize {
        self.cluster().count_others().await;
        self.cluster().others().len() + 1
    }

    /// Starts a broadcast to everybody in a room, or in several; see [`Broadcast::to`].
    pub fn to<'a>(&'a self, rooms: impl RoomNames<'a>) -> Broadcast<'a> {
        Broadcast::new(self).to(rooms)
    }

    /// Starts a broadcast to everybody except those in a room, or in several.
    pub fn except<'a>(&'a self, rooms: impl RoomNames<'a>) -> Broadcast<'a> {
        Broadcast::new(self).except(rooms)
    }

    /// Sends an event with one argument to everybody.
    pub fn emit(&self, event: &str, data: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        Broadcast::new(self).emit(event, data)
    }

    /// Sends an event with any arguments to everybody.
    pub fn emit_args(&self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        Broadcast::new(self).emit_args(event, args)
    }

    /// Sends an event to everybody and waits for the acks; see [`Broadcast::emit_with_ack`].
    pub async fn emit_with_ack(
        &self,
        event: &str,
        args: &impl Arguments,
        timeout: Duration,
    ) -> ImksResult<Answers> {
        Broadcast::new(self).emit_with_ack(event, args, timeout).await
    }

    /// Returns everybody on all nodes; see [`Broadcast::fetch_sockets`].
    pub async fn fetch_sockets(&self) -> ImksResult<FetchedSockets> {
        Broadcast::new(self).fetch_sockets().await
    }

    /// Starts a broadcast to everybody, to add operators or to change the rooms of the sockets.
    pub fn everybody(&self) -> Broadcast<'_> {
        Broadcast::new(self)
    }

    /// Sends an event with one argument to everybody in a room, on all nodes.
    pub fn emit_to_room(&self, room: &str, event: &str, data: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.to(room).emit(event, data)
    }
}
