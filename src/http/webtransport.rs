//! The QUIC listeners, for WebTransport and for sessions without HTTP/3: UDP ports, admission and drain. Accepted
//! sessions go to the engine.
//!
//! Peers are counted before anything is allocated for them. If there are many connections, in total or from
//! one address, peers first have to prove their address (QUIC retry), and are then refused. Every step of the
//! handshake has a deadline.

use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use socket2::SockRef;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wtransport::quinn::crypto::rustls::QuicServerConfig;
use wtransport::quinn::{
    self, EndpointConfig, IdleTimeout, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};

use super::admission::{Admission, ConnectionSlot, HandshakeSlot, Peer, Verdict};
use crate::engine::metrics::{self, QuicHandshake};
use crate::engine::{Engine, KnownClients, QuicRequest, SessionRequest};
use crate::http::tls::{self, Certificates};
use crate::http::{listener, quic};
use crate::{ImksError, ImksResult};

/// The settings of the WebTransport listener.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether WebTransport is served.
    pub mode: Mode,
    /// The UDP address. If absent, the address of the HTTP listener is used.
    pub listen: Option<SocketAddr>,
    /// The maximum number of QUIC connections.
    pub connections_max: usize,
    /// The maximum number of QUIC connections of one IPv4 address, or of one IPv6 network (64-bit prefix).
    pub connections_per_address_max: usize,
    /// The time from the first packet of a connection to its session request.
    pub handshake_timeout: Duration,
}

/// Whether WebTransport is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Served if a certificate is configured.
    Auto,
    /// Always served. Without a configured certificate, a development certificate is generated.
    On,
    /// Never served.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            listen: None,
            connections_max: 100_000,
            connections_per_address_max: 1_000,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Whether WebTransport is served beside this TLS.
    pub fn is_on(&self, tls: &tls::Config) -> bool {
        match self.mode {
            Mode::Auto => tls.is_on(),
            Mode::On => true,
            Mode::Off => false,
        }
    }
}

/// The heartbeat of Engine.IO. The idle timeout of QUIC must be longer.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// The time between two pings.
    pub interval: Duration,
    /// The time that a pong may take.
    pub timeout: Duration,
}

/// Binds the UDP port.
///
/// # Errors
/// [`ImksError::Io`] naming the address.
pub fn bind(addr: SocketAddr) -> ImksResult<UdpSocket> {
    let socket = UdpSocket::bind(addr).map_err(ImksError::io(format!("listening on {addr}/udp")))?;
    enlarge_buffers(&SockRef::from(&socket));
    Ok(socket)
}

/// Binds the UDP port on an address and, if it is a loopback address, also on the other one. Browsers use
/// either for `localhost`, and do not try the second.
///
/// # Errors
/// [`ImksError::Io`] naming the address. A failure of the second address is not an error.
pub fn bind_loopbacks(addr: SocketAddr) -> ImksResult<Vec<UdpSocket>> {
    let first = bind(addr)?;
    let addr = first.local_addr().map_err(ImksError::io("reading the UDP address"))?;
    let second = listener::other_loopback(addr).and_then(|other| listener::or_warn(bind(other)));
    Ok(std::iter::once(first).chain(second).collect())
}

/// Enlarges the buffers as far as the system allows. Smaller ones only limit bursts.
fn enlarge_buffers(socket: &SockRef<'_>) {
    let enlarged = socket
        .set_recv_buffer_size(UDP_BUFFER_BYTES)
        .and_then(|()| socket.set_send_buffer_size(UDP_BUFFER_BYTES))
        .and_then(|()| socket.recv_buffer_size());
    if !matches!(enlarged, Ok(given) if given >= UDP_BUFFER_BYTES) {
        tracing::info!(
            given = ?enlarged,
            wanted = UDP_BUFFER_BYTES,
            "small UDP buffer: raise net.core.rmem_max and net.core.wmem_max"
        );
    }
}

/// A bound QUIC endpoint, served by [`Listener::serve`].
pub struct Listener {
    endpoint: quinn::Endpoint,
    admission: Arc<Admission>,
    handshake_timeout: Duration,
    service: Service,
}

/// What a QUIC connection carries.
#[derive(Clone, Copy)]
enum Service {
    WebTransport,
    /// One session without HTTP/3, which may begin before the end of the handshake.
    Quic {
        zero_rtt: bool,
    },
}

