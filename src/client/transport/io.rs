//! The byte stream to a server: TCP, or TLS on it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

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

/// Connects to the first address of a host that answers.
async fn reach(address: &Address) -> io::Result<TcpStream> {
    let found = lookup_host((&*address.host, address.port)).await?;
    let addresses: Vec<_> = found.take(ADDRESSES_MAX).collect();
    first(addresses.into_iter().map(TcpStream::connect)).await
}

/// Returns the first success. An attempt begins when the one before it has failed or is late, so that an address
/// from which nothing comes back (IPv6 that leads nowhere) does not use up the time of all.
async fn first<T, F>(attempts: impl IntoIterator<Item = F>) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut attempts = attempts.into_iter();
    let mut running = FuturesUnordered::<F>::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    loop {
        let next = attempts.next();
        let patience = if next.is_some() { HEAD_START } else { Duration::MAX };
        running.extend(next);
        match timeout(patience, running.next()).await {
            Ok(Some(Ok(connected))) => return Ok(connected),
            Ok(Some(Err(error))) => failure = error,
            Ok(None) => return Err(failure),
            Err(_) => {}
        }
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
const HEAD_START: Duration = Duration::from_millis(250);

/// The maximum number of addresses of a host that are tried.
const ADDRESSES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::{BoxFuture, pending, ready};

    use super::*;

    type Attempt = BoxFuture<'static, io::Result<&'static str>>;

    fn refused() -> Attempt {
        ready(Err(io::ErrorKind::ConnectionRefused.into())).boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_or_does_not_answer_costs_the_next_ones_little() {
        let start = Instant::now();
        let good: Attempt = ready(Ok("here")).boxed();
        let attempts = [refused(), pending().boxed(), refused(), pending().boxed(), good];
        assert_eq!(first(attempts).await.unwrap(), "here");
        assert!(start.elapsed() < 3 * HEAD_START, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_address_wins_where_the_later_ones_refuse() {
        let late = async {
            tokio::time::sleep(4 * HEAD_START).await;
            Ok("here")
        };
        assert_eq!(first([late.boxed(), refused()]).await.unwrap(), "here");
    }

    #[tokio::test]
    async fn who_reaches_no_address_learns_the_last_failure() {
        let failure = first([refused(), refused()]).await.unwrap_err();
        assert_eq!(failure.kind(), io::ErrorKind::ConnectionRefused);
        let nowhere = first(Vec::<Attempt>::new()).await.unwrap_err();
        assert_eq!(nowhere.kind(), io::ErrorKind::NotFound);
    }
}
