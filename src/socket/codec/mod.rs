//! Packets to frames and back, for every dialect of Socket.IO. Pure.

pub(crate) mod arguments;
pub(crate) mod binary;
#[cfg(feature = "server")]
pub(crate) mod dialect;
pub mod msgpack;
pub mod packet;
pub mod parser;
