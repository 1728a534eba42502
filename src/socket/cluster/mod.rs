//! This node in the cluster: cluster messages, members, requests and responses.

mod ack_relay;
mod classic;
pub(crate) mod family;
mod link;
mod members;
pub(crate) mod message;
pub(crate) mod message_bus;
pub(crate) mod namespace_cluster;
mod recent;
pub(crate) mod requests;
mod responses;
