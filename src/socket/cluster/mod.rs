//! This node in the cluster: cluster messages, members, requests and responses.

pub(crate) mod family;
mod link;
mod members;
pub(crate) mod message;
pub(crate) mod message_bus;
mod recent;
pub(crate) mod requests;
mod responses;
