//! A connection of the public listener, until it ends or becomes a WebSocket.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::engine::{RawStream, Secure, TakeStream};
use crate::http::client_address::{Network, is_trusted};
use crate::http::config::{AnyBody, Config};
use crate::http::crowding::{Crowding, Place};
use crate::http::metrics;
use crate::http::proxy_protocol;
use crate::http::refusal::{self, Refusal};
use crate::http::request_rules::broken_rule;
use crate::http::stream::{HttpStream, Shared};
use crate::http::tls::Tls;
use crate::rate_limit::Reminder;

/// The state that all connections of a listener share.
pub(super) struct Served<S> {
    http: http1::Builder,
    service: S,
    streams: Arc<Shared>,
    stop: CancellationToken,
    first_byte_timeout: Duration,
    tls: Option<Tls>,
    trusted_proxies: Vec<Network>,
    proxy_protocol: bool,
    /// The log of connections of proxies that do not begin with a header.
    headerless: Mutex<Reminder>,
    connections_per_address_max: usize,
    crowding: Arc<Crowding>,
}

impl<S> Served<S> {
    pub(super) fn new(config: &Config, service: S, stop: CancellationToken) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(config.head_timeout)
            .max_headers(HEADERS_MAX)
            .max_header_size(config.head_bytes_max)
            .max_buf_size(config.head_bytes_max.max(BUFFER_BYTES));
        Self {
            http,
            service,
            streams: Arc::new(Shared::new(config.write_timeout)),
            stop,
            first_byte_timeout: config.first_byte_timeout,
            tls: config.tls.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            proxy_protocol: config.proxy_protocol,
            headerless: Mutex::default(),
            connections_per_address_max: config.connections_per_address_max,
            crowding: config.connections.crowding.clone(),
        }
    }

    /// Returns the address of the client, which a trusted proxy tells before the first byte of the connection.
    async fn client(&self, stream: &mut TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
        if !self.proxy_protocol || !is_trusted(&self.trusted_proxies, peer.ip()) {
            return Some(peer);
        }
        // Boxed, so that it does not enlarge connections without a proxy.
        let told = Box::pin(timeout(self.first_byte_timeout, proxy_protocol::read(stream))).await;
        match told {
            Ok(Ok(told)) => Some(told.unwrap_or(peer)),
            // The checks of balancers connect and say nothing.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Ok(Err(error)) => {
                metrics::PROXY_HEADERS_MISSING.increment();
                self.tell_headerless(peer, &error);
                None
            }
            Err(_) => None,
        }
    }

    /// Logs that a proxy does not tell for whom it connects. Each of its connections fails, so not every one is told.
    fn tell_headerless(&self, peer: SocketAddr, error: &io::Error) {
        let told = self.headerless.lock().count(Instant::now());
        if let Some(connections) = told {
            tracing::warn!(%peer, %error, connections, "connection of a trusted proxy refused");
        }
    }

    /// Takes a place for a connection of this client. The error means that its address has too many.
    fn place(&self, client: SocketAddr) -> Result<Option<Place>, ()> {
        if self.connections_per_address_max == 0 || is_trusted(&self.trusted_proxies, client.ip()) {
            return Ok(None);
        }
        self.crowding.connect(client.ip(), self.connections_per_address_max).map(Some).ok_or(())
    }
}

/// One accepted connection.
pub(super) struct Connection<S> {
    stream: TcpStream,
    peer: SocketAddr,
    served: Arc<Served<S>>,
}

impl<S> Connection<S> {
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, served: Arc<Served<S>>) -> Self {
        Self { stream, peer, served }
    }

    /// Serves the connection. Once the listener stops, it ends after the current request, or at once if the
    /// peer has not finished sending one.
    pub(super) async fn run<F>(self)
    where
        S: Fn(Request<Incoming>, SocketAddr) -> F + Send + Sync + 'static,
        F: Future<Output = Response<AnyBody>> + Send + 'static,
    {
        let Self { mut stream, peer, served } = self;
        let client = served.stop.run_until_cancelled(served.client(&mut stream, peer)).await;
        let Some(Some(peer)) = client else { return };
        let Ok(place) = served.place(peer) else {
            // A client that expects TLS would not understand it.
            if served.tls.is_none() {
                Box::pin(refuse(stream, &refusal::CROWDED)).await;
            }
            return;
        };
        // Peeked, because readiness alone may be reported for a stream that has nothing to read.
        let mut first = [0];
        let peeked = timeout(served.first_byte_timeout, stream.peek(&mut first));
        let Some(Ok(Ok(1))) = served.stop.run_until_cancelled(peeked).await else { return };
        let Some(tls) = served.tls.clone() else { return served.serve(stream, place, peer, false).await };
        // Boxed, so that TLS does not enlarge connections without it.
        Box::pin(async move {
            // HTTP starts with a method, a TLS handshake with the byte 22.
            if first[0].is_ascii_uppercase() {
                return refuse(stream, &refusal::NOT_TLS).await;
            }
            if let Some(Some(stream)) = served.stop.run_until_cancelled(tls.accept(stream)).await {
                served.serve(stream, place, peer, true).await;
            }
        })
        .await;
    }
}

