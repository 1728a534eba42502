//! The lifecycle of a socket: how it joins its namespace and leaves it.

use std::sync::Arc;

use super::connect::{Accept, ConnectPayload};
use super::handlers::RoomChange;
use super::namespace::Namespace;
use super::refusal::ConnectError;
use super::room_names::RoomNames;
use super::rooms::JoinOutcome;
use super::socket::Socket;
use crate::bus::BoxFuture;
use crate::engine::{Close, CloseReason, SendError};
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::encoder::{EncodedPacket, encode_connect, encode_disconnect};
use crate::socket::data::SavedData;
use crate::socket::reason::DisconnectReason;
use crate::socket::recovery::session_store::{Accepted, Link, Refused, SharedValues};

/// A socket that its connect hook has not accepted yet. If it is dropped before it is open, it leaves all
/// rooms.
pub(crate) struct JoiningSocket(pub(crate) Socket);

impl Drop for JoiningSocket {
    fn drop(&mut self) {
        if !self.0.is_connected() {
            let namespace = self.0.namespace();
            namespace.remove(&self.0, DisconnectReason::ServerNamespace);
            // The socket may have been closed before it was added.
            namespace.remove_entry(&self.0);
        }
    }
}

/// The reason why a socket was not opened although its connect hook accepted it.
pub(crate) enum NotOpened {
    /// The client cannot recover its earlier session; the hook must run again for a new one.
    WithoutRecovery,
    /// The client must be refused.
    Failed(ImksError),
}

impl Namespace {
    /// Runs middleware and the connect hook for a client. `None` means that everybody may join.
    pub(crate) fn admit(
        &self,
        socket: Socket,
        payload: ConnectPayload,
    ) -> Option<BoxFuture<'static, Result<Accept, ConnectError>>> {
        // The store vouches for this session, so the hook need not run again.
        if socket.link().is_some_and(Link::is_trusted) {
            return None;
        }
        self.hooks().admit(socket, payload)
    }

    /// Prepares for a joining client. Returns false if the log that nodes share cannot be read.
    pub(crate) async fn prepare(&self, payload: &ConnectPayload) -> bool {
        let Some(store) = self.delivery().shared() else { return true };
        let restore = |values: SharedValues| SavedData::from_json(values, &self.hooks().restored);
        store.prepare(payload.credentials(), &restore).await
    }

    /// Whether [`Namespace::take_session`] has to be asked before the socket is opened.
    pub(crate) fn has_to_take(&self, socket: &Socket, accept: &Accept) -> bool {
        // Who is not the owner gets a new session, and must not disturb this one.
        self.delivery().shared().is_some()
            && socket
                .link()
                .is_some_and(|link| link.is_resumed() && self.delivery().is_owner(link, accept.owner()))
    }

    /// Makes this node the owner of the session that a client returns to. Returns false if another node was faster.
    pub(crate) async fn take_session(&self, socket: &Socket) -> bool {
        match (self.delivery().shared(), socket.link()) {
            // The former owner lets it go.
            (Some(store), Some(link)) => store.take(link).await && socket.tell_taken(store, link),
            _ => true,
        }
    }

    pub(crate) fn connected(&self, socket: Socket) -> Option<BoxFuture<'static, ()>> {
        self.hooks().connected.as_ref().map(|hook| hook(socket))
    }

    /// Opens a socket that the connect hook accepted, so that broadcasts reach it.
    ///
    /// The client gets what it missed, the CONNECT reply, the first events and the buffered packets, in this
    /// order.
    pub(crate) fn open(&self, socket: &Socket, accept: &Accept) -> Result<(), NotOpened> {
        match socket.link() {
            Some(link) => self.open_session(socket, link, accept),
            None => self.open_plain(socket, accept).map_err(NotOpened::Failed),
        }
    }

    fn open_plain(&self, socket: &Socket, accept: &Accept) -> ImksResult<()> {
        self.insert(socket);
        let pid = accept.session().map(|session| &*session.pid);
        let mut welcome = vec![encode_connect(self.path(), socket.id(), pid)];
        welcome.extend(accept.encode(self.path())?);
        let opened = socket.open(&welcome, true, accept.session(), accept.reservation());
        opened.map_err(|error| socket.not_sent(error))
    }

    fn open_session(&self, socket: &Socket, link: &Link, accept: &Accept) -> Result<(), NotOpened> {
        if link.is_resumed() {
            if !self.delivery().is_owner(link, accept.owner()) {
                return Err(NotOpened::WithoutRecovery);
            }
            // The client notices a broken connection before the server does.
            if let Some(earlier) = self.socket(socket.id()) {
                earlier.outbox().close(Close::Now);
                self.remove(&earlier, DisconnectReason::Engine(CloseReason::TransportClose));
            }
            // The stock client keeps events that come before the CONNECT reply, also when the connection is lost before the
            // reply comes. It would then ask for them again, and get them twice.
            socket.outbox().allow_long_payloads();
        }
        let (events, last) = accept.encode_recoverable(self.path()).map_err(NotOpened::Failed)?;
        let data = socket.socket_data().save();
        let accepted = Accepted { owner: accept.owner(), greeted: last.is_some(), data };
        let (mut joined, mut failure) = (Vec::new(), SendError::Closed);
        let opened = self.delivery().open(link, accepted, |opening| {
            joined.extend(opening.rooms.iter().filter_map(|room| socket.enter(room)));
            self.insert(socket);
            let (before, after) = match link.is_resumed() {
                true => (opening.missed, Vec::new()),
                false => (Vec::new(), opening.missed),
            };
            let mut welcome = before;
            welcome.push(socket.connect_reply());
            welcome.extend(events);
            welcome.extend(last.map(|last| last.stamp(opening.offset.as_str())));
            welcome.extend(after);
            let logged = !link.is_resumed() && self.delivery().shared().is_none();
            socket.open(&welcome, logged, None, accept.reservation()).map_err(|error| {
                failure = error;
                Refused::Closed
            })
        });
        // Hooks may do anything, so they run without a lock.
        joined.iter().for_each(|(room, created)| socket.tell_joined(room, *created));
        opened.map_err(|refused| match refused {
            Refused::Lost => NotOpened::WithoutRecovery,
            Refused::Closed => NotOpened::Failed(socket.not_sent(failure)),
        })
    }

    /// Removes a socket from its rooms and the namespace, and runs the hooks. Only the first call has an
    /// effect.
    pub(crate) fn remove(&self, socket: &Socket, reason: DisconnectReason) {
        let was_member = self.contains(socket);
        if !socket.mark_closed() {
            return;
        }
        self.delivery().depart(socket.link(), reason.is_recoverable());
        if let Some(hook) = self.hooks().disconnecting.as_ref().filter(|_| was_member) {
            hook(socket, reason);
        }
        for (room, membership) in socket.take_rooms() {
            let deleted = self.rooms().leave(membership);
            socket.tell_left(&room, deleted);
        }
        self.remove_entry(socket);
        if let Some(hook) = self.hooks().disconnected.as_ref().filter(|_| was_member) {
            hook(socket, reason);
        }
        self.client_gone();
        tracing::debug!(socket_sid = %socket.id(), namespace = self.path(), reason = reason.as_str(), "socket left");
    }
}

