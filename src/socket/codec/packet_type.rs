//! The types of Socket.IO packets.

/// The types of packets on the wire, binary or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketType {
    /// The namespace is to be joined, or was.
    Connect = 0,
    /// The namespace is left.
    Disconnect = 1,
    /// An event.
    Event = 2,
    /// The answer to an event.
    Ack = 3,
    /// The namespace is refused.
    ConnectError = 4,
}
