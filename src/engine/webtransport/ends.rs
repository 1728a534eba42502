//! The two directions of the stream of a session: those of a QUIC stream, or of a stream over which another node carries
//! the bytes of one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use wtransport::quinn::{RecvStream, SendStream};

use crate::engine::raw_stream::LateStream;

/// The sending direction.
pub(super) enum Sending {
    Quic(SendStream),
    Carried(WriteHalf<LateStream>),
}

impl Sending {
    /// Ends the direction. Fails only if it was called before, or the peer no longer reads.
    pub(super) fn finish(&mut self) {
        match self {
            Self::Quic(stream) => drop(stream.finish()),
            // Immediate on a TCP stream. If it fails, the following drop has the same effect.
            Self::Carried(stream) => {
                let mut cx = Context::from_waker(Waker::noop());
                let _ = Pin::new(stream).poll_shutdown(&mut cx);
            }
        }
    }

    /// Returns a future that is ready when the peer has everything, or will never have it. What another node carries it
    /// delivers by itself.
    pub(super) fn delivered(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = match self {
            Self::Quic(stream) => Some(stream.stopped()),
            Self::Carried(_) => None,
        };
        async move {
            if let Some(stopped) = stopped {
                let _ = stopped.await;
            }
        }
    }
}

impl AsyncWrite for Sending {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Quic(stream) => AsyncWrite::poll_write(Pin::new(stream), cx, bytes),
            Self::Carried(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic(stream) => AsyncWrite::poll_flush(Pin::new(stream), cx),
            Self::Carried(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().finish();
        Poll::Ready(Ok(()))
    }
}

/// The receiving direction.
pub(super) enum Receiving {
    Quic(RecvStream),
    Carried(ReadHalf<LateStream>),
}

impl AsyncRead for Receiving {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic(stream) => AsyncRead::poll_read(Pin::new(stream), cx, buffer),
            Self::Carried(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

/// Returns the two directions of a stream over which another node carries bytes.
pub(super) fn carried(stream: LateStream) -> (Sending, Receiving) {
    let (receiving, sending) = tokio::io::split(stream);
    (Sending::Carried(sending), Receiving::Carried(receiving))
}
