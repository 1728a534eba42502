//! QUIC without HTTP/3: a stream of packets directly on a connection. Also the settings of QUIC, from those of TLS.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tungstenite::Utf8Bytes;
use wtransport::quinn::crypto::rustls::QuicClientConfig;
use wtransport::quinn::{
    self, ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, TransportConfig, VarInt,
    ZeroRttAccepted,
};

use super::io::{HEAD_START, addresses};
use super::staggered::first;
use super::stream::{Carrier, Directions, Stream};
use super::wire::{Dialer, Joins};
use crate::client::core::{Early, Path};
use crate::client::error::{ClientError, ClientResult};
use crate::client::event::TransportKind;
use crate::error::Cause;

const NAME: &str = TransportKind::Quic.name();

/// A QUIC connection without a stream: the server knows of no session of Engine.IO yet.
pub(crate) struct Quic {
    endpoint: Endpoint,
    connection: Connection,
    /// Whether the server takes what is sent before the end of the handshake, if the handshake is not over.
    early: Option<ZeroRttAccepted>,
}

/// What is needed for QUIC without HTTP/3.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    config: QuicConfig,
    /// The UDP port of the server.
    port: u16,
    /// Where sessions may begin together with the handshake: the address of the last connection.
    early: Option<Arc<Mutex<Option<SocketAddr>>>>,
}

impl Raw {
    pub(crate) fn new(config: QuicConfig, port: u16, zero_rtt: bool) -> Self {
        Self { config, port, early: zero_rtt.then(Arc::default) }
    }

    /// Whether the next session may begin together with the handshake.
    pub(super) fn may_be_early(&self) -> bool {
        self.early.as_ref().is_some_and(|known| known.lock().is_some())
    }

    /// Returns the address where the next session may begin early. One that has failed is not tried so again.
    fn take_known(&self) -> Option<SocketAddr> {
        self.early.as_ref()?.lock().take()
    }

    fn remember(&self, address: SocketAddr) {
        self.early.iter().for_each(|known| *known.lock() = Some(address));
    }
}

impl Quic {
    /// Connects to a server.
    pub(super) async fn connect(dialer: &Dialer) -> ClientResult<Self> {
        let failed = |error| ClientError::connect(NAME, error);
        let Some(raw) = &dialer.raw else {
            return Err(ClientError::Config("the client was built without QUIC".into()));
        };
        let host = &dialer.address.host;
        let found = addresses(host, raw.port).await.map_err(failed)?;
        if let Some(known) = raw.take_known().filter(|known| found.contains(known)) {
            return Self::connect_to(raw, host, known, true).await;
        }
        let attempts = found.into_iter().map(|address| Self::connect_to(raw, host, address, false));
        let none = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        first(attempts, HEAD_START, failed(none)).await
    }

    async fn connect_to(raw: &Raw, host: &str, address: SocketAddr, early: bool) -> ClientResult<Self> {
        let failed = |error| ClientError::connect(NAME, error);
        let endpoint = Endpoint::client(any_port(address)).map_err(failed)?;
        let connecting = endpoint.connect_with(raw.config.0.clone(), address, host);
        let mut connecting = connecting.map_err(|error| ClientError::Config(error.to_string()))?;
        if early {
            // Without a ticket it goes on as any other.
            connecting = match connecting.into_0rtt() {
                Ok((connection, accepted)) => {
                    return Ok(Self { endpoint, connection, early: Some(accepted) });
                }
                Err(connecting) => connecting,
            };
        }
        let connection = connecting.await.map_err(refused)?;
        raw.remember(address);
        Ok(Self { endpoint, connection, early: None })
    }

    /// Opens the stream for a new session. If the session begins together with the handshake, namespaces are joined with
    /// it, and those that were are returned.
    pub(super) async fn begin(
        mut self,
        dialer: &Dialer,
        joins: Option<Joins>,
    ) -> ClientResult<(Stream, Option<Early>)> {
        let (connection, early, request) = (self.connection.clone(), self.early.take(), request(dialer)?);
        let mut stream = Stream::new(dialer, Carrier::Quic(self), directions(&connection).await?);
        let Some(accepted) = early else {
            stream.begin(&[request]).await?;
            return Ok((stream, None));
        };
        let joins = fitting(joins).await;
        let texts = joins.iter().map(|(_, text)| text.to_string());
        let first: Vec<String> = std::iter::once(request.clone()).chain(texts).collect();
        let (begun, is_accepted) = tokio::join!(stream.begin(&first), accepted);
        if let Some(reason) = connection.close_reason() {
            return Err(refused(reason));
        }
        if let Some(raw) = &dialer.raw {
            raw.remember(connection.remote_address());
        }
        if is_accepted {
            begun?;
            return Ok((stream, Some(joins.into_iter().map(|(path, _)| path).collect())));
        }
        // The server has seen nothing of it.
        stream.restart(directions(&connection).await?);
        stream.begin(&[request]).await?;
        Ok((stream, None))
    }

