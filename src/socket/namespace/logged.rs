//! The entries of a recovery log that nodes share: what they hold, and what they make happen on each node.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::cause;
use super::cluster_link::{Change, Operation, OwnedWaits, PacketData, Scope, Target, Waits};
use super::namespace::Namespace;
use super::socket::Socket;
use crate::engine::{Close, CloseReason, Lane, Slot};
use crate::error::{Cause, ImksError, ImksResult};
use crate::socket::codec::dialect::Renderings;
use crate::socket::codec::encoder::EncodedPacket;
use crate::socket::reason::DisconnectReason;
use crate::socket::recovery::event::RecoverableEvent;
use crate::socket::recovery::session_store::{
    Addressees, Link, Logged, Made, Position, Recipient, SessionStore, guarded,
};
use crate::socket::socket_id::SocketId;

/// An entry of the log, as it is stored.
#[derive(Serialize, Deserialize)]
enum Entry<'a> {
    /// An event for the selected sockets.
    Event {
        #[serde(borrow)]
        target: Target<'a>,
        #[serde(borrow)]
        event: PacketData<'a>,
        /// The key of an event that replaces an earlier one.
        #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
        latest: Option<&'a str>,
    },
    /// An event for one socket, also while it joins.
    One {
        id: SocketId,
        #[serde(borrow)]
        event: PacketData<'a>,
        #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
        latest: Option<&'a str>,
    },
    /// A change of the selected sockets.
    Change {
        #[serde(borrow)]
        target: Target<'a>,
        #[serde(borrow)]
        change: Change<'a>,
    },
    /// A node has taken the session of a socket.
    Taken { id: SocketId, generation: u64 },
}

impl Entry<'_> {
    fn encode(&self) -> ImksResult<Bytes> {
        let bytes = rmp_serde::to_vec_named(self).map_err(|error| unreadable(Cause::new(error)))?;
        Ok(bytes.into())
    }
}

/// Appends an entry. What the client is told whose event is being handled waits for it.
fn append(store: &SessionStore, entry: &Entry<'_>) -> ImksResult<()> {
    let bytes = entry.encode()?;
    cause::link_in(store, |causer| store.append(bytes, [None, causer]))
}

/// A selection of sockets for later.
pub(super) struct OwnedTarget {
    rooms: Vec<String>,
    except: Vec<String>,
}

impl OwnedTarget {
    pub(super) fn of(target: &Target<'_>) -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self { rooms: owned(&target.rooms), except: owned(&target.except) }
    }

    pub(super) fn borrowed(&self) -> Target<'_> {
        let rooms = self.rooms.iter().map(String::as_str).collect();
        Target { rooms, except: self.except.iter().map(String::as_str).collect() }
    }
}

/// Sending.
impl Namespace {
    /// Sends an event to the selected sockets through the shared log. One that is only for this node does not take that
    /// way, and is not kept; it waits for what this node has sent before.
    pub(super) fn broadcast_logged(
        &self,
        store: &SessionStore,
        target: &Target<'_>,
        packet: &EncodedPacket,
        scope: Scope,
        waits: Waits<'_>,
    ) -> ImksResult<()> {
        if scope == Scope::Cluster {
            let entry =
                Entry::Event { target: target.clone(), event: PacketData::of(packet), latest: waits.latest };
            return append(store, &entry);
        }
        let (namespace, packet, waits) = (self.clone(), packet.clone(), OwnedWaits::of(waits));
        self.later(store, target, packet.size(), move |target| {
            let waits = waits.borrowed();
            let (renderings, slot) = (Renderings::new(&packet), namespace.slot(target, waits.latest));
            namespace.send_to_each(target, None, |socket| {
                if let Err(error) = socket.deliver_in(&renderings, None, slot, waits.lane) {
                    tracing::trace!(socket_sid = %socket.id(), ?error, "not delivered");
                }
            });
        })
    }

    /// Does something, which carries so many bytes, to the selected sockets after what this node has sent before.
    pub(super) fn later(
        &self,
        store: &SessionStore,
        target: &Target<'_>,
        bytes: usize,
        act: impl FnOnce(&Target<'_>) + Send + 'static,
    ) -> ImksResult<()> {
        let target = OwnedTarget::of(target);
        store.after(None, bytes, move || act(&target.borrowed()))
    }

    /// Changes the selected sockets of all nodes, in the order of the shared log.
    pub(super) fn change_logged(
        &self,
        store: &SessionStore,
        target: &Target<'_>,
        change: Change<'_>,
    ) -> ImksResult<()> {
        append(store, &Entry::Change { target: target.clone(), change })
    }
}

impl Socket {
    /// Sends an event to this client through the shared log.
    pub(super) fn emit_logged(
        &self,
        store: &SessionStore,
        packet: &EncodedPacket,
        latest: Option<&str>,
    ) -> ImksResult<()> {
        if self.phase().is_closed() && !self.namespace().delivery().keeps(self.link()) {
            return Err(ImksError::SocketNotFound(self.id().into()));
        }
        let entry = Entry::One { id: self.socket_id(), event: PacketData::of(packet), latest };
        let bytes = entry.encode()?;
        cause::link_in(store, |causer| store.append(bytes, [self.link(), causer]))
    }

    /// Tells the other nodes that this one has taken the session of this socket. Returns false if that is not possible:
    /// then nobody may continue it.
    pub(super) fn tell_taken(&self, store: &SessionStore, link: &Link) -> bool {
        let Some(generation) = store.generation(link) else { return false };
        let entry = Entry::Taken { id: self.socket_id(), generation }.encode();
        let told = entry.and_then(|entry| store.append(entry, [None, None]));
        if let Err(error) = &told {
            tracing::warn!(%error, "other nodes not told that a session was taken");
        }
        told.is_ok()
    }

