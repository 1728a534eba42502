//! imks: a Socket.IO compatible messaging server, and the wire library it is built on.
//!
//! Three stacks that do not know each other, joined in one place: the wire ([`engine`], [`socket`]),
//! the data (`models`) and the identity (`pb`, `auth`). Only `messaging` sees all three; `app` wires them.
//! `docs/architecture.md` says where everything is.

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

pub use error::{ImksError, ImksResult};
