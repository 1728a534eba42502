//! The carrier of a session on a WebSocket or WebTransport stream.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::flushed::Flushed;
use crate::engine::close::WireEnd;
use crate::engine::duplex::Duplex;
use crate::engine::outbox::{Drained, Queue, Take};
use crate::engine::session::Session;
use crate::engine::{CloseReason, Packet, frame};

/// The carrier of a session that has a wire of its own.
pub(super) struct DuplexCarrier {
    wire: Duplex,
    /// The number of bytes that a blocked wire holds back; `None` if it has accepted everything.
    held: Option<usize>,
}

impl DuplexCarrier {
    pub(super) fn new(wire: Duplex) -> Self {
        Self { wire, held: None }
    }

    pub(super) fn read(
        &mut self,
        cx: &mut Context<'_>,
        on_packet: &mut dyn FnMut(Packet),
    ) -> Poll<Result<(), WireEnd>> {
        self.wire.poll_read(cx, on_packet)
    }

    pub(super) fn ping(&mut self) {
        self.wire.push_first(frame::PING);
    }

    pub(super) fn pong(&mut self) {
        self.wire.push_first(frame::PONG);
    }

    pub(super) fn capacity(&self) -> Take {
        if self.held.is_none() && self.wire.is_open() { Take::All } else { Take::Nothing }
    }

    pub(super) fn flush(
        &mut self,
        drained: Drained,
        queue: &Queue,
        session: &mut Session,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Flushed {
        let (held, was_open) = (self.held, self.wire.is_open());
        self.wire.extend(drained.frames);
        match self.wire.poll_flush(cx) {
            Poll::Ready(Err(end)) => return Flushed::Ended(end),
            // A WebSocket waits for the HTTP layer first.
            Poll::Pending if !self.wire.is_open() => return Flushed::Partly,
            Poll::Pending => {
                let backlog = self.wire.backlog();
                self.held = Some(backlog.total().bytes);
                queue.set_blocked(Some(backlog));
            }
            Poll::Ready(Ok(())) => self.held = None,
        }
        if held.is_some_and(|held| self.held.is_none_or(|holds| holds < held)) {
            session.handle_progress(now);
        }
        match (held, self.held) {
            (_, Some(_)) => Flushed::Partly,
            (None, None) if was_open && !self.wire.is_flushed() => Flushed::Partly,
            (None, None) if was_open => Flushed::All,
            (None, None) => Flushed::Again,
            (Some(_), None) => {
                queue.set_blocked(None);
                Flushed::Again
            }
        }
    }

    pub(super) fn close(
        &mut self,
        reason: CloseReason,
        content: &[u8],
        cx: &mut Context<'_>,
    ) -> Option<Duration> {
        self.wire.discard_queue();
        self.wire.push_close(content);
        let flushed = self.wire.poll_flush(cx);
        let hopeless = matches!(reason, CloseReason::PingTimeout | CloseReason::Slow);
        let gone = !self.wire.is_open() || matches!(flushed, Poll::Ready(Err(_)));
        (!hopeless && !gone).then_some(LINGER)
    }

    pub(super) fn end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wire.poll_end(cx)
    }
}

/// The time that the peer may take to end a wire that was closed.
const LINGER: Duration = Duration::from_secs(2);
