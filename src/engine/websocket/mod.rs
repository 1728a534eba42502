//! The server side of WebSockets, and the parser of frames for both sides.

mod frame_header;
#[cfg_attr(not(feature = "socketio"), allow(dead_code, reason = "a server reads early bytes too"))]
mod reader;
mod violation;

#[cfg(feature = "client")]
pub(crate) use self::{
    frame_header::{BINARY, CLOSE, DEFLATED, FIN, PONG, TEXT, client_frame},
    reader::{Incoming, Input, Reader},
    violation::Violation,
};

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