impl Listener {
    /// Creates an endpoint for WebTransport that uses the current certificate of `certificates`. Requires a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`ImksError::Io`] from the socket, or [`ImksError::Config`] if QUIC cannot use the certificate.
    pub fn new(
        socket: UdpSocket,
        certificates: &Certificates,
        config: &Config,
        heartbeat: Heartbeat,
    ) -> ImksResult<Self> {
        Self::listen(socket, certificates.quic(&["h3"])?, config, heartbeat, Service::WebTransport)
    }

    /// Creates an endpoint for sessions without HTTP/3, with the limits of `config`. Requires a tokio runtime.
    ///
    /// # Errors
    /// As [`Listener::new`].
    pub fn raw(
        socket: UdpSocket,
        certificates: &Certificates,
        quic: &quic::Config,
        config: &Config,
        heartbeat: Heartbeat,
    ) -> ImksResult<Self> {
        let protocols: Vec<&str> = quic.alpn.iter().map(String::as_str).collect();
        let zero_rtt = quic.zero_rtt;
        let tls = match zero_rtt {
            true => certificates.quic_early(&protocols)?,
            false => certificates.quic(&protocols)?,
        };
        Self::listen(socket, tls, config, heartbeat, Service::Quic { zero_rtt })
    }

    fn listen(
        socket: UdpSocket,
        tls: rustls::ServerConfig,
        config: &Config,
        heartbeat: Heartbeat,
        service: Service,
    ) -> ImksResult<Self> {
        let wrong = |error: &dyn fmt::Display| ImksError::Config(format!("QUIC: {error}"));
        let crypto = QuicServerConfig::try_from(tls).map_err(|error| wrong(&error))?;
        let idle = (heartbeat.interval + heartbeat.timeout).max(IDLE_MIN);
        let mut server = ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(Arc::new(transport(heartbeat, idle).map_err(|error| wrong(&error))?));
        server.max_incoming(INCOMING_MAX);
        let runtime = Arc::new(TokioRuntime);
        let endpoint = quinn::Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime)
            .map_err(ImksError::io("starting QUIC"))?;
        let admission = Arc::new(Admission::new(config.connections_max, config.connections_per_address_max));
        Ok(Self { endpoint, admission, handshake_timeout: config.handshake_timeout, service })
    }

    /// Returns the UDP address.
    ///
    /// # Errors
    /// [`ImksError::Io`] if the system does not report it.
    pub fn addr(&self) -> ImksResult<SocketAddr> {
        self.endpoint.local_addr().map_err(ImksError::io("reading the UDP address"))
    }

    /// Passes sessions to `engine` until `stop`, each handshake in a task of `tasks`, then closes the rest.
    pub async fn serve(self, engine: Engine, tasks: TaskTracker, stop: CancellationToken) {
        while let Some(Some(incoming)) = stop.run_until_cancelled(self.endpoint.accept()).await {
            let Some(admitted) = self.admit(incoming, engine.known_clients()) else { continue };
            let (engine, stop, how) = (engine.clone(), stop.clone(), (self.service, self.handshake_timeout));
            tasks.spawn(async move {
                let handled = Box::pin(handle(admitted, engine, how));
                stop.run_until_cancelled(handled).await;
            });
        }
        self.endpoint.close(NO_ERROR, b"");
        let _ = tokio::time::timeout(CLOSE_TIME, self.endpoint.wait_idle()).await;
    }

    fn admit(&self, incoming: Incoming, known: &KnownClients) -> Option<Admitted> {
        let ip = incoming.remote_address().ip();
        let peer = match incoming.remote_address_validated() {
            false => Peer::Unproven,
            true if known.knows_address(ip) => Peer::ComesBack,
            true => Peer::New,
        };
        match self.admission.decide(ip, peer, self.endpoint.open_connections()) {
            Verdict::Accept(slot, handshake) => return Some((incoming, slot, handshake)),
            Verdict::Retry => {
                metrics::QUIC_HANDSHAKES.of(QuicHandshake::Retried).increment();
                // It fails only for an address that has been validated already.
                let _ = incoming.retry();
            }
            Verdict::Refuse => {
                metrics::QUIC_HANDSHAKES.of(QuicHandshake::Refused).increment();
                incoming.refuse();
            }
        }
        None
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Listener")
            .field("addr", &self.endpoint.local_addr().ok())
            .finish_non_exhaustive()
    }
}

