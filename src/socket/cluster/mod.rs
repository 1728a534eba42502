//! This node among the others: what they are told, and what they are asked.

pub(crate) mod family;
mod link;
mod members;
pub(crate) mod message;
pub(crate) mod message_bus;
mod recent;
pub(crate) mod requests;
mod responses;
