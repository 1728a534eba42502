//! The delivery of packets to the sockets of a namespace: directly, or through the log from which returning
//! clients catch up. The choice is made when the namespace is created, and only this module depends on it.

use std::borrow::Cow;
use std::sync::Arc;

use super::cluster_link::{Change, Target};
use crate::error::ImksResult;
use crate::socket::codec::arguments::Arguments;
use crate::socket::codec::encoder::{EncodedPacket, encode_event};
use crate::socket::data::SavedData;
use crate::socket::recovery::config::{Recovery, RecoveryStatus};
use crate::socket::recovery::event::RecoverableEvent;
use crate::socket::recovery::session_store::{
    Accepted, Addressees, AwaySession, Link, Position, Refused, Restored, SessionStore, SharedLog,
};
use crate::socket::socket_id::SocketId;

/// The way in which packets are delivered.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// Directly to the connected sockets.
    Plain,
    /// In the order of one log, which stores what absent clients miss.
    Logged(Arc<SessionStore>),
}

/// An event on its way to sockets.
#[derive(Debug)]
pub(crate) enum OutgoingEvent {
    Plain(EncodedPacket),
    /// An event whose offset is filled in when its place in the log is known.
    Recoverable(RecoverableEvent),
}

impl OutgoingEvent {
    /// Returns the event as listeners and other nodes see it.
    pub(crate) fn packet(&self) -> Cow<'_, EncodedPacket> {
        match self {
            Self::Plain(packet) => Cow::Borrowed(packet),
            Self::Recoverable(event) => Cow::Owned(event.plain()),
        }
    }

    /// Sets whether the event may be compressed in transit.
    pub(crate) fn compress(self, compress: bool) -> Self {
        match self {
            Self::Plain(packet) => Self::Plain(packet.compress(compress)),
            Self::Recoverable(event) => Self::Recoverable(event.compress(compress)),
        }
    }
}

impl Delivery {
    /// Creates plain delivery without recovery, or delivery through a log: a new one in memory, or one that nodes share.
    pub(crate) fn new(recovery: Option<&Recovery>, shared: Option<SharedLog>) -> ImksResult<Self> {
        Ok(match recovery {
            Some(recovery) => Self::Logged(SessionStore::new(recovery, shared)?),
            None => Self::Plain,
        })
    }

    /// Returns what is stored for clients that may return, or `None` without recovery.
    pub(crate) fn status(&self) -> Option<RecoveryStatus> {
        self.store().map(SessionStore::status)
    }

    /// Whether packets go to the connected sockets and to nobody else.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Returns the store whose log nodes share, if that is so.
    pub(crate) fn shared(&self) -> Option<&Arc<SessionStore>> {
        match self {
            Self::Logged(store) => store.shared().map(|_| store),
            Self::Plain => None,
        }
    }

    /// Waits until what this node has sent is on its way to all nodes, in its order.
    pub(crate) async fn settle(&self) {
        if let Some(store) = self.shared() {
            store.settle().await;
        }
    }

    /// Links a new socket to a session, if the namespace has sessions. The session is the one that the client
    /// names if it can be recovered, else a new one.
    pub(crate) fn begin(&self, credentials: Option<&str>) -> ImksResult<Option<Box<Link>>> {
        self.store().map(|store| store.begin(credentials).map(Box::new)).transpose()
    }

    /// Encodes an event, with room for an offset if there is a log.
    pub(crate) fn encode(
        &self,
        namespace: &str,
        event: &str,
        args: &impl Arguments,
    ) -> ImksResult<OutgoingEvent> {
        Ok(match self {
            Self::Plain => OutgoingEvent::Plain(encode_event(namespace, None, event, args)?),
            Self::Logged(_) => OutgoingEvent::Recoverable(RecoverableEvent::new(namespace, event, args)?),
        })
    }

