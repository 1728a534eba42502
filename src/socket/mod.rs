//! Socket.IO v5. Knows nothing of messages, users or databases.
//!
//! ```text
//! engine::Connection ──▶ server (one task) ──▶ client (pure) ──▶ events (handlers)
//!                            ▲                                        │
//!                            └── outboxes ◀── rooms ◀── message_bus ◀─┘
//! ```

mod arguments;
mod binary;
pub mod msgpack;
pub mod packet;
pub mod parser;

#[cfg(feature = "server")]
pub mod adapter;
#[cfg(feature = "server")]
pub mod admin;
#[cfg(feature = "server")]
mod answers;
#[cfg(test)]
#[cfg(feature = "server")]
mod api_tests;
#[cfg(feature = "server")]
mod broadcast;
#[cfg(feature = "server")]
pub mod client;
#[cfg(feature = "server")]
mod cluster;
#[cfg(feature = "server")]
mod cluster_calls;
#[cfg(test)]
#[cfg(feature = "server")]
mod cluster_tests;
#[cfg(feature = "server")]
mod cluster_wire;
#[cfg(feature = "server")]
mod connect;
#[cfg(feature = "server")]
mod dialect;
#[cfg(feature = "server")]
mod dynamic;
#[cfg(feature = "server")]
mod events;
#[cfg(test)]
#[cfg(feature = "server")]
mod fuzz_corpus;
#[cfg(feature = "server")]
mod listeners;
#[cfg(feature = "server")]
mod members;
#[cfg(feature = "server")]
mod message_bus;
#[cfg(feature = "server")]
mod namespace;
#[cfg(feature = "server")]
mod namespace_builder;
#[cfg(feature = "server")]
mod open_connections;
#[cfg(feature = "server")]
mod pouch;
#[cfg(feature = "server")]
mod questions;
#[cfg(feature = "server")]
pub mod rate_limit;
#[cfg(feature = "server")]
mod recovery;
#[cfg(test)]
#[cfg(feature = "server")]
mod recovery_tests;
#[cfg(feature = "server")]
mod remote_socket;
#[cfg(feature = "server")]
mod rooms;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
mod server_builder;
#[cfg(feature = "server")]
mod server_events;
#[cfg(feature = "server")]
mod session_store;
#[cfg(feature = "server")]
#[allow(clippy::module_inception, reason = "the thing is called a socket")]
mod socket;
#[cfg(feature = "server")]
mod socket_id;
#[cfg(test)]
#[cfg(feature = "server")]
mod tests;
#[cfg(feature = "server")]
mod typed;
#[cfg(test)]
#[cfg(feature = "server")]
mod typed_tests;
#[cfg(feature = "server")]
mod unstamped;

pub use self::binary::Binary;
#[cfg(feature = "server")]
pub use self::{
    answers::{Answer, Answers},
    broadcast::Broadcast,
    connect::{Accept, ConnectError, ConnectPayload},
    dialect::Parser,
    dynamic::{DynamicNamespace, NamespaceMatch},
    events::{Ack, Event, EventError},
    namespace::{NAMESPACE_CHARS_MAX, Namespace},
    namespace_builder::{NamespaceBuilder, RoomChange},
    reason::DisconnectReason,
    remote_socket::{FetchedSockets, RemoteHandshake, RemoteSocket},
    server::Server,
    server_builder::{Config, ServerBuilder},
    server_events::{ServerAnswers, ServerEvent},
    session_store::{Recovery, RecoveryStatus},
    socket::{HELD_PACKETS_MAX, PENDING_ACKS_MAX, Socket},
    socket_id::{NodeId, SocketId},
    typed::{IntoAck, Reply},
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
