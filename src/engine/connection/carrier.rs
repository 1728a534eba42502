//! The carrier of a connection: one of three types with the same methods, each in a file of its own.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::duplex::DuplexCarrier;
use super::flushed::Flushed;
#[cfg(test)]
use super::memory::MemoryCarrier;
use super::polling::PollingCarrier;
use crate::engine::close::WireEnd;
use crate::engine::outbox::{Drained, Queue, Take};
use crate::engine::session::Session;
use crate::engine::{CloseReason, Packet};

/// The current carrier of a session. A polling session may change to a duplex one.
pub(super) enum Carrier {
    Polling(PollingCarrier),
    Duplex(DuplexCarrier),
    #[cfg(test)]
    Memory(MemoryCarrier),
}

impl Carrier {
    /// Reads once and passes every complete packet to `on_packet`.
    pub(super) fn read(
        &mut self,
        cx: &mut Context<'_>,
        on_packet: &mut dyn FnMut(Packet),
    ) -> Poll<Result<(), WireEnd>> {
        match self {
            // Its packets arrive with requests, at the start of a turn.
            Self::Polling(_) => Poll::Pending,
            Self::Duplex(duplex) => duplex.read(cx, on_packet),
            #[cfg(test)]
            Self::Memory(memory) => memory.read(cx, on_packet),
        }
    }

    /// Sends a ping. Returns whether the client needs no time to answer it.
    pub(super) fn ping(&mut self) -> bool {
        match self {
            Self::Polling(polling) => polling.ping(),
            Self::Duplex(duplex) => duplex.ping(),
            #[cfg(test)]
            Self::Memory(_) => return true,
        }
        false
    }

    /// Answers a ping of a version 3 client.
    pub(super) fn pong(&mut self) {
        match self {
            Self::Polling(polling) => polling.pong(),
            Self::Duplex(duplex) => duplex.pong(),
            #[cfg(test)]
            Self::Memory(_) => {}
        }
    }

    /// Returns how much the carrier can take from the queue, and whether an idle request waits.
    pub(super) fn capacity(&self, session: &Session) -> (Take, bool) {
        match self {
            Self::Polling(polling) => polling.capacity(session),
            Self::Duplex(duplex) => (duplex.capacity(), false),
            #[cfg(test)]
            Self::Memory(_) => (Take::All, false),
        }
    }

    /// Sends the packets that are due.
    pub(super) fn flush(
        &mut self,
        drained: Drained,
        queue: &Queue,
        session: &mut Session,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Flushed {
        match self {
            Self::Polling(polling) => polling.flush(drained, session, now, cx),
            Self::Duplex(duplex) => duplex.flush(drained, queue, session, now, cx),
            #[cfg(test)]
            Self::Memory(memory) => memory.flush(drained),
        }
    }

    /// Whether data of the client is not accepted until the holder reads.
    pub(super) fn is_withholding(&self, session: &Session) -> bool {
        matches!(self, Self::Polling(polling) if polling.is_withholding(session))
    }

    /// Tells the client that the session has closed, if possible. `content` is that of a close frame. Returns
    /// how long the client may take to end its side, or `None` if there is nothing to wait for.
    pub(super) fn close(
        &mut self,
        reason: CloseReason,
        content: &[u8],
        cx: &mut Context<'_>,
    ) -> Option<Duration> {
        match self {
            Self::Polling(polling) => polling.close(reason),
            Self::Duplex(duplex) => duplex.close(reason, content, cx),
            #[cfg(test)]
            Self::Memory(_) => None,
        }
    }

    /// Ready when the client has ended its side after a close.
    pub(super) fn end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            // A polling client ends with its last request.
            Self::Polling(_) => Poll::Pending,
            Self::Duplex(duplex) => duplex.end(cx),
            #[cfg(test)]
            Self::Memory(_) => Poll::Ready(()),
        }
    }

    /// Frees everything that only a live connection needs.
    pub(super) fn finish(&mut self) {
        match self {
            Self::Polling(polling) => polling.finish(),
            Self::Duplex(_) => {}
            #[cfg(test)]
            Self::Memory(memory) => memory.finish(),
        }
    }
}
