//! The codec of packets, for every dialect of Socket.IO. It does no I/O.

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
