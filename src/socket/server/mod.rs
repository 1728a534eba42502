//! The server and its connections.

mod backlog;
pub(crate) mod builder;
mod client;
mod cluster;
pub(crate) mod config;
mod connection;
pub(crate) mod dynamic;
pub(crate) mod instrument;
mod open_connections;
#[allow(clippy::module_inception, reason = "the thing is called a server")]
pub(crate) mod server;