    /// Opens a second stream, on which the server sends large answers.
    pub(super) async fn open_bulk(&self) -> ClientResult<RecvStream> {
        let (mut sending, receiving) = self.connection.open_bi().await.map_err(refused)?;
        // The server learns of a stream by what comes on it: a packet that says nothing.
        sending.write_all(&[1, b'6']).await.map_err(|error| ClientError::connect(NAME, error))?;
        sending.finish().map_err(|error| ClientError::connect(NAME, error))?;
        Ok(receiving)
    }

    /// Moves the connection to another address of this device.
    pub(super) fn rebind(&self, socket: UdpSocket) -> io::Result<()> {
        self.endpoint.rebind(socket)
    }
}

async fn directions(connection: &Connection) -> ClientResult<Directions> {
    let (sending, receiving) = connection.open_bi().await.map_err(refused)?;
    let stopped = sending.stopped();
    let delivered = Box::pin(async move { drop(stopped.await) });
    Ok(Directions { sending: Box::new(sending), receiving: Box::new(receiving), delivered })
}

/// Returns the CONNECTs that go with the handshake: of those whose credentials are at hand, as many as fit.
async fn fitting(joins: Option<Joins>) -> Vec<(Path, Utf8Bytes)> {
    let Some(joins) = joins else { return Vec::new() };
    // Credentials that take as long as a handshake do not have to go with it.
    let joins = timeout(CREDENTIALS_TIME, joins).await.unwrap_or_default();
    let mut bytes = 0;
    let fits = |(_, text): &(Path, Utf8Bytes)| {
        bytes += text.len();
        bytes <= EARLY_BYTES_MAX
    };
    joins.into_iter().take_while(fits).collect()
}

impl fmt::Debug for Quic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Quic({})", self.connection.remote_address())
    }
}

impl Drop for Quic {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(NORMAL), b"");
    }
}

/// Returns the first packet, which is the request that other transports have in HTTP.
fn request(dialer: &Dialer) -> ClientResult<String> {
    let mut headers = Map::new();
    for (name, value) in &dialer.headers {
        let value = value.to_str().map_err(|error| ClientError::connect(NAME, error))?;
        // The server takes each name once, and HTTP reads several values as a list.
        let value = match headers.get(name.as_str()).and_then(Value::as_str) {
            Some(known) => format!("{known}, {value}"),
            None => value.to_owned(),
        };
        headers.insert(name.to_string(), value.into());
    }
    let url = dialer.address.target(NAME, None);
    Ok(format!("0{}", json!({ "url": url, "headers": headers })))
}

fn refused(error: ConnectionError) -> ClientError {
    let code = match &error {
        ConnectionError::TransportError(error) => Some(error.code),
        ConnectionError::ConnectionClosed(close) => Some(close.error_code),
        _ => None,
    };
    let tls = |cause| ClientError::Tls(Arc::new(cause));
    match code.map(u64::from) {
        Some(NO_PROTOCOL) => tls(Cause::new(
            "no_application_protocol: the server speaks none of the protocols that ALPN offered it",
        )),
        Some(0x100..0x200) => tls(Cause::new(error)),
        _ => ClientError::connect(NAME, error),
    }
}

/// Returns the address that stands for any port of this device, of the family of another address.
pub(super) fn any_port(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// The settings of QUIC.
#[derive(Debug, Clone)]
pub(crate) struct QuicConfig(pub(super) ClientConfig);

impl QuicConfig {
    /// Takes the settings of TLS.
    pub(crate) fn new(tls: rustls::ClientConfig) -> ClientResult<Self> {
        let crypto =
            QuicClientConfig::try_from(tls).map_err(|error| ClientError::Tls(Arc::new(Cause::new(error))))?;
        let mut transport = TransportConfig::default();
        transport
            // The heartbeat of Engine.IO says when the server is gone.
            .max_idle_timeout(None)
            .keep_alive_interval(Some(KEEP_ALIVE))
            .send_window(SEND_WINDOW_BYTES)
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
            .max_concurrent_bidi_streams(0u8.into())
            // HTTP/3 requires datagrams to be announced, but they are not used here.
            .datagram_receive_buffer_size(Some(DATAGRAM_BYTES))
            .datagram_send_buffer_size(DATAGRAM_BYTES);
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        Ok(Self(config))
    }
}

/// The time that credentials may take that leave together with the handshake.
const CREDENTIALS_TIME: Duration = Duration::from_millis(100);

/// The maximum number of bytes of the CONNECTs that leave together with the handshake. They fit into what QUIC sends
/// before it has heard anything.
const EARLY_BYTES_MAX: usize = 8 * 1024;

/// The alert `no_application_protocol` (RFC 7301 section 3.2) as an error of QUIC (RFC 9001 section 4.8).
const NO_PROTOCOL: u64 = 0x178;

/// The code of a close that nothing is wrong with.
const NORMAL: u32 = 1000;

/// The time between two signs of life, which keeps the way back through firewalls open. Many forget it after 30 seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The maximum number of bytes that QUIC takes before the server has acknowledged any of them.
const SEND_WINDOW_BYTES: u64 = 1024 * 1024;

/// The maximum number of bytes of one stream that are on their way to the client: half of what an imks server has on its
/// way on all streams, so that a second stream does not use it up.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;

/// The room for datagrams, which nobody sends.
const DATAGRAM_BYTES: usize = 16 * 1024;
