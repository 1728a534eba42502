//! Metrics of the engine.

use crate::engine::request_error::RequestError;
use crate::engine::{CloseReason, ForwardedKind, NotForwarded, Transport};
use crate::telemetry::{instruments, label};

/// The outcome of a request of another transport to take over from polling.
pub enum Upgrade {
    /// The session moved.
    Succeeded,
    /// The session stayed on polling, or ended.
    Failed,
}

/// The direction of a message.
pub enum Direction {
    /// From the client.
    In,
    /// To the client.
    Out,
}

/// The stage of permessage-deflate at which bytes are counted.
pub enum DeflateStep {
    /// Before compression.
    ToCompress,
    /// After compression.
    Compressed,
    /// Before decompression.
    ToInflate,
    /// After decompression.
    Inflated,
}

/// Who is refused a session.
pub enum Client {
    /// Somebody who is not known.
    New,
    /// Somebody who is connected, or was shortly before.
    Returning,
}

/// The outcome of a QUIC connection that did not carry a session.
pub enum QuicHandshake {
    /// The peer was asked to prove its address first.
    Retried,
    /// Too many connections were open.
    Refused,
    /// The connection did not become a session.
    Abandoned,
}

label!(Transport {
    Polling = "polling",
    WebSocket = "websocket",
    WebTransport = "webtransport",
    Quic = "quic",
});
label!(CloseReason {
    TransportError = "transport_error",
    TransportClose = "transport_close",
    ForcedClose = "forced_close",
    PingTimeout = "ping_timeout",
    ParseError = "parse_error",
    ServerShutdown = "server_shutdown",
    Slow = "slow_consumer",
    TooLarge = "too_large",
});
label!(RequestError {
    TransportUnknown = "transport_unknown",
    SessionUnknown = "session_unknown",
    BadMethod = "bad_method",
    BadRequest = "bad_request",
    BadHandshake = "bad_handshake",
    Forbidden = "forbidden",
    BadProtocol = "bad_protocol",
});
label!(ForwardedKind { Poll = "poll", Post = "post", Upgrade = "upgrade" });
label!(NotForwarded {
    UnknownNode = "unknown_node",
    Unreachable = "unreachable",
    Overloaded = "overloaded",
    TooSlow = "too_slow",
});
label!(Client { New = "new", Returning = "returning" });
label!(Upgrade { Succeeded = "succeeded", Failed = "failed" });
label!(Direction { In = "in", Out = "out" });
label!(DeflateStep {
    ToCompress = "to_compress",
    Compressed = "compressed",
    ToInflate = "to_inflate",
    Inflated = "inflated",
});
label!(QuicHandshake { Retried = "retried", Refused = "refused", Abandoned = "abandoned" });

instruments! {
    /// Open Engine.IO sessions by their current transport
    SESSIONS: Gauge[transport: Transport] = "imks_sessions";
    /// Engine.IO sessions opened, by their first transport
    SESSIONS_OPENED: Counter[transport: Transport] = "imks_sessions_opened_total";
    /// Engine.IO sessions refused with 503, because the server was full or stopped, by whether their clients are new
    SESSIONS_REFUSED: Counter[client: Client] = "imks_sessions_refused_total";
    /// Engine.IO sessions closed, by reason
    SESSIONS_CLOSED: Counter[reason: CloseReason] = "imks_sessions_closed_total";
    /// Requests for sessions of other nodes, which a load balancer without sticky sessions sent to this node, by kind
    FORWARDED: Counter[kind: ForwardedKind] = "imks_forwarded_requests_total";
    /// Requests for sessions of other nodes that did not reach their node, by reason
    NOT_FORWARDED: Counter[reason: NotForwarded] = "imks_not_forwarded_requests_total";
    /// Upgrades from polling to WebSocket or WebTransport, by outcome
    UPGRADES: Counter[outcome: Upgrade] = "imks_upgrades_total";
    /// Sessions on QUIC that began before the end of the handshake (0-RTT)
    QUIC_EARLY_SESSIONS: Counter = "imks_quic_early_sessions_total";
    /// QUIC connections without a session, by outcome: asked to prove their address, refused, or abandoned
    QUIC_HANDSHAKES: Counter[outcome: QuicHandshake] = "imks_webtransport_handshakes_total";
    /// Engine.IO requests refused, by error
    REQUESTS_REFUSED: Counter[error: RequestError] = "imks_requests_refused_total";
    /// Time from a ping to its pong, whatever the client had to read before it included
    RTT_SECONDS: Latency = "imks_session_rtt_seconds";
    /// Engine.IO messages by direction
    MESSAGES: Counter[direction: Direction] = "imks_messages_total";
    /// Bytes of Engine.IO messages by direction; outgoing bytes include the framing
    MESSAGE_BYTES: Counter[direction: Direction] = "imks_message_bytes_total";
    /// Sessions with packets that wait because the connection is blocked or the client does not poll
    OUTBOX_WAITING_SESSIONS: Gauge = "imks_outbox_waiting_sessions";
    /// Bytes of packets that wait for clients; a session at the limit is closed as `slow_consumer`
    OUTBOX_WAITING_BYTES: Gauge = "imks_outbox_waiting_bytes";
    /// Volatile events that were dropped because a client could not receive them at once
    VOLATILE_DROPPED: Counter = "imks_volatile_dropped_total";
    /// Messages that were dropped because the queue of a client was full, in namespaces that drop instead of closing
    OUTBOX_DROPPED: Counter = "imks_outbox_dropped_total";
    /// Packets that a newer one of the same key replaced while they waited for a client
    OUTBOX_REPLACED: Counter = "imks_outbox_replaced_total";
    /// Bytes of WebSocket messages before and after compression (once for all receivers) and decompression
    DEFLATE_BYTES: Counter[step: DeflateStep] = "imks_deflate_bytes_total";
}
