//! Socket.IO v5. Knows nothing of messages, users or databases.
//!
//! ```text
//! engine::Connection ──▶ server (one task) ──▶ client (pure) ──▶ events (handlers)
//!                            ▲                                        │
//!                            └── outboxes ◀── rooms ◀── message_bus ◀─┘
//! ```

pub mod msgpack;
pub mod packet;
pub mod parser;

#[cfg(feature = "server")]
pub mod adapter;
#[cfg(feature = "server")]
pub mod client;
#[cfg(feature = "server")]
mod dialect;
#[cfg(feature = "server")]
mod events;
#[cfg(feature = "server")]
mod message_bus;
#[cfg(feature = "server")]
mod namespace;
#[cfg(feature = "server")]
pub mod rate_limit;
#[cfg(feature = "server")]
mod rooms;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
#[allow(clippy::module_inception, reason = "the thing is called a socket")]
mod socket;
#[cfg(test)]
#[cfg(feature = "server")]
mod tests;

#[cfg(feature = "server")]
pub use self::{
    dialect::Parser,
    events::{Ack, Event},
    namespace::{
        Accept, Broadcast, ConnectError, ConnectPayload, NAMESPACE_CHARS_MAX, Namespace, NamespaceBuilder,
    },
    reason::DisconnectReason,
    server::{Config, Server, ServerBuilder},
    socket::{HELD_PACKETS_MAX, PENDING_ACKS_MAX, Socket, SocketId},
};

#[cfg(feature = "server")]
mod reason {
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
        /// As the reference spells it.
        pub fn as_str(self) -> &'static str {
            match self {
                Self::Engine(reason) => reason.as_str(),
                Self::ClientNamespace => "client namespace disconnect",
                Self::ServerNamespace => "server namespace disconnect",
            }
        }
    }
}
