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

#[cfg(feature = "wire")]
pub mod engine;
pub mod error;
#[cfg(feature = "socketio")]
pub mod http;
#[cfg(feature = "socketio")]
pub mod rate_limit;
#[cfg(feature = "wire")]
pub mod socket;

// The inside of the program `imks`: private, so that the compiler finds what nobody uses. Integration tests and
// benchmarks reach it through the feature `testing`.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod app;
#[cfg(all(feature = "server", not(feature = "testing")))]
mod app;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod auth;
#[cfg(all(feature = "server", not(feature = "testing")))]
mod auth;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod cli;
#[cfg(all(feature = "server", not(feature = "testing")))]
mod cli;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod clock;
#[cfg(not(feature = "testing"))]
mod clock;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod config;
#[cfg(all(feature = "server", not(feature = "testing")))]
mod config;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod directory;
#[cfg(all(feature = "server", not(feature = "testing")))]
mod directory;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod messaging;
#[cfg(all(feature = "server", not(feature = "testing")))]
mod messaging;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod models;
#[cfg(all(feature = "server", not(feature = "testing")))]
mod models;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod pb;
#[cfg(all(feature = "server", not(feature = "testing")))]
mod pb;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod telemetry;
#[cfg(all(feature = "socketio", not(feature = "testing")))]
mod telemetry;

// The checks of the fuzz targets, which tests run too, speak of this crate by its name.
#[cfg(test)]
extern crate self as imks;

#[cfg(feature = "server")]
#[doc(hidden)]
pub use cli::main as run_command_line;
pub use error::{ImksError, ImksResult};
