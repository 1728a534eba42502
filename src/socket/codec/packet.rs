//! Socket.IO v5 packets, as they arrive.

use std::borrow::Cow;

use bytes::Bytes;

pub use super::args::Args;
pub use super::json::JSON_DEPTH_MAX;
pub use super::packet_type::PacketType;
use crate::error::ImksError;

/// One packet and the namespace it is for (Socket.IO protocol v5, "Packet encoding").
#[derive(Debug, Clone, PartialEq)]
pub struct Packet {
    /// Path of the namespace; `/` where the packet names none.
    pub namespace: Cow<'static, str>,
    /// The content by packet type.
    pub body: PacketBody,
}

/// The packet types. Binary events and binary acks are events and acks whose arguments have attachments.
#[derive(Debug, Clone, PartialEq)]
pub enum PacketBody {
    /// `0`: join the namespace, with the JSON object given as `auth`.
    Connect(Option<Payload>),
    /// `1`: leave the namespace.
    Disconnect,
    /// `2` and `5`: an event, with the ack id where an answer is wanted.
    Event(Option<u64>, Args),
    /// `3` and `6`: the answer to an event; without an id it answers nothing.
    Ack(Option<u64>, Args),
    /// `4`: the namespace is refused, with a JSON string or object that says why.
    ConnectError(String),
    /// An event that follows the protocol and breaks a bound of this server: it is refused, the connection goes on.
    Refused {
        /// The ack id where an answer is wanted.
        id: Option<u64>,
        /// The bound.
        reason: &'static str,
    },
}

/// The JSON object of a CONNECT packet, and the attachments that it refers to: only the msgpack parser can send any.
#[derive(Debug, Clone, PartialEq)]
pub struct Payload {
    /// JSON text.
    pub json: String,
    /// In the order of the placeholders' numbers.
    pub attachments: Vec<Bytes>,
}

/// What one packet may bring along.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most attachments of one packet.
    pub attachments_max: usize,
    /// Most bytes of all attachments of one packet together.
    pub attachment_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { attachments_max: ATTACHMENTS_MAX, attachment_bytes_max: ATTACHMENT_BYTES_MAX }
    }
}

/// The namespace of packets that name none.
pub const MAIN_NAMESPACE: &str = "/";

/// Attachments of one packet: the reference's limit since its parser 4.2.6; more closes the connection.
pub const ATTACHMENTS_MAX: usize = 10;

/// Bytes of all attachments of one packet: ten of the default maximum payload; more closes the connection.
pub const ATTACHMENT_BYTES_MAX: usize = 10_000_000;

/// Why an event whose arguments are nested deeper than [`JSON_DEPTH_MAX`] is refused.
pub(super) const TOO_DEEP: &str = "arguments are nested too deep";

/// The error for a message that breaks a rule of the protocol.
pub(super) fn malformed(rule: &'static str) -> ImksError {
    ImksError::InvalidSocketPacketFormat(rule)
}
