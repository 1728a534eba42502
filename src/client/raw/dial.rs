//! The client end of a WebSocket without Socket.IO.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Uri, header};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::client_async_with_config;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::WebSocketConfig;

use super::connection::{Carrier, RawConnection};
use crate::client::address::Address;
use crate::client::error::{ClientError, ClientResult};
use crate::client::event::TransportKind;
use crate::client::tls::Tls;
use crate::client::transport::{Dialer, Io};

/// The settings of a WebSocket without Socket.IO.
#[derive(Debug, Default)]
#[must_use = "nothing happens before `dial`"]
pub struct RawClient {
    protocols: Vec<String>,
    tls: Tls,
    timeout: Option<Duration>,
    message_bytes_max: Option<usize>,
}

impl RawClient {
    /// Connects with the default settings.
    ///
    /// # Errors
    /// Those of [`RawClient::dial`].
    pub async fn connect(url: &str) -> ClientResult<RawConnection> {
        Self::new().dial(url).await
    }

    /// Creates the default settings: 5 seconds to connect, and messages of up to 16 MiB.
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers a subprotocol, after those that were offered before.
    pub fn protocol(mut self, name: &str) -> Self {
        self.protocols.push(name.to_owned());
        self
    }

    /// Sets which servers are trusted, and how the client proves itself.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Sets how long it may take to connect.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the size of the largest message that is taken. A larger one ends the connection.
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = Some(bytes);
        self
    }

    /// Connects to a `ws://`, `wss://`, `http://` or `https://` address.
    ///
    /// # Errors
    /// [`ClientError::Config`] for an address that cannot be read; [`ClientError::ConnectionFailed`], [`ClientError::Tls`] and
    /// [`ClientError::Timeout`] as for a [`Client`](crate::client::Client).
    pub async fn dial(self, url: &str) -> ClientResult<RawConnection> {
        let time = self.timeout.unwrap_or(CONNECT_TIMEOUT);
        let dialing = timeout(time, Box::pin(self.open(url)));
        dialing.await.unwrap_or(Err(ClientError::Timeout("a WebSocket")))
    }

    async fn open(self, url: &str) -> ClientResult<RawConnection> {
        let name = TransportKind::WebSocket.name();
        let failed = |error| ClientError::connect(name, error);
        let address = Address::parse(url)?;
        let uri: Uri =
            url.parse().map_err(|error: http::uri::InvalidUri| ClientError::connect(name, error))?;
        let scheme = if address.is_secure { "wss" } else { "ws" };
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let mut request =
            format!("{scheme}://{}{target}", address.authority).into_client_request().map_err(failed)?;
        if !self.protocols.is_empty() {
            let offered = HeaderValue::from_str(&self.protocols.join(", "));
            let offered =
                offered.map_err(|_| ClientError::Config("a subprotocol has an invalid name".into()))?;
            request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, offered);
        }
        let bytes_max = self.message_bytes_max.unwrap_or(MESSAGE_BYTES_MAX);
        let tls =
            address.is_secure.then(|| self.tls.verifier().and_then(|it| self.tls.tcp(it))).transpose()?;
        let dialer = Dialer {
            address,
            tls,
            #[cfg(feature = "client-quic")]
            quic: None,
            #[cfg(feature = "client-quic")]
            raw: None,
            headers: HeaderMap::new(),
            timeout: Duration::MAX,
            message_bytes_max: bytes_max,
            has_bulk: false,
            compresses: false,
            heard_at: Arc::new(Mutex::new(Instant::now())),
        };
        let io: Box<dyn Carrier> = Box::new(Io::connect(name, &dialer).await?);
        let config = limits(bytes_max);
        let (stream, answer) = client_async_with_config(request, io, Some(config)).await.map_err(failed)?;
        let protocol = answer.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
        let protocol = protocol.and_then(|name| name.to_str().ok()).map(str::to_owned);
        Ok(RawConnection::new(stream, protocol))
    }
}

/// Returns the settings for messages of a size.
pub(super) fn limits(bytes_max: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(bytes_max))
        .max_frame_size(Some(bytes_max))
}

/// How long it may take to connect by default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The size of the buffer that a WebSocket reads into, which a server has for each of its connections.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// The size of the largest message from a server by default.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
