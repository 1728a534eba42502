//! How long clients may be away, and how much is kept for them.

use std::time::Duration;

/// How clients may come back. Bounds are per namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// How long a client may be away.
    pub max_disconnection_duration: Duration,
    /// Whether the connect hook is left out when a client comes back. Events it would give along are not sent
    /// again then. Sessions whose hook named an owner are asked nevertheless.
    pub skip_middlewares: bool,
    /// Packets kept at most; the oldest go first.
    pub packets_max: usize,
    /// Bytes of packets kept at most; the oldest go first.
    pub bytes_max: usize,
    /// Absent clients remembered at most; who left first is forgotten first.
    pub sessions_max: usize,
    /// Packets sent to one client that comes back at most; who missed more starts anew.
    pub replay_packets_max: usize,
    /// Bytes sent to one client that comes back at most; who missed more starts anew.
    pub replay_bytes_max: usize,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            max_disconnection_duration: Duration::from_secs(120),
            skip_middlewares: false,
            packets_max: 16_384,
            bytes_max: 32 << 20,
            sessions_max: 16_384,
            replay_packets_max: 1_024,
            replay_bytes_max: 512 << 10,
        }
    }
}

/// What a store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecoveryStatus {
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Sessions whose client is away.
    pub away: usize,
    /// Packets.
    pub packets: usize,
    /// Bytes of these packets.
    pub bytes: usize,
}
