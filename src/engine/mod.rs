//! Engine.IO v4 server: provides connections to the layer above and does not depend on Socket.IO.
//!
//! [`Engine::handle`] answers HTTP requests and WebSocket upgrades, [`Engine::handle_webtransport`] answers
//! the session requests of WebTransport, [`Engine::handle_quic`] QUIC connections without HTTP/3, and [`Engine::accept`] returns a [`Connection`] per session. A
//! connection does its I/O when its holder polls it: wire, session, heartbeat and queue all live in the
//! holder's task. Any task may send through the [`Outbox`] of a connection.

pub mod codec;
#[cfg_attr(not(feature = "socketio"), allow(dead_code, reason = "a client sends fewer kinds of frames"))]
mod frame;
pub mod packet;

pub use frame::{Frame, FrameWriter};
pub use packet::{Message, Packet};

cfg_if::cfg_if! {
    if #[cfg(any(feature = "socketio", feature = "client", fuzzing))] {
        mod inflate;
        pub(crate) mod websocket;
    }
}

cfg_if::cfg_if! {
    if #[cfg(any(feature = "socketio", feature = "client"))] {
        pub(crate) mod deflate;
    }
}

cfg_if::cfg_if! {
    if #[cfg(any(feature = "socketio", fuzzing))] {
        pub mod legacy;
    }
}

cfg_if::cfg_if! {
    if #[cfg(any(feature = "socketio", feature = "client-quic", fuzzing))] {
        pub(crate) mod webtransport;
    }
}

cfg_if::cfg_if! {
    if #[cfg(any(test, fuzzing))] {
        pub use websocket::{read_deflated_websocket, read_websocket};
        pub use webtransport::read_webtransport;
    }
}

cfg_if::cfg_if! {
    if #[cfg(feature = "socketio")] {
        mod client_stream;
        mod close;
        pub mod config;
        mod connection;
        mod duplex;
        mod forward;
        mod handshake;
        mod heartbeat;
        mod known_clients;
        #[doc(hidden)]
        pub mod metrics;
        mod newcomers;
        mod outbox;
        mod polling;
        mod raw_stream;
        mod read_buffer;
        mod registry;
        mod request_error;
        mod server;
        mod session;
        mod transport;

        #[cfg(test)]
        pub use connection::MemoryPeer;
        pub use self::{
            client_stream::ClientStream,
            close::{Close, CloseReason},
            config::Config,
            connection::{Connection, Event},
            forward::{ForwardedKind, ForwardedReply, ForwardedRequest, NotForwarded},
            frame::Reservation,
            handshake::{Handshake, Secure, Sid},
            outbox::{Lane, Outbox, OutboxLimits, Pressure, Queued, SendError, Slot, WhenFull},
            server::Engine,
            transport::{Protocol, Transport},
            raw_stream::{RawStream, TakeStream},
            webtransport::{Confirmed, Guard, QuicRequest, SessionRequest},
        };
        pub(crate) use handshake::query_pairs;
        pub(crate) use known_clients::KnownClients;
        pub(crate) use newcomers::for_anybody;
        #[cfg(feature = "socketio")]
        pub(crate) use server::cors;
    }
}
