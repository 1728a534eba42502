//! Events to one client, and the data that an application attaches to its socket.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::delivery::OutgoingEvent;
use super::namespace::Namespace;
use super::observers::show_outgoing;
use super::slot::slot;
use super::socket::Socket;
use crate::engine::{Lane, SendError, Slot};
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::arguments::{Arguments, One};
use crate::socket::codec::dialect::Renderings;
use crate::socket::codec::encoder::{EncodedPacket, encode_event};
use crate::socket::codec::packet::Args;
use crate::socket::recovery::session_store::{Addressees, Position};

impl Socket {
    /// Sends an event with one argument to this client.
    pub fn emit(&self, event: &str, data: &(impl Serialize + ?Sized)) -> ImksResult<()> {
        self.emit_args(event, &One(data))
    }

    /// Sends an event with any arguments to this client.
    pub fn emit_args(&self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        self.emit_event(event, args, true, None)
    }

    /// Sends an event that replaces an earlier one with the same key that still waits for this client; see
    /// [`Broadcast::latest`](crate::socket::Broadcast::latest).
    pub fn emit_latest(&self, key: &str, event: &str, args: &impl Arguments) -> ImksResult<()> {
        self.emit_event(event, args, true, Some(key))
    }

    /// Sends an event that must not be compressed in transit, because it holds a secret beside text that
    /// others can choose, or is compressed already.
    pub fn emit_uncompressed(&self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        self.emit_event(event, args, false, None)
    }

    fn emit_event(
        &self,
        event: &str,
        args: &impl Arguments,
        compress: bool,
        latest: Option<&str>,
    ) -> ImksResult<()> {
        let delivery = self.namespace().delivery();
        let event = delivery.encode(self.namespace().path(), event, args)?.compress(compress);
        if let Some(store) = delivery.shared().filter(|_| self.link().is_some()) {
            return self.emit_logged(store, &event.packet(), latest);
        }
        let slot = latest.map(|key| slot(self.namespace().path(), &[], key));
        if self.namespace().watches_outgoing() {
            show_outgoing(self, &event.packet().args()?);
        }
        let event = match event {
            OutgoingEvent::Plain(packet) if slot.is_none() => {
                return self.deliver_owned(packet).map_err(|error| self.not_sent(error));
            }
            event => event,
        };
        let mut sent = Ok(());
        delivery.send(
            event,
            || Addressees::One(self.socket_id()),
            |packet, position| sent = self.deliver_or_successor(packet, position, slot),
        );
        match sent {
            // The client is absent and gets the event when it returns.
            Err(SendError::Closed) if delivery.keeps(self.link()) => Ok(()),
            sent => sent.map_err(|error| self.not_sent(error)),
        }
    }

    /// Delivers to this socket, or to its successor if the client has since recovered its session. The
    /// application may still use a `Socket` from before the absence.
    fn deliver_or_successor(
        &self,
        packet: &EncodedPacket,
        position: Option<Position>,
        slot: Option<Slot>,
    ) -> Result<(), SendError> {
        let renderings = Renderings::new(packet);
        let sent = self.deliver_in(&renderings, position, slot, Lane::Chat);
        if sent != Err(SendError::Closed) || position.is_none() {
            return sent;
        }
        match self.namespace().socket(self.id()) {
            Some(successor) => successor.deliver_in(&renderings, position, slot, Lane::Chat),
            None => sent,
        }
    }

    /// Sends an event that is dropped unless the connection can take it right now.
    pub fn emit_volatile(&self, event: &str, args: &impl Arguments) -> ImksResult<()> {
        let packet = self.encode(None, event, args)?;
        self.deliver_volatile(&Renderings::new(&packet), None, Lane::Chat);
        Ok(())
    }

