//! Metrics of the bus between nodes.

use crate::telemetry::{instruments, label};

/// Why a message between nodes was dropped.
pub enum Drop {
    /// Its reader on this node was too far behind.
    InboxFull,
    /// The queue of messages to the broker was full.
    OutgoingFull,
    /// The client library of the broker dropped it, or it is missing in the broker's numbers.
    Broker,
    /// The connection to the broker failed while it was sent.
    Connection,
    /// It is larger than the broker accepts.
    TooLarge,
    /// It could not be read or served.
    Unreadable,
    /// Too many responses to other nodes were waiting.
    ResponsesFull,
    /// It came twice, or after a later one of the same node.
    Late,
}

/// Why the connection to the broker was replaced.
pub enum Reconnect {
    /// It ended.
    Closed,
    /// It was silent: a probe did not come back.
    Silent,
    /// A command failed.
    Failed,
    /// It could not be opened.
    Refused,
}

label!(Drop {
    InboxFull = "inbox_full",
    OutgoingFull = "outgoing_full",
    Broker = "broker",
    Connection = "connection",
    TooLarge = "too_large",
    Unreadable = "unreadable",
    ResponsesFull = "responses_full",
    Late = "late",
});
label!(Reconnect { Closed = "closed", Silent = "silent", Failed = "failed", Refused = "refused" });

instruments! {
    /// Messages that this node sent to the others
    MESSAGES_SENT: Counter = "imks_bus_messages_sent_total";
    /// Bytes of the messages that this node sent to the others
    BYTES_SENT: Counter = "imks_bus_sent_bytes_total";
    /// Messages that this node received, its own included
    MESSAGES_RECEIVED: Counter = "imks_bus_messages_received_total";
    /// Bytes of the messages that this node received
    BYTES_RECEIVED: Counter = "imks_bus_received_bytes_total";
    /// Messages between nodes that were dropped, by reason
    MESSAGES_DROPPED: Counter[reason: Drop] = "imks_bus_messages_dropped_total";
    /// Broadcasts of other nodes to rooms without a member on this node
    MESSAGES_FOR_NOBODY: Counter = "imks_bus_messages_for_nobody_total";
    /// Time from the sending of a message on another node to its arrival here, by the clocks of both
    LAG_SECONDS: Latency = "imks_bus_lag_seconds";
    /// Failed connections to the broker and failed attempts to connect, by reason
    RECONNECTS: Counter[reason: Reconnect] = "imks_bus_reconnects_total";
    /// Time that a message of this node to itself took through the broker
    PROBE_SECONDS: Latency = "imks_bus_probe_seconds";
    /// Whether this node is connected to the broker (1) or not (0)
    UP: Gauge = "imks_bus_up";
    /// Other nodes of the cluster that are alive
    MEMBERS: Gauge = "imks_bus_members";
    /// Other nodes on the same database that do not hear this one
    UNHEARD_NODES: Gauge = "imks_bus_unheard_nodes";
}
