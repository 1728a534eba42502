//! The stream of a WebTransport client whose session is on another node: its bytes are passed on as they are.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::stream::StreamWire;
use crate::engine::client_stream::SessionStream;

/// The stream of a client, without its session.
pub(crate) struct PassedOn {
    wire: Box<StreamWire>,
    /// Whether the owner of the session has ended it. What the client still sends is for nobody.
    has_ended: bool,
}

impl PassedOn {
    /// Takes a wire whose first packet has been read.
    pub(crate) fn new(wire: Box<StreamWire>) -> Self {
        Self { wire, has_ended: false }
    }
}

impl SessionStream for PassedOn {
    fn take_early(&mut self) -> Bytes {
        self.wire.take_early()
    }

    fn close(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        let ended = std::future::poll_fn(move |cx| {
            self.wire.shutdown(cx);
            self.wire.poll_discard(cx)
        });
        // The outcome does not matter.
        timeout(CLOSE_TIME, ended).map(drop).boxed()
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
