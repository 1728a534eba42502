//! What a client tells about its connection: states, events and the names of transports.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::error::{ClientError, DisconnectReason};
use crate::socket::packet::Args;

/// The state of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Status {
    /// Not connected, and not trying to.
    #[default]
    Idle,
    /// The first attempt to connect is under way.
    Connecting,
    /// Connected to the server. Namespaces are joined one by one.
    Connected,
    /// The connection was lost, and the client tries to get it back.
    Reconnecting,
    /// The task of the client has ended: its runtime is shutting down.
    Closed,
}

/// A way of carrying packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TransportKind {
    /// One WebSocket.
    WebSocket,
    /// HTTP requests, one of which waits for what the server sends.
    Polling,
    /// One stream of a WebTransport session: HTTP/3 on QUIC. It needs the feature `client-quic`.
    WebTransport,
    /// One stream of a QUIC connection, without HTTP/3. It needs the feature `client-quic`, and a server of imks that
    /// listens for it.
    Quic,
}

impl TransportKind {
    /// Returns what is waited for until the server is reached.
    pub(crate) const fn waited_for(self) -> &'static str {
        match self {
            Self::WebSocket => "a connection for a WebSocket",
            Self::Polling => "a connection for polling",
            Self::WebTransport => "a connection for WebTransport",
            Self::Quic => "a connection over QUIC",
        }
    }

    /// Returns the name in the handshake: `websocket`, `polling`, `webtransport` or `quic`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Polling => "polling",
            Self::WebTransport => "webtransport",
            Self::Quic => "quic",
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Something that happened to the connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The client has connected for the first time, or again after it was idle.
    Connected {
        /// The transport that carries the connection now.
        transport: TransportKind,
    },
    /// The connection ended. `Left` follows for each namespace, and then `Reconnecting` if the client comes back.
    Disconnected {
        /// Why it ended.
        reason: DisconnectReason,
    },
    /// An attempt to connect follows after a pause.
    Reconnecting {
        /// The number of the attempt in a row, from 1.
        attempt: u32,
        /// The pause before it.
        delay: Duration,
    },
    /// The connection is back. Namespaces are joined again by themselves.
    Reconnected {
        /// The transport that carries the connection now.
        transport: TransportKind,
    },
    /// The client has given up, or the server does not want it back.
    ReconnectFailed {
        /// The last failure.
        error: ClientError,
    },
    /// The connection has changed to a better transport: polling has handed over, or another one has become the
    /// favourite of a race. In the second case `Joined` follows for each namespace.
    TransportSwitched {
        /// The transport that carries the connection now.
        transport: TransportKind,
    },
    /// A namespace was joined.
    Joined {
        /// Its path.
        namespace: String,
        /// The id of the socket at the server.
        sid: String,
        /// Whether it is the session from before, and what was missed has been or will be delivered.
        recovered: bool,
    },
    /// A namespace was left. It is joined again by itself, unless one of the two sides wanted that.
    Left {
        /// Its path.
        namespace: String,
        /// Why it was left.
        reason: DisconnectReason,
    },
    /// The server has acknowledged what was put into the outbox.
    MessageSent {
        /// The id in the outbox.
        id: Uuid,
    },
    /// What was put into the outbox was given up. It may have been handled.
    MessageFailed {
        /// The id in the outbox.
        id: Uuid,
        /// The last failure.
        error: ClientError,
    },
    /// The server has sent a heartbeat, and it was answered.
    Heartbeat {
        /// The last time from a question to its answer on this connection, the server's work included, or `None` if there
        /// was none. The heartbeat itself tells the client no time: it is the server that asks.
        rtt: Option<Duration>,
    },
    /// An event has come from the server. Only a client with [`ClientBuilder::tell_received`] tells it.
    ///
    /// [`ClientBuilder::tell_received`]: crate::client::ClientBuilder::tell_received
    MessageReceived {
        /// The path of the namespace.
        namespace: Arc<str>,
        /// The arguments as they came, with the name of the event.
        args: Args,
    },
    /// Something failed that no caller waits for.
    Error(ClientError),
    /// Events are gone, because this listener was too slow.
    Missed {
        /// The number of them.
        events: u64,
    },
}
