//! The reasons for which a socket leaves its namespace.

use crate::engine::CloseReason;

/// The reason a socket left its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The connection ended.
    Engine(CloseReason),
    /// The client left the namespace.
    ClientNamespace,
    /// The server disconnected the socket.
    ServerNamespace,
}

impl DisconnectReason {
    /// Returns the text that the reference implementation uses for this reason.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Engine(reason) => reason.as_str(),
            Self::ClientNamespace => "client namespace disconnect",
            Self::ServerNamespace => "server namespace disconnect",
        }
    }

    /// Whether the client may recover its session. It may not if the client or the server ended it on
    /// purpose, or if the client sent a malformed packet.
    pub fn is_recoverable(self) -> bool {
        !matches!(self, Self::Engine(CloseReason::ParseError) | Self::ClientNamespace | Self::ServerNamespace)
    }
}
