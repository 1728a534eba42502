//! The HTTP layer: the listeners for clients (TCP, TLS, QUIC), and all routes beside Socket.IO.

pub mod certificate;
mod config;
mod connection;
pub mod listener;
#[doc(hidden)]
pub mod metrics;
mod refusal;
mod request_scanner;
mod socketio;
mod stream;
pub mod tls;
pub mod webtransport;

#[cfg(feature = "server")]
pub(crate) mod admin_ui;
#[cfg(feature = "server")]
pub(crate) mod api;
#[cfg(feature = "server")]
pub(crate) mod health;
#[cfg(feature = "server")]
mod routes;

pub use socketio::SocketIo;

#[cfg(feature = "server")]
pub(crate) use routes::{Audience, failure, router};
