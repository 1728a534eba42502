//! The public listener: accept loop, deadlines, limits, drain. `axum::serve` has none of them.
//!
//! A connection has a deadline for its first byte, for each request head (which is also how long it may be
//! idle between requests), for each piece of an answer that the peer takes, and for the body and the answer of every
//! route beside the engine, which has its own. It leaves this module when it becomes a WebSocket. With TLS there is a
//! deadline for the handshake too.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::engine::Engine;
pub use crate::http::config::{AnyBody, BoxFuture, Config};
use crate::http::connection::{Connection, Served};
use crate::http::metrics;
use crate::http::refusal;
use crate::{ImksError, ImksResult};

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

/// Listens on an address, and where that is a loopback address also on the other one (`127.0.0.1` and `[::1]`) with the
/// same port: browsers take either for `localhost`.
///
/// # Errors
/// [`ImksError::Io`] naming the address; the second one may be missing.
pub fn bind_loopbacks(addr: SocketAddr) -> ImksResult<Vec<TcpListener>> {
    let first = bind(addr)?;
    let addr = first.local_addr().map_err(ImksError::io("reading the listening address"))?;
    let second = other_loopback(addr).and_then(|other| or_warn(bind(other)));
    Ok(std::iter::once(first).chain(second).collect())
}

/// The loopback address of the other family.
pub(crate) fn other_loopback(addr: SocketAddr) -> Option<SocketAddr> {
    match addr {
        SocketAddr::V4(v4) if *v4.ip() == Ipv4Addr::LOCALHOST => {
            Some((Ipv6Addr::LOCALHOST, v4.port()).into())
        }
        SocketAddr::V6(v6) if *v6.ip() == Ipv6Addr::LOCALHOST => {
            Some((Ipv4Addr::LOCALHOST, v6.port()).into())
        }
        _ => None,
    }
}

/// A machine may be without IPv6; a port that somebody else has is worth a warning, for browsers may go there.
pub(crate) fn or_warn<T>(bound: ImksResult<T>) -> Option<T> {
    match bound {
        Ok(bound) => Some(bound),
        Err(ImksError::Io { context, source }) if source.kind() == io::ErrorKind::AddrInUse => {
            tracing::warn!(error = %source, "{context} failed; clients that connect to `localhost` may reach another program");
            None
        }
        Err(error) => {
            tracing::debug!(%error, "one loopback address only");
            None
        }
    }
}

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
                Err(_) => refusal::TOO_SLOW.response(),
            }
        })
    }
}

/// Accepts until `stop`, each connection in a task of `tasks`. After `stop`, connections end with the request
/// they are in.
pub async fn serve<S, F>(
    listener: TcpListener,
    config: Config,
    service: S,
    tasks: TaskTracker,
    stop: CancellationToken,
) where
    S: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<AnyBody>> + Send + 'static,
{
    let open = Arc::new(AtomicUsize::new(0));
    let served = Arc::new(Served::new(&config, service, stop.clone()));
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
        let Some(slot) = ConnectionSlot::take(&open, config.connections_max) else {
            refuse(&stream);
            continue;
        };
        let connection = Connection::new(stream, peer, served.clone());
        tasks.spawn(async move {
            connection.run().await;
            drop(slot);
        });
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
    // A peer that takes not even this much is not worth more.
    let _ = stream.try_write(&refusal::BUSY.bytes());
}

/// One of the connections that may be open.
struct ConnectionSlot(Arc<AtomicUsize>);

impl ConnectionSlot {
    fn take(open: &Arc<AtomicUsize>, connections_max: usize) -> Option<Self> {
        if open.load(Ordering::Relaxed) >= connections_max {
            return None;
        }
        open.fetch_add(1, Ordering::Relaxed);
        metrics::CONNECTIONS.add(1);
        Some(Self(open.clone()))
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        metrics::CONNECTIONS.add(-1);
    }
}

/// Connections that the system holds until they are accepted.
const BACKLOG: i32 = 4096;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
