//! The limits of an outgoing queue, and the counts that they apply to.

use std::ops::Add;

use crate::engine::Frame;

/// The limits of an outgoing queue. A message is accepted if the queue was below the limit before it, so the
/// last message may exceed the limit. Answers to the client's own requests count against
/// [`OutboxLimits::answer_bytes_high`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// The maximum number of queued packets, in any state of the wire.
    pub packets_max: usize,
    /// The maximum number of queued bytes on a WebSocket or WebTransport stream, in any state of the wire.
    pub bytes_max: usize,
    /// The maximum number of queued packets while the WebSocket or stream is blocked.
    pub blocked_packets_max: usize,
    /// The maximum number of queued bytes while the WebSocket or stream is blocked.
    pub blocked_bytes_max: usize,
    /// The maximum number of queued bytes of a polling client.
    pub polling_bytes_max: usize,
    /// The number of packets above which senders are told about the pressure.
    pub pressure_packets: usize,
    /// The number of bytes above which senders are told about the pressure.
    pub pressure_bytes: usize,
    /// The number of bytes of answers above which no further message of the client is handed out, until it
    /// has read some.
    pub answer_bytes_high: usize,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self {
            packets_max: 4096,
            bytes_max: 16 << 20,
            blocked_packets_max: 256,
            blocked_bytes_max: 1 << 20,
            polling_bytes_max: 1 << 20,
            pressure_packets: 128,
            pressure_bytes: 256 << 10,
            answer_bytes_high: 256 << 10,
        }
    }
}

/// What happens when a client reads too slowly, and its queue is full. A sender that would rather wait asks
/// [`Outbox::drained`](super::Outbox::drained) first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The connection is closed, so that the client never misses a message without knowing it.
    #[default]
    Close,
    /// The new message is dropped.
    DropNewest,
    /// The oldest messages that wait are dropped, as many as the new one needs. A message that must not be dropped
    /// takes their place too, before the connection is closed for it.
    DropOldest,
}

/// The number and size of the packets in an outgoing queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// The number of Engine.IO packets. An attachment counts as one.
    pub packets: usize,
    /// The size of these packets in bytes, including WebSocket headers.
    pub bytes: usize,
}

impl Queued {
    /// Counts frames with their full size.
    pub(super) fn of(frames: &[Frame]) -> Self {
        Self { packets: frames.len(), bytes: frames.iter().map(Frame::len).sum() }
    }
}

impl Add for Queued {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

/// The packets that wait for a client, by their cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Packets sent by others, or by the server itself.
    pub(crate) pushes: Queued,
    /// Answers to the client's own requests.
    pub(crate) answers: Queued,
}

impl Backlog {
    /// Counts one frame of which `bytes` remain to be sent.
    pub(crate) fn add(&mut self, frame: &Frame, bytes: usize) {
        let part = if frame.is_answer() { &mut self.answers } else { &mut self.pushes };
        part.packets += 1;
        part.bytes += bytes;
    }

    /// Subtracts one frame that was counted with its full size.
    pub(crate) fn remove(&mut self, frame: &Frame) {
        let part = if frame.is_answer() { &mut self.answers } else { &mut self.pushes };
        part.packets -= 1;
        part.bytes -= frame.len();
    }

    /// Returns the sum of pushes and answers.
    pub(crate) fn total(&self) -> Queued {
        self.pushes + self.answers
    }
}
