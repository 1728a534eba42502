//! What transports have in common that carry packets in both directions at once.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::UdpSocket;
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
pub(crate) struct Duplex {
    stream: Box<dyn PacketStream>,
    queue: SendQueue,
    is_congested: bool,
    /// Why there are no more packets, while others that came beside them are still to be read.
    ended: Option<DisconnectReason>,
}

/// What carries packets in both directions.
pub(super) trait PacketStream: fmt::Debug + Send {
    fn kind(&self) -> TransportKind;

    /// Sends what is in the queue. Ready when all of it was sent.
    fn poll_send(
        &mut self,
        queue: &mut SendQueue,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), DisconnectReason>>;

    /// Returns the next packet that has come in.
    fn poll_packet(&mut self, cx: &mut Context<'_>) -> Poll<Result<Packet, DisconnectReason>>;

    /// Returns the next packet that has come in beside the others, as a whole message, if there is a way for that.
    fn poll_bulk(&mut self, _: &mut Context<'_>) -> Poll<Result<Packet, DisconnectReason>> {
        Poll::Pending
    }

    /// Opens a way for large answers beside that for everything else, if the transport can have one.
    fn open_bulk(&mut self) -> BoxFuture<'_, ClientResult<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Says goodbye. What the other side says to that does not matter any more.
    fn close(&mut self) -> BoxFuture<'_, ()>;

    /// Goes on from another address of this device, where the transport can.
    fn rebind(&mut self, _: UdpSocket) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Duplex {
    pub(super) fn new(stream: impl PacketStream + 'static) -> Self {
        Self { stream: Box::new(stream), queue: SendQueue::default(), is_congested: false, ended: None }
    }

    pub(super) fn kind(&self) -> TransportKind {
        self.stream.kind()
    }

    /// Sends a packet when the network can take it.
    pub(super) fn send(&mut self, sending: Sending) {
        self.queue.push(sending);
    }

    /// Whether the last attempt to send left something behind, because the network takes less than is sent.
    pub(super) fn is_congested(&self) -> bool {
        self.is_congested
    }

    /// Sends what waits. Ready when all of it was sent.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DisconnectReason>> {
        let sent = self.stream.poll_send(&mut self.queue, cx);
        self.is_congested = sent.is_pending();
        sent
    }

    /// Says goodbye. What the other side says to that does not matter any more.
    pub(super) fn close(&mut self) -> BoxFuture<'_, ()> {
        self.stream.close()
    }

    /// Goes on from another address of this device, where the transport can.
    pub(super) fn rebind(&mut self, socket: UdpSocket) -> io::Result<()> {
        self.stream.rebind(socket)
    }

    /// Waits until the other side has ended the transport too. What it sends in the meantime is dropped.
    pub(super) async fn ended(&mut self) {
        while poll_fn(|cx| self.stream.poll_packet(cx)).await.is_ok() {}
    }

    /// Sends what waits, and returns what has come in if `read`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<LinkEvent> {
        if let Poll::Ready(Err(reason)) = self.poll_write(cx) {
            return Poll::Ready(LinkEvent::Closed(reason));
        }
        if !read {
            return Poll::Pending;
        }
        if self.ended.is_none()
            && let Poll::Ready(packet) = self.stream.poll_packet(cx)
        {
            match packet {
                Ok(packet) => return Poll::Ready(LinkEvent::Packet(packet)),
                Err(reason) => self.ended = Some(reason),
            }
        }
        let bulk = self.stream.poll_bulk(cx);
        match (bulk, &self.ended) {
            (Poll::Ready(Ok(packet)), _) => Poll::Ready(LinkEvent::Bulk(packet)),
            (_, Some(reason)) => Poll::Ready(LinkEvent::Closed(reason.clone())),
            (Poll::Ready(Err(reason)), None) => Poll::Ready(LinkEvent::Closed(reason)),
            (Poll::Pending, None) => Poll::Pending,
        }
    }

    /// Opens a way for large answers beside that for everything else, if the transport can have one.
    pub(super) async fn open_bulk(&mut self) -> ClientResult<()> {
        self.stream.open_bulk().await
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
        self.queue = queue;
    }

    /// Sends a packet of Engine.IO.
    pub(super) async fn say(&mut self, packet: &str) -> ClientResult<()> {
        let packet = Outgoing { text: packet.into(), attachments: Vec::new() };
        self.send(Sending { packet, place: None });
        let sent = poll_fn(|cx| self.poll_write(cx)).await;
        sent.map_err(|reason| self.failure(reason.to_string()))
    }

    async fn next_packet(&mut self) -> ClientResult<Packet> {
        let packet = poll_fn(|cx| self.stream.poll_packet(cx)).await;
        packet.map_err(|reason| self.failure(reason.to_string()))
    }

    fn failure(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::connect(self.kind().name(), error)
    }
}

impl fmt::Debug for Duplex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Duplex({:?}, {} packets wait)", self.stream, self.queue.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transport whose first way has ended, while answers wait beside it.
    #[derive(Debug)]
    struct Ended(Vec<Packet>);

    impl PacketStream for Ended {
        fn kind(&self) -> TransportKind {
            TransportKind::Quic
        }

        fn poll_send(
            &mut self,
            _: &mut SendQueue,
            _: &mut Context<'_>,
        ) -> Poll<Result<(), DisconnectReason>> {
            Poll::Ready(Ok(()))
        }

        fn poll_packet(&mut self, _: &mut Context<'_>) -> Poll<Result<Packet, DisconnectReason>> {
            Poll::Ready(Err(DisconnectReason::TransportClosed))
        }

        fn poll_bulk(&mut self, _: &mut Context<'_>) -> Poll<Result<Packet, DisconnectReason>> {
            self.0.pop().map_or(Poll::Pending, |packet| Poll::Ready(Ok(packet)))
        }

        fn close(&mut self) -> BoxFuture<'_, ()> {
            Box::pin(std::future::ready(()))
        }
    }

    #[test]
    fn large_answers_that_came_before_the_end_are_read() {
        let mut duplex = Duplex::new(Ended(vec![Packet::Noop, Packet::Noop]));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for _ in 0..2 {
            assert!(matches!(duplex.poll(&mut cx, true), Poll::Ready(LinkEvent::Bulk(_))));
        }
        let end = duplex.poll(&mut cx, true);
        assert!(matches!(end, Poll::Ready(LinkEvent::Closed(DisconnectReason::TransportClosed))));
    }
}