impl<S> Served<S> {
    async fn serve<I, F>(&self, stream: I, place: Option<Place>, peer: SocketAddr, secure: bool)
    where
        I: Into<RawStream> + AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Fn(Request<Incoming>, SocketAddr) -> F + Send + Sync + 'static,
        F: Future<Output = Response<AnyBody>> + Send + 'static,
    {
        let service = service_fn(|mut request: Request<Incoming>| {
            let answer = match broken_rule(&request) {
                None => {
                    prepare::<I>(&mut request, secure);
                    Ok((self.service)(request, peer))
                }
                Some(refusal) => Err(refusal.response()),
            };
            async move {
                match answer {
                    Ok(answer) => Ok::<_, Infallible>(answer.await),
                    Err(refusal) => Ok(refusal),
                }
            }
        });
        let stream = TokioIo::new(HttpStream::new(stream, place, self.streams.clone()));
        let mut serving = self.http.serve_connection(stream, service).with_upgrades();
        let ended = tokio::select! {
            ended = &mut serving => ended,
            () = self.stop.cancelled() => {
                self.streams.start_draining();
                Pin::new(&mut serving).graceful_shutdown();
                (&mut serving).await
            }
        };
        let Err(error) = ended else { return };
        tracing::trace!(%peer, %error, "connection ended");
        if !error.is_timeout() && !error.is_parse_version_h2() {
            return;
        }
        // Boxed, so that it does not enlarge connections that end otherwise.
        let refusing =
            serving.into_parts().map(|parts| Box::pin(refuse_unanswered(parts.io.into_inner(), error)));
        if let Some(refusing) = refusing {
            refusing.await;
        }
    }
}

/// Tells a peer that hyper leaves without an answer: one that has begun a request and not completed its head in time, or
/// that speaks HTTP/2. A peer that is silent between requests is owed nothing.
async fn refuse_unanswered<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: HttpStream<S>,
    error: hyper::Error,
) {
    let refusal = match error.is_timeout() {
        true if !stream.is_in_head() => return,
        true => &refusal::TOO_SLOW,
        false => &refusal::HTTP2,
    };
    let answer = async {
        stream.write_all(&refusal.bytes()).await?;
        stream.shutdown().await
    };
    if !matches!(timeout(REFUSE_TIMEOUT, answer).await, Ok(Ok(()))) {
        tracing::trace!("a refused request was not answered");
    }
}

/// Adds facts about the connection that the layer above cannot see.
fn prepare<I>(request: &mut Request<Incoming>, secure: bool)
where
    I: Into<RawStream> + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let upgrades = request.extensions().get::<OnUpgrade>().is_some();
    let extensions = request.extensions_mut();
    if upgrades {
        extensions.insert(TakeStream(take_stream::<I>));
    }
    if secure {
        extensions.insert(Secure);
    }
}

fn take_stream<I>(upgraded: Upgraded) -> Option<(RawStream, Bytes)>
where
    I: Into<RawStream> + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let parts = upgraded.downcast::<TokioIo<HttpStream<I>>>().ok()?;
    let (stream, place) = parts.io.into_inner().into_parts();
    let stream: RawStream = stream.into();
    Some((stream.holding(place), parts.read_buf))
}

/// Tells a peer why it is not served. Its request is read first, because closing a stream with unread bytes resets it and
/// loses the response.
async fn refuse(mut stream: TcpStream, refusal: &Refusal) {
    let answer = async {
        stream.readable().await?;
        let _ = stream.try_read(&mut [0; BUFFER_BYTES / 16]);
        stream.write_all(&refusal.bytes()).await?;
        stream.shutdown().await
    };
    if !matches!(timeout(REFUSE_TIMEOUT, answer).await, Ok(Ok(()))) {
        tracing::trace!("a refused peer was not answered");
    }
}

/// The maximum number of headers of one request. This is twice as many as browsers and proxies have been seen
/// to send; hyper allocates space for all of them with each request.
const HEADERS_MAX: usize = 256;
/// The maximum number of bytes of a request that hyper buffers.
const BUFFER_BYTES: usize = 64 << 10;
/// The time that the response to a peer that is not served may take.
const REFUSE_TIMEOUT: Duration = Duration::from_secs(1);
