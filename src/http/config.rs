//! The limits of the public listener, and types that its parts share.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{Either, Full};

use crate::engine::{Engine, KnownClients};
use crate::http::client_address::Network;
use crate::http::crowding::Crowding;
use crate::http::tls::Tls;
use crate::rate_limit::Rate;

/// The limits of the listener.
#[derive(Clone, Debug)]
pub struct Config {
    /// The time from accepting a connection to its first byte.
    pub first_byte_timeout: Duration,
    /// The time from the end of one request (or from accepting the connection) to the complete head of the
    /// next. It exceeds the ping interval, so that kept-alive connections of polling clients are not closed
    /// between requests.
    pub head_timeout: Duration,
    /// The time from one piece of a response that the peer accepts to the next.
    pub write_timeout: Duration,
    /// The time after which the system asks a silent peer whether it is still there (TCP keep-alive); zero is never.
    pub tcp_keepalive: Duration,
    /// Whether packets leave at once (`TCP_NODELAY`), and do not wait until the one before is acknowledged.
    pub tcp_nodelay: bool,
    /// The time for a request and its response, on routes other than the engine's.
    pub request_timeout: Duration,
    /// The beginnings of the paths whose requests may take longer, and how long.
    pub slow_paths: Vec<(&'static str, Duration)>,
    /// The maximum size of a request head in bytes.
    pub head_bytes_max: usize,
    /// The maximum number of connections that have not become WebSockets. Further ones are answered with 503. The last
    /// quarter is for trusted proxies, and for addresses with a client that is connected, or was minutes before.
    pub connections_max: usize,
    /// The number of these connections. Listeners with clones of one configuration share the limit.
    pub connections: Connections,
    /// The proxies in front of this listener. They are believed what they say about the addresses of clients, in
    /// `X-Forwarded-For` or the PROXY protocol, and have as many connections as they like.
    pub trusted_proxies: Vec<Network>,
    /// Whether connections of these proxies begin with a header of the PROXY protocol (version 1 or 2).
    pub proxy_protocol: bool,
    /// The maximum number of connections of one address, WebSockets included; 0 is no limit.
    pub connections_per_address_max: usize,
    /// The rate of new sessions of one address. A client above it is answered with 429 and comes back by itself.
    pub sessions_per_address: Rate,
    /// The TLS acceptor; plain HTTP if absent.
    pub tls: Option<Tls>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            first_byte_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            tcp_keepalive: Duration::from_secs(60),
            tcp_nodelay: true,
            request_timeout: Duration::from_secs(30),
            slow_paths: Vec::new(),
            head_bytes_max: 16 << 10,
            connections_max: 100_000,
            connections: Connections::default(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            connections_per_address_max: 0,
            sessions_per_address: Rate::OFF,
            tls: None,
        }
    }
}

/// The count of open connections, in total and by address. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    pub(super) open: Arc<AtomicUsize>,
    pub(super) crowding: Arc<Crowding>,
    /// Whose clients come back; without it, no connection is kept for them.
    pub(super) known: Option<Arc<KnownClients>>,
}

impl Connections {
    /// Keeps a share of the connections for clients that this engine knows.
    pub(super) fn know(&mut self, engine: &Engine) {
        self.known = Some(engine.known_clients().clone());
    }
}

/// The body of any response.
pub type AnyBody = Either<Full<Bytes>, Body>;

/// A boxed future.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