    /// Sends an event to the sockets that `deliver` finds, and stores it for the clients that miss it.
    pub(crate) fn send(
        &self,
        event: OutgoingEvent,
        addressees: impl FnOnce() -> Addressees,
        deliver: impl FnOnce(&EncodedPacket, Option<Position>),
    ) {
        match (event, self) {
            (OutgoingEvent::Plain(packet), _) => deliver(&packet, None),
            (OutgoingEvent::Recoverable(event), Self::Logged(store)) if store.shared().is_none() => {
                store.publish(addressees(), event, |packet, position| deliver(packet, Some(position)));
            }
            // One that does not take the way through a shared log, such as to a client of Socket.IO v2.
            (OutgoingEvent::Recoverable(event), _) => deliver(&event.plain(), None),
        }
    }

    /// Whether an absent client will get the packets that are sent to its socket.
    pub(crate) fn keeps(&self, link: Option<&Link>) -> bool {
        self.session(link).is_some_and(|(store, link)| store.is_known(link))
    }

    /// Adds a socket to a room. `join` returns the name of the room unless the socket is in it already.
    pub(crate) fn join<R>(
        &self,
        link: Option<&Link>,
        join: impl FnOnce() -> Option<(Arc<str>, R)>,
    ) -> Option<(Arc<str>, R)> {
        match self.session(link) {
            Some((store, link)) => store.join(link, join),
            None => join(),
        }
    }

    /// Removes a socket from a room.
    pub(crate) fn leave<R>(&self, link: Option<&Link>, room: &str, leave: impl FnOnce() -> R) -> R {
        match self.session(link) {
            Some((store, link)) => store.leave(link, room, leave),
            None => leave(),
        }
    }

    /// Saves the data of a socket after the application changed it.
    pub(crate) fn save_data(&self, link: Option<&Link>, data: impl FnOnce() -> SavedData) {
        if let Some((store, link)) = self.session(link) {
            store.set_data(link, data);
        }
    }

    /// Records that a socket has left. `recoverable` says whether its client may return to its session.
    pub(crate) fn depart(&self, link: Option<&Link>, recoverable: bool) {
        if let Some((store, link)) = self.session(link) {
            store.depart(link, recoverable);
        }
    }

    /// Returns those rooms of the session being recovered that the connect hook did not remove.
    pub(crate) fn recovered_rooms(&self, link: Option<&Link>) -> Vec<Arc<str>> {
        self.session(link).map(|(store, link)| store.recovered_rooms(link)).unwrap_or_default()
    }

    /// Whether the connect hook authenticated the owner of the session being recovered.
    pub(crate) fn is_owner(&self, link: &Link, owner: Option<&str>) -> bool {
        self.store().is_none_or(|store| store.is_owner(link, owner))
    }

    /// Opens a socket that the connect hook accepted, atomically with respect to all events of the namespace.
    pub(crate) fn open(
        &self,
        link: &Link,
        accepted: Accepted<'_>,
        open: impl FnOnce(Restored) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        self.store().ok_or(Refused::Lost)?.open(link, accepted, open)
    }

    /// Applies a change to the sessions of absent clients.
    pub(crate) fn change_absent(&self, target: &Target<'_>, skip: Option<SocketId>, change: Change<'_>) {
        // Changes of sessions of all nodes are in the log that they share.
        let Some(store) = self.store().filter(|store| store.shared().is_none()) else { return };
        let meant = |session: &AwaySession<'_>| {
            (target.rooms.is_empty() || target.rooms.iter().any(|room| session.is_in(room)))
                && !target.except.iter().any(|room| session.is_in(room))
                && skip != Some(session.socket_id())
        };
        store.for_each_away(|session| {
            if !meant(session) {
                return true;
            }
            match change {
                Change::Join { room } => session.join(room),
                Change::Leave { room } => session.leave(room),
                Change::Disconnect { .. } => return false,
            }
            true
        });
    }

    fn store(&self) -> Option<&SessionStore> {
        match self {
            Self::Plain => None,
            Self::Logged(store) => Some(store),
        }
    }

    /// Returns the log and the session. A socket without a session (a client of Socket.IO v2) is not in the
    /// log.
    fn session<'a>(&'a self, link: Option<&'a Link>) -> Option<(&'a SessionStore, &'a Link)> {
        Some((self.store()?, link?))
    }
}
