//! The server side of WebTransport sessions.

#[cfg(feature = "socketio")]
mod http3;
mod reader;
#[cfg(feature = "socketio")]
mod stream;

#[cfg(feature = "socketio")]
pub use http3::{Guard, SessionRequest};
#[cfg(any(test, fuzzing))]
pub use reader::fuzzing::read_webtransport;
#[cfg(feature = "socketio")]
pub(crate) use stream::{First, WebTransport, head};
