//! Configuration of connection state recovery: the length of absences, and the limits of what is stored.

use std::time::Duration;

/// The settings of connection state recovery. Limits are per namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The maximum length of an absence.
    pub max_disconnection_duration: Duration,
    /// Whether middleware and the connect hook are skipped for returning clients. The hook's events are then
    /// not sent again. The hook still runs for a session whose hook named an owner.
    pub skip_middlewares: bool,
    /// The maximum number of stored packets. The oldest are dropped first.
    pub packets_max: usize,
    /// The maximum size of the stored packets in bytes. The oldest are dropped first.
    pub bytes_max: usize,
    /// The maximum number of absent clients. Those that left first are dropped first.
    pub sessions_max: usize,
    /// The maximum number of packets replayed to a returning client. A client that missed more gets a new
    /// session.
    pub replay_packets_max: usize,
    /// The maximum number of bytes replayed to a returning client. A client that missed more gets a new
    /// session.
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

/// The contents of a session store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecoveryStatus {
    /// The number of sessions, connected or not.
    pub sessions: usize,
    /// The number of sessions whose client is absent.
    pub away: usize,
    /// The number of stored packets.
    pub packets: usize,
    /// The size of these packets in bytes.
    pub bytes: usize,
}
