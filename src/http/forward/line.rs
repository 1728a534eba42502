//! One connection to another node, for one request after the other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// An open connection. Dropping it closes it, and so tells the other node that the client of its request has gone.
pub(super) struct Line {
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
    used: Instant,
}

/// The stream that is left when the owner has opened a WebSocket.
pub(super) struct Opened {
    upgrade: OnUpgrade,
    _line: Line,
}

impl Opened {
    /// Returns the stream, once HTTP has released it.
    pub(super) async fn stream(self) -> io::Result<Upgraded> {
        self.upgrade.await.map_err(io::Error::other)
    }
}

/// Why a request has no answer.
pub(super) enum Failed {
    /// The connection had ended before the request was sent.
    Unsent(Box<Request<Full<Bytes>>>),
    /// Whether it arrived is not known.
    Lost,
}

impl Line {
    /// Connects to an address, with TLS if `tls` is there.
    pub(super) async fn open(
        address: &str,
        tls: Option<&Arc<ClientConfig>>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> io::Result<Self> {
        let stream = connect(address).await?;
        let Some(tls) = tls else { return Self::start(stream, tasks, stop).await };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let connecting = Box::pin(TlsConnector::from(tls.clone()).connect(name, stream));
        let stream = timeout(TLS_TIME, connecting).await;
        Self::start(stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??, tasks, stop).await
    }

    async fn start<S>(stream: S, tasks: &TaskTracker, stop: &CancellationToken) -> io::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let stop = stop.clone();
        let driving = async move {
            if let Some(Err(error)) = stop.run_until_cancelled(connection.with_upgrades()).await {
                tracing::trace!(%error, "connection to another node ended");
            }
        };
        Ok(Self { sender, _driver: AbortOnDropHandle::new(tasks.spawn(driving)), used: Instant::now() })
    }

    /// Whether it can carry another request. One that was idle for long may be closed by the other node at any moment.
    pub(super) fn is_usable(&self) -> bool {
        self.sender.is_ready() && self.used.elapsed() < IDLE_TIME
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failed> {
        let sent = self.sender.try_send_request(request).await;
        sent.map_err(|mut error| {
            error.take_message().map_or(Failed::Lost, |request| Failed::Unsent(Box::new(request)))
        })
    }

    /// Reads the body of an answer. Returns the connection if it can be used again.
    pub(super) async fn read(mut self, answer: Incoming) -> Option<(Bytes, Option<Self>)> {
        let body = Limited::new(answer, ANSWER_BYTES_MAX).collect().await.ok()?.to_bytes();
        self.used = Instant::now();
        let is_reusable = self.sender.ready().await.is_ok();
        Some((body, is_reusable.then_some(self)))
    }

    /// Returns the stream of the WebSocket that an answer opens.
    pub(super) fn opened(self, answer: &mut Response<Incoming>) -> Option<Opened> {
        (answer.status() == StatusCode::SWITCHING_PROTOCOLS)
            .then(|| Opened { upgrade: hyper::upgrade::on(answer), _line: self })
    }
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let connecting = timeout(CONNECT_TIME, TcpStream::connect(address)).await;
    let stream = connecting.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    // For the owner, what waits here is sent. Megabytes of it would make the pongs of a client on a slow line late.
    SockRef::from(&stream).set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    Ok(stream)
}

/// How long a node may take to accept a connection.
const CONNECT_TIME: Duration = Duration::from_millis(250);
/// How long the TLS handshake with a node may take.
const TLS_TIME: Duration = Duration::from_secs(2);
/// How long an idle connection is used again. Less than the other node waits for the next request.
const IDLE_TIME: Duration = Duration::from_secs(5);
/// The maximum size of the answer to a forwarded request in bytes: more than a session may have queued, in base64.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// How long a connection is silent before the system asks whether the other node is there.
const KEEPALIVE_TIME: Duration = Duration::from_secs(10);
/// How often the system asks.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// The size of the receive buffer of a connection: a few seconds of a slow line, and enough between near nodes.
const RECEIVE_BUFFER_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn little_waits_between_an_owner_and_a_client_that_reads_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut reader = connect(&listener.local_addr().unwrap().to_string()).await.unwrap();
        let (mut owner, _) = listener.accept().await.unwrap();
        SockRef::from(&owner).set_send_buffer_size(RECEIVE_BUFFER_BYTES).unwrap();
        // To whoever reads fast, the system gives a larger buffer by itself.
        let (sent, mut received) = (vec![1_u8; 8 << 20], vec![0_u8; 8 << 20]);
        let (written, read) = tokio::join!(owner.write_all(&sent), reader.read_exact(&mut received));
        assert!(written.is_ok() && read.is_ok());
        let mut waiting = 0;
        while let Ok(written) = timeout(Duration::from_millis(200), owner.write(&sent)).await {
            waiting += written.unwrap();
        }
        assert!(waiting < 1 << 20, "{waiting} bytes");
    }
}
