//! The second stream of a client on QUIC, on which large answers leave, so that nothing waits behind them.
//!
//! The client opens it. Answers are matched by their ids, so they may overtake events and be overtaken by them. Events
//! and small answers stay on the first stream, in their order.

use std::io;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use wtransport::quinn::{Connection, SendStream};

use super::writer::Writer;
use crate::engine::Frame;

/// The second stream, or the wait for it.
pub(super) struct Bulk {
    opening: BoxFuture<'static, Option<SendStream>>,
    open: Option<Writer>,
}

impl Bulk {
    pub(super) fn new(connection: Connection) -> Self {
        let opening = async move {
            let (sending, _) = connection.accept_bi().await.ok()?;
            // Fails only if the client does not want it any more, which a write will show.
            let _ = sending.set_priority(BEHIND_THE_FIRST);
            Some(sending)
        };
        Self { opening: Box::pin(opening), open: None }
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
            self.open = Some(Writer::new(sending));
        }
        match self.open.as_mut().map(|open| open.poll_flush(cx)) {
            Some(Poll::Ready(flushed)) => flushed,
            Some(Poll::Pending) | None => Ok(()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.as_ref().is_none_or(Writer::is_empty)
    }

    pub(super) fn discard(&mut self) {
        self.open.iter_mut().for_each(Writer::discard);
    }

    pub(super) fn finish(&mut self) {
        self.open.iter_mut().for_each(Writer::finish);
    }

    /// Ready when the client has everything, or will never have it.
    pub(super) fn delivered(&self) -> BoxFuture<'static, ()> {
        match &self.open {
            Some(open) => {
                let stopped = open.sending.stopped();
                Box::pin(async move { drop(stopped.await) })
            }
            None => Box::pin(std::future::ready(())),
        }
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
/// The priority of the second stream. Streams have 0 by default.
const BEHIND_THE_FIRST: i32 = -1;
