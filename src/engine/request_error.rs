//! Why a request is refused, in the words and numbers of Engine.IO.

/// Engine.IO error, with its code on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    TransportUnknown,
    SessionUnknown,
    BadMethod,
    BadRequest,
    /// A WebSocket handshake that breaks a rule, with the words of the reference.
    BadHandshake(&'static str),
    /// With the words of the application.
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
