//! The ways to close a connection, and the reasons why a connection ended.

use std::fmt;

use bytes::Bytes;

use crate::telemetry::Label;

/// How the holder closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Closes after queued packets are sent. `CloseReason::ForcedClose`, WebSocket code 1000.
    Graceful,
    /// Closes after queued packets are sent, because the server stops. `CloseReason::ServerShutdown`,
    /// WebSocket code 1001.
    Shutdown,
    /// Closes at once and drops queued packets. `CloseReason::ForcedClose`.
    Now,
}

/// The reason why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The wire failed, or the peer violated the protocol of the transport.
    TransportError,
    /// The peer closed the connection.
    TransportClose,
    /// The server closed this connection.
    ForcedClose,
    /// The pong did not arrive in time.
    PingTimeout,
    /// The peer sent data that is not an Engine.IO packet.
    ParseError,
    /// The server is stopping.
    ServerShutdown,
    /// The peer reads too slowly: its queue was full.
    Slow,
    /// The peer sent a message larger than `max_payload` on a WebSocket.
    TooLarge,
}

impl CloseReason {
    /// All reasons.
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

    /// Returns the text that the reference server uses.
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

    /// Returns the label for metrics and logs, which is unique, unlike the reference server's text.
    pub fn name(self) -> &'static str {
        Label::name(&self)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The reason why a WebSocket or WebTransport stream can carry no more packets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WireEnd {
    /// The stream ended or failed; the peer cannot be notified.
    Stream(CloseReason),
    /// The peer closed the stream, with this content of its close frame.
    Peer(Bytes),
    /// The peer violated the protocol.
    Violation {
        /// The reason reported to the session.
        reason: CloseReason,
        /// The close code sent to the peer.
        code: u16,
        /// The violated rule, for the log.
        rule: &'static str,
    },
}

impl WireEnd {
    /// Returns the reason reported to the session.
    pub(crate) fn reason(&self) -> CloseReason {
        match self {
            Self::Stream(reason) | Self::Violation { reason, .. } => *reason,
            Self::Peer(_) => CloseReason::TransportClose,
        }
    }

    /// Returns the content of the close frame to answer with, or `None` if the peer cannot be answered.
    pub(crate) fn reply(&self) -> Option<Box<[u8]>> {
        match self {
            Self::Stream(_) => None,
            Self::Peer(content) => Some(content[..].into()),
            Self::Violation { code, rule, .. } => Some(close_content(*code, rule)),
        }
    }
}

/// Returns the content of a close frame: a code, and a text for people (RFC 6455 section 5.5.1). What does not fit of the
/// text is left out.
pub(crate) fn close_content(code: u16, text: &str) -> Box<[u8]> {
    let text = &text[..text.floor_char_boundary(CLOSE_TEXT_BYTES_MAX)];
    [&code.to_be_bytes(), text.as_bytes()].concat().into()
}

/// The most bytes of the text of a close frame: a control frame has at most 125 bytes (RFC 6455 section 5.5).
const CLOSE_TEXT_BYTES_MAX: usize = 123;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_of_the_peer_is_repeated_and_a_violation_has_its_code() {
        let closed = WireEnd::Peer(Bytes::from_static(b"\x03\xe8bye"));
        assert_eq!(closed.reply().as_deref(), Some(&b"\x03\xe8bye"[..]));
        let violation = WireEnd::Violation { reason: CloseReason::TooLarge, code: 1009, rule: "large" };
        assert_eq!(violation.reply().as_deref(), Some(&b"\x03\xf1large"[..]));
        assert_eq!(WireEnd::Stream(CloseReason::TransportError).reply(), None);
    }

    #[test]
    fn a_close_frame_has_no_more_text_than_fits() {
        assert_eq!(close_content(1000, &"é".repeat(99)).len(), 2 + 122);
        assert_eq!(&*close_content(1000, ""), 1000_u16.to_be_bytes());
    }
}
