//! How a connection is closed, and why it ended.

use std::fmt;

use bytes::Bytes;

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
    /// All reasons, for tables.
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

    /// Returns the reference server's words.
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

    /// Returns the label in metrics and logs; tells apart what the reference does not.
    pub fn name(self) -> &'static str {
        Label::name(&self)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Why a WebSocket or a WebTransport stream can carry no more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WireEnd {
    /// The stream ended or failed: there is nobody to tell.
    Stream(CloseReason),
    /// The peer closed, with this content of its close frame.
    Peer(Bytes),
    /// The peer broke a rule.
    Violation {
        /// What the session is told.
        reason: CloseReason,
        /// What the peer is told.
        code: u16,
        /// Which rule, for the log.
        rule: &'static str,
    },
}

impl WireEnd {
    /// Returns what the session is told.
    pub(crate) fn reason(&self) -> CloseReason {
        match self {
            Self::Stream(reason) | Self::Violation { reason, .. } => *reason,
            Self::Peer(_) => CloseReason::TransportClose,
        }
    }

    /// Returns the content of the close frame that answers the peer; `None` when there is nobody to answer.
    pub(crate) fn reply(&self) -> Option<Box<[u8]>> {
        match self {
            Self::Stream(_) => None,
            Self::Peer(content) => Some(content[..].into()),
            Self::Violation { code, .. } => Some(Box::new(code.to_be_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_of_the_peer_is_repeated_and_a_violation_has_its_code() {
        let closed = WireEnd::Peer(Bytes::from_static(b"\x03\xe8bye"));
        assert_eq!(closed.reply().as_deref(), Some(&b"\x03\xe8bye"[..]));
        let violation = WireEnd::Violation { reason: CloseReason::TooLarge, code: 1009, rule: "large" };
        assert_eq!(violation.reply().as_deref(), Some(&1009_u16.to_be_bytes()[..]));
        assert_eq!(WireEnd::Stream(CloseReason::TransportError).reply(), None);
    }
}
