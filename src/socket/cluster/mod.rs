//! This node among the others: what they are told, and what they are asked.

pub(crate) mod family;
mod members;
pub(crate) mod message;
pub(crate) mod message_bus;
pub(crate) mod requests;
mod responses;
