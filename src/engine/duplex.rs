//! The wire of a session on a WebSocket or on QUIC, which carries packets both ways at any time.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use crate::engine::close::WireEnd;
use crate::engine::deflate::Threshold;
use crate::engine::outbox::Backlog;
use crate::engine::websocket::{WebSocket, close_frame};
use crate::engine::webtransport::StreamWire;
use crate::engine::{Frame, Packet, Transport};

/// The wire of a session, or of a candidate that wants to take over from polling.
pub(crate) enum Duplex {
    WebSocket(WebSocket),
    Stream(Box<StreamWire>),
}

impl Duplex {
    /// Returns the transport of the wire.
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::WebSocket(_) => Transport::WebSocket,
            Self::Stream(wire) => wire.transport(),
        }
    }

    /// Returns the size from which messages should be compressed before they are queued.
    pub(crate) fn threshold(&self) -> Threshold {
        match self {
            Self::WebSocket(wire) => wire.threshold(),
            Self::Stream(_) => Threshold::NEVER,
        }
    }

    /// Reads once and passes every complete packet to `on_packet`.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        on_packet: &mut dyn FnMut(Packet),
    ) -> Poll<Result<(), WireEnd>> {
        match self {
            Self::WebSocket(wire) => wire.poll_read(cx, on_packet),
            Self::Stream(wire) => wire.poll_read(cx, on_packet),
        }
    }

    /// Reads and discards data after a close. Ready when the peer has closed too.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::WebSocket(wire) => wire.poll_discard(cx),
            Self::Stream(wire) => wire.poll_discard(cx),
        }
    }

    /// Queues one message.
    pub(crate) fn push(&mut self, frame: Frame) {
        match self {
            Self::WebSocket(wire) => wire.push(frame),
            Self::Stream(wire) => wire.push(frame),
        }
    }

    /// Queues one message before all others that are not partly written. A ping that waited behind a large
    /// message would be too late.
    pub(crate) fn push_first(&mut self, frame: Frame) {
        match self {
            Self::WebSocket(wire) => wire.push_first(frame),
            Self::Stream(wire) => wire.push_first(frame),
        }
    }

    /// Queues several messages.
    pub(crate) fn extend(&mut self, frames: VecDeque<Frame>) {
        match self {
            Self::WebSocket(wire) => wire.extend(frames),
            Self::Stream(wire) => wire.extend(frames),
        }
    }

    /// Queues a close with the content of a close frame: nothing, or a code and a reason.
    pub(crate) fn push_close(&mut self, content: &[u8]) {
        match (self, content.first_chunk()) {
            (Self::WebSocket(wire), _) => wire.push(close_frame(content)),
            (Self::Stream(wire), Some(code)) => wire.set_close(u16::from_be_bytes(*code), &content[2..]),
            (Self::Stream(_), None) => {}
        }
    }

    /// Discards everything that is queued, except for a partly written message.
    pub(crate) fn discard_queue(&mut self) {
        match self {
            Self::WebSocket(wire) => wire.discard_queue(),
            Self::Stream(wire) => wire.discard_queue(),
        }
    }

    /// Writes everything that is queued, as far as the peer accepts it.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireEnd>> {
        match self {
            Self::WebSocket(wire) => wire.poll_flush(cx),
            Self::Stream(wire) => wire.poll_flush(cx),
        }
    }

    /// Whether nothing is left that a flush does not wait for.
    pub(crate) fn is_flushed(&self) -> bool {
        match self {
            Self::WebSocket(_) => true,
            Self::Stream(wire) => wire.is_flushed(),
        }
    }

    /// Ends the wire after a close: flushes, waits for the peer's end, then shuts down. Dropping a stream
    /// with unread bytes would reset it, and the peer could lose the last packets.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if ready!(self.poll_flush(cx)).is_err() {
            return Poll::Ready(());
        }
        self.shutdown(cx);
        self.poll_discard(cx)
    }

    /// Ends the sending direction.
    fn shutdown(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::WebSocket(wire) => wire.shutdown(cx),
            Self::Stream(wire) => wire.shutdown(cx),
        }
    }

    /// Returns what is queued in the wire.
    pub(crate) fn backlog(&self) -> Backlog {
        match self {
            Self::WebSocket(wire) => wire.backlog(),
            Self::Stream(wire) => wire.backlog(),
        }
    }

    /// Whether the wire is open. A WebSocket first waits for the HTTP layer.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::WebSocket(wire) => wire.is_open(),
            Self::Stream(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_websocket_costs_nothing_for_the_other_wire_that_could_be_there() {
        assert_eq!(size_of::<Duplex>(), size_of::<WebSocket>());
    }
}
