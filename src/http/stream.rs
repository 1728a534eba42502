//! The byte stream below HTTP/1. It adds a deadline for writes, disconnects stalled peers while the server
//! drains, and replaces the empty error responses of hyper by ones with a body.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::http::crowding::Place;
use crate::http::refusal::Refusal;
use crate::http::request_scanner::RequestScanner;

/// The state that all streams of a listener share.
#[derive(Debug)]
pub(super) struct Shared {
    write_timeout: Duration,
    draining: AtomicBool,
}

impl Shared {
    /// Creates the state. Peers may take `write_timeout` from one piece of a response to the next.
    pub(super) fn new(write_timeout: Duration) -> Self {
        Self { write_timeout, draining: AtomicBool::new(false) }
    }

    /// Stops waiting for peers that have not finished a request or do not read.
    pub(super) fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn write_timeout(&self) -> Duration {
        if self.is_draining() { self.write_timeout.min(DRAIN_WRITE_TIMEOUT) } else { self.write_timeout }
    }
}

/// A TCP or TLS stream that hyper reads from and writes to.
#[derive(Debug)]
pub(super) struct HttpStream<S> {
    stream: S,
    requests: RequestScanner,
    /// Bytes that were read from the stream but not by hyper. Only bytes that were changed wait here.
    unread: Bytes,
    /// The response that replaces one of hyper. It ends the connection.
    refusal: Bytes,
    /// The write that waits while the peer accepts nothing.
    stalled: Option<Stalled>,
    shared: Arc<Shared>,
    /// The place of the connection among those of its address.
    place: Option<Place>,
}

/// A write that waits for the peer.
#[derive(Debug)]
struct Stalled {
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<S> HttpStream<S> {
    pub(super) fn new(stream: S, place: Option<Place>, shared: Arc<Shared>) -> Self {
        Self {
            stream,
            requests: RequestScanner::new(),
            unread: Bytes::new(),
            refusal: Bytes::new(),
            stalled: None,
            shared,
            place,
        }
    }

    /// Whether the peer has begun the head of a request and not completed it.
    pub(super) fn is_in_head(&self) -> bool {
        self.requests.is_in_head()
    }

    /// Returns the underlying stream, for use after HTTP, and its place.
    pub(super) fn into_parts(self) -> (S, Option<Place>) {
        (self.stream, self.place)
    }

    /// Fails if the peer has accepted nothing for too long. `outcome` is the result of a write.
    fn check_deadline<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let now = Instant::now();
        let timeout = self.shared.write_timeout();
        let stalled = self.stalled.get_or_insert_with(|| Stalled {
            since: now,
            timer: Box::pin(tokio::time::sleep_until(now + timeout)),
        });
        // The deadline is earlier while the server drains.
        let deadline = stalled.since + timeout;
        if stalled.timer.deadline() != deadline {
            stalled.timer.as_mut().reset(deadline);
        }
        ready!(stalled.timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> HttpStream<S> {
    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Pending if self.shared.is_draining() && self.requests.is_incomplete() => {
                return Poll::Ready(Ok(()));
            }
            Poll::Pending => return Poll::Pending,
            Poll::Ready(outcome) => outcome?,
        }
        if let Some(escaped) = self.requests.scan(&buf.filled()[before..]) {
            buf.set_filled(before);
            self.unread = escaped.into();
            self.give_unread(buf);
        }
        Poll::Ready(Ok(()))
    }

    fn give_unread(&mut self, buf: &mut ReadBuf<'_>) {
        let given = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread.split_to(given));
    }
}

impl<S: AsyncWrite + Unpin> HttpStream<S> {
    fn poll_write_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.refusal.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.refusal))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.refusal.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Replaces `bytes` if they are a response of hyper itself, and returns how many were replaced.
    fn replace(&mut self, bytes: &[u8]) -> Option<usize> {
        self.refusal = Refusal::instead_of(bytes)?.bytes();
        Some(bytes.len())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HttpStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return self.poll_fill(cx, buf);
        }
        self.give_unread(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HttpStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(taken) = self.replace(bytes) {
            return Poll::Ready(Ok(taken));
        }
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.check_deadline(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(taken) = slices.first().and_then(|slice| self.replace(slice)) {
            return Poll::Ready(Ok(taken));
        }
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.check_deadline(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = match self.poll_write_refusal(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.stream).poll_flush(cx),
            other => other,
        };
        self.check_deadline(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.check_deadline(cx, outcome)
    }
}

/// The time for which a peer that does not read may delay the stop of the server.
const DRAIN_WRITE_TIMEOUT: Duration = Duration::from_millis(500);
