//! How a connection is closed, and why it ended.

use std::fmt;

use crate::telemetry::Label;

/// How a holder closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// After what is queued. `CloseReason::ForcedClose`, WebSocket code 1000.
    Graceful,
    /// After what is queued, because the server stops. `CloseReason::ServerShutdown`, WebSocket code 1001.
    Shutdown,
    /// At once; what is queued is lost. `CloseReason::ForcedClose`.
    Now,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The wire failed, or the peer broke the rules of the transport.
    TransportError,
    /// The peer closed.
    TransportClose,
    /// The server closed this connection.
    ForcedClose,
    /// No pong in time.
    PingTimeout,
    /// Something that cannot be an Engine.IO packet arrived.
    ParseError,
    /// The server stops.
    ServerShutdown,
    /// The peer reads too slowly: its queue was full.
    Slow,
    /// A message above `max_payload`, on a WebSocket.
    TooLarge,
}

impl CloseReason {
    /// All of them, for tables.
    pub const ALL: [Self; <Self as Label>::NAMES.len()] = [
        Self::TransportError,
        Self::TransportClose,
        Self::ForcedClose,
        Self::PingTimeout,
        Self::ParseError,
        Self::ServerShutdown,
        Self::Slow,
        Self::TooLarge,
    ];

    /// The reference server's words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TransportError | Self::Slow | Self::TooLarge => "transport error",
            Self::TransportClose => "transport close",
            Self::ForcedClose => "forced close",
            Self::PingTimeout => "ping timeout",
            Self::ParseError => "parse error",
            Self::ServerShutdown => "server shutting down",
        }
    }

    /// Label in metrics and logs; tells apart what the reference does not.
    pub fn name(self) -> &'static str {
        Label::name(&self)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
