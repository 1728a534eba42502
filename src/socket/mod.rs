//! A Socket.IO v5 server. It knows nothing of messages, users or databases.
//!
//! ```text
//! engine::Connection ──▶ server (one task) ──▶ client (pure) ──▶ namespace (handlers)
//!                            ▲                                        │
//!                            └── outboxes ◀── rooms ◀── cluster ◀─────┘
//! ```
//!
//! The modules depend on each other in this order: codec, recovery, namespace, cluster, server, admin.

pub mod codec;

pub use self::codec::binary::Binary;
pub use self::codec::{msgpack, packet, parser};

cfg_if::cfg_if! {
    if #[cfg(feature = "socketio")] {
        pub mod adapter;
        mod cluster;
        mod data;
        #[doc(hidden)]
        pub mod metrics;
        mod namespace;
        mod reason;
        mod recovery;
        mod server;
        mod socket_id;

        pub use self::{
            codec::dialect::Parser,
            namespace::ack_collector::{Answer, Answers},
            namespace::all_rooms::AllRooms,
            namespace::authenticator::{Authenticator, AuthenticatorLimits, Credentials, StaticTokens},
            namespace::broadcast::Broadcast,
            namespace::builder::NamespaceBuilder,
            namespace::connect::{Accept, ConnectPayload},
            namespace::handlers::{Ack, Event, RoomChange, ServerEvent},
            namespace::namespace::{NAMESPACE_CHARS_MAX, Namespace},
            namespace::pending_acks::PENDING_ACKS_MAX,
            namespace::phase::BUFFERED_PACKETS_MAX,
            namespace::refusal::{ConnectError, EventError},
            namespace::remote_socket::{FetchedSockets, RemoteSocket},
            namespace::room_names::{RoomName, RoomNames},
            namespace::server_emit::ServerAnswers,
            namespace::socket::Socket,
            namespace::socket_info::RemoteHandshake,
            namespace::state::WithState,
            namespace::typed::{IntoAck, Reply},
            reason::DisconnectReason,
            recovery::config::{Recovery, RecoveryStatus},
            recovery::log as recovery_log,
            server::builder::ServerBuilder,
            server::config::Config,
            server::dynamic::{DynamicNamespace, NamespaceMatch},
            server::server::Server,
            socket_id::SocketId,
        };
        pub use crate::engine::{Lane, WhenFull};
        pub use crate::node::NodeId;
        pub use crate::rate_limit;
        pub(crate) use self::namespace::authenticator::{bearer, token_in_header};
        #[cfg(feature = "server")]
        pub(crate) use self::namespace::stamped;
    }
}

cfg_if::cfg_if! {
    if #[cfg(feature = "admin")] {
        pub mod admin;
        #[cfg(test)]
        mod tests;
    }
}
