//! The codec of packets, for every dialect of Socket.IO. It does no I/O.

mod args;
pub(crate) mod arguments;
pub(crate) mod binary;
pub(crate) mod encoder;
mod json;
pub mod msgpack;
pub(crate) mod non_json;
#[cfg(feature = "client")]
pub(crate) mod outgoing;
pub mod packet;
mod packet_type;
pub mod parser;
mod placeholder;
mod shape;

cfg_if::cfg_if! {
    if #[cfg(feature = "socketio")] {
        pub(crate) mod dialect;
        mod version2;
    }
}
