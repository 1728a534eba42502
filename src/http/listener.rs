//! The public listener: accept loop, deadlines, limits and drain, which `axum::serve` does not have.
//!
//! A connection has deadlines for the TLS handshake, for its first byte, for each request head (which also
//! bounds the idle time between requests), and for each piece of a response that the peer accepts. Routes
//! other than the engine's also have one for the body and the response; the engine has its own. A connection
//! leaves this module when it becomes a WebSocket.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::Either;
use hyper::body::Incoming;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::engine::cors::allow_origin;
use crate::engine::{Engine, for_anybody};
use crate::http::client_address::{self, Network, is_trusted};
pub use crate::http::config::{AnyBody, BoxFuture, Config, Connections};
use crate::http::connection::{Connection, Served};
use crate::http::crowding::Crowding;
use crate::http::metrics;
use crate::http::refusal;
use crate::rate_limit::{Rate, Reminder};
use crate::{ImksError, ImksResult};

/// Listens on an address. Accepted connections inherit `TCP_NODELAY`, unless [`serve`] is told otherwise.
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

/// Listens on an address and, if it is a loopback address, also on the other one (`127.0.0.1` or `[::1]`)
/// with the same port, because browsers use either for `localhost`.
///
/// # Errors
/// [`ImksError::Io`] naming the address. A failure of the second address is not an error.
pub fn bind_loopbacks(addr: SocketAddr) -> ImksResult<Vec<TcpListener>> {
    let first = bind(addr)?;
    let addr = first.local_addr().map_err(ImksError::io("reading the listening address"))?;
    let second = other_loopback(addr).and_then(|other| or_warn(bind(other)));
    Ok(std::iter::once(first).chain(second).collect())
}

/// Returns the loopback address of the other address family.
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

/// Logs a failure to bind the second loopback address. A machine may lack IPv6, but a port that another
/// program uses is worth a warning, because browsers may connect to it.
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

/// Routes engine paths to the engine and everything else to the router.
pub fn routes(
    engine: Engine,
    router: Router,
    config: &Config,
) -> impl Fn(Request<Incoming>, SocketAddr) -> BoxFuture<Response<AnyBody>> + Clone + Send + Sync + 'static {
    let others = router_only(router, config);
    let clients = Clients {
        proxies: config.trusted_proxies.as_slice().into(),
        sessions: config.sessions_per_address,
        crowding: config.connections.crowding.clone(),
    };
    move |request, peer| {
        let client = client_address::client(&clients.proxies, peer, request.headers());
        if !engine.matches(request.uri().path()) {
            return others(request, client);
        }
        if let Err(wait) = clients.begin(&request, client) {
            return Box::pin(std::future::ready(crowded(&engine, request.headers(), wait)));
        }
        let engine = engine.clone();
        Box::pin(async move { engine.handle(request, client).await.map(Either::Left) })
    }
}

/// Returns the answer to a request that may begin no session for so long. A page of another origin that may use the engine
/// may read it, too: otherwise it would see a network error, and no reason.
fn crowded(engine: &Engine, request: &HeaderMap, wait: Duration) -> Response<AnyBody> {
    let mut refused = refusal::CROWDED.response_after(wait);
    if let Some(cors) = engine.cors().get().filter(|_| request.contains_key(header::ORIGIN)) {
        let headers = refused.headers_mut();
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
        allow_origin(&cors, request, headers);
    }
    refused
}

/// What a listener knows about clients and the proxies before them.
#[derive(Clone)]
struct Clients {
    proxies: Arc<[Network]>,
    sessions: Rate,
    crowding: Arc<Crowding>,
}

impl Clients {
    /// Counts a request that begins a session, or returns the time after which it may.
    fn begin<B>(&self, request: &Request<B>, client: SocketAddr) -> Result<(), Duration> {
        // A preflight would count the session of a page twice.
        let is_preflight = request.method() == Method::OPTIONS;
        if self.sessions.is_off() || is_preflight || Engine::is_of_a_session(request.uri()) {
            return Ok(());
        }
        self.crowding.begin(client.ip(), &self.sessions, Instant::now())
    }
}

/// Routes everything to the router.
pub fn router_only(
    router: Router,
    config: &Config,
) -> impl Fn(Request<Incoming>, SocketAddr) -> BoxFuture<Response<AnyBody>> + Clone + Send + Sync + 'static {
    let (usual, slow_paths) = (config.request_timeout, config.slow_paths.clone());
    move |request, peer| {
        let router = router.clone();
        let slow = slow_paths.iter().find(|(path, _)| request.uri().path().starts_with(path));
        let timeout = slow.map_or(usual, |(_, timeout)| *timeout);
        Box::pin(async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            let answered = tokio::time::timeout(timeout, router.oneshot(request)).await;
            match answered {
                Ok(Ok(response)) => response.map(Either::Right),
                Err(_) => refusal::TOO_SLOW.response(),
            }
        })
    }
}

