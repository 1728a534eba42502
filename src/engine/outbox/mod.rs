//! The queue of outgoing packets of a connection. Any task fills it, and the connection drains it.
//!
//! A push takes one short lock and wakes at most once. The connection takes everything that is due under one
//! lock per turn and writes it at once. A sender never touches the wire. An empty queue owns no memory.
//!
//! See [`OutboxLimits`] for the limits. A client that reads too slowly what others send is closed with
//! `CloseReason::Slow`; senders never wait. Answers to the client's own requests never close a connection:
//! while too many of them wait, the connection accepts no further requests.
//!
//! A packet with a [`Slot`] replaces an earlier one of the same slot that waits for a client which does not keep up. The
//! newer one goes to the end, so it overtakes nothing; all others keep their order (docs/adr/0054).
//!
//! A packet of another [`Lane`] than [`Lane::Chat`] waits behind the others for such a client (docs/adr/0062).

mod lanes;
#[cfg(test)]
mod lanes_tests;
mod latest;
#[cfg(test)]
mod latest_tests;
mod limits;
mod queue;
mod state;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use self::lanes::Lane;
pub use self::latest::Slot;
pub(crate) use self::limits::Backlog;
pub use self::limits::{OutboxLimits, Queued, WhenFull};
pub(crate) use self::queue::{Drained, Queue};
pub(crate) use self::state::Take;
use crate::engine::{Close, Frame, Reservation, Transport};

/// The sending half of a connection. It can be cloned freely and used from any task.
#[derive(Clone)]
pub struct Outbox(pub(crate) Arc<Queue>);

/// Whether the receiver's queue is above its soft mark, so that the sending task should end its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure(pub bool);

