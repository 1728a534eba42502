//! The byte stream below a WebSocket, which the HTTP layer releases after the upgrade.

use std::any::Any;

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
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
