//! The stream of a WebTransport client whose session is on another node: its bytes are passed on as they are.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::stream::StreamWire;

/// The stream of a client, without its session.
pub(crate) struct PassedOn {
    wire: Box<StreamWire>,
    /// Whether the owner of the session has ended it. What the client still sends is for nobody.
    has_ended: bool,
}

impl PassedOn {
    /// Takes a wire whose first packet has been read. Also returns the bytes that came after that.
    pub(crate) fn new(mut wire: Box<StreamWire>) -> (Self, Bytes) {
        let early = wire.take_early();
        (Self { wire, has_ended: false }, early)
    }

    /// Ends the session of the client, once it has everything.
    pub(crate) async fn close(mut self) {
        let ended = std::future::poll_fn(|cx| {
            self.wire.shutdown(cx);
            self.wire.poll_discard(cx)
        });
        // The outcome does not matter.
        let _ = timeout(CLOSE_TIME, ended).await;
    }
}

impl AsyncRead for PassedOn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.has_ended {
            true => Poll::Ready(Ok(())),
            false => self.get_mut().wire.poll_bytes(cx, buffer),
        }
    }
}

impl AsyncWrite for PassedOn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().wire.sending()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().wire.sending()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.has_ended = true;
        Pin::new(this.wire.sending()).poll_shutdown(cx)
    }
}

/// How long a client may take to read the end of its session.
const CLOSE_TIME: Duration = Duration::from_secs(10);
