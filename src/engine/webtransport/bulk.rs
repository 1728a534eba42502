//! The second stream of a client on QUIC, on which large answers leave, so that nothing waits behind them.
//!
//! The client opens it. Answers are matched by their ids, so they may overtake events and be overtaken by them. Events
//! and small answers stay on the first stream, in their order.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use wtransport::quinn::{Connection, SendStream};

use super::ends::Sending;
use super::writer::Writer;
use crate::engine::Frame;
use crate::engine::client_stream::Stall;

/// The second stream, or the wait for it.
pub(super) struct Bulk {
    opening: BoxFuture<'static, Option<SendStream>>,
    open: Option<Writer>,
    /// The end of the stream, ready when the client has everything, or will never have it.
    ending: Option<BoxFuture<'static, ()>>,
    /// Since when the client takes nothing of what waits.
    blocked_since: Option<Instant>,
    stall: Stall,
}

impl Bulk {
    pub(super) fn new(connection: Connection) -> Self {
        let opening = async move {
            let (sending, _) = connection.accept_bi().await.ok()?;
            // Fails only if the client does not want it any more, which a write will show.
            let _ = sending.set_priority(BEHIND_THE_FIRST);
            Some(sending)
        };
        let stall = Stall::new(STALL_MAX);
        Self { opening: Box::pin(opening), open: None, ending: None, blocked_since: None, stall }
    }

    /// Whether a frame leaves on this stream: a large answer, while not much waits here already.
    pub(super) fn takes(&self, frame: &Frame) -> bool {
        let is_bulk =
            frame.is_answer() && frame.len() >= ANSWER_BYTES_MIN && frame.payload().starts_with(b"43");
        let Some(open) = self.open.as_ref().filter(|_| is_bulk) else { return false };
        open.is_empty() || open.backlog().total().bytes + frame.len() <= WAITING_BYTES_MAX
    }

    pub(super) fn push(&mut self, frame: Frame) {
        if let Some(open) = &mut self.open {
            open.push(frame);
        }
    }

    /// Accepts the stream, and writes what waits as far as the client accepts it.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.open.is_none()
            && let Poll::Ready(Some(sending)) = self.poll_opening(cx)
        {
            self.open = Some(Writer::new(Sending::Quic(sending)));
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let waiting = open.backlog().total().bytes;
        let flushed = open.poll_flush(cx);
        self.blocked_since = match &flushed {
            Poll::Pending if open.backlog().total().bytes == waiting => {
                self.blocked_since.or_else(|| Some(Instant::now()))
            }
            Poll::Pending => Some(Instant::now()),
            Poll::Ready(_) => None,
        };
        match flushed {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    /// Ready when the client has taken nothing of what waits for too long. Its pongs do not show that: they come on the
    /// first stream.
    pub(super) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stall.poll(cx, self.blocked_since)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.as_ref().is_none_or(Writer::is_empty)
    }

    pub(super) fn discard(&mut self) {
        self.open.iter_mut().for_each(Writer::discard);
    }

    /// Ends the stream. Ready when the client has everything, or will never have it.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.blocked_since = None;
        let Some(open) = &mut self.open else { return Poll::Ready(()) };
        let ending = self.ending.get_or_insert_with(|| {
            open.finish();
            Box::pin(open.sending.delivered())
        });
        ready!(ending.as_mut().poll(cx));
        self.open = None;
        Poll::Ready(())
    }

    fn poll_opening(&mut self, cx: &mut Context<'_>) -> Poll<Option<SendStream>> {
        let opened = self.opening.as_mut().poll(cx);
        if opened.is_ready() {
            self.opening = Box::pin(std::future::pending());
        }
        opened
    }
}

/// The size from which an answer leaves on the second stream. Smaller ones delay nobody.
const ANSWER_BYTES_MIN: usize = 16 << 10;
/// The maximum number of bytes that wait on the second stream, beside one answer of any size. Further answers leave on
/// the first one, and count there.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// How long a client may take nothing of what waits on the second stream, before it counts as too slow. Long, because
/// whatever is on its way on the first stream goes before it.
const STALL_MAX: Duration = Duration::from_secs(300);
/// The priority of the second stream. Streams have 0 by default.
const BEHIND_THE_FIRST: i32 = -1;
