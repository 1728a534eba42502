//! The settings of QUIC, from those of TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use wtransport::quinn::crypto::rustls::QuicClientConfig;
use wtransport::quinn::{ClientConfig, TransportConfig, VarInt};

use crate::client::error::{ClientError, ClientResult};
use crate::error::Cause;

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
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        Ok(Self(config))
    }
}

/// What is needed for QUIC without HTTP/3.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(super) config: QuicConfig,
    /// The UDP port of the server.
    pub(super) port: u16,
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
    pub(super) fn take_known(&self) -> Option<SocketAddr> {
        self.early.as_ref()?.lock().take()
    }

    pub(super) fn remember(&self, address: SocketAddr) {
        self.early.iter().for_each(|known| *known.lock() = Some(address));
    }
}

/// The time between two signs of life, which keeps the way back through firewalls open. Many forget it after 30 seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The maximum number of bytes that QUIC takes before the server has acknowledged any of them.
const SEND_WINDOW_BYTES: u64 = 1024 * 1024;

/// The maximum number of bytes of one stream that are on their way to the client: half of what an imks server has on its
/// way on all streams, so that a second stream does not use it up.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;

/// The room for datagrams, which nobody sends.
const DATAGRAM_BYTES: usize = 16 * 1024;
