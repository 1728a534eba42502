//! Why a socket left its namespace.

use crate::engine::CloseReason;

/// Why a socket left, in the reference's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The connection ended.
    Engine(CloseReason),
    /// The client left the namespace.
    ClientNamespace,
    /// The server made it leave.
    ServerNamespace,
}

impl DisconnectReason {
    /// The words of the reference.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Engine(reason) => reason.as_str(),
            Self::ClientNamespace => "client namespace disconnect",
            Self::ServerNamespace => "server namespace disconnect",
        }
    }

    /// Whether the client may come back to its session: it may unless somebody wanted it to end.
    pub fn is_recoverable(self) -> bool {
        !matches!(self, Self::Engine(CloseReason::ParseError) | Self::ClientNamespace | Self::ServerNamespace)
    }
}
