//! The byte stream below a WebSocket, which the HTTP layer releases after the upgrade.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// The stream of one WebSocket.
pub(crate) enum Io {
    /// The HTTP layer has not released the stream yet.
    Waiting(OnUpgrade, Option<TakeStream>),
    Open(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
    Gone,
}

/// The stream that a WebSocket uses after the HTTP upgrade.
pub struct RawStream(Io, Held);

/// What a listener wants to be held for as long as the stream lives.
pub(crate) type Held = Option<Box<dyn Any + Send + Sync>>;

impl RawStream {
    /// Returns this stream, which holds a value until it ends.
    pub fn holding<T: Send + Sync + 'static>(mut self, value: Option<T>) -> Self {
        self.1 = value.map(|value| Box::new(value) as Box<dyn Any + Send + Sync>);
        self
    }

    pub(crate) fn into_parts(self) -> (Io, Held) {
        (self.0, self.1)
    }
}

impl From<TcpStream> for RawStream {
    fn from(stream: TcpStream) -> Self {
        Self(Io::Open(stream), None)
    }
}

impl From<TlsStream<TcpStream>> for RawStream {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        Self(Io::Secure(Box::new(stream)), None)
    }
}

/// The stream of a request that is being answered, which reads and writes nothing until the HTTP layer releases it.
pub(crate) struct LateStream {
    io: Io,
    held: Held,
    early: Bytes,
}

impl LateStream {
    pub(crate) fn new(upgrade: OnUpgrade, take: Option<TakeStream>) -> Self {
        Self { io: Io::Waiting(upgrade, take), held: None, early: Bytes::new() }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Io::Waiting(upgrade, take) = &mut self.io else { return Poll::Ready(Ok(())) };
        let take = *take;
        let upgraded = ready!(Pin::new(upgrade).poll(cx));
        self.io = Io::Gone;
        let TakeStream(take) = take.unwrap_or(TakeStream(take_known));
        let taken = upgraded.ok().and_then(take);
        let (stream, early) = taken.ok_or(io::ErrorKind::NotConnected)?;
        self.early = early;
        (self.io, self.held) = stream.into_parts();
        Poll::Ready(Ok(()))
    }

    fn poll_on<T>(
        &mut self,
        cx: &mut Context<'_>,
        work: impl FnOnce(Pin<&mut dyn Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        ready!(self.poll_open(cx))?;
        match &mut self.io {
            Io::Open(stream) => work(Pin::new(stream), cx),
            Io::Secure(stream) => work(Pin::new(&mut **stream), cx),
            Io::Waiting(..) | Io::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

/// Both directions of bytes.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

impl AsyncRead for LateStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_open(cx))?;
        if this.early.has_remaining() {
            let piece = this.early.split_to(this.early.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            return Poll::Ready(Ok(()));
        }
        this.poll_on(cx, |stream, cx| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for LateStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_on(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_on(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_on(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}

/// A request extension for listeners that wrap the stream: it recovers the stream from hyper, and the bytes
/// already read from it. Not needed if hyper (or `axum::serve`) runs directly on a `TcpStream` or a
/// `tokio_rustls` stream.
#[derive(Clone, Copy, Debug)]
pub struct TakeStream(pub fn(Upgraded) -> Option<(RawStream, Bytes)>);

/// Recovers the stream from an accept loop that wraps it only in hyper's own types.
pub(crate) fn take_known(upgraded: Upgraded) -> Option<(RawStream, Bytes)> {
    let upgraded = match take_plain::<TcpStream>(upgraded) {
        Ok(taken) => return Some(taken),
        Err(other) => other,
    };
    take_plain::<TlsStream<TcpStream>>(upgraded).ok()
}

fn take_plain<S>(upgraded: Upgraded) -> Result<(RawStream, Bytes), Upgraded>
where
    S: Into<RawStream> + AsyncRead + AsyncWrite + Unpin + 'static,
{
    let upgraded = match upgraded.downcast::<TokioIo<S>>() {
        Ok(parts) => return Ok((parts.io.into_inner().into(), parts.read_buf)),
        Err(other) => other,
    };
    let parts = auto::upgrade::downcast::<TokioIo<S>>(upgraded)?;
    Ok((parts.io.into_inner().into(), parts.read_buf))
}
