//! Settings of a server.

use std::time::Duration;

use crate::socket::codec::dialect::Parser;
use crate::socket::codec::packet::Limits;
use crate::socket::recovery::config::Recovery;

/// What a server can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// A connection that has joined no namespace by then is closed.
    pub connect_timeout: Duration,
    /// Encoding of packets; clients must be set to the same.
    pub parser: Parser,
    /// Attachments of one packet.
    pub limits: Limits,
    /// Clients that lost their connection may come back to their session; not when absent.
    pub recovery: Option<Recovery>,
    /// Handlers of one connection that may be waiting at once, those not counted that wait for an ack of the same client;
    /// further events wait.
    pub events_in_flight_max: usize,
    /// Bytes of events and connects of one connection that may wait; then the connection is not read from.
    pub events_waiting_bytes_max: usize,
    /// Namespaces that one connection may have joined; one more is refused.
    pub namespaces_max: usize,
    /// Namespaces that clients may cause to exist at once on this node; then [`NamespaceMatch`](crate::socket::NamespaceMatch)es are refused.
    pub dynamic_namespaces_max: usize,
    /// Whether a dynamic namespace ends with its last socket. Without it, it stays until the server ends.
    pub cleanup_empty_child_namespaces: bool,
    /// How long other nodes are waited for, where the caller gives no time of its own.
    pub request_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(45),
            parser: Parser::default(),
            limits: Limits::default(),
            recovery: None,
            events_in_flight_max: 64,
            events_waiting_bytes_max: 1 << 20,
            namespaces_max: 64,
            dynamic_namespaces_max: 10_000,
            cleanup_empty_child_namespaces: false,
            request_timeout: Duration::from_secs(5),
        }
    }
}
