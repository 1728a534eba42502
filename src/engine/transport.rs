//! What carries a session: the transport, and the version of the protocol.

use crate::telemetry::Label;

/// How a session is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Transport {
    /// HTTP long-polling.
    Polling = 0,
    /// WebSocket.
    WebSocket = 1,
    /// WebTransport over HTTP/3.
    WebTransport = 2,
}

impl Transport {
    /// Returns the name on the wire.
    pub fn name(self) -> &'static str {
        Label::name(&self)
    }

    pub(crate) fn from_repr(value: u8) -> Self {
        match value {
            0 => Self::Polling,
            1 => Self::WebSocket,
            _ => Self::WebTransport,
        }
    }
}

/// Version of Engine.IO that the client of a session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// `EIO=3`, as clients of Socket.IO v2.
    V3 {
        /// The client wants binary data as text.
        base64: bool,
    },
    /// `EIO=4`.
    #[default]
    V4,
}
