//! imks: a Socket.IO compatible messaging server, and the wire library it is built on.
//!
//! The crate has three stacks that do not depend on each other: the wire ([`engine`], [`socket`]), the data
//! (`models`) and the identity (`pb`, `auth`). Only `messaging` uses all three; `app` connects them.
//! `docs/architecture.md` describes where everything is.
//!
//! The wire alone is a Socket.IO server library:
//!
//! ```
//! use imks::socket::{Reply, Server, Socket};
//!
//! # async fn shutdown() {}
//! # async fn run() -> imks::ImksResult<()> {
//! let server = Server::builder(Default::default()).namespace("/", |ns| {
//!     ns.on_typed("join", |socket: Socket, room: String| async move { socket.join(&room) });
//!     ns.on_typed("add", |_: Socket, (a, b): (i64, i64)| async move { Reply(a + b) });
//!     ns.on_typed("say", |socket: Socket, (room, text): (String, String)| async move {
//!         socket.to(&room).emit("said", &text)
//!     });
//! });
//! server.listen(([127, 0, 0, 1], 3000))?.until(shutdown()).await;
//! # Ok(()) }
//! ```
//!
//! With a certificate it also serves HTTPS, secure WebSockets and, over QUIC, WebTransport:
//! [`http::SocketIo::builder`]. It is also a tower layer and a tower service, for applications that serve HTTP
//! themselves. docs/embedding.md has all ways with their code.
//!
//! Events reach clients from anywhere: sending never waits, so it is a plain function
//! ([`socket::Namespace::emit_to_room`]).
//!
//! ```
//! # fn run(server: &imks::socket::Server) -> imks::ImksResult<()> {
//! let Some(namespace) = server.namespace("/") else { return Ok(()) };
//! namespace.emit_to_room("news", "published", &("title", 7))
//! # }
//! ```
//!
//! The other end is `client`, a client of any Socket.IO server, which compiles without the rest:
//!
//! ```no_run
//! # #[cfg(feature = "client")]
//! # async fn run() -> imks::client::ClientResult<()> {
//! let client = imks::client::Client::builder("http://127.0.0.1:3000").connect().await?;
//! let sum: i64 = client.namespace("/").await?.ask("add", &(1, 2)).await?;
//! # Ok(()) }
//! ```
//!
//! | feature | what it builds |
//! | --- | --- |
//! | `wire` | packets and codecs of Engine.IO and Socket.IO, without a network |
//! | `client` | the client library, on `wire` |
//! | `socketio` | a Socket.IO server: [`engine`], [`socket`] and the listeners of [`http`] |
//! | `admin` | `socketio`, and the stock Admin UI may connect |
//! | `server` | the messaging server `imks`, on `socketio`; its public interface is its command line, [`extension`] and [`authenticators`] |
//! | `tools` | `imks prove`, `bench` and `demo`, on `server` and `client` |
//! | `full` | `server`, `client` and `tools`: the default |
//!
//! The directory `examples/` contains a chat and its Rust client, an outbox, acknowledgements, middleware, binary
//! payloads, dynamic namespaces, WebTransport with a certificate of one's own, an axum application with Socket.IO, an
//! echo server and its client over TLS, and a server that takes commands as text.

#![cfg_attr(
    not(feature = "server"),
    allow(
        dead_code,
        unused_imports,
        reason = "the modules below have more in them than a part of the crate uses"
    )
)]

mod clock;
pub mod error;
mod shown;

pub use error::{ImksError, ImksResult};

cfg_if::cfg_if! {
    if #[cfg(feature = "wire")] {
        pub mod engine;
        pub mod socket;
    }
}

cfg_if::cfg_if! {
    if #[cfg(feature = "client")] {
        pub mod client;
    }
}

cfg_if::cfg_if! {
    if #[cfg(feature = "socketio")] {
        mod background;
        pub mod bus;
        mod envelope;
        pub mod http;
        pub mod node;
        pub mod rate_limit;
        mod telemetry;
    }
}

cfg_if::cfg_if! {
    if #[cfg(feature = "server")] {
        mod app;
        mod application;
        mod auth;
        mod cli;
        mod config;
        mod contract;
        mod control;
        mod directory;
        mod files;
        mod http_client;
        mod messaging;
        mod models;
        mod page_fetcher;
        mod pb;
        mod secret;
        mod webhook;

        /// The complete server with events of your own: `imks`, and what you add to it (docs/events.md).
        ///
        /// ```no_run
        /// use imks::ImksResult;
        /// use imks::extension::{Answer, AppEvent, EventHandler, run_command_line_with};
        ///
        /// struct Greeter;
        ///
        /// impl EventHandler for Greeter {
        ///     async fn handle(&self, event: AppEvent) -> ImksResult<Answer> {
        ///         match event.name.as_str() {
        ///             "app:greet" => Answer::new(&format!("hello {}", event.username)),
        ///             _ => Err(imks::ImksError::UnknownEvent),
        ///         }
        ///     }
        /// }
        ///
        /// fn main() -> std::process::ExitCode {
        ///     run_command_line_with(Greeter)
        /// }
        /// ```
        pub mod extension {
            pub use crate::application::{Answer, AppEvent, EventHandler};
            pub use crate::cli::run_command_line_with;
        }
        pub use app::authenticators;
        /// Logs that nodes share, so that a client which comes back to another node continues its session
        /// ([`ServerBuilder::recovery_log`](crate::socket::ServerBuilder::recovery_log)).
        pub mod recovery_log {
            pub use crate::models::recovery_log::postgres;
            pub use crate::socket::adapter::nats_log::open as nats;
            pub use crate::socket::adapter::redis_log::open as redis;
        }
        #[doc(hidden)]
        pub use cli::main as run_command_line;
    }
}

/// The internals of the server, for its own integration tests and benchmarks. They are private otherwise, so
/// that the compiler reports unused code.
#[cfg(feature = "testing")]
#[doc(hidden)]
#[allow(missing_docs, reason = "documented where they are")]
pub mod testing {
    pub mod app {
        pub use crate::app::*;
    }
    pub mod application {
        pub use crate::application::*;
    }
    pub mod auth {
        pub use crate::auth::*;
    }
    pub mod cli {
        pub use crate::cli::*;
    }
    pub mod clock {
        pub use crate::clock::*;
    }
    pub mod config {
        pub use crate::config::*;
    }
    pub mod control {
        pub use crate::control::*;
    }
    pub mod directory {
        pub use crate::directory::*;
    }
    pub mod files {
        pub use crate::files::*;
    }
    pub mod forward {
        pub use crate::http::forward::*;
    }
    pub mod messaging {
        pub use crate::messaging::*;
    }
    pub mod models {
        pub use crate::models::*;
    }
    pub mod page_fetcher {
        pub use crate::page_fetcher::*;
    }
    pub mod pb {
        pub use crate::pb::*;
    }
    pub mod telemetry {
        pub use crate::telemetry::*;
    }
}

/// The documents whose code is compiled as a test of this crate.
#[cfg(all(doctest, feature = "server", feature = "client"))]
mod documents {
    #[doc = include_str!("../docs/embedding.md")]
    struct Embedding;
    #[doc = include_str!("../docs/from-node.md")]
    struct FromNode;
    #[doc = include_str!("../docs/from-socketioxide.md")]
    struct FromSocketioxide;
    #[doc = include_str!("../docs/quickstart.md")]
    struct Quickstart;
}

// The checks of the fuzz targets also run as tests, and refer to this crate by its name.
#[cfg(test)]
extern crate self as imks;
