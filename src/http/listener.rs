//! The public listener: accept loop, deadlines, limits, drain. `axum::serve` has none of them.
//!
//! A connection has a deadline for its first byte, for each request head (which is also how long it may be
//! idle between requests), and for the body and the answer of every route beside the engine, which has its
//! own. It leaves this module when it becomes a WebSocket. With TLS there is a deadline for the handshake too.

use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::metrics;
use super::tls::Tls;
use crate::{
    ImksError, ImksResult,
    engine::{Engine, Secure},
};

/// Limits of the listener.
#[derive(Clone, Debug)]
pub struct Config {
    /// From the connection to its first byte.
    pub first_byte_timeout: Duration,
    /// From the end of one request (or the connection) to the whole head of the next. Above the ping interval
    /// of polling clients, so that their kept-alive connections are not cut between two requests.
    pub head_timeout: Duration,
    /// For a request and its answer, beside the engine.
    pub request_timeout: Duration,
    /// Bytes of a request head.
    pub head_bytes_max: usize,
    /// Connections at most that have not become WebSockets; more are answered with 503.
    pub connections_max: usize,
    /// TLS; plain HTTP without it.
    pub tls: Option<Tls>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            first_byte_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            head_bytes_max: 16 << 10,
            connections_max: 100_000,
            tls: None,
        }
    }
}

/// Listens on an address. Accepted connections inherit `TCP_NODELAY`.
///
/// # Errors
/// [`ImksError::Io`] naming the address.
pub fn bind(addr: SocketAddr) -> ImksResult<TcpListener> {
    let listen = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    listen().map_err(ImksError::io(format!("listening on {addr}")))
}

/// Serves nothing but an engine, with default limits, until the process ends: for first steps and examples.
pub async fn serve_engine(socket: TcpListener, engine: Engine) {
    let config = Config::default();
    let routes = routes(engine, Router::new(), &config);
    serve(socket, config, routes, TaskTracker::new(), CancellationToken::new()).await;
}

/// Body of any answer.
pub type AnyBody = Either<Full<Bytes>, Body>;

/// Sends engine paths to the engine and everything else to the router.
pub fn routes(
    engine: Engine,
    router: Router,
    config: &Config,
) -> impl Fn(Request<Incoming>, SocketAddr) -> BoxFuture<Response<AnyBody>> + Clone + Send + Sync + 'static {
    let others = router_only(router, config);
    move |request, peer| {
        let engine = engine.clone();
        if engine.matches(request.uri().path()) {
            return Box::pin(async move { engine.handle(request, peer).await.map(Either::Left) });
        }
        others(request, peer)
    }
}

/// Sends everything to the router.
pub fn router_only(
    router: Router,
    config: &Config,
) -> impl Fn(Request<Incoming>, SocketAddr) -> BoxFuture<Response<AnyBody>> + Clone + Send + Sync + 'static {
    let timeout = config.request_timeout;
    move |request, _| {
        let router = router.clone();
        Box::pin(async move {
            let answered = tokio::time::timeout(timeout, router.oneshot(request.map(Body::new))).await;
            match answered {
                Ok(Ok(response)) => response.map(Either::Right),
                Err(_) => plain(StatusCode::REQUEST_TIMEOUT),
            }
        })
    }
}

/// A future on the heap.
pub type BoxFuture<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

/// Accepts until `stop`, each connection in a task of `tasks`. After `stop`, connections end with the request
/// they are in.
pub async fn serve<S, F, B>(
    listener: TcpListener,
    config: Config,
    service: S,
    tasks: TaskTracker,
    stop: CancellationToken,
) where
    S: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let open = Arc::new(AtomicUsize::new(0));
    let http = http(&config);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                recover(&error).await;
                continue;
            }
        };
        let Some(place) = Place::take(&open, config.connections_max) else {
            refuse(&stream);
            continue;
        };
        let connection = Connection {
            stream,
            peer,
            http: http.clone(),
            service: service.clone(),
            stop: stop.clone(),
            first_byte_timeout: config.first_byte_timeout,
            tls: config.tls.clone(),
        };
        tasks.spawn(async move {
            connection.run().await;
            drop(place);
        });
    }
}

/// HTTP/1 with the limits of `config`.
fn http(config: &Config) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(config.head_timeout)
        .max_header_size(config.head_bytes_max)
        .max_buf_size(config.head_bytes_max.max(BUFFER_BYTES));
    http
}

/// One connection, until it ends or becomes a WebSocket.
struct Connection<S> {
    stream: TcpStream,
    peer: SocketAddr,
    http: http1::Builder,
    service: S,
    stop: CancellationToken,
    first_byte_timeout: Duration,
    tls: Option<Tls>,
}

impl<S> Connection<S> {
    async fn run<F, B>(self)
    where
        S: Fn(Request<Incoming>, SocketAddr) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { stream, peer, http, service, stop, first_byte_timeout, tls } = self;
        tokio::select! {
            first = tokio::time::timeout(first_byte_timeout, stream.readable()) => if first.is_err() { return },
            () = stop.cancelled() => return,
        }
        let Some(tls) = tls else { return Self::serve(stream, peer, http, service, stop).await };
        let secured = move |mut request: Request<Incoming>, peer| {
            request.extensions_mut().insert(Secure);
            service(request, peer)
        };
        // On the heap, so that a connection without TLS is not larger because of it.
        Box::pin(async move {
            if let Some(stream) = tls.accept(stream).await {
                Connection::serve(stream, peer, http, secured, stop).await;
            }
        })
        .await;
    }

    async fn serve<I, F, B>(
        stream: I,
        peer: SocketAddr,
        http: http1::Builder,
        service: S,
        stop: CancellationToken,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Fn(Request<Incoming>, SocketAddr) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let service = service_fn(move |request| {
            let response = service(request, peer);
            async move { Ok::<_, Infallible>(response.await) }
        });
        let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
        let ended = tokio::select! {
            ended = &mut serving => ended,
            () = stop.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            tracing::trace!(%peer, %error, "connection ended");
        }
    }
}

/// A connection that failed before it was accepted concerns nobody else. Anything else, such as a lack of
/// file descriptors, passes: wait a moment and go on.
async fn recover(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    metrics::ACCEPT_FAILURES.increment();
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        return;
    }
    tracing::warn!(%error, "cannot accept connections, trying again");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Over the limit: a word, if it fits into the socket's buffer, and the end.
fn refuse(stream: &TcpStream) {
    metrics::CONNECTIONS_REFUSED.increment();
    let _ = stream.try_write(REFUSAL);
}

fn plain(status: StatusCode) -> Response<AnyBody> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    response
}

/// One of the connections that may be open.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>, connections_max: usize) -> Option<Self> {
        if open.load(Ordering::Relaxed) >= connections_max {
            return None;
        }
        open.fetch_add(1, Ordering::Relaxed);
        metrics::CONNECTIONS.add(1);
        Some(Self(open.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        metrics::CONNECTIONS.add(-1);
    }
}

const BACKLOG: i32 = 4096;
const BUFFER_BYTES: usize = 64 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const REFUSAL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
