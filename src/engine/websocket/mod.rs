//! The server side of WebSockets.

mod frame_header;
mod reader;
mod violation;

#[cfg(any(test, fuzzing))]
pub use reader::fuzzing::{read_deflated_websocket, read_websocket};

cfg_if::cfg_if! {
    if #[cfg(feature = "socketio")] {
        mod client_stream;
        #[cfg(test)]
        mod deflate_tests;
        mod extension;
        mod raw_stream;
        mod read_buffer;
        mod stream;
        mod write;

        pub use client_stream::ClientStream;
        pub use raw_stream::{RawStream, TakeStream};
        pub(crate) use read_buffer::with_read_buffer;
        pub(crate) use stream::{WebSocket, close_frame};
    }
}