    /// Closes the connection of a socket whose session is gone or is another node's.
    fn end_without_session(&self) {
        if let Some((store, link)) = self.namespace().delivery().shared().zip(self.link()) {
            store.forget(link);
        }
        self.outbox().close(Close::Now);
        self.namespace().clone().remove(self, DisconnectReason::Engine(CloseReason::TransportClose));
    }
}

/// Receiving.
impl Namespace {
    fn take_entry(&self, store: &SessionStore, entry: &[u8], live: bool) -> ImksResult<()> {
        match rmp_serde::from_slice(entry).map_err(|error| unreadable(Cause::new(error)))? {
            Entry::Event { target, event, latest } => {
                self.take_event(store, &target, &event, latest, live)?
            }
            Entry::One { id, event, latest } => {
                let (recoverable, _) = self.recoverable(&event)?;
                store.deliver_logged(Addressees::One(id), recoverable, |packet, position| {
                    if let Some(socket) = self.socket(id.as_str()).filter(|_| live) {
                        deliver(
                            &socket,
                            packet,
                            position,
                            latest.map(|key| super::slot::slot(self.path(), &[], key)),
                        );
                    }
                });
            }
            Entry::Change { target, change } => {
                store.keep_logged(Logged::Change(addressees(&target), made(change)));
                if live {
                    // A hook that panics must not keep the other sockets from what their sessions say already.
                    let sockets = self.targets(&target, None);
                    sockets.iter().for_each(|socket| guarded(|| change.make(socket)));
                }
            }
            Entry::Taken { id, generation } => {
                store.keep_logged(Logged::Taken(id, generation));
                let socket = self.socket(id.as_str()).filter(|_| live);
                let older = |socket: &Socket| {
                    let ours = socket.link().and_then(|link| store.generation(link));
                    ours.is_none_or(|ours| ours < generation)
                };
                if let Some(socket) = socket.filter(older) {
                    socket.end_without_session();
                }
            }
        }
        Ok(())
    }

    fn take_event(
        &self,
        store: &SessionStore,
        target: &Target<'_>,
        event: &PacketData<'_>,
        latest: Option<&str>,
        live: bool,
    ) -> ImksResult<()> {
        let (recoverable, shown) = self.recoverable(event)?;
        let slot = self.slot(target, latest);
        store.deliver_logged(addressees(target), recoverable, |packet, position| {
            if !live {
                return;
            }
            let renderings = Renderings::new(packet);
            self.send_to_each(target, None, |socket| {
                if let Err(error) = socket.deliver_in(&renderings, Some(position), slot, Lane::Chat) {
                    tracing::trace!(socket_sid = %socket.id(), ?error, "not delivered");
                }
            });
        });
        if let Some(packet) = shown.filter(|_| live) {
            self.show(target, None, &packet);
        }
        Ok(())
    }

    /// Encodes an event of the log for clients, and for listeners if there are any.
    fn recoverable(&self, event: &PacketData<'_>) -> ImksResult<(RecoverableEvent, Option<EncodedPacket>)> {
        let args = event.event()?;
        let event = RecoverableEvent::new(self.path(), args.name(), &args)?.compress(event.compress);
        let shown = self.watches_outgoing().then(|| event.plain());
        Ok((event, shown))
    }
}

impl Recipient for Namespace {
    fn take(&self, entry: &[u8], live: bool) {
        let Some(store) = self.delivery().shared() else { return };
        if let Err(error) = self.take_entry(store, entry, live) {
            tracing::warn!(%error, namespace = self.path(), "entry of the recovery log not read");
        }
    }

    fn publish(&self, epoch: u64, first: Position, entries: &[Bytes]) {
        let small = entries.iter().map(Bytes::len).sum::<usize>() <= PUBLISHED_BYTES_MAX;
        // Other nodes read from the log what is too much for the bus.
        let carried = if small { entries } else { &[] };
        let carried = carried.iter().map(|entry| serde_bytes::Bytes::new(entry)).collect();
        let last = first + entries.len() as u64 - 1;
        let operation = Operation::Logged { epoch, first, last, entries: carried };
        if self.cluster().reaches_others()
            && let Err(error) = self.cluster().publish(self.path(), &Target::default(), &operation)
        {
            tracing::warn!(%error, "other nodes not told of new events");
        }
    }

    fn end(&self, id: SocketId) {
        if let Some(socket) = self.socket(id.as_str()) {
            socket.end_without_session();
        }
    }
}

fn deliver(socket: &Socket, packet: &EncodedPacket, position: Position, slot: Option<Slot>) {
    if let Err(error) = socket.deliver_in(&Renderings::new(packet), Some(position), slot, Lane::Chat) {
        tracing::trace!(socket_sid = %socket.id(), ?error, "not delivered");
    }
}

fn addressees(target: &Target<'_>) -> Addressees {
    let names = |rooms: &[&str]| rooms.iter().map(|room| Box::from(*room)).collect();
    Addressees::Rooms { rooms: names(&target.rooms), except: names(&target.except), skip: None }
}

fn made(change: Change<'_>) -> Made {
    match change {
        Change::Join { room } => Made::Join(Arc::from(room)),
        Change::Leave { room } => Made::Leave(Arc::from(room)),
        Change::Disconnect { .. } => Made::Disconnect,
    }
}

fn unreadable(cause: Cause) -> ImksError {
    ImksError::AdapterSerialization(cause)
}

/// The maximum size of the entries in one message to other nodes in bytes. They read larger ones from the log.
const PUBLISHED_BYTES_MAX: usize = 512 << 10;
