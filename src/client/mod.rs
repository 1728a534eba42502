//! A Socket.IO client, for imks and every other server of Socket.IO v5 (the packages 3 and 4 of npm).
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use imks::client::{Client, ClientResult};
//!
//! # async fn fetch_token() -> Result<String, std::io::Error> { Ok(String::new()) }
//! # async fn run() -> ClientResult<()> {
//! let client = Client::builder("https://chat.example")
//!     .auth_token_provider(|| async { Ok(fetch_token().await?) })
//!     .connect()
//!     .await?;
//! let socket = client.socket("/")?;
//! socket.on("said", |(from, text): (String, String)| async move { println!("{from}: {text}") });
//! socket.connect().await?;
//!
//! socket.emit_args("say", &("lobby", "hello")).await?;
//! let sum: i64 = socket.ask("add", &(1, 2)).timeout(Duration::from_secs(5)).await?;
//! # assert_eq!(sum, 3);
//! client.close().await;
//! # Ok(()) }
//! ```
//!
//! # At most once, or until it is acknowledged
//!
//! | | arrives | when the connection is lost |
//! | --- | --- | --- |
//! | [`Socket::emit_volatile`] | at most once | it is dropped |
//! | [`Socket::emit`] | at most once | what was on its way is lost, what was not waits |
//! | [`Socket::emit_with_ack`], [`Socket::ask`] | at most once | the caller learns that nobody knows: [`ClientError::ConnectionClosed`] |
//! | [`Socket::send`] | at least once, with a [`nonce`] once; in its order | it is sent again; with a [`FileStore`] also by the next process |
//!
//! # Events from the server
//!
//! Handlers ([`Socket::on`], [`Socket::on_question`]) and streams ([`Socket::stream`]) take any type that `serde` can
//! read. Binary values are [`Binary`], and share the bytes that were received. Register handlers before
//! [`Socket::connect`], so that none comes too early for them.
//!
//! After a loss of the connection the client comes back by itself ([`Reconnect`]), asks for credentials anew, and
//! joins its namespaces. A server with connection state recovery then sends what was missed: [`ClientEvent::Joined`]
//! says whether it did. [`Client::events`] tells what happens to the connection, [`Client::stats`] how it does.
//!
//! # Inside
//!
//! `core` is the client as a state machine, without I/O and with time as an argument; `driver` is its one task;
//! `transport` carries packets. docs/client.md is the guide.

mod address;
mod auth;
mod batcher;
mod budget;
mod builder;
pub mod chat;
mod core;
mod driver;
mod error;
mod event;
mod handle;
mod handlers;
mod measuring;
mod messages;
mod payload;
mod pool;
pub mod pubsub;
mod racing;
pub mod raw;
mod reconnect;
mod retry;
mod shared;
mod socket;
mod stats;
mod store;
mod tls;
mod transport;

#[cfg(feature = "tools")]
pub(crate) use self::address::Address;
pub use self::auth::ProviderError;
pub use self::batcher::{Batcher, Batching};
pub use self::budget::{Overflow, Used};
pub use self::builder::ClientBuilder;
pub(crate) use self::builder::random;
pub use self::error::{ClientError, ClientResult, DisconnectReason, Refusal};
pub use self::event::{ClientEvent, Status, TransportKind};
pub use self::handle::{Client, Events, nonce};
pub use self::handlers::{Event, EventStream, HandlerId};
pub use self::messages::SendResult;
pub use self::payload::{PayloadCodec, PayloadError};
pub use self::pool::{Balance, ClientPool};
pub use self::racing::{ProtocolMetrics, Racing};
pub use self::reconnect::Reconnect;
pub use self::retry::Retry;
#[cfg(feature = "tools")]
pub(crate) use self::socket::RESERVED;
pub use self::socket::{Delivery, Question, Socket};
pub use self::stats::{Rtt, Stats, TransportStats};
pub use self::store::{Entry, FileStore, MemoryStore, Store};
pub use self::tls::Tls;
pub use self::transport::Transports;
pub use crate::socket::Binary;
pub use crate::socket::codec::outgoing::EncodedArgs;
pub use crate::socket::packet::Args;
pub use crate::socket::parser::{Arguments, One, RawArgs};
