//! Local delivery, which applies broadcasts and operations of other nodes to the sockets of this node.

use bytes::Bytes;

use super::cluster_link::{Change, Operation, OwnedWaits, Scope, Target, Waits};
use super::delivery::OutgoingEvent;
use super::logged::OwnedTarget;
use super::namespace::Namespace;
use super::observers::show_outgoing;
use super::slot::slot;
use super::socket::Socket;
use crate::engine::Slot;
use crate::error::ImksResult;
use crate::socket::codec::dialect::Renderings;
use crate::socket::codec::encoder::{EncodedPacket, encode_event};
use crate::socket::codec::packet::Args;
use crate::socket::recovery::session_store::Addressees;

impl Namespace {
    /// Sends an event to the selected sockets, on other nodes too if `scope` includes them.
    pub(crate) fn broadcast(
        &self,
        target: &Target<'_>,
        skip: Option<&Socket>,
        event: OutgoingEvent,
        scope: Scope,
        waits: Waits<'_>,
    ) -> ImksResult<()> {
        if let Some(store) = self.delivery().shared() {
            return self.broadcast_logged(store, &target.without(skip), &event.packet(), scope, waits);
        }
        let elsewhere = self.goes_elsewhere(scope);
        if !elsewhere && !self.watches_outgoing() {
            self.deliver(target, skip, event, waits);
            return Ok(());
        }
        let packet = event.packet().into_owned();
        self.show(target, skip, &packet);
        self.deliver(target, skip, event, waits);
        if !elsewhere {
            return Ok(());
        }
        let operation = Operation::broadcast(&packet, false, waits);
        self.publish(target, skip, &operation)
    }

    /// Sends an event that each client gets only if its connection can take it right now.
    pub(crate) fn broadcast_volatile(
        &self,
        target: &Target<'_>,
        skip: Option<&Socket>,
        packet: &EncodedPacket,
        scope: Scope,
        waits: Waits<'_>,
    ) -> ImksResult<()> {
        if let Some(store) = self.delivery().shared() {
            let (namespace, packet, waits) = (self.clone(), packet.clone(), OwnedWaits::of(waits));
            return self.later(store, &target.without(skip), packet.size(), move |target| {
                if let Err(error) = namespace.send_volatile(target, None, &packet, scope, waits.borrowed()) {
                    tracing::warn!(%error, "other nodes not told");
                }
            });
        }
        self.send_volatile(target, skip, packet, scope, waits)
    }

    fn send_volatile(
        &self,
        target: &Target<'_>,
        skip: Option<&Socket>,
        packet: &EncodedPacket,
        scope: Scope,
        waits: Waits<'_>,
    ) -> ImksResult<()> {
        self.show(target, skip, packet);
        let (renderings, slot) = (Renderings::new(packet), self.slot(target, waits.latest));
        self.send_to_each(target, skip, |socket| socket.deliver_volatile(&renderings, slot, waits.lane));
        if !self.goes_elsewhere(scope) {
            return Ok(());
        }
        let operation = Operation::broadcast(packet, true, waits);
        self.publish(target, skip, &operation)
    }

    /// Changes the selected sockets, on other nodes too if `scope` includes them.
    pub(crate) fn change(
        &self,
        target: &Target<'_>,
        skip: Option<&Socket>,
        change: Change<'_>,
        scope: Scope,
    ) -> ImksResult<()> {
        if let Some(store) = self.delivery().shared().filter(|_| scope == Scope::Cluster) {
            return self.change_logged(store, &target.without(skip), change);
        }
        self.change_sockets(target, skip, change);
        match self.goes_elsewhere(scope) {
            true => self.publish(target, skip, &Operation::Change(change)),
            false => Ok(()),
        }
    }

    /// Applies an operation of another node to the sockets of this node.
    pub(crate) fn apply(&self, target: &Target<'_>, operation: &Operation<'_>) -> ImksResult<()> {
        let (event, volatile, waits) = match operation {
            Operation::Change(change) => {
                self.change_sockets(target, None, *change);
                return Ok(());
            }
            Operation::Logged { epoch, first, last, entries } => {
                if let Some(shared) = self.delivery().shared().and_then(|store| store.shared()) {
                    let entries = entries.iter().map(|entry| Bytes::copy_from_slice(entry));
                    shared.arrived(*epoch, *first, *last, entries);
                }
                return Ok(());
            }
            Operation::Broadcast { event, volatile, latest, lane } => {
                (event, *volatile, Waits { latest: *latest, lane: *lane })
            }
        };
        let (args, compress) = (event.event()?, event.compress);
        let Some(store) = self.delivery().shared() else {
            return self.apply_event(target, &args, compress, volatile, waits);
        };
        // It must not overtake what the other node has put into the log before.
        let (namespace, target, waits) = (self.clone(), OwnedTarget::of(target), OwnedWaits::of(waits));
        store.after_arrivals(event.size(), move || {
            let applied =
                namespace.apply_event(&target.borrowed(), &args, compress, volatile, waits.borrowed());
            if let Err(error) = applied {
                tracing::warn!(%error, "event of another node not delivered");
            }
        })
    }

