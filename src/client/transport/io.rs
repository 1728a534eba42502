//! The byte stream to a server: TCP, or TLS on it.

use std::io;
use std::net::SocketAddr;
#[cfg(feature = "client-quic")]
use std::net::{Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::staggered::first;
use super::wire::Dialer;
use crate::client::address::Address;
use crate::client::error::{ClientError, ClientResult};
use crate::error::Cause;

/// A connected byte stream.
#[derive(Debug)]
pub(crate) struct Io {
    stream: Stream,
    /// See [`Dialer::heard_at`].
    heard_at: Arc<Mutex<Instant>>,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    /// Connects to a server. `transport` names the caller in errors.
    pub(crate) async fn connect(transport: &'static str, dialer: &Dialer) -> ClientResult<Self> {
        let Dialer { address, tls, heard_at, .. } = dialer;
        let heard_at = heard_at.clone();
        let failed = |error| ClientError::connect(transport, error);
        let stream = reach(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some(tls) = tls else { return Ok(Self { stream: Stream::Plain(stream), heard_at }) };
        let name = ServerName::try_from(address.host.clone())
            .map_err(|error| ClientError::Tls(Arc::new(Cause::new(error))))?;
        let connecting = TlsConnector::from(tls.clone()).connect(name, stream);
        match connecting.await {
            Ok(stream) => Ok(Self { stream: Stream::Tls(Box::new(stream)), heard_at }),
            // A handshake that was cut off is a failure of the network, not of the certificates.
            Err(error) if error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>()) => {
                Err(ClientError::Tls(Arc::new(Cause::new(error))))
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// Connects to the first address of a host that answers. An attempt begins when the one before it has failed or is
/// late, so that an address from which nothing comes back (IPv6 that leads nowhere) does not use up the time of all.
async fn reach(address: &Address) -> io::Result<TcpStream> {
    let found = addresses(&address.host, address.port).await?;
    let none = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    first(found.into_iter().map(TcpStream::connect), HEAD_START, none).await
}

/// Looks up the addresses of a host.
pub(super) async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = lookup_host((host, port)).await?;
    Ok(found.take(ADDRESSES_MAX).collect())
}

/// Returns the address that stands for any port of this device, of the family of another address.
#[cfg(feature = "client-quic")]
pub(super) fn any_port(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, heard_at } = self.get_mut();
        let before = buffer.filled().len();
        let read = match stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if buffer.filled().len() > before {
            *heard_at.lock() = Instant::now();
        }
        read
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The head start of an address before the next one is tried beside it, as RFC 8305 recommends.
pub(super) const HEAD_START: Duration = Duration::from_millis(250);

/// The maximum number of addresses of a host that are tried.
const ADDRESSES_MAX: usize = 16;
