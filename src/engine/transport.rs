//! The transport that carries a session, and the version of its protocol.

use crate::telemetry::Label;

/// The transport of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Transport {
    /// HTTP long-polling.
    Polling = 0,
    /// WebSocket.
    WebSocket = 1,
    /// WebTransport over HTTP/3.
    WebTransport = 2,
    /// QUIC without HTTP/3.
    Quic = 3,
}

impl Transport {
    /// Returns the name in the protocol.
    pub fn name(self) -> &'static str {
        Label::name(&self)
    }

    pub(crate) fn from_repr(value: u8) -> Self {
        match value {
            0 => Self::Polling,
            1 => Self::WebSocket,
            2 => Self::WebTransport,
            _ => Self::Quic,
        }
    }
}

/// The Engine.IO version that the client of a session uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// `EIO=3`, used by clients of Socket.IO v2.
    V3 {
        /// Whether the client wants binary data as text.
        base64: bool,
    },
    /// `EIO=4`.
    #[default]
    V4,
}
