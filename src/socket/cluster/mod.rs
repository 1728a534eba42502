//! This node among the others: what they are told, and what they are asked.

pub(crate) mod members;
pub(crate) mod message_bus;
pub(crate) mod node;
pub(crate) mod requests;
pub(crate) mod responses;
pub(crate) mod wire;
