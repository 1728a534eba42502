//! The internal listener, for operators and back ends: HTTP/1, HTTP/2 and with it gRPC on one port, in plain text
//! or with TLS. The names in the certificate of a peer are attached to its requests.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response, header};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ImksResult;
use crate::control::api::Peer;
use crate::http::config::{AnyBody, BoxFuture, Config as Limits};
use crate::http::listener::{ConnectionSlot, Failures, refuse, router_only};
use crate::http::mutual_tls::MutualTls;
use crate::http::tls::{self, Callers, Certificates, Tls};

/// The settings of TLS on the internal listener.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The PEM file with the certificate followed by its intermediate certificates; plain text without it.
    pub cert: Option<PathBuf>,
    /// The PEM file with the private key of the certificate.
    pub key: Option<PathBuf>,
    /// The PEM file with the certificates that may vouch for callers.
    pub client_ca: Option<PathBuf>,
}

impl Config {
    /// Returns the problems of the settings.
    pub fn problems(&self) -> impl Iterator<Item = &'static str> + use<> {
        let checks = [
            (
                self.cert.is_some() == self.key.is_some(),
                "IMKS_INTERNAL_TLS_CERT and IMKS_INTERNAL_TLS_KEY belong together: set both, or none",
            ),
            (
                self.client_ca.is_none() || self.cert.is_some(),
                "IMKS_INTERNAL_CLIENT_CA needs IMKS_INTERNAL_TLS_CERT and IMKS_INTERNAL_TLS_KEY",
            ),
        ];
        checks.into_iter().filter(|(fine, _)| !fine).map(|(_, sentence)| sentence)
    }

    /// Reads the certificates, if there are any. The other settings of TLS are those of the public listener.
    ///
    /// # Errors
    /// [`Config`](crate::ImksError::Config) that names the file and its problem.
    pub fn open(&self, tls: &tls::Config) -> ImksResult<Option<MutualTls>> {
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else { return Ok(None) };
        let certificates = Certificates::open_internal(cert.clone(), key.clone())?;
        let callers = self.client_ca.clone().map_or(Callers::Anonymous, Callers::Known);
        MutualTls::open(certificates, tls.clone(), callers, &["h2", "http/1.1"]).map(Some)
    }
}

/// Routes calls over gRPC to `grpc`, which has deadlines of its own, and everything else to `others`.
pub fn routes(
    others: Router,
    grpc: Router,
    limits: &Limits,
) -> impl Fn(Request<Incoming>, SocketAddr) -> BoxFuture<Response<AnyBody>> + Clone + Send + Sync + 'static {
    let others = router_only(others, limits);
    move |request, peer| {
        let content = request.headers().get(header::CONTENT_TYPE);
        if !content.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
            return others(request, peer);
        }
        let grpc = grpc.clone();
        Box::pin(async move {
            let Ok(response) = grpc.oneshot(request.map(Body::new)).await;
            response.map(Either::Right)
        })
    }
}

/// Accepts connections until `stop`, each in a task of `tasks`. They then end with their current requests, or a
/// moment later.
pub async fn serve<S, F>(
    listener: TcpListener,
    limits: Limits,
    mut tls: Option<MutualTls>,
    service: S,
    tasks: TaskTracker,
    stop: CancellationToken,
) where
    S: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<AnyBody>> + Send + 'static,
{
    let served = Arc::new(Served { builder: builder(&limits, &tasks), service, stop: stop.clone() });
    let mut failures = Failures::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                failures.recover(&error).await;
                continue;
            }
        };
        let Some(slot) = ConnectionSlot::take(&limits, address.ip()) else {
            refuse(&stream);
            continue;
        };
        let (served, limits) = (served.clone(), limits.clone());
        let tls = tls.as_mut().map(MutualTls::acceptor);
        tasks.spawn(async move {
            served.connection(stream, address, tls, &limits).await;
            drop(slot);
        });
    }
}

/// The state that all connections share.
struct Served<S> {
    builder: Builder<Tracked>,
    service: S,
    stop: CancellationToken,
}

fn builder(limits: &Limits, tasks: &TaskTracker) -> Builder<Tracked> {
    let mut builder = Builder::new(Tracked(tasks.clone()));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.head_bytes_max.max(BUFFER_BYTES));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX));
    builder
}

impl<S, F> Served<S>
where
    S: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<AnyBody>> + Send + 'static,
{
    async fn connection(&self, stream: TcpStream, address: SocketAddr, tls: Option<Tls>, limits: &Limits) {
        let mut first = [0];
        let peeked = timeout(limits.first_byte_timeout, stream.peek(&mut first));
        let Some(Ok(Ok(1))) = self.stop.run_until_cancelled(peeked).await else { return };
        let anonymous = Peer { is_internal: true, ..Peer::default() };
        let Some(tls) = tls else { return self.requests(stream, address, anonymous, limits).await };
        if let Some(Some(stream)) = self.stop.run_until_cancelled(tls.accept(stream)).await {
            let peer = Peer { names: names(&stream).into(), ..anonymous };
            self.requests(stream, address, peer, limits).await;
        }
    }

    async fn requests<I>(&self, stream: I, address: SocketAddr, peer: Peer, limits: &Limits)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let begun = Arc::new(Notify::new());
        let (service, has_begun) = (self.service.clone(), begun.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            has_begun.notify_one();
            request.extensions_mut().insert(peer.clone());
            let answer = service(request, address);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut serving = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        // A peer that never completes its first request must not hold its connection.
        let silent = async {
            if timeout(limits.head_timeout, begun.notified()).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = &mut serving => {
                if let Err(error) = ended {
                    tracing::trace!(peer = %address, %error, "connection ended");
                }
                return;
            }
            () = silent => return,
            () = self.stop.cancelled() => {}
        }
        serving.as_mut().graceful_shutdown();
        // Streams do not end by themselves.
        if timeout(END_MAX, serving).await.is_err() {
            tracing::debug!(peer = %address, "connection ended while a request was in progress");
        }
    }
}

/// Returns the names in the certificate that a peer has shown: DNS names, URIs, and the common name.
fn names(stream: &TlsStream<TcpStream>) -> Vec<Box<str>> {
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let Some((_, certificate)) = shown.and_then(|shown| X509Certificate::from_der(shown).ok()) else {
        return Vec::new();
    };
    let others = certificate.subject_alternative_name().ok().flatten();
    let others = others.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some(*name),
        _ => None,
    });
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    others.chain(common).map(Box::from).collect()
}

/// Runs the tasks of HTTP/2 connections where they are waited for.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tracked {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// The interval of the pings that find out whether an HTTP/2 peer is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// The most concurrent requests on one HTTP/2 connection.
const STREAMS_MAX: u32 = 1_024;
/// The most bytes of an HTTP/1 request that are buffered.
const BUFFER_BYTES: usize = 64 << 10;
/// How long requests may take to end once the listener stops.
const END_MAX: Duration = Duration::from_secs(1);
