//! What a connection still has to send: filled by anybody, drained by the connection.
//!
//! A push is one short lock and at most one wake. The connection takes everything that is due with one
//! lock per turn and writes it in one go; a sender never touches the wire. At rest the queue owns no memory.
//!
//! Bounds and policy: see [`OutboxLimits`]. A client that reads too slowly what others send is closed with
//! `CloseReason::Slow`; nobody ever waits. Answers to its own requests never close a connection: while too many of
//! them wait, the connection takes no further requests.

mod limits;
mod queue;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

pub(crate) use self::limits::Backlog;
pub use self::limits::{OutboxLimits, Queued};
pub(crate) use self::queue::{Drained, Queue, Take};
use crate::engine::{Close, Frame, Reservation, Transport};

/// Sending half of a connection: clone it freely, push from anywhere.
#[derive(Clone)]
pub struct Outbox(pub(crate) Arc<Queue>);

/// True: this receiver's queue is past its soft mark, and the sending task should end its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure(pub bool);

/// Why nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The connection is closed, or closing.
    #[error("connection closed")]
    Closed,
    /// The queue was full; the connection is being closed as a slow consumer.
    #[error("slow consumer")]
    Slow,
}

impl Outbox {
    /// Queues one message.
    ///
    /// # Errors
    /// [`SendError::Closed`] after a close, [`SendError::Slow`] when the queue is full, which closes it.
    pub fn send(&self, frame: Frame) -> Result<Pressure, SendError> {
        let frame = if self.0.compresses(&frame) { frame.deflated() } else { frame };
        self.0.push([frame])
    }

    /// Queues messages that stay adjacent on the wire (a binary event and its attachments): all or none.
    ///
    /// # Errors
    /// [`SendError::Closed`] after a close, [`SendError::Slow`] when the queue is full, which closes it.
    pub fn send_all(&self, frames: &[Frame]) -> Result<Pressure, SendError> {
        self.0.push(self.for_wire(frames).iter().cloned())
    }

    /// Queues messages that answer a request of this client, adjacent on the wire. They never count as slow reading:
    /// while more than [`OutboxLimits::answer_bytes_high`] of them wait, the connection hands out no further message of
    /// the client. `reservation` is dropped when the messages are written, or lost with the connection.
    ///
    /// # Errors
    /// [`SendError::Closed`] or [`SendError::Slow`] once nothing can be queued any more.
    pub fn answer(&self, frames: &[Frame], reservation: Option<Reservation>) -> Result<(), SendError> {
        let frames = self.for_wire(frames);
        self.0.push_answer(frames.iter().map(|frame| frame.clone().into_answer(reservation.as_ref())))
    }

    /// Queues one message that answers a request of this client, like [`Outbox::answer`]. The message is moved: a frame
    /// that nobody shares costs no second allocation.
    ///
    /// # Errors
    /// [`SendError::Closed`] or [`SendError::Slow`] once nothing can be queued any more.
    pub fn answer_one(&self, frame: Frame, reservation: Option<Reservation>) -> Result<(), SendError> {
        let frame = if self.0.compresses(&frame) { frame.deflated() } else { frame };
        self.0.push_answer([frame.into_answer(reservation.as_ref())])
    }

    /// Queues the messages only if the wire can take them now: a WebSocket that is not blocked, or a polling
    /// request that waits with nothing to carry. Says whether they were queued.
    pub fn send_volatile(&self, frames: &[Frame]) -> bool {
        self.0.push_volatile(self.for_wire(frames).iter().cloned())
    }

    /// Whether the wire wants one of these messages compressed: permessage-deflate was negotiated, and it is large.
    pub(crate) fn compresses(&self, frames: &[Frame]) -> bool {
        frames.iter().any(|frame| self.0.compresses(frame))
    }

    /// Returns the messages as that wire carries them, which is how sending makes them by itself: to do it once for many.
    pub(crate) fn compressed<'a>(&self, frames: &'a [Frame]) -> impl Iterator<Item = Frame> + use<'a, '_> {
        frames.iter().map(|frame| if self.0.compresses(frame) { frame.deflated() } else { frame.clone() })
    }

    fn for_wire<'a>(&self, frames: &'a [Frame]) -> Cow<'a, [Frame]> {
        match self.compresses(frames) {
            true => Cow::Owned(self.compressed(frames).collect()),
            false => Cow::Borrowed(frames),
        }
    }

    /// Behaves as if permessage-deflate had been negotiated.
    #[cfg(test)]
    pub(crate) fn compressing(self, threshold: usize) -> Self {
        self.0.compress_from(crate::engine::deflate::Threshold::bytes(threshold));
        self
    }

    /// Closes the connection; nothing can be queued any more. Repeating it changes nothing, except that
    /// [`Close::Now`] cuts a graceful close short.
    pub fn close(&self, close: Close) {
        self.0.close(close);
    }

    /// Asks whoever holds the connection to take leave of the client in its own words, and then to close.
    pub(crate) fn request_disconnect(&self) {
        self.0.request_disconnect();
    }

    /// Whether [`Outbox::request_disconnect`] was called.
    pub(crate) fn disconnect_requested(&self) -> bool {
        self.0.disconnect_requested()
    }

    /// Whether a close was asked for or has happened.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Returns what waits to be written, the part included that a blocked wire holds back.
    pub fn queued(&self) -> Queued {
        self.0.waiting()
    }

    /// Waits until the queue is no longer past its soft mark ([`OutboxLimits::pressure_packets`] and
    /// [`OutboxLimits::pressure_bytes`]).
    ///
    /// # Errors
    /// [`SendError::Closed`] or [`SendError::Slow`] once nothing can be queued any more.
    pub async fn drained(&self) -> Result<(), SendError> {
        std::future::poll_fn(|cx| self.poll_drained(cx)).await
    }

    fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_drained(cx)
    }

    /// Returns the transport that carries the connection now.
    pub fn transport(&self) -> Transport {
        self.0.transport()
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Queued { packets, bytes } = self.queued();
        formatter.debug_struct("Outbox").field("packets", &packets).field("bytes", &bytes).finish()
    }
}
