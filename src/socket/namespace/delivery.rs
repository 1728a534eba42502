//! Where sockets, rooms and the bus meet the store of sessions. Nothing of this runs in a namespace without one.

use std::sync::Arc;

use super::connect::Accept;
use super::namespace::Namespace;
use super::socket::Socket;
use crate::engine::{Close, CloseReason, SendError};
use crate::error::{ImksError, ImksResult};
use crate::socket::DisconnectReason;
use crate::socket::cluster::message_bus::{Operation, Target};
use crate::socket::codec::dialect::Parcel;
use crate::socket::codec::parser::{self, Frames};
use crate::socket::recovery::event::{self, Unstamped};
use crate::socket::recovery::session_store::{Accepted, Addressees, AwaySession, Refused, SessionStore};

/// Why a socket whose connect hook accepted was not taken in.
pub(crate) enum NotTakenIn {
    /// It cannot go on with its earlier session: the hook is to be asked about a new one.
    StartAnew,
    /// The connection is to be closed.
    Failed(ImksError),
}

impl Socket {
    /// Whether the client came back after a short absence, as the same socket and with its rooms and data. In the
    /// connect hook: whether it will have, if the hook accepts.
    pub fn recovered(&self) -> bool {
        self.session().is_some_and(|(_, link)| link.is_back())
    }

    /// In the connect hook of a client that comes back: the rooms it will be in again, own room aside. The hook takes
    /// one away with [`Socket::leave`]; then the client does not get the packets it missed there, either.
    pub fn recovered_rooms(&self) -> Vec<Arc<str>> {
        self.session().map(|(store, link)| store.recovered_rooms(link)).unwrap_or_default()
    }
}

impl DisconnectReason {
    /// Whether the client may come back to its session: it may unless somebody wanted it to end.
    pub fn is_recoverable(self) -> bool {
        !matches!(self, Self::Engine(CloseReason::ParseError) | Self::ClientNamespace | Self::ServerNamespace)
    }
}

/// Opens a socket whose connect hook accepted: what it missed, the CONNECT reply, the first events, then whatever
/// waited behind them. From then on broadcasts reach it.
pub(crate) fn take_in(namespace: &Namespace, socket: &Socket, accept: &Accept) -> Result<(), NotTakenIn> {
    let Some((store, link)) = socket.session() else {
        namespace.insert(socket);
        let reply = parser::encode_connect(namespace.path(), socket.id());
        let mut welcome: Vec<Frames> = vec![smallvec::smallvec![reply]];
        welcome.extend(accept.encode(namespace.path()).map_err(NotTakenIn::Failed)?);
        return socket.open(&welcome, true).map_err(|_| NotTakenIn::Failed(socket.not_found()));
    };
    if link.is_back() {
        if !store.is_owner(link, accept.owner()) {
            return Err(NotTakenIn::StartAnew);
        }
        // The client knows that its connection broke before we do.
        if let Some(earlier) = namespace.socket(socket.id()) {
            earlier.end_connection();
            namespace.remove(&earlier, DisconnectReason::Engine(CloseReason::TransportClose));
        }
    }
    let (events, last) = accept.encode_recoverable(namespace.path()).map_err(NotTakenIn::Failed)?;
    let data = socket.pouch().kept();
    let accepted = Accepted { owner: accept.owner(), greeted: last.is_some(), data };
    let mut moved = Vec::new();
    let opened = store.open(link, accepted, |opening| {
        for room in opening.rooms {
            moved.extend(socket.enter(&room));
        }
        namespace.insert(socket);
        let reply = event::encode_connect_recoverable(namespace.path(), socket.id(), &link.pid());
        let mut welcome = opening.missed;
        welcome.push(smallvec::smallvec![reply]);
        welcome.extend(events);
        welcome.extend(last.map(|last| last.stamp(opening.offset.as_str())));
        socket.open(&welcome, !link.is_back()).map_err(|_| Refused::Closed)
    });
    // Hooks may do anything, so they run when nothing is locked.
    moved.iter().for_each(|(room, created)| socket.tell_entered(room, *created));
    opened.map_err(|refused| match refused {
        Refused::Lost => NotTakenIn::StartAnew,
        Refused::Closed => NotTakenIn::Failed(socket.not_found()),
    })
}

/// Sends an event to one client; it gets it when it comes back if it is away.
pub(crate) fn emit(store: &SessionStore, socket: &Socket, event: Unstamped) -> ImksResult<()> {
    let mut sent = Ok(());
    store.publish(Addressees::One(socket.socket_id()), event, |frames, position| {
        sent = socket.deliver_numbered(&Parcel::new(frames), position);
        // A socket that was kept from before an absence stands for the client nevertheless.
        if sent == Err(SendError::Closed)
            && let Some(current) = socket.namespace().socket(socket.id())
        {
            sent = current.deliver_numbered(&Parcel::new(frames), position);
        }
    });
    match sent {
        Err(SendError::Closed) if !socket.session().is_some_and(|(_, link)| store.is_known(link)) => {
            Err(socket.not_found())
        }
        Err(SendError::Slow) => Err(ImksError::SocketSendFull),
        _ => Ok(()),
    }
}

/// Sends an event to the sockets of this node it is for, and keeps it for those who miss it.
pub(crate) fn publish(
    store: &SessionStore,
    namespace: &Namespace,
    target: &Target<'_>,
    skip: Option<&Socket>,
    event: Unstamped,
) {
    let names = |rooms: &[&str]| rooms.iter().map(|room| Box::from(*room)).collect();
    let addressees = Addressees::Rooms {
        rooms: names(target.rooms),
        except: names(target.except),
        skip: skip.map(Socket::socket_id),
    };
    store.publish(addressees, event, |frames, position| {
        let parcel = Parcel::new(frames);
        namespace.for_each_target(target, skip, |socket| {
            if let Err(error) = socket.deliver_numbered(&parcel, position) {
                tracing::trace!(socket_sid = %socket.id(), ?error, "not delivered");
            }
        });
    });
}

/// Does to clients that are away what is done to those who are there.
pub(crate) fn apply_to_absent(
    store: &SessionStore,
    target: &Target<'_>,
    skip: Option<&Socket>,
    operation: &Operation<'_>,
) {
    let meant = |session: &AwaySession<'_>| {
        (target.rooms.is_empty() || target.rooms.iter().any(|room| session.is_in(room)))
            && !target.except.iter().any(|room| session.is_in(room))
            && skip.is_none_or(|skip| skip.socket_id() != session.socket_id())
    };
    store.for_each_away(|session| {
        if !meant(session) {
            return true;
        }
        match operation {
            Operation::Join { room } => session.join(room),
            Operation::Leave { room } => session.leave(room),
            Operation::Disconnect { .. } => return false,
            _ => {}
        }
        true
    });
}

impl Socket {
    /// Ends the connection at once.
    fn end_connection(&self) {
        self.outbox().close(Close::Now);
    }
}
