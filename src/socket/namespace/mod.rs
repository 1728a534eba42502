//! A namespace and what is in it: sockets, rooms, handlers, and how events reach clients.

pub(crate) mod ack_collector;
pub(crate) mod broadcast;
pub(crate) mod builder;
pub(crate) mod connect;
pub(crate) mod data;
pub(crate) mod delivery;
pub(crate) mod events;
pub(crate) mod listeners;
#[allow(clippy::module_inception, reason = "the thing is called a namespace")]
pub(crate) mod namespace;
pub(crate) mod remote_socket;
pub(crate) mod rooms;
pub(crate) mod server_events;
pub(crate) mod socket;
pub(crate) mod typed;
