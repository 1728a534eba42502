//! A namespace with its sockets, rooms and handlers, and the delivery of events to its clients.
//!
//! ```text
//! broadcast, emit, lifecycle, ack_request, builder, state, authenticator   the operations
//!                deliver, observers                  their effect on this node
//!            socket ⇄ namespace ⇄ handlers           the three that depend on each other
//!    rooms, delivery, connect, cluster_link, …       their parts
//! ```

pub(crate) mod ack_collector;
pub(crate) mod ack_request;
mod acks;
pub(crate) mod all_rooms;
pub(crate) mod authenticator;
pub(crate) mod broadcast;
pub(crate) mod builder;
pub(crate) mod cause;
pub(crate) mod cluster_link;
pub(crate) mod connect;
mod deliver;
pub(crate) mod delivery;
mod emit;
pub(crate) mod handlers;
pub(crate) mod lifecycle;
mod logged;
mod membership;
#[allow(clippy::module_inception, reason = "the thing is called a namespace")]
pub(crate) mod namespace;
pub(crate) mod observers;
mod offsets;
pub(crate) mod pending_acks;
pub(crate) mod phase;
pub(crate) mod pressure;
pub(crate) mod refusal;
pub(crate) mod remote_socket;
pub(crate) mod room_names;
mod rooms;
pub(crate) mod server_emit;
mod slot;
pub(crate) mod socket;
pub(crate) mod socket_info;
pub(crate) mod stamped;
pub(crate) mod state;
pub(crate) mod typed;
