//! A client in one namespace: what handlers hold in their hands.

mod membership;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;

use super::ack_collector::Ticket;
use super::broadcast::Broadcast;
use super::connect::ConnectPayload;
use super::data::Pouch;
use super::delivery;
use super::listeners::{args_of, show_outgoing};
use super::namespace::Namespace;
use super::rooms::{self, Membership};
use crate::engine::{Close, Handshake, Outbox, Pressure, Protocol, Queued, SendError, Transport};
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::dialect::{Dialect, Parcel, with_compression};
use crate::socket::codec::packet::Args;
use crate::socket::codec::parser::{self, Arguments, Frames, One};
use crate::socket::recovery::event::Unstamped;
use crate::socket::recovery::session_store::{Link, Position, SessionStore};
use crate::socket::server::client::Joined;
use crate::socket::socket_id::SocketId;

/// A client in one namespace. Cheap to clone; sending never waits.
#[derive(Clone)]
pub struct Socket(Arc<Inner>);

struct Inner {
    id: SocketId,
    /// The whole id of a client of Socket.IO v2.
    id_of_version2: Option<Box<str>>,
    /// One of `JOINING`, `OPEN`, `CLOSED`.
    state: AtomicU8,
    dialect: Dialect,
    outbox: Outbox,
    namespace: Namespace,
    handshake: Arc<Handshake>,
    /// What was sent while joining: it must not overtake the CONNECT reply.
    held: Mutex<Vec<Held>>,
    rooms: Mutex<HashMap<Arc<str>, Membership>>,
    acks: Mutex<HashMap<u64, Waiter>>,
    pouch: Pouch,
    /// The session that the client may come back to.
    link: Option<Box<Link>>,
}

struct Held {
    frames: Frames,
    /// Where it stands in the log of its namespace, if that is kept.
    position: Option<Position>,
}

/// Who waits for an answer of this socket.
enum Waiter {
    Alone(oneshot::Sender<Args>),
    /// One of many that were asked the same.
    Among(Ticket),
}

const JOINING: u8 = 0;
const OPEN: u8 = 1;
const CLOSED: u8 = 2;

impl Socket {
    pub(crate) fn new(
        namespace: Namespace,
        outbox: Outbox,
        handshake: Arc<Handshake>,
        dialect: Dialect,
        payload: &ConnectPayload,
    ) -> ImksResult<Self> {
        let id_of_version2 = id_of_version2(&namespace, &handshake);
        let link = match namespace.sessions().filter(|_| id_of_version2.is_none()) {
            Some(store) => Some(Box::new(store.begin(payload.credentials())?)),
            None => None,
        };
        let data = link.as_ref().map(|link| link.data()).unwrap_or_default();
        let id = match (&id_of_version2, &link) {
            (None, None) => SocketId::random()?,
            (None, Some(link)) => link.socket_id(),
            (Some(id), _) => SocketId::of_version2(id),
        };
        Ok(Self(Arc::new(Inner {
            id,
            id_of_version2,
            state: AtomicU8::new(JOINING),
            dialect,
            outbox,
            namespace,
            handshake,
            held: Mutex::default(),
            rooms: Mutex::default(),
            acks: Mutex::default(),
            pouch: Pouch::filled(data),
            link,
        })))
    }

    /// Public id, unique in the cluster.
    pub fn id(&self) -> &str {
        self.0.id_of_version2.as_deref().unwrap_or_else(|| self.0.id.as_str())
    }

    /// The namespace this socket is in.
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// What the client told about itself when it opened the connection.
    pub fn handshake(&self) -> &Arc<Handshake> {
        &self.0.handshake
    }

    /// Transport of the connection right now.
    pub fn transport(&self) -> Transport {
        self.0.outbox.transport()
    }

    /// False once it left the namespace or the connection ended.
    pub fn is_connected(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == OPEN
    }

    /// Sends an event with one argument to this client.
    pub fn emit(&self, event: &str, data: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.emit_args(event, &One(data))
    }

    /// Sends an event with any arguments to this client.
    pub fn emit_args(&self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        if let Some((store, _)) = self.session() {
            return self.emit_logged(store, Unstamped::event(self.0.namespace.path(), event, args)?);
        }
        let frames = self.encode(None, event, args)?;
        self.deliver_owned(frames).map_err(|error| self.send_error(error))
    }

