//! The HTTP layer: the listeners for clients (TCP, TLS, QUIC), and all routes beside Socket.IO.

mod admission;
pub mod certificate;
mod client_address;
mod config;
mod connection;
mod crowding;
pub(crate) mod front;
mod layer;
pub mod listener;
#[doc(hidden)]
pub mod metrics;
pub mod mutual_tls;
mod proxy_protocol;
pub mod quic;
mod refusal;
mod request_rules;
mod request_scanner;
mod serving;
mod socketio;
mod stream;
pub mod tls;
pub mod webtransport;

pub use client_address::Network;
pub use layer::WithSocketIo;
pub use serving::Serving;
pub use socketio::{Bound, SocketIo, SocketIoBuilder};

cfg_if::cfg_if! {
    if #[cfg(feature = "server")] {
        pub(crate) mod admin_ui;
        pub(crate) mod api;
        pub(crate) mod control;
        pub(crate) mod cors;
        pub(crate) mod directory;
        pub(crate) mod documents;
        pub(crate) mod files;
        pub(crate) mod forward;
        pub(crate) mod health;
        pub(crate) mod incoming;
        pub(crate) mod internal;
        mod routes;

        pub(crate) use api::is_loopback;
        pub(crate) use routes::{Audience, failure, method_not_allowed, router};
    }
}