/// Accepts connections until `stop`, each in a task of `tasks`. They then end with their current request.
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
    if let Err(error) = set_options(&listener, &config) {
        tracing::warn!(%error, "connections have other TCP options than configured");
    }
    let served = Arc::new(Served::new(&config, service, stop.clone()));
    let mut failures = Failures::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                failures.recover(&error).await;
                continue;
            }
        };
        let Some(slot) = ConnectionSlot::take(&config, peer.ip()) else {
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

/// Sets the options of a listener that its connections inherit.
fn set_options(listener: &TcpListener, config: &Config) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(config.tcp_nodelay)?;
    match config.tcp_keepalive.is_zero() {
        true => Ok(()),
        false => socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(config.tcp_keepalive)),
    }
}

/// The failures of a listener to accept connections. They last, and the log is for people.
#[derive(Default)]
pub(super) struct Failures(Reminder);

impl Failures {
    /// Recovers from a failed accept. A connection that failed before it was accepted affects no others. Any
    /// other error, such as a lack of file descriptors, is temporary: wait a moment and continue.
    pub(super) async fn recover(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        metrics::ACCEPT_FAILURES.increment();
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
            return;
        }
        if let Some(failures) = self.0.count(Instant::now()) {
            tracing::warn!(%error, failures, "cannot accept connections, trying again");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Refuses a connection over the limit. The response is sent only if it fits into the socket's buffer.
pub(super) fn refuse(stream: &TcpStream) {
    metrics::CONNECTIONS_REFUSED.increment();
    // A peer that cannot receive even this is not worth more effort.
    let _ = stream.try_write(&refusal::BUSY.bytes());
}

/// A permit for one open connection.
pub(super) struct ConnectionSlot(Arc<AtomicUsize>);

impl ConnectionSlot {
    /// Takes a permit; `None` if too many connections are open, or if those that are left are kept for clients that come
    /// back and `peer` is not known.
    pub(super) fn take(config: &Config, peer: IpAddr) -> Option<Self> {
        let (open, max) = (&config.connections.open, config.connections_max);
        let comes_back = || match &config.connections.known {
            Some(known) => known.knows_address(peer) || is_trusted(&config.trusted_proxies, peer),
            None => true,
        };
        let one_more = |open| (open < for_anybody(max) || open < max && comes_back()).then_some(open + 1);
        open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
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

/// The maximum number of connections that the system queues until they are accepted.
const BACKLOG: i32 = 4096;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_quarter_of_the_connections_is_for_addresses_of_clients_and_for_proxies() {
        let engine = Engine::new(crate::engine::Config::default()).unwrap();
        let [client, stranger, proxy] =
            ["203.0.113.9", "198.51.100.1", "10.0.0.1"].map(|ip| ip.parse().unwrap());
        let mut config = Config {
            connections_max: 5,
            trusted_proxies: vec!["10.0.0.1".parse().unwrap()],
            ..Config::default()
        };
        let any: Vec<_> = std::iter::from_fn(|| ConnectionSlot::take(&config, stranger)).collect();
        assert_eq!(any.len(), 5, "without an engine nobody comes back");
        drop(any);
        config.connections.know(&engine);
        engine.known_clients().arrived(client, None);
        let _strangers: Vec<_> = std::iter::from_fn(|| ConnectionSlot::take(&config, stranger)).collect();
        for known in [client, proxy] {
            assert!(ConnectionSlot::take(&config, stranger).is_none());
            assert!(ConnectionSlot::take(&config, known).is_some());
        }
        let _last = ConnectionSlot::take(&config, client).unwrap();
        assert!(ConnectionSlot::take(&config, client).is_none());
    }

    #[test]
    fn a_lack_of_file_descriptors_is_told_once_in_ten_seconds_with_a_count() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let told = (0..401).filter_map(|n| failures.0.count(start + n * ACCEPT_PAUSE));
        assert_eq!(told.collect::<Vec<_>>(), [1, 200, 200]);
    }

    #[tokio::test]
    async fn connections_inherit_the_options_of_their_listener() {
        for (tcp_keepalive, tcp_nodelay) in [(Duration::from_secs(60), true), (Duration::ZERO, false)] {
            let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
            set_options(&listener, &Config { tcp_keepalive, tcp_nodelay, ..Config::default() }).unwrap();
            let address = listener.local_addr().unwrap();
            let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            client.unwrap();
            let accepted = accepted.unwrap().0;
            assert_eq!(SockRef::from(&accepted).keepalive().unwrap(), !tcp_keepalive.is_zero());
            assert_eq!(accepted.nodelay().unwrap(), tcp_nodelay);
        }
    }
}
