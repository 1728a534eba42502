//! Engine.IO v4. Gives connections; knows nothing of Socket.IO.
//!
//! [`Engine::handle`] answers HTTP requests and WebSocket upgrades, [`Engine::handle_webtransport`] the session
//! requests of WebTransport, [`Engine::accept`] hands out a
//! [`Connection`] per session. A connection does its I/O when its holder polls it: wire, session, heartbeat
//! and queue live in the holder's task. Anybody may send through its [`Outbox`].

#[cfg(feature = "server")]
use std::fmt;

#[cfg(feature = "server")]
mod client_bundle;
pub mod codec;
#[cfg(feature = "server")]
pub mod config;
#[cfg(any(feature = "server", fuzzing))]
mod deflate;
#[cfg(test)]
#[cfg(feature = "server")]
mod deflate_tests;
#[cfg(feature = "server")]
mod driver;
#[cfg(test)]
#[cfg(feature = "server")]
mod driver_tests;
#[cfg(feature = "server")]
mod duplex;
#[cfg_attr(fuzzing, allow(dead_code, reason = "the targets need the decoders only"))]
mod frame;
#[cfg(feature = "server")]
mod handshake;
#[cfg(feature = "server")]
mod heartbeat;
#[cfg(feature = "server")]
mod http3;
#[cfg(feature = "server")]
mod jsonp;
#[cfg(any(feature = "server", fuzzing))]
pub mod legacy;
#[cfg(feature = "server")]
mod memory;
#[cfg(feature = "server")]
mod outbox;
pub mod packet;
#[cfg(feature = "server")]
mod polling;
#[cfg(feature = "server")]
mod registry;
#[cfg(feature = "server")]
mod reply;
#[cfg(feature = "server")]
mod request;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
mod session;
#[cfg(feature = "server")]
mod websocket;
#[cfg(feature = "server")]
mod webtransport;
#[cfg(any(feature = "server", fuzzing))]
#[cfg_attr(fuzzing, allow(dead_code, reason = "the targets need the decoders only"))]
mod webtransport_reader;
#[cfg(any(feature = "server", fuzzing))]
#[cfg_attr(fuzzing, allow(dead_code, reason = "the targets need the decoders only"))]
mod wire_reader;

pub use frame::{Frame, FrameWriter};
#[cfg(feature = "server")]
pub(crate) use handshake::{percent_decode, query_pairs};
pub use packet::{Message, Packet};
#[cfg(feature = "server")]
pub use {
    config::Config,
    driver::{Connection, Event},
    handshake::{Handshake, NodeId, Sid},
    http3::{Guard, SessionRequest},
    memory::MemoryPeer,
    outbox::{Close, Outbox, OutboxLimits, Pressure, Queued, SendError},
    request::Secure,
    server::Engine,
};
#[cfg(any(test, fuzzing))]
pub use {
    webtransport_reader::fuzzing::read_webtransport,
    wire_reader::fuzzing::{read_deflated_websocket, read_websocket},
};

/// How a session is carried.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Transport {
    /// HTTP long-polling.
    Polling = 0,
    /// WebSocket.
    WebSocket = 1,
    /// WebTransport over HTTP/3.
    WebTransport = 2,
}

#[cfg(feature = "server")]
impl Transport {
    /// Name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::WebSocket => "websocket",
            Self::WebTransport => "webtransport",
        }
    }

    fn from_repr(value: u8) -> Self {
        match value {
            0 => Self::Polling,
            1 => Self::WebSocket,
            _ => Self::WebTransport,
        }
    }
}

/// Version of Engine.IO that the client of a session speaks.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// `EIO=3`, as clients of Socket.IO v2.
    V3 {
        /// The client wants binary data as text.
        base64: bool,
    },
    /// `EIO=4`.
    #[default]
    V4,
}

/// Why a session ended.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The wire failed, or the peer broke the rules of the transport.
    TransportError,
    /// The peer closed.
    TransportClose,
    /// The server closed this connection.
    ForcedClose,
    /// No pong in time.
    PingTimeout,
    /// A packet that is none.
    ParseError,
    /// The server stops.
    ServerShutdown,
    /// The peer reads too slowly: its queue was full.
    Slow,
    /// A message above `max_payload`, on a WebSocket.
    TooLarge,
}

#[cfg(feature = "server")]
impl CloseReason {
    /// All of them, for tables.
    pub const ALL: [Self; 8] = [
        Self::TransportError,
        Self::TransportClose,
        Self::ForcedClose,
        Self::PingTimeout,
        Self::ParseError,
        Self::ServerShutdown,
        Self::Slow,
        Self::TooLarge,
    ];

    /// The reference server's words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TransportError | Self::Slow | Self::TooLarge => "transport error",
            Self::TransportClose => "transport close",
            Self::ForcedClose => "forced close",
            Self::PingTimeout => "ping timeout",
            Self::ParseError => "parse error",
            Self::ServerShutdown => "server shutting down",
        }
    }

    /// Label in metrics and logs; tells apart what the reference does not.
    pub fn name(self) -> &'static str {
        match self {
            Self::TransportError => "transport_error",
            Self::TransportClose => "transport_close",
            Self::ForcedClose => "forced_close",
            Self::PingTimeout => "ping_timeout",
            Self::ParseError => "parse_error",
            Self::ServerShutdown => "server_shutdown",
            Self::Slow => "slow_consumer",
            Self::TooLarge => "too_large",
        }
    }
}

#[cfg(feature = "server")]
impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