async fn handle(admitted: Admitted, engine: Engine, (service, timeout): (Service, Duration)) {
    match tokio::time::timeout(timeout, receive(admitted, service, timeout)).await {
        Ok(Some(Request::WebTransport(request))) => engine.handle_webtransport(request).await,
        Ok(Some(Request::Quic(request))) => engine.handle_quic(request).await,
        Ok(None) | Err(_) => metrics::QUIC_HANDSHAKES.of(QuicHandshake::Abandoned).increment(),
    }
}

enum Request {
    WebTransport(SessionRequest),
    Quic(QuicRequest),
}

/// Completes the QUIC handshake of a connection, and receives its session request if it has one. A connection that may
/// begin early has the rest of its handshake and of the time still before it.
async fn receive(
    (incoming, slot, handshake): Admitted,
    service: Service,
    timeout: Duration,
) -> Option<Request> {
    if let Service::Quic { zero_rtt: true } = service {
        let (connection, done) = incoming.accept().ok()?.into_0rtt().ok()?;
        let opened = connection.clone();
        let confirmed = Box::pin(async move {
            let is_over = tokio::time::timeout(timeout, done).await.is_ok();
            drop(handshake);
            // It is over where it has failed too, which anybody can make it. A client may leave right after it.
            let has_succeeded =
                || opened.close_reason().is_none() || opened.stats().frame_tx.handshake_done > 0;
            is_over && has_succeeded()
        });
        return Some(Request::Quic(QuicRequest::early(connection, confirmed, Box::new(slot))));
    }
    let connection = incoming.await.ok()?;
    let request = match service {
        Service::WebTransport => {
            SessionRequest::receive(connection, Box::new(slot)).await.map(Request::WebTransport)
        }
        Service::Quic { .. } => Some(Request::Quic(QuicRequest::new(connection, Box::new(slot)))),
    };
    drop(handshake);
    request
}

/// Returns the QUIC transport settings. The windows are small: a peer that does not read, or sends
/// unsolicited data, costs at most about 2 MiB.
fn transport(heartbeat: Heartbeat, idle: Duration) -> Result<TransportConfig, quinn::VarIntBoundsExceeded> {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::try_from(idle)?))
        // Browsers give up after 30 s of silence. Engine.IO pings are frequent enough by default.
        .keep_alive_interval((heartbeat.interval > PING_OFTEN_ENOUGH).then_some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(STREAMS_MAX)
        .max_concurrent_uni_streams(STREAMS_MAX)
        .stream_receive_window(VarInt::from_u32(512 << 10))
        .receive_window(VarInt::from_u32(1 << 20))
        .send_window(1 << 20)
        // HTTP/3 requires datagrams to be announced, but they are not used here.
        .datagram_receive_buffer_size(Some(16 << 10))
        .datagram_send_buffer_size(16 << 10);
    Ok(transport)
}

/// The size of the UDP buffers. All clients share one socket, and the usual 208 KiB hold the first packets of
/// fewer than a hundred simultaneous clients.
const UDP_BUFFER_BYTES: usize = 2 << 20;

type Admitted = (Incoming, ConnectionSlot, HandshakeSlot);

/// Returns the route `GET /webtransport/certificate-hashes`, whose result a page passes on as
/// `serverCertificateHashes`.
pub fn routes(certificates: Certificates) -> Router {
    Router::new().route(HASHES_PATH, get(move || async move { hashes(&certificates) }))
}

fn hashes(certificates: &Certificates) -> impl IntoResponse + use<> {
    let hashes: Vec<_> = certificates
        .hashes()
        .iter()
        .map(|hash| json!({ "algorithm": "sha-256", "value": STANDARD.encode(hash) }))
        .collect();
    // Everyone who connects can see the certificate, so any page may read its hash.
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_TYPE, "application/json"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, json!({ "hashes": hashes }).to_string())
}

/// The path of the route that [`routes`] returns.
pub const HASHES_PATH: &str = "/webtransport/certificate-hashes";
/// The maximum number of connections that wait for admission.
const INCOMING_MAX: usize = 1024;
/// The maximum number of streams: the control streams of HTTP/3, the session request, the one stream of the
/// session, and some spare ones.
const STREAMS_MAX: VarInt = VarInt::from_u32(8);
const IDLE_MIN: Duration = Duration::from_secs(10);
const PING_OFTEN_ENOUGH: Duration = Duration::from_secs(25);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// `H3_NO_ERROR` (RFC 9114 section 8.1).
const NO_ERROR: VarInt = VarInt::from_u32(0x100);