    /// Sends an event and waits for the client's ack, for at most `timeout`.
    pub async fn emit_with_ack(
        &self,
        event: &str,
        args: &impl Arguments,
        timeout: Duration,
    ) -> ImksResult<Args> {
        let id = self.namespace().next_ack_id();
        let packet = self.encode(Some(id), event, args)?;
        let ack = self.expect_ack(id)?;
        let pending = ExpectedAck { socket: self, id };
        self.deliver_owned(packet).map_err(|error| self.not_sent(error))?;
        let ack = tokio::time::timeout(timeout, ack).await;
        drop(pending);
        match ack {
            Ok(Ok(args)) => Ok(args),
            Ok(Err(_)) => Err(ImksError::SocketNotFound(self.id().into())),
            Err(_) => Err(ImksError::Timeout("the client did not acknowledge in time")),
        }
    }

    fn encode(&self, id: Option<u64>, event: &str, args: &impl Arguments) -> ImksResult<EncodedPacket> {
        let packet = encode_event(self.namespace().path(), id, event, args)?;
        if self.namespace().watches_outgoing() {
            show_outgoing(self, &packet.args()?);
        }
        Ok(packet)
    }
}

impl Namespace {
    /// Sends an event to some sockets of this node, each as with [`Socket::emit_latest`]. It is encoded once, unless
    /// clients can recover their sessions. One that cannot be reached does not keep it from the others.
    pub fn emit_latest_to(
        &self,
        sockets: &[Socket],
        key: &str,
        event: &str,
        args: &impl Arguments,
    ) -> ImksResult<()> {
        match self.delivery().encode(self.path(), event, args)? {
            OutgoingEvent::Plain(packet) if !self.watches_outgoing() => {
                let (renderings, slot) = (Renderings::new(&packet), slot(self.path(), &[], key));
                for socket in sockets {
                    log(socket, socket.deliver_in(&renderings, None, Some(slot), Lane::Chat));
                }
            }
            _ => sockets.iter().for_each(|socket| log(socket, socket.emit_latest(key, event, args))),
        }
        Ok(())
    }
}

/// Logs that one of several sockets did not get an event.
fn log<E: Debug>(socket: &Socket, sent: Result<(), E>) {
    if let Err(error) = sent {
        tracing::trace!(socket_sid = %socket.id(), ?error, "not delivered");
    }
}

/// Forgets the pending ack when the caller stops waiting.
struct ExpectedAck<'a> {
    socket: &'a Socket,
    id: u64,
}

impl Drop for ExpectedAck<'_> {
    fn drop(&mut self) {
        self.socket.pending_acks().forget(self.id);
    }
}

impl Socket {
    /// Attaches a value to the socket, for example its user. It replaces an earlier value of the same type.
    pub fn set_data<T: Send + Sync + 'static>(&self, value: T) {
        self.socket_data().set(Arc::new(value));
        self.data_changed();
    }

    /// Attaches a value to the socket that other nodes see as `data.NAME` of a
    /// [`RemoteSocket`](crate::socket::RemoteSocket).
    pub fn share_data<T: Serialize + Send + Sync + 'static>(&self, name: &'static str, value: T) {
        self.socket_data().share(name, value);
        self.data_changed();
        if let Some(hook) = &self.namespace().hooks().data {
            hook(self);
        }
    }

    /// Returns the attached value of this type, if there is one.
    pub fn data<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.socket_data().get()
    }

    /// Removes and returns the attached value of this type.
    pub fn remove_data<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let value = self.socket_data().remove();
        self.data_changed();
        value
    }

    /// Returns the values attached with [`Socket::share_data`], and the one of
    /// [`NamespaceBuilder::describe`](crate::socket::NamespaceBuilder::describe), as one JSON object.
    pub fn shared_data(&self) -> serde_json::Value {
        let mut shared = self.socket_data().shared();
        if let Some(hook) = &self.namespace().hooks().described
            && let Some((name, value)) = hook(self)
        {
            shared[name] = value;
        }
        shared
    }

    fn data_changed(&self) {
        self.namespace().delivery().save_data(self.link(), || self.socket_data().save());
    }
}