/// The reason why nothing was queued.
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

    /// Queues all messages or none. They stay adjacent on the wire, like a binary event and its attachments.
    ///
    /// # Errors
    /// [`SendError::Closed`] after a close, [`SendError::Slow`] when the queue is full, which closes it.
    pub fn send_all(&self, frames: &[Frame]) -> Result<Pressure, SendError> {
        self.0.push(self.for_wire(frames).iter().cloned())
    }

    /// Queues all messages or none, like [`Outbox::send_all`]. While the wire is blocked, or a polling client does not
    /// poll, they replace those with the same `slot` that wait.
    ///
    /// # Errors
    /// [`SendError::Closed`] after a close, [`SendError::Slow`] when the queue is full, which closes it.
    pub fn send_latest(&self, frames: &[Frame], slot: Slot) -> Result<Pressure, SendError> {
        self.0.push_latest(&self.for_wire(frames), slot)
    }

    /// Queues all messages or none, like [`Outbox::send_all`]. While the wire is blocked, or a polling client does not
    /// poll, they wait in their lane. Those of [`Lane::Ephemeral`] are sent like [`Outbox::send_ephemeral`].
    ///
    /// # Errors
    /// [`SendError::Closed`] after a close, [`SendError::Slow`] when the queue is full, which closes it.
    pub fn send_in(&self, frames: &[Frame], lane: Lane) -> Result<Pressure, SendError> {
        let frames = self.for_wire(frames);
        match lane {
            Lane::Ephemeral => {
                self.0.push_ephemeral(&frames, None);
                self.0.refusal().map_or(Ok(Pressure(false)), Err)
            }
            Lane::Chat | Lane::Bulk => self.0.push_in(&frames, lane),
        }
    }

    /// Queues all messages or none, like [`Outbox::send_all`]. When the queue is full, `when_full` decides what happens.
    /// With [`WhenFull::DropOldest`], messages wait behind those that were sent in another way.
    ///
    /// # Errors
    /// [`SendError::Closed`] after a close, and with [`WhenFull::Close`] [`SendError::Slow`] when the queue is full.
    pub fn send_bounded(&self, frames: &[Frame], when_full: WhenFull) -> Result<Pressure, SendError> {
        let frames = self.for_wire(frames);
        match when_full {
            WhenFull::Close => self.0.push(frames.iter().cloned()),
            WhenFull::DropNewest => self.0.push_or_drop(&frames, false),
            WhenFull::DropOldest => self.0.push_or_drop(&frames, true),
        }
    }

    /// Queues messages that answer a request of this client, adjacent on the wire. They never count as slow
    /// reading. While more than [`OutboxLimits::answer_bytes_high`] bytes of them wait, the connection hands
    /// out no further message of the client. `reservation` is dropped when the messages are written, or with
    /// the connection.
    ///
    /// # Errors
    /// [`SendError::Closed`] or [`SendError::Slow`] once the queue accepts nothing any more.
    pub fn answer(&self, frames: &[Frame], reservation: Option<Reservation>) -> Result<(), SendError> {
        self.answer_in(frames, reservation, Lane::Chat)
    }

    /// Queues messages that answer a request of this client, like [`Outbox::answer`]. Those of [`Lane::Bulk`] wait behind
    /// everything else; all others are of [`Lane::Chat`].
    ///
    /// # Errors
    /// [`SendError::Closed`] or [`SendError::Slow`] once the queue accepts nothing any more.
    pub fn answer_in(
        &self,
        frames: &[Frame],
        reservation: Option<Reservation>,
        lane: Lane,
    ) -> Result<(), SendError> {
        let lane = if lane == Lane::Bulk { lane } else { Lane::Chat };
        let frames = self.for_wire(frames);
        self.0.push_answer(frames.iter().map(|frame| frame.clone().into_answer(reservation.as_ref())), lane)
    }

    /// Queues one message that answers a request of this client, like [`Outbox::answer`]. The message is
    /// moved, so a frame that is not shared needs no second allocation.
    ///
    /// # Errors
    /// [`SendError::Closed`] or [`SendError::Slow`] once the queue accepts nothing any more.
    pub fn answer_one(&self, frame: Frame, reservation: Option<Reservation>) -> Result<(), SendError> {
        let frame = if self.0.compresses(&frame) { frame.deflated() } else { frame };
        self.0.push_answer([frame.into_answer(reservation.as_ref())], Lane::Chat)
    }

    /// Queues the messages only if the wire can accept them now: it is a WebSocket that is not blocked, or a
    /// polling request that waits and has nothing to carry. Returns whether they were queued.
    pub fn send_volatile(&self, frames: &[Frame]) -> bool {
        self.0.push_volatile(self.for_wire(frames).iter().cloned())
    }

    /// Queues the messages like [`Outbox::send_volatile`]. If the wire cannot accept them now, they wait behind everything
    /// that is not of [`Lane::Bulk`] if they replace some with the same `slot`, or while few wait; they never close the
    /// connection. Returns whether they were queued.
    pub fn send_ephemeral(&self, frames: &[Frame], slot: Option<Slot>) -> bool {
        self.0.push_ephemeral(&self.for_wire(frames), slot)
    }

    /// Whether the wire would compress one of these messages: permessage-deflate was negotiated, and the
    /// message is large.
    pub(crate) fn compresses(&self, frames: &[Frame]) -> bool {
        frames.iter().any(|frame| self.0.compresses(frame))
    }

    /// Returns the messages as the wire carries them. Sending does this too; calling it first allows it to be
    /// done once for many receivers.
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

    /// Behaves as if the wire were blocked.
    #[cfg(test)]
    pub(crate) fn block(&self) {
        self.0.set_blocked(Some(Backlog::default()));
    }

    /// Closes the connection. Nothing can be queued afterwards. Repeated calls have no effect, except that
    /// [`Close::Now`] aborts a graceful close.
    pub fn close(&self, close: Close) {
        self.0.close(close);
    }

    /// Lets an answer to a poll have any number of packets from now on, so that packets which are of use only together
    /// are not lost in part. For clients that are known to take them.
    pub(crate) fn allow_long_payloads(&self) {
        self.0.allow_long_payloads();
    }

    /// Asks the holder of the connection to send its disconnect packet, and then to close.
    pub(crate) fn request_disconnect(&self) {
        self.0.request_disconnect();
    }

    /// Whether [`Outbox::request_disconnect`] was called.
    pub(crate) fn disconnect_requested(&self) -> bool {
        self.0.disconnect_requested()
    }

    /// Whether a close was requested or has happened.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Returns what waits to be written, including the part that a blocked wire holds back.
    pub fn queued(&self) -> Queued {
        self.0.waiting()
    }

    /// Waits until the queue is no longer above its soft mark ([`OutboxLimits::pressure_packets`] and
    /// [`OutboxLimits::pressure_bytes`]).
    ///
    /// # Errors
    /// [`SendError::Closed`] or [`SendError::Slow`] once the queue accepts nothing any more.
    pub async fn drained(&self) -> Result<(), SendError> {
        std::future::poll_fn(|cx| self.poll_drained(cx)).await
    }

    fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_drained(cx)
    }

    /// Returns the last time from a ping to its pong, if one has come.
    pub fn rtt(&self) -> Option<Duration> {
        self.0.rtt()
    }

    /// Returns the code in the close frame that the peer or this side has sent, if there was one. QUIC tells only that of
    /// this side.
    pub fn close_code(&self) -> Option<NonZeroU16> {
        self.0.close_code()
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
