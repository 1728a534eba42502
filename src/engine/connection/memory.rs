//! A connection without a network, for tests of the layer above.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use crate::engine::{Frame, Message};

/// The peer of a [`super::Connection::in_memory`]. It answers pings by itself.
#[derive(Debug)]
pub struct MemoryPeer(Arc<MemoryLink>);

/// What the two ends share.
#[derive(Debug, Default)]
pub(crate) struct MemoryLink(Mutex<Link>);

#[derive(Debug, Default)]
struct Link {
    to_server: VecDeque<Message>,
    to_client: VecDeque<Frame>,
    client_closed: bool,
    server_closed: bool,
    server_waker: Option<Waker>,
    client_waker: Option<Waker>,
}

/// What the server end finds.
pub(crate) enum Received {
    Message(Message),
    Closed,
}

impl MemoryPeer {
    pub(crate) fn new(link: Arc<MemoryLink>) -> Self {
        Self(link)
    }

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

    /// The next message from the server; `None` once the connection is closed and everything was received.
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

    /// A message from the server that is there already.
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

impl MemoryLink {
    /// What the peer sent, or `None` after keeping the waker.
    pub(crate) fn receive(&self, waker: &Waker) -> Option<Received> {
        let mut link = self.0.lock();
        if let Some(message) = link.to_server.pop_front() {
            return Some(Received::Message(message));
        }
        if link.client_closed {
            return Some(Received::Closed);
        }
        link.server_waker = Some(waker.clone());
        None
    }

    pub(crate) fn send(&self, frames: impl IntoIterator<Item = Frame>) {
        self.change(|link| link.to_client.extend(frames.into_iter().filter(|frame| !frame.is_control())));
    }

    pub(crate) fn close(&self) {
        self.change(|link| link.server_closed = true);
    }

    fn change(&self, change: impl FnOnce(&mut Link)) {
        let mut link = self.0.lock();
        change(&mut link);
        if let Some(waker) = link.client_waker.take() {
            waker.wake();
        }
    }
}

/// The message in a preframed one.
fn message_of(frame: &Frame) -> Message {
    if frame.is_binary() {
        return Message::Binary(bytes::Bytes::copy_from_slice(frame.payload()));
    }
    let text = String::from_utf8_lossy(frame.payload().get(1..).unwrap_or_default());
    Message::Text(text.into_owned().into())
}
