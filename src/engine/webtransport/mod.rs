//! The server side of WebTransport sessions, and the parser of frames for both sides.

mod reader;

#[cfg(any(test, fuzzing))]
pub use reader::fuzzing::read_webtransport;
#[cfg(feature = "client-quic")]
pub(crate) use reader::{BINARY, Incoming, Reader, Violation};

cfg_if::cfg_if! {
    if #[cfg(feature = "socketio")] {
        mod http3;
        mod stream;

        pub use http3::{Guard, SessionRequest};
        pub(crate) use stream::{First, WebTransport, head};
    }
}
