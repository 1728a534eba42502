//! Socket.IO v5. Knows nothing of messages, users or databases.
//!
//! ```text
//! engine::Connection ──▶ server (one task) ──▶ client (pure) ──▶ namespace (handlers)
//!                            ▲                                        │
//!                            └── outboxes ◀── rooms ◀── cluster ◀─────┘
//! ```

pub mod codec;

#[cfg(feature = "server")]
pub mod adapter;
#[cfg(feature = "server")]
pub mod admin;
#[cfg(feature = "server")]
mod cluster;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod metrics;
#[cfg(feature = "server")]
mod namespace;
#[cfg(feature = "server")]
mod reason;
#[cfg(feature = "server")]
mod recovery;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
mod socket_id;
#[cfg(test)]
#[cfg(feature = "server")]
mod tests;

pub use self::codec::binary::Binary;
pub use self::codec::{msgpack, packet, parser};
#[cfg(feature = "server")]
pub use self::{
    codec::dialect::Parser,
    namespace::ack_collector::{Answer, Answers},
    namespace::broadcast::Broadcast,
    namespace::builder::{NamespaceBuilder, RoomChange},
    namespace::connect::{Accept, ConnectError, ConnectPayload},
    namespace::events::{Ack, Event, EventError},
    namespace::namespace::{NAMESPACE_CHARS_MAX, Namespace},
    namespace::remote_socket::{FetchedSockets, RemoteHandshake, RemoteSocket},
    namespace::server_events::{ServerAnswers, ServerEvent},
    namespace::socket::{HELD_PACKETS_MAX, PENDING_ACKS_MAX, Socket},
    namespace::typed::{IntoAck, Reply},
    reason::DisconnectReason,
    recovery::session_store::{Recovery, RecoveryStatus},
    server::builder::{Config, ServerBuilder},
    server::dynamic::{DynamicNamespace, NamespaceMatch},
    server::server::Server,
    socket_id::{NodeId, SocketId},
};
#[cfg(feature = "server")]
pub use crate::rate_limit;
