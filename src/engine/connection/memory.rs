//! An in-memory connection for tests of this layer and the one above.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, Uri};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Connection;
use super::carrier::Carrier;
use super::flushed::Flushed;
use crate::engine::close::WireEnd;
use crate::engine::config::Timing;
use crate::engine::outbox::{Drained, Queue};
use crate::engine::{
    CloseReason, Config, Frame, Handshake, Message, Outbox, Packet, Protocol, Sid, Transport,
};

/// The peer of a [`super::Connection::in_memory`]. It answers pings automatically.
#[derive(Debug)]
pub struct MemoryPeer(Arc<MemoryLink>);

/// The state that both ends share.
#[derive(Debug, Default)]
struct MemoryLink(Mutex<Link>);

#[derive(Debug, Default)]
struct Link {
    to_server: VecDeque<Message>,
    to_client: VecDeque<Frame>,
    client_closed: bool,
    server_closed: bool,
    server_waker: Option<Waker>,
    client_waker: Option<Waker>,
}

/// The carrier of a session whose client is a [`MemoryPeer`].
pub(super) struct MemoryCarrier(Arc<MemoryLink>);

impl MemoryPeer {
    /// Sends a text message, without the Engine.IO `4`.
    pub fn send(&self, text: &str) {
        self.send_message(Message::Text(text.into()));
    }

    /// Sends a message.
    pub fn send_message(&self, message: Message) {
        self.change(|link| link.to_server.push_back(message));
    }

    /// Closes the peer's end: the connection ends with `CloseReason::TransportClose`.
    pub fn close(&self) {
        self.change(|link| link.client_closed = true);
    }

    /// Waits for the next message from the server. Returns `None` once the connection is closed and
    /// everything was received.
    pub async fn recv(&self) -> Option<Message> {
        poll_fn(|cx| {
            let mut link = self.0.0.lock();
            match link.to_client.pop_front() {
                Some(frame) => Poll::Ready(Some(message_of(&frame))),
                None if link.server_closed => Poll::Ready(None),
                None => {
                    link.client_waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Returns a message from the server if one has arrived already.
    pub fn try_recv(&self) -> Option<Message> {
        self.0.0.lock().to_client.pop_front().map(|frame| message_of(&frame))
    }

    /// Whether the server's end is closed.
    pub fn is_closed(&self) -> bool {
        self.0.0.lock().server_closed
    }

    fn change(&self, change: impl FnOnce(&mut Link)) {
        let mut link = self.0.0.lock();
        change(&mut link);
        if let Some(waker) = link.server_waker.take() {
            waker.wake();
        }
    }
}

impl Drop for MemoryPeer {
    fn drop(&mut self) {
        self.close();
    }
}

impl MemoryCarrier {
    /// Creates a carrier and the client at its other end.
    pub(super) fn pair() -> (Self, MemoryPeer) {
        let link = Arc::new(MemoryLink::default());
        (Self(link.clone()), MemoryPeer(link))
    }

    pub(super) fn read(
        &mut self,
        cx: &mut Context<'_>,
        on_packet: &mut dyn FnMut(Packet),
    ) -> Poll<Result<(), WireEnd>> {
        let mut link = self.0.0.lock();
        if let Some(message) = link.to_server.pop_front() {
            on_packet(Packet::Message(message));
            return Poll::Ready(Ok(()));
        }
        if link.client_closed {
            return Poll::Ready(Err(WireEnd::Stream(CloseReason::TransportClose)));
        }
        link.server_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn flush(&mut self, drained: Drained) -> Flushed {
        self.change(|link| {
            link.to_client.extend(drained.frames.into_iter().filter(|frame| !frame.is_control()));
        });
        Flushed::All
    }

    pub(super) fn finish(&mut self) {
        self.change(|link| link.server_closed = true);
    }

    fn change(&self, change: impl FnOnce(&mut Link)) {
        let mut link = self.0.0.lock();
        change(&mut link);
        if let Some(waker) = link.client_waker.take() {
            waker.wake();
        }
    }
}

/// Returns the message in a frame.
fn message_of(frame: &Frame) -> Message {
    if frame.is_binary() {
        return Message::Binary(bytes::Bytes::copy_from_slice(frame.payload()));
    }
    let text = String::from_utf8_lossy(frame.payload().get(1..).unwrap_or_default());
    Message::Text(text.into_owned().into())
}

impl Connection {
    /// Creates a connection without a network, and its peer.
    pub fn in_memory(config: &Config) -> (Self, MemoryPeer) {
        let (carrier, client) = MemoryCarrier::pair();
        let uri = Uri::from_static("/socket.io/?EIO=4&transport=websocket");
        let peer = SocketAddr::from(([127, 0, 0, 1], 9));
        let sid = Sid::custom("in-memory").expect("a valid id");
        let handshake = Handshake::new(sid, peer, Transport::WebSocket, false, &uri, &HeaderMap::new());
        let queue = Queue::new(Transport::WebSocket, Protocol::V4, Arc::new(config.outbox));
        let (outbox, handshake) = (Outbox(Arc::new(queue)), Arc::new(handshake));
        let carrier = Carrier::Memory(carrier);
        let timing = Arc::new(Timing::from(config));
        (Self::build(carrier, outbox, handshake, timing, Instant::now()), client)
    }
}
