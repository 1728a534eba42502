//! Bounds of an outgoing queue, and what is measured against them.

use crate::engine::Frame;

/// Bounds of an outgoing queue. A message is accepted when the queue was below the bound before it, so one
/// message may be larger than what is left. Answers to the client's own requests count against
/// [`OutboxLimits::answer_bytes_high`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Packets queued at most, always.
    pub packets_max: usize,
    /// Bytes queued at most, always, on a WebSocket or WebTransport stream.
    pub bytes_max: usize,
    /// Packets queued at most while the WebSocket or stream takes nothing more.
    pub blocked_packets_max: usize,
    /// Bytes queued at most while the WebSocket or stream takes nothing more.
    pub blocked_bytes_max: usize,
    /// Bytes queued at most for a polling client.
    pub polling_bytes_max: usize,
    /// Above this many packets a sender is told about the pressure.
    pub pressure_packets: usize,
    /// Above this many bytes a sender is told about the pressure.
    pub pressure_bytes: usize,
    /// Above this many bytes of answers no further message of the client is handed out, until it has read some.
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

/// What waits in an outgoing queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// Engine.IO packets; an attachment counts as one.
    pub packets: usize,
    /// Bytes of these packets, WebSocket headers included.
    pub bytes: usize,
}

/// What waits for a client, by who caused it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Sent by others, or by the server itself.
    pub(crate) pushes: Queued,
    /// Answers to the client's own requests.
    pub(crate) answers: Queued,
}

impl Backlog {
    /// Counts one frame of which `bytes` are still to be sent.
    pub(crate) fn add(&mut self, frame: &Frame, bytes: usize) {
        let part = if frame.is_answer() { &mut self.answers } else { &mut self.pushes };
        part.packets += 1;
        part.bytes += bytes;
    }

    /// Takes out one frame that was counted whole.
    pub(crate) fn remove(&mut self, frame: &Frame) {
        let part = if frame.is_answer() { &mut self.answers } else { &mut self.pushes };
        part.packets -= 1;
        part.bytes -= frame.len();
    }

    /// Everything, whoever caused it.
    pub(crate) fn total(&self) -> Queued {
        Queued {
            packets: self.pushes.packets + self.answers.packets,
            bytes: self.pushes.bytes + self.answers.bytes,
        }
    }
}