    fn encode(&self, id: Option<u64>, event: &str, args: &impl Arguments) -> ImksResult<Frames> {
        let frames = parser::encode_event(self.0.namespace.path(), id, event, args)?;
        if self.0.namespace.watches_outgoing() {
            show_outgoing(self, &args_of(&frames)?);
        }
        Ok(frames)
    }

    /// Sends an event that is not to be compressed on its way: secrets beside what others may choose, or data that is
    /// compressed already.
    pub fn emit_uncompressed(&self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        if let Some((store, _)) = self.session() {
            let event = Unstamped::event(self.0.namespace.path(), event, args)?.with_compression(false);
            return self.emit_logged(store, event);
        }
        let frames = self.encode(None, event, args)?;
        self.deliver_owned(with_compression(frames, false)).map_err(|error| self.send_error(error))
    }

    fn emit_logged(&self, store: &SessionStore, event: Unstamped) -> ImksResult<()> {
        if self.0.namespace.watches_outgoing() {
            show_outgoing(self, &args_of(&event.plain())?);
        }
        delivery::emit(store, self, event)
    }

    /// Sends an event that may be lost: it is dropped unless the connection can take it right now.
    pub fn emit_volatile(&self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        let frames = self.encode(None, event, args)?;
        self.deliver_volatile(&Parcel::new(&frames));
        Ok(())
    }

    /// Sends an event and waits for the client's answer, for at most `timeout`.
    pub async fn emit_with_ack(
        &self,
        event: &str,
        args: &impl Arguments,
        timeout: Duration,
    ) -> ImksResult<Args> {
        let id = self.0.namespace.next_ack_id();
        let frames = self.encode(Some(id), event, args)?;
        let answer = self.expect_ack(id)?;
        let pending = PendingAck { socket: self, id };
        self.deliver(&frames).map_err(|error| self.send_error(error))?;
        let answer = tokio::time::timeout(timeout, answer).await;
        drop(pending);
        match answer {
            Ok(Ok(args)) => Ok(args),
            Ok(Err(_)) => Err(self.not_found()),
            Err(_) => Err(ImksError::Timeout("the client did not acknowledge in time")),
        }
    }

    /// What waits to be written to this client's connection, all its namespaces together.
    pub fn queued(&self) -> Queued {
        self.0.outbox.queued()
    }

    /// Waits until the connection's queue is below its soft mark, 128 packets and 256 KiB
    /// ([`OutboxLimits`](crate::engine::OutboxLimits)): for a producer that has more to send than a client can take at
    /// once. Sending itself never waits, and closes a client that falls too far behind. Ready at once for a client that
    /// keeps up; what the reference's `drain` event is for.
    ///
    /// # Errors
    /// [`ImksError::SocketNotFound`] when the connection is closed, [`ImksError::SocketSendFull`] when that was
    /// because the client read too slowly.
    pub async fn drained(&self) -> ImksResult<()> {
        self.0.outbox.drained().await.map_err(|error| self.send_error(error))
    }

    /// Everybody in a room but this socket.
    pub fn to<'a>(&'a self, room: &'a str) -> Broadcast<'a> {
        self.broadcast().to(room)
    }

