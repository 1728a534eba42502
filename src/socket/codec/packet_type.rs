//! The types of Socket.IO packets.

/// The packet types, regardless of attachments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketType {
    /// Joins a namespace, or confirms that it was joined.
    Connect = 0,
    /// Leaves a namespace.
    Disconnect = 1,
    /// An event.
    Event = 2,
    /// The ack for an event.
    Ack = 3,
    /// Refuses a namespace.
    ConnectError = 4,
}
