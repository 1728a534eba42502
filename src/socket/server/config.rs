//! Configuration of a server.

use std::time::Duration;

use crate::socket::codec::dialect::Parser;
use crate::socket::codec::packet::Limits;
use crate::socket::recovery::config::Recovery;

/// The configuration of a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// The time in which a connection must join a namespace. It is closed otherwise.
    pub connect_timeout: Duration,
    /// The maximum number of connections that have not joined a namespace, and so are nobody yet. The engine answers
    /// further ones with 503: a stock client comes back. The last quarter is for those at whose address, or with whose
    /// `Authorization`, somebody has joined and is connected, or was minutes before.
    pub unjoined_max: usize,
    /// The encoding of packets. Clients must be configured with the same one.
    pub parser: Parser,
    /// The limits for the attachments of a packet.
    pub limits: Limits,
    /// The settings of connection state recovery, which is off if this is absent.
    pub recovery: Option<Recovery>,
    /// The maximum number of pending handlers per connection; further events wait. Handlers that wait for an
    /// ack of the same client do not count.
    pub events_in_flight_max: usize,
    /// The maximum size of the waiting events and connects of one connection. The connection is not read
    /// while it is reached.
    pub events_waiting_bytes_max: usize,
    /// The maximum number of namespaces that one connection may join.
    pub namespaces_max: usize,
    /// The maximum number of dynamic namespaces on this node. A client that asks for one more is refused.
    pub dynamic_namespaces_max: usize,
    /// Whether a dynamic namespace is removed with its last socket. If not, it stays until the server is
    /// closed.
    pub cleanup_empty_child_namespaces: bool,
    /// The time to wait for other nodes in calls without a timeout of their own.
    pub request_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(45),
            unjoined_max: 65_536,
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
