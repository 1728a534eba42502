//! The server side of WebSockets.

mod frame_header;
mod reader;
mod violation;

#[cfg(any(test, fuzzing))]
pub use reader::fuzzing::{read_deflated_websocket, read_websocket};

cfg_if::cfg_if! {
    if #[cfg(feature = "socketio")] {
        #[cfg(test)]
        mod deflate_tests;
        mod extension;
        mod stream;
        mod write;

        pub(crate) use stream::{WebSocket, close_frame};
    }
}
