//! imks: a Socket.IO compatible messaging server, and the wire library it is built on.
//!
//! Three stacks that do not know each other, joined in one place: the wire ([`engine`], [`socket`]),
//! the data (`models`) and the identity (`pb`, `auth`). Only `messaging` sees all three; `app` wires them.
//! `docs/architecture.md` says where everything is.
//!
//! The wire alone is a Socket.IO server library:
//!
//! ```
//! use imks::engine::Engine;
//! use imks::http::listener;
//! use imks::socket::{Reply, Server, Socket, adapter::local::LocalAdapter};
//!
//! # async fn run() -> imks::ImksResult<()> {
//! let server = Server::builder(Default::default(), LocalAdapter)
//!     .namespace("/", |ns| {
//!         ns.on_typed("add", |_: Socket, (a, b): (i64, i64)| async move { Reply(a + b) });
//!         ns.on_typed("say", |socket: Socket, (room, text): (String, String)| async move {
//!             socket.to(&room).emit("said", &text)
//!         });
//!     })
//!     .build()?;
//! let engine = Engine::new(Default::default())?;
//! let listener = listener::bind(([127, 0, 0, 1], 3000).into())?;
//! tokio::join!(server.serve(engine.clone()), listener::serve_engine(listener, engine));
//! # Ok(()) }
//! ```
//!
//! The directory `examples/` has a chat, acknowledgements, middleware, binary payloads, namespaces on demand, and an
//! axum application with Socket.IO in it.

#[cfg(feature = "server")]
pub mod app;
#[cfg(feature = "server")]
pub mod auth;
#[cfg(feature = "server")]
pub mod cli;
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod directory;
pub mod engine;
pub mod error;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod messaging;
#[cfg(feature = "server")]
pub mod models;
#[cfg(feature = "server")]
pub mod pb;
pub mod socket;
#[cfg(feature = "server")]
pub mod telemetry;

// The checks of the fuzz targets, which tests run too, speak of this crate by its name.
#[cfg(test)]
extern crate self as imks;

pub use error::{ImksError, ImksResult};
