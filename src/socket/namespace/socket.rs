//! The socket: one client in one namespace, as handlers see it.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU16;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::connect::ConnectPayload;
use super::handlers::Listeners;
use super::membership::Memberships;
use super::namespace::Namespace;
use super::offsets::{Offsets, Session, Subject};
use super::pending_acks::PendingAcks;
use super::phase::{Buffered, Buffering, Phase};
use super::pressure;
use super::rooms::Membership;
use crate::engine::{
    Close, Frame, Handshake, Lane, Outbox, Protocol, Queued, Reservation, SendError, Slot, Transport,
    WhenFull,
};
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::dialect::{Dialect, Renderings};
use crate::socket::codec::encoder::{EncodedPacket, Frames};
use crate::socket::codec::packet::MAIN_NAMESPACE;
use crate::socket::data::SocketData;
use crate::socket::recovery::session_store::{Link, Position};
use crate::socket::socket_id::SocketId;

/// A client in one namespace. It is cheap to clone, and sending never waits.
#[derive(Clone)]
pub struct Socket(Arc<Inner>);

struct Inner {
    id: SocketId,
    /// The whole id of a client of Socket.IO v2.
    id_of_version2: Option<Box<str>>,
    phase: Phase,
    dialect: Dialect,
    outbox: Outbox,
    namespace: Namespace,
    handshake: Arc<Handshake>,
    memberships: Memberships<Socket>,
    acks: PendingAcks,
    data: SocketData,
    /// The listeners of this socket, created when first needed. Few sockets have any.
    listeners: OnceLock<Box<Mutex<Listeners>>>,
    /// The session that the client may recover.
    link: Option<Box<Link>>,
    /// What concerns the offsets of events, where the application keeps its sessions.
    offsets: Offsets,
}

