//! The errors that refuse an Engine.IO request, with their codes and texts in the protocol.

/// An Engine.IO error with its code on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    TransportUnknown,
    SessionUnknown,
    BadMethod,
    BadRequest,
    /// A WebSocket handshake that violates the protocol, with the text of the reference server.
    BadHandshake(&'static str),
    /// A refusal by the application, with its text.
    Forbidden(String),
    BadProtocol,
}

impl RequestError {
    pub(crate) fn code(&self) -> usize {
        match self {
            Self::TransportUnknown => 0,
            Self::SessionUnknown => 1,
            Self::BadMethod => 2,
            Self::BadRequest | Self::BadHandshake(_) => 3,
            Self::Forbidden(_) => 4,
            Self::BadProtocol => 5,
        }
    }

    pub(crate) fn message(&self) -> &str {
        match self {
            Self::TransportUnknown => "Transport unknown",
            Self::SessionUnknown => "Session ID unknown",
            Self::BadMethod => "Bad handshake method",
            Self::BadRequest => "Bad request",
            Self::BadHandshake(text) => text,
            Self::Forbidden(text) if text.is_empty() => "Forbidden",
            Self::Forbidden(text) => text,
            Self::BadProtocol => "Unsupported protocol version",
        }
    }
}
