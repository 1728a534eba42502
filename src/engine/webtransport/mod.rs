//! The server side of sessions on QUIC, with HTTP/3 (WebTransport) and without, and the parser of frames for both sides.

mod reader;

#[cfg(any(test, fuzzing))]
pub use reader::fuzzing::read_webtransport;
#[cfg(feature = "client-quic")]
pub(crate) use reader::{BINARY, Incoming, Reader, Violation};

cfg_if::cfg_if! {
    if #[cfg(feature = "socketio")] {
        mod bulk;
        mod ends;
        mod http3;
        mod passed_on;
        mod raw;
        mod stream;
        mod writer;

        pub use http3::{Guard, SessionRequest};
        pub use raw::{Confirmed, QuicRequest};
        pub(crate) use passed_on::PassedOn;
        pub(crate) use stream::{Channel, First, StreamWire, head};
    }
}