impl Socket {
    pub(crate) fn new(
        namespace: Namespace,
        outbox: Outbox,
        handshake: Arc<Handshake>,
        dialect: Dialect,
        payload: &ConnectPayload,
    ) -> ImksResult<Self> {
        let id_of_version2 = id_of_version2(&namespace, &handshake);
        let link = match id_of_version2 {
            None => namespace.delivery().begin(payload.credentials())?,
            Some(_) => None,
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
            phase: Phase::default(),
            dialect,
            outbox,
            namespace,
            handshake,
            memberships: Memberships::default(),
            acks: PendingAcks::default(),
            data: SocketData::restored(data),
            listeners: OnceLock::new(),
            link,
            offsets: Offsets::default(),
        })))
    }

    /// Returns the public id, which is unique in the cluster.
    pub fn id(&self) -> &str {
        self.0.id_of_version2.as_deref().unwrap_or_else(|| self.0.id.as_str())
    }

    /// Returns the namespace of this socket.
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// Returns the client's handshake.
    pub fn handshake(&self) -> &Arc<Handshake> {
        &self.0.handshake
    }

    /// Returns the current transport of the connection.
    pub fn transport(&self) -> Transport {
        self.0.outbox.transport()
    }

    /// Returns the last time from a ping of the connection to its pong, if one has come.
    pub fn rtt(&self) -> Option<Duration> {
        self.0.outbox.rtt()
    }

    /// Returns the code in the close frame with which the peer or this side has ended the connection, if there was one.
    pub fn close_code(&self) -> Option<NonZeroU16> {
        self.0.outbox.close_code()
    }

    /// Whether the socket has joined its namespace and has not left it, and the connection is open.
    pub fn is_connected(&self) -> bool {
        self.0.phase.is_open()
    }

    /// Whether the connection is about to end: nothing more is sent, and the socket leaves its namespace when the peer
    /// has noticed.
    pub fn is_closing(&self) -> bool {
        self.0.outbox.is_closed()
    }

    pub(super) fn phase(&self) -> &Phase {
        &self.0.phase
    }

    pub(crate) fn pending_acks(&self) -> &PendingAcks {
        &self.0.acks
    }

    /// Returns what waits in the outbox of the client's connection, which all its namespaces share.
    pub fn queued(&self) -> Queued {
        self.0.outbox.queued()
    }

    /// Waits until the outbox of the connection is below its soft mark of 128 packets and 256 KiB
    /// ([`OutboxLimits`](crate::engine::OutboxLimits)).
    ///
    /// This is for producers with more to send than a client can take at once: sending itself never waits,
    /// and a client that falls too far behind is closed. It completes at once for a client that keeps up. The
    /// reference has the `drain` event for this.
    ///
    /// # Errors
    /// [`ImksError::SocketNotFound`] if the connection is closed, and [`ImksError::SocketSendFull`] if it was
    /// closed because the client read too slowly.
    pub async fn drained(&self) -> ImksResult<()> {
        self.0.outbox.drained().await.map_err(|error| self.not_sent(error))
    }

    /// Closes the connection without a disconnect packet, so that a stock client reconnects by itself.
    pub fn close_connection(&self) {
        self.0.outbox.close(Close::Shutdown);
    }

    /// Returns the link to the session, if the client has one.
    pub(crate) fn link(&self) -> Option<&Link> {
        self.0.link.as_deref()
    }

    pub(super) fn offsets(&self) -> &Offsets {
        &self.0.offsets
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    pub(crate) fn socket_data(&self) -> &SocketData {
        &self.0.data
    }

    /// Whether the id has the form of Socket.IO v2.
    pub(crate) fn is_of_version2(&self) -> bool {
        self.0.id_of_version2.is_some()
    }

    pub(crate) fn socket_id(&self) -> SocketId {
        self.0.id
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn listeners(&self) -> Option<Listeners> {
        self.0.listeners.get().map(|listeners| listeners.lock().clone())
    }

    pub(crate) fn listen(&self, change: impl FnOnce(&mut Listeners)) {
        let mut listeners = self.0.listeners.get_or_init(Default::default).lock();
        change(&mut listeners);
        self.0.namespace.watch(&listeners);
    }

    /// Sends a packet, or buffers it until after the CONNECT reply while the socket is joining. `position` is
    /// the packet's position in the log of the namespace.
    pub(crate) fn deliver(
        &self,
        packet: &Renderings<'_>,
        position: Option<Position>,
    ) -> Result<(), SendError> {
        self.deliver_in(packet, position, None, Lane::Chat)
    }

    /// Sends a packet like [`Socket::deliver`]. With a slot, it replaces one that waits for a client which does not keep
    /// up. Otherwise it waits there in its lane, unless it has a position.
    pub(crate) fn deliver_in(
        &self,
        packet: &Renderings<'_>,
        position: Option<Position>,
        slot: Option<Slot>,
        lane: Lane,
    ) -> Result<(), SendError> {
        match self.0.phase.buffer(packet, position, None) {
            Buffering::Joining => Ok(()),
            Buffering::Overflowed => Err(SendError::Slow),
            Buffering::Open => {
                self.note_sent(position);
                // The offsets of a log must reach the client in their order.
                let lane = if position.is_none() { lane } else { Lane::Chat };
                self.send_now(packet, slot, lane)
            }
            Buffering::Closed => {
                // The socket is still in its rooms, so the client misses this packet.
                self.note_sent(position);
                Err(SendError::Closed)
            }
        }
    }

    /// Sends a packet like [`Socket::deliver_in`], in its turn. What it is about matters while the socket is joining.
    pub(super) fn deliver_about(
        &self,
        packet: &Renderings<'_>,
        subject: Option<Subject>,
        slot: Option<Slot>,
    ) -> Result<(), SendError> {
        match self.0.phase.buffer(packet, None, subject) {
            Buffering::Joining => Ok(()),
            Buffering::Overflowed => Err(SendError::Slow),
            Buffering::Open if subject.is_some_and(|subject| self.0.offsets.is_late(subject)) => Ok(()),
            Buffering::Open => self.send_now(packet, slot, Lane::Chat),
            Buffering::Closed => Err(SendError::Closed),
        }
    }

    fn send_now(&self, packet: &Renderings<'_>, slot: Option<Slot>, lane: Lane) -> Result<(), SendError> {
        let frames = packet.frames_for(self.0.dialect, &self.0.outbox);
        let when_full = self.when_full();
        if when_full != WhenFull::Close {
            pressure::note(self.0.outbox.send_bounded(frames, when_full)?);
            return Ok(());
        }
        pressure::note(match (slot, lane) {
            (Some(slot), _) => self.0.outbox.send_latest(frames, slot)?,
            (None, Lane::Bulk) => self.0.outbox.send_in(frames, lane)?,
            (None, _) => self.0.outbox.send_all(frames)?,
        });
        Ok(())
    }

    fn when_full(&self) -> WhenFull {
        self.0.namespace.hooks().when_full
    }

    /// Sends a packet that the client must get, such as DISCONNECT: no policy about full queues drops it.
    pub(crate) fn deliver_always(&self, packet: EncodedPacket) -> Result<(), SendError> {
        match self.when_full() {
            WhenFull::Close => self.deliver(&Renderings::new(&packet), None),
            // Answers are never dropped.
            WhenFull::DropNewest | WhenFull::DropOldest => self.answer_now(packet, |_| None, Lane::Chat),
        }
    }

    /// Sends a packet to this client only. A single frame is moved instead of shared.
    pub(crate) fn deliver_owned(&self, packet: EncodedPacket) -> Result<(), SendError> {
        let plain = packet.len() == 1 && self.0.dialect == Dialect::Default;
        if !plain || !self.is_connected() || self.when_full() != WhenFull::Close {
            return self.deliver(&Renderings::new(&packet), None);
        }
        let Some(frame) = packet.into_frames().pop() else { return Ok(()) };
        pressure::note(self.0.outbox.send(frame)?);
        Ok(())
    }

    /// Sends a packet if the connection can take it right now, or with a slot or as ephemeral if few of those wait.
    pub(crate) fn deliver_volatile(&self, packet: &Renderings<'_>, slot: Option<Slot>, lane: Lane) {
        if !self.is_connected() {
            return;
        }
        let frames = packet.frames_for(self.0.dialect, &self.0.outbox);
        match (slot, lane) {
            (None, Lane::Chat | Lane::Bulk) => self.0.outbox.send_volatile(frames),
            (slot, _) => self.0.outbox.send_ephemeral(frames, slot),
        };
    }

    /// Sends an answer to a packet of the client, in its lane. This never closes the connection, however slowly the client
    /// reads. `hold` gets the size of the answer in bytes, and the reservation it returns is dropped when the
    /// answer has been sent.
    ///
    /// # Errors
    /// [`SendError::Slow`] if too much waits for the recovery log, and [`SendError::Closed`] if the connection ends.
    pub(crate) fn answer(
        &self,
        packet: EncodedPacket,
        hold: impl FnOnce(usize) -> Option<Reservation>,
        lane: Lane,
    ) -> Result<(), SendError> {
        if !self.is_connected() {
            return Err(SendError::Closed);
        }
        let Some((store, link)) = self.0.namespace.delivery().shared().zip(self.link()) else {
            // A connection that is closing for its slowness is no fault of the answer.
            return self.answer_now(packet, hold, lane).map_err(|_| SendError::Closed);
        };
        // What the client has been told must be true on any other node.
        let bytes = packet.size();
        let (socket, reservation) = (self.clone(), hold(bytes));
        let held = store.after(Some(link), bytes, move || {
            if socket.answer_now(packet, |_| reservation, lane).is_err() {
                tracing::debug!(socket_sid = %socket.id(), "client left before its answer");
            }
        });
        held.map_err(|error| {
            tracing::debug!(socket_sid = %self.id(), %error, "no answer");
            SendError::Slow
        })
    }

    fn answer_now(
        &self,
        packet: EncodedPacket,
        hold: impl FnOnce(usize) -> Option<Reservation>,
        lane: Lane,
    ) -> Result<(), SendError> {
        let outbox = &self.0.outbox;
        if self.0.dialect == Dialect::Default && packet.len() == 1 && lane == Lane::Chat {
            let Some(frame) = packet.into_frames().pop() else { return Ok(()) };
            let reservation = hold(frame.len());
            return outbox.answer_one(frame, reservation);
        }
        let renderings = Renderings::new(&packet);
        let frames = renderings.frames_for(self.0.dialect, outbox);
        outbox.answer_in(frames, hold(frames.iter().map(Frame::len).sum()), lane)
    }

    /// Sends the CONNECT reply, the first events and then the buffered packets, and stops buffering.
    ///
    /// Without `logged`, buffered packets from the log are skipped because `welcome` already contains them, as are those that
    /// a `session` of the application's own covers.
    /// `reservation` is dropped when everything has been sent.
    ///
    /// # Errors
    /// [`SendError::Slow`] if there were more than
    /// [`BUFFERED_PACKETS_MAX`](super::phase::BUFFERED_PACKETS_MAX) packets to buffer, and
    /// [`SendError::Closed`] if the socket or its connection was closed.
    pub(crate) fn open(
        &self,
        welcome: &[EncodedPacket],
        logged: bool,
        session: Option<&Session>,
        reservation: Option<&Reservation>,
    ) -> Result<(), SendError> {
        self.0.phase.open(|buffered| {
            session.into_iter().for_each(|session| self.0.offsets.leave_out(&session.late));
            let mut all = Frames::new();
            let mut add = |packet: &EncodedPacket| {
                let renderings = Renderings::new(packet);
                all.extend(renderings.frames_for(self.0.dialect, &self.0.outbox).iter().cloned());
            };
            welcome.iter().for_each(&mut add);
            for Buffered { packet, position, subject } in &buffered {
                let is_covered = session.is_some_and(|session| session.covers(*subject));
                if (logged || position.is_none()) && !is_covered {
                    add(packet);
                    self.note_sent(*position);
                }
            }
            // Queue all frames at once: queued one by one, they could fill the outbox and close the connection
            // midway.
            self.0.outbox.answer(&all, reservation.cloned())
        })
    }

    fn note_sent(&self, position: Option<Position>) {
        if let (Some(link), Some(position)) = (&self.0.link, position) {
            link.note_sent(position);
        }
    }

    /// Converts the reason why a packet was not sent.
    pub(crate) fn not_sent(&self, error: SendError) -> ImksError {
        match error {
            SendError::Closed => ImksError::SocketNotFound(self.id().into()),
            SendError::Slow => ImksError::SocketSendFull,
        }
    }
}

/// Rooms and closing.
impl Socket {
    /// Adds a room with `join`, unless the socket is closed or already in the room.
    pub(crate) fn add_room<R>(
        &self,
        room: &str,
        join: impl FnOnce() -> (Membership<Socket>, R),
    ) -> Option<(Arc<str>, R)> {
        self.0.memberships.add(room, &self.0.phase, join)
    }

    pub(crate) fn remove_room(&self, room: &str) -> Option<Membership<Socket>> {
        self.0.memberships.remove(room)
    }

    /// Whether the socket is in a room. Every socket is in its own room, named after its id.
    pub fn is_in(&self, room: &str) -> bool {
        room == self.id() || self.0.memberships.contains(room)
    }

    /// Returns the number of rooms besides the socket's own.
    pub(crate) fn room_count(&self) -> usize {
        self.0.memberships.len()
    }

    /// Returns the rooms of the socket, including its own room.
    pub fn rooms(&self) -> Vec<Arc<str>> {
        let mut rooms = self.0.memberships.rooms();
        rooms.push(Arc::from(self.id()));
        rooms
    }

    /// Marks the socket as closed. Returns `true` for the one call that did it.
    pub(crate) fn mark_closed(&self) -> bool {
        self.0.phase.close()
    }

    /// Drops the acks and the buffered packets of a closed socket, and returns the rooms it must leave.
    pub(crate) fn take_rooms(&self) -> HashMap<Arc<str>, Membership<Socket>> {
        self.0.acks.clear();
        self.0.phase.clear();
        self.0.memberships.take()
    }
}

/// Returns the id of a client of Socket.IO v2, which the client itself derives from session id and namespace.
fn id_of_version2(namespace: &Namespace, handshake: &Handshake) -> Option<Box<str>> {
    match (handshake.protocol, namespace.path()) {
        (Protocol::V4, _) => None,
        (Protocol::V3 { .. }, MAIN_NAMESPACE) => Some(handshake.sid.expose().into()),
        (Protocol::V3 { .. }, path) => Some(format!("{path}#{}", handshake.sid.expose()).into()),
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Socket").field(&self.0.id).finish()
    }
}
