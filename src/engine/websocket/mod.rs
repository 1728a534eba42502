//! The server side of WebSockets.

#[cfg(test)]
#[cfg(feature = "socketio")]
mod deflate_tests;
#[cfg(feature = "socketio")]
mod extension;
mod reader;
#[cfg(feature = "socketio")]
mod stream;

#[cfg(any(test, fuzzing))]
pub use reader::fuzzing::{read_deflated_websocket, read_websocket};
#[cfg(feature = "socketio")]
pub use stream::{RawStream, TakeStream};
#[cfg(feature = "socketio")]
pub(crate) use stream::{WebSocket, close_frame, with_read_buffer};
