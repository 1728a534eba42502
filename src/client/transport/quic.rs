//! QUIC without HTTP/3: a stream of packets directly on a connection.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tungstenite::Utf8Bytes;
use wtransport::quinn::{Connection, ConnectionError, Endpoint, RecvStream, VarInt, ZeroRttAccepted};

use super::io::{HEAD_START, addresses, any_port};
use super::quic_config::Raw;
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
        let mut stream = Stream::new(dialer, self, directions(&connection).await?);
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
}

impl Carrier for Quic {
    fn kind(&self) -> TransportKind {
        TransportKind::Quic
    }

    fn rebind(&self, socket: UdpSocket) -> io::Result<()> {
        self.endpoint.rebind(socket)
    }

    fn open_bulk(&self) -> BoxFuture<'_, ClientResult<Option<RecvStream>>> {
        Box::pin(async {
            let (mut sending, receiving) = self.connection.open_bi().await.map_err(refused)?;
            // The server learns of a stream by what comes on it: a packet that says nothing.
            let told = sending.write_all(&[1, b'6']).await;
            told.map_err(|error| ClientError::connect(NAME, error))?;
            sending.finish().map_err(|error| ClientError::connect(NAME, error))?;
            Ok(Some(receiving))
        })
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

/// The time that credentials may take that leave together with the handshake.
const CREDENTIALS_TIME: Duration = Duration::from_millis(100);

/// The maximum number of bytes of the CONNECTs that leave together with the handshake. They fit into what QUIC sends
/// before it has heard anything.
const EARLY_BYTES_MAX: usize = 8 * 1024;

/// The alert `no_application_protocol` (RFC 7301 section 3.2) as an error of QUIC (RFC 9001 section 4.8).
const NO_PROTOCOL: u64 = 0x178;

/// The code of a close that nothing is wrong with.
const NORMAL: u32 = 1000;