    /// Everybody in the namespace but this socket.
    pub fn broadcast(&self) -> Broadcast<'_> {
        Broadcast::new(&self.0.namespace).without(self)
    }

    /// Makes the client leave the namespace; with `close` every namespace of the connection, which then ends.
    ///
    /// The stock client does not reconnect by itself after this ("io server disconnect").
    pub fn disconnect(&self, close: bool) {
        if self.is_connected() {
            let bye = parser::encode_disconnect(self.0.namespace.path());
            let farewell = self.send(&Parcel::new(&smallvec::smallvec![bye]));
            tracing::debug!(socket_sid = %self.0.id, delivered = farewell.is_ok(), "socket disconnected by the server");
        }
        self.0.namespace.remove(self, crate::socket::DisconnectReason::ServerNamespace);
        if close {
            self.0.outbox.request_disconnect();
        }
    }

    /// Ends the connection without telling the client to stay away: a stock client reconnects by itself.
    pub fn close_connection(&self) {
        self.0.outbox.close(Close::Shutdown);
    }

    /// What ties it to the store of sessions, where clients may come back.
    pub(crate) fn session(&self) -> Option<(&SessionStore, &Link)> {
        let link = self.0.link.as_deref()?;
        Some((self.0.namespace.sessions()?, link))
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    pub(crate) fn pouch(&self) -> &Pouch {
        &self.0.pouch
    }

    /// Whether its id has another form than usual.
    pub(crate) fn is_of_version2(&self) -> bool {
        self.0.id_of_version2.is_some()
    }

    pub(crate) fn socket_id(&self) -> SocketId {
        self.0.id
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Queues frames for the client. While it is still joining they wait behind the CONNECT reply.
    pub(crate) fn deliver(&self, frames: &Frames) -> Result<(), SendError> {
        self.deliver_parcel(&Parcel::new(frames))
    }

    /// As [`Socket::deliver`], for frames that others get too.
    pub(crate) fn deliver_parcel(&self, parcel: &Parcel<'_>) -> Result<(), SendError> {
        match self.0.state.load(Ordering::Acquire) {
            OPEN => self.send(parcel),
            JOINING => self.hold(parcel.frames(), None),
            _ => Err(SendError::Closed),
        }
    }

    /// As [`Socket::deliver_parcel`], for an event that stands in the log of its namespace.
    pub(crate) fn deliver_numbered(&self, parcel: &Parcel<'_>, position: Position) -> Result<(), SendError> {
        match self.0.state.load(Ordering::Acquire) {
            OPEN => {
                self.note_sent(position);
                self.send(parcel)
            }
            JOINING => self.hold(parcel.frames(), Some(position)),
            _ => {
                // It has not left its rooms yet: the client will miss this one.
                self.note_sent(position);
                Err(SendError::Closed)
            }
        }
    }

    fn note_sent(&self, position: Position) {
        if let Some(link) = &self.0.link {
            link.note_sent(position);
        }
    }

    /// As [`Socket::deliver`], for frames that nobody else gets: a single one is moved, not shared.
    pub(crate) fn deliver_owned(&self, mut frames: Frames) -> Result<(), SendError> {
        let plain = frames.len() == 1 && self.0.dialect == Dialect::Default;
        if !plain || self.0.state.load(Ordering::Acquire) != OPEN {
            return self.deliver(&frames);
        }
        let Some(frame) = frames.pop() else { return Ok(()) };
        note(self.0.outbox.send(frame)?);
        Ok(())
    }

    pub(crate) fn deliver_volatile(&self, parcel: &Parcel<'_>) {
        if self.0.state.load(Ordering::Acquire) == OPEN {
            self.0.outbox.send_volatile(parcel.wrapped_for(self.0.dialect, &self.0.outbox));
        }
    }

    /// The CONNECT reply and the first events leave, then what was held back; from now on nothing is. Without
    /// `numbered`, what stands in the log is part of the welcome already.
    pub(crate) fn open(&self, welcome: &[Frames], numbered: bool) -> Result<(), SendError> {
        let mut held = self.0.held.lock();
        let waiting = std::mem::take(&mut *held);
        let mut all = Frames::new();
        let mut add = |frames| {
            all.extend(Parcel::new(frames).wrapped_for(self.0.dialect, &self.0.outbox).iter().cloned())
        };
        welcome.iter().for_each(&mut add);
        for Held { frames, position } in &waiting {
            if numbered || position.is_none() {
                add(frames);
                position.iter().for_each(|position| self.note_sent(*position));
            }
        }
        // All or none: a connection that is full now would be closed in the midst of it.
        note(self.0.outbox.send_all(&all)?);
        // Fails when the socket was closed meanwhile; then it stays closed.
        let opened = self.0.state.compare_exchange(JOINING, OPEN, Ordering::AcqRel, Ordering::Acquire);
        opened.map(|_| ()).map_err(|_| SendError::Closed)
    }

    /// Answers a question asked by [`Socket::emit_with_ack`]; unknown ids answer nothing.
    pub(crate) fn resolve_ack(&self, id: u64, args: Args) {
        let waiting = self.0.acks.lock().remove(&id);
        match waiting {
            // The one who asked may have given up in the same moment.
            Some(Waiter::Alone(waiting)) => drop(waiting.send(args)),
            Some(Waiter::Among(ticket)) => ticket.answer(args),
            None => {}
        }
    }

    /// Ends the socket's life: true for the one caller who did it.
    pub(crate) fn shut(&self) -> bool {
        self.0.state.swap(CLOSED, Ordering::AcqRel) != CLOSED
    }

    /// Leaves all rooms and gives up all questions.
    pub(crate) fn release(&self) {
        let rooms = std::mem::take(&mut *self.0.rooms.lock());
        for (room, membership) in rooms {
            let deleted = self.0.namespace.rooms().leave(membership);
            self.tell_left(&room, deleted);
        }
        let unanswered = std::mem::take(&mut *self.0.acks.lock());
        drop(unanswered);
        self.0.held.lock().clear();
    }

    fn send(&self, parcel: &Parcel<'_>) -> Result<(), SendError> {
        note(self.0.outbox.send_all(parcel.wrapped_for(self.0.dialect, &self.0.outbox))?);
        Ok(())
    }

    fn hold(&self, frames: &Frames, position: Option<Position>) -> Result<(), SendError> {
        let mut held = self.0.held.lock();
        if self.0.state.load(Ordering::Acquire) != JOINING {
            drop(held);
            return self.deliver(frames);
        }
        if held.len() >= HELD_PACKETS_MAX {
            self.0.outbox.close(Close::Now);
            return Err(SendError::Slow);
        }
        held.push(Held { frames: frames.clone(), position });
        Ok(())
    }

    fn expect_ack(&self, id: u64) -> ImksResult<oneshot::Receiver<Args>> {
        let (sender, receiver) = oneshot::channel();
        self.wait_for(id, Waiter::Alone(sender))?;
        Ok(receiver)
    }

    /// Leaves a ticket for an answer. A socket that is gone, or owes too many answers, gives it back at once.
    pub(crate) fn expect_answer(&self, id: u64, ticket: Ticket) -> ImksResult<()> {
        self.wait_for(id, Waiter::Among(ticket))
    }

    /// Nobody waits for this answer any more.
    pub(crate) fn forget_ack(&self, id: u64) {
        let waiter = self.0.acks.lock().remove(&id);
        drop(waiter);
    }

    fn wait_for(&self, id: u64, waiter: Waiter) -> ImksResult<()> {
        let mut acks = self.0.acks.lock();
        // Checked under the lock: whoever closes the socket empties the map under it afterwards.
        let closed = self.0.state.load(Ordering::Acquire) == CLOSED;
        if closed || acks.len() >= PENDING_ACKS_MAX {
            // Dropped without the lock: a ticket speaks when it is dropped.
            drop(acks);
            drop(waiter);
            return Err(match closed {
                true => self.not_found(),
                false => ImksError::LimitReached("pending acks per socket"),
            });
        }
        acks.insert(id, waiter);
        Ok(())
    }

    pub(super) fn send_error(&self, error: SendError) -> ImksError {
        match error {
            SendError::Closed => self.not_found(),
            SendError::Slow => ImksError::SocketSendFull,
        }
    }

    pub(super) fn not_found(&self) -> ImksError {
        ImksError::SocketNotFound(self.id().into())
    }
}

/// Clients of Socket.IO v2 are not told their id: they make it of the session id and the namespace.
fn id_of_version2(namespace: &Namespace, handshake: &Handshake) -> Option<Box<str>> {
    match (handshake.protocol, namespace.path()) {
        (Protocol::V4, _) => None,
        (Protocol::V3 { .. }, parser::MAIN_NAMESPACE) => Some(handshake.sid.expose().into()),
        (Protocol::V3 { .. }, path) => Some(format!("{path}#{}", handshake.sid.expose()).into()),
    }
}

impl Joined for Socket {
    fn is_connected(&self) -> bool {
        Socket::is_connected(self)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Socket").field(&self.0.id).finish()
    }
}

/// Forgets a question when the one who asked stops waiting.
struct PendingAck<'a> {
    socket: &'a Socket,
    id: u64,
}

impl Drop for PendingAck<'_> {
    fn drop(&mut self) {
        self.socket.forget_ack(self.id);
    }
}

fn note(pressure: Pressure) {
    if pressure.0 {
        rooms::note_pressure();
    }
}

/// Answers that may be outstanding from one client; more is refused.
pub const PENDING_ACKS_MAX: usize = 1_024;

/// Packets held back for a client whose connect hook is still running; more closes the connection.
pub const HELD_PACKETS_MAX: usize = 1_024;
