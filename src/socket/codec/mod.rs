//! Packets to frames and back, for every dialect of Socket.IO. Pure.

mod args;
pub(crate) mod arguments;
pub(crate) mod binary;
#[cfg(feature = "socketio")]
pub(crate) mod dialect;
pub(crate) mod encoder;
mod json;
pub mod msgpack;
pub mod packet;
mod packet_type;
pub mod parser;
mod placeholder;
mod shape;
#[cfg(feature = "socketio")]
mod version2;
