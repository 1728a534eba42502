//! Engine.IO v4 server: provides connections to the layer above and does not depend on Socket.IO.
//!
//! [`Engine::handle`] answers HTTP requests and WebSocket upgrades, [`Engine::handle_webtransport`] answers
//! the session requests of WebTransport, and [`Engine::accept`] returns a [`Connection`] per session. A
//! connection does its I/O when its holder polls it: wire, session, heartbeat and queue all live in the
//! holder's task. Any task may send through the [`Outbox`] of a connection.

pub mod codec;
#[cfg_attr(not(feature = "socketio"), allow(dead_code, reason = "a client sends fewer kinds of frames"))]
mod frame;
pub mod packet;

#[cfg(any(feature = "socketio", fuzzing))]
mod inflate;
#[cfg(any(feature = "socketio", fuzzing))]
pub mod legacy;
#[cfg(any(feature = "socketio", fuzzing))]
mod websocket;
#[cfg(any(feature = "socketio", fuzzing))]
mod webtransport;

#[cfg(feature = "socketio")]
mod close;
#[cfg(feature = "socketio")]
pub mod config;
#[cfg(feature = "socketio")]
mod connection;
#[cfg(feature = "socketio")]
mod deflate;
#[cfg(feature = "socketio")]
mod duplex;
#[cfg(feature = "socketio")]
mod forward;
#[cfg(feature = "socketio")]
mod handshake;
#[cfg(feature = "socketio")]
mod heartbeat;
#[cfg(feature = "socketio")]
#[doc(hidden)]
pub mod metrics;
#[cfg(feature = "socketio")]
mod outbox;
#[cfg(feature = "socketio")]
mod polling;
#[cfg(feature = "socketio")]
mod registry;
#[cfg(feature = "socketio")]
mod request_error;
#[cfg(feature = "socketio")]
mod server;
#[cfg(feature = "socketio")]
mod session;
#[cfg(feature = "socketio")]
mod transport;

#[cfg(test)]
pub use connection::MemoryPeer;
pub use frame::{Frame, FrameWriter};
pub use packet::{Message, Packet};
#[cfg(any(test, fuzzing))]
pub use websocket::{read_deflated_websocket, read_websocket};
#[cfg(any(test, fuzzing))]
pub use webtransport::read_webtransport;

#[cfg(feature = "socketio")]
pub use self::{
    close::{Close, CloseReason},
    config::Config,
    connection::{Connection, Event},
    forward::{ForwardedReply, ForwardedRequest, OwnerUnreachable},
    frame::Reservation,
    handshake::{Handshake, Secure, Sid},
    outbox::{Outbox, OutboxLimits, Pressure, Queued, SendError},
    server::Engine,
    transport::{Protocol, Transport},
    websocket::{RawStream, TakeStream},
    webtransport::{Guard, SessionRequest},
};
#[cfg(feature = "socketio")]
pub(crate) use handshake::query_pairs;
