//! What transports have in common that carry packets in both directions at once.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;

use super::queue::SendQueue;
use super::wire::LinkEvent;
use crate::client::core::Sending;
use crate::client::error::{ClientError, ClientResult, DisconnectReason};
use crate::client::event::TransportKind;
use crate::engine::packet::{PROBE, Packet};
use crate::socket::codec::outgoing::Outgoing;

/// An open transport for both directions, and what waits to be sent on it.
pub(crate) trait Duplex: fmt::Debug + Send {
    fn kind(&self) -> TransportKind;

    /// Returns what waits to be sent.
    fn queue(&mut self) -> &mut SendQueue;

    /// Whether the last attempt to send left something behind, because the network takes less than is sent.
    fn is_congested(&self) -> bool;

    /// Sends what waits. Ready when all of it was sent.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DisconnectReason>>;

    /// Returns the next packet that has come in.
    fn poll_packet(&mut self, cx: &mut Context<'_>) -> Poll<Result<Packet, DisconnectReason>>;

    /// Says goodbye. What the other side says to that does not matter any more.
    fn close(&mut self) -> BoxFuture<'_, ()>;
}

impl dyn Duplex {
    /// Sends what waits, and returns what has come in if `read`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<LinkEvent> {
        if let Poll::Ready(Err(reason)) = self.poll_write(cx) {
            return Poll::Ready(LinkEvent::Closed(reason));
        }
        match read {
            true => {
                self.poll_packet(cx).map(|packet| packet.map_or_else(LinkEvent::Closed, LinkEvent::Packet))
            }
            false => Poll::Pending,
        }
    }

    /// Waits for the first packet of a new session, and returns the text of the handshake.
    pub(super) async fn handshake(&mut self) -> ClientResult<String> {
        match self.next_packet().await? {
            Packet::Open(text) => Ok(text.to_string()),
            _ => Err(self.failure("the server did not begin with a handshake")),
        }
    }

    /// Asks the server whether the transport could take over from polling.
    pub(super) async fn probe(&mut self) -> ClientResult<()> {
        self.say(&format!("2{PROBE}")).await?;
        match self.next_packet().await? {
            Packet::Pong(content) if content == PROBE => Ok(()),
            _ => Err(self.failure("the server did not answer the probe")),
        }
    }

    /// Takes over from polling, with what it had not sent.
    pub(super) fn take_over(&mut self, queue: SendQueue) {
        *self.queue() = queue;
    }

    /// Sends a packet of Engine.IO.
    pub(super) async fn say(&mut self, packet: &str) -> ClientResult<()> {
        let packet = Outgoing { text: packet.into(), attachments: Vec::new() };
        self.queue().push(Sending { packet, place: None });
        let sent = poll_fn(|cx| self.poll_write(cx)).await;
        sent.map_err(|reason| self.failure(reason.to_string()))
    }

    async fn next_packet(&mut self) -> ClientResult<Packet> {
        let packet = poll_fn(|cx| self.poll_packet(cx)).await;
        packet.map_err(|reason| self.failure(reason.to_string()))
    }

    fn failure(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::connect(self.kind().name(), error)
    }
}
