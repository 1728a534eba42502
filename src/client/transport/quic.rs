//! The settings of QUIC, from those of TLS.

use std::sync::Arc;
use std::time::Duration;

use wtransport::quinn::crypto::rustls::QuicClientConfig;
use wtransport::quinn::{self, TransportConfig};

use crate::client::error::{ClientError, ClientResult};
use crate::error::Cause;

/// The settings of QUIC.
#[derive(Debug, Clone)]
pub(crate) struct QuicConfig(pub(super) quinn::ClientConfig);

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
            .max_concurrent_bidi_streams(0u8.into())
            // HTTP/3 requires datagrams to be announced, but they are not used here.
            .datagram_receive_buffer_size(Some(DATAGRAM_BYTES))
            .datagram_send_buffer_size(DATAGRAM_BYTES);
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        Ok(Self(config))
    }
}

/// The time between two signs of life, which keeps the way back through firewalls open. Many forget it after 30 seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The maximum number of bytes that QUIC takes before the server has acknowledged any of them.
const SEND_WINDOW_BYTES: u64 = 1024 * 1024;

/// The room for datagrams, which nobody sends.
const DATAGRAM_BYTES: usize = 16 * 1024;