impl Socket {
    /// Removes the client from the namespace or, with `close`, from every namespace, and then closes the
    /// connection.
    ///
    /// A stock client does not reconnect by itself after this ("io server disconnect").
    pub fn disconnect(&self, close: bool) {
        if self.is_connected() {
            let delivered = self.deliver_always(encode_disconnect(self.namespace().path())).is_ok();
            tracing::debug!(socket_sid = %self.id(), delivered, "socket disconnected by the server");
        }
        self.namespace().remove(self, DisconnectReason::ServerNamespace);
        if close {
            self.outbox().request_disconnect();
        }
    }

    /// Whether the client recovered its session after a short absence: the same socket id, rooms and data. In
    /// the connect hook: whether it will have, if the hook accepts.
    pub fn recovered(&self) -> bool {
        self.link().is_some_and(Link::is_resumed)
    }

    /// Returns the rooms that a returning client will be in again, except its own room. For use in the
    /// connect hook.
    ///
    /// The hook can remove a room with [`Socket::leave`]. The client then does not get the packets it missed
    /// there.
    pub fn recovered_rooms(&self) -> Vec<Arc<str>> {
        self.namespace().delivery().recovered_rooms(self.link())
    }

    /// Encodes the CONNECT reply, with the id of the socket and of its session.
    pub(crate) fn connect_reply(&self) -> EncodedPacket {
        let pid = self.link().map(Link::pid);
        encode_connect(self.namespace().path(), self.id(), pid.as_deref())
    }

    /// Adds the socket to a room, or to several. Does nothing once it is disconnected.
    pub fn join<'a>(&self, rooms: impl RoomNames<'a>) {
        rooms.for_each(|room| {
            let joined = self.namespace().delivery().join(self.link(), || self.enter(room));
            if let Some((_, created)) = joined {
                self.tell_joined(room, created);
            }
        });
    }

    /// Adds the socket to a room that its client has named, unless it is in `rooms_max` rooms besides its own already. A
    /// client can make a server remember any number of rooms otherwise.
    ///
    /// # Errors
    /// [`ImksError::LimitReached`]; a handler that returns it refuses the request of the client.
    pub fn try_join(&self, room: &str, rooms_max: usize) -> ImksResult<()> {
        if self.room_count() >= rooms_max && !self.is_in(room) {
            return Err(ImksError::LimitReached("rooms"));
        }
        self.join(room);
        Ok(())
    }

    /// Removes the socket from a room, or from several.
    pub fn leave<'a>(&self, rooms: impl RoomNames<'a>) {
        let namespace = self.namespace();
        rooms.for_each(|room| {
            let leave = || self.remove_room(room).map(|membership| namespace.rooms().leave(membership));
            if let Some(deleted) = namespace.delivery().leave(self.link(), room, leave) {
                self.tell_left(room, deleted);
            }
        });
    }

    /// Enters a room. Returns its name and whether it is new, or `None` if the socket is closed or already in
    /// it.
    fn enter(&self, room: &str) -> Option<(Arc<str>, bool)> {
        self.add_room(room, || {
            let JoinOutcome { membership, created } =
                self.namespace().rooms().join(Arc::from(room), self.clone());
            (membership, created)
        })
    }

    fn tell_joined(&self, room: &str, created: bool) {
        let Some(hook) = &self.namespace().hooks().room else { return };
        if created {
            hook(self, RoomChange::Created(room));
        }
        hook(self, RoomChange::Joined(room));
    }

    fn tell_left(&self, room: &str, deleted: bool) {
        let Some(hook) = &self.namespace().hooks().room else { return };
        hook(self, RoomChange::Left(room));
        if deleted {
            hook(self, RoomChange::Deleted(room));
        }
    }
}