    /// Sends an event of another node to the selected sockets of this node.
    pub(crate) fn apply_event(
        &self,
        target: &Target<'_>,
        args: &Args,
        compress: bool,
        volatile: bool,
        waits: Waits<'_>,
    ) -> ImksResult<()> {
        if volatile || self.delivery().shared().is_some() {
            let packet = encode_event(self.path(), None, args.name(), args)?.compress(compress);
            if volatile {
                return self.send_volatile(target, None, &packet, Scope::Local, waits);
            }
            self.show(target, None, &packet);
            self.deliver(target, None, OutgoingEvent::Plain(packet), waits);
            return Ok(());
        }
        let event = self.delivery().encode(self.path(), args.name(), args)?.compress(compress);
        self.broadcast(target, None, event, Scope::Local, waits)
    }

    fn goes_elsewhere(&self, scope: Scope) -> bool {
        scope == Scope::Cluster && self.cluster().reaches_others()
    }

    fn publish(
        &self,
        target: &Target<'_>,
        skip: Option<&Socket>,
        operation: &Operation<'_>,
    ) -> ImksResult<()> {
        self.cluster().publish(self.path(), &target.without(skip), operation)
    }

    /// Returns the slot of an event for the selected sockets, if it has a key.
    pub(super) fn slot(&self, target: &Target<'_>, latest: Option<&str>) -> Option<Slot> {
        latest.map(|key| slot(self.path(), &target.rooms, key))
    }

    fn deliver(&self, target: &Target<'_>, skip: Option<&Socket>, event: OutgoingEvent, waits: Waits<'_>) {
        let slot = self.slot(target, waits.latest);
        let names = |rooms: &[&str]| rooms.iter().map(|room| Box::from(*room)).collect();
        let addressees = || Addressees::Rooms {
            rooms: names(&target.rooms),
            except: names(&target.except),
            skip: skip.map(Socket::socket_id),
        };
        self.delivery().send(event, addressees, |packet, position| {
            let renderings = Renderings::new(packet);
            self.send_to_each(target, skip, |socket| {
                if let Err(error) = socket.deliver_in(&renderings, position, slot, waits.lane) {
                    tracing::trace!(socket_sid = %socket.id(), ?error, "not delivered");
                }
            });
        });
    }

    pub(super) fn change_sockets(&self, target: &Target<'_>, skip: Option<&Socket>, change: Change<'_>) {
        self.delivery().change_absent(target, skip.map(Socket::socket_id), change);
        // Joining and leaving change the rooms, so they must not be iterated meanwhile.
        self.targets(target, skip).iter().for_each(|socket| change.make(socket));
    }

    /// Shows a broadcast to the outgoing listeners, once per receiver.
    pub(super) fn show(&self, target: &Target<'_>, skip: Option<&Socket>, packet: &EncodedPacket) {
        if !self.watches_outgoing() {
            return;
        }
        let args = match packet.args() {
            Ok(args) => args,
            Err(error) => return tracing::debug!(%error, "broadcast not shown to listeners"),
        };
        // Listeners may join and leave rooms, which are locked during iteration.
        self.targets(target, skip).iter().for_each(|socket| show_outgoing(socket, &args));
    }
}

impl Change<'_> {
    /// Makes the change to one socket of this node.
    pub(super) fn make(self, socket: &Socket) {
        match self {
            Change::Join { room } => socket.join(room),
            Change::Leave { room } => socket.leave(room),
            Change::Disconnect { close } => socket.disconnect(close),
        }
    }
}

impl<'a> Target<'a> {
    /// Returns the target for other nodes, with the id of the skipped socket as an exception.
    pub(crate) fn without(&self, skip: Option<&'a Socket>) -> Target<'a> {
        let mut target = self.clone();
        target.except.extend(skip.map(Socket::id));
        target
    }
}
