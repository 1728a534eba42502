//! The server side of WebTransport sessions.

mod reader;

#[cfg(any(test, fuzzing))]
pub use reader::fuzzing::read_webtransport;

cfg_if::cfg_if! {
    if #[cfg(feature = "socketio")] {
        mod http3;
        mod stream;

        pub use http3::{Guard, SessionRequest};
        pub(crate) use stream::{First, WebTransport, head};
    }
}
