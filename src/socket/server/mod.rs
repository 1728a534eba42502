//! A server and its connections.

pub(crate) mod builder;
pub(crate) mod client;
mod cluster;
mod connection;
pub(crate) mod dynamic;
mod open_connections;
#[allow(clippy::module_inception, reason = "the thing is called a server")]
pub(crate) mod server;

pub(crate) use self::cluster::WeakServer;
