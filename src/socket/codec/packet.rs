//! Socket.IO v5 packets, as received.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

pub use super::args::Args;
#[cfg(feature = "socketio")]
pub(crate) use super::args::logged;
pub use super::json::JSON_DEPTH_MAX;
pub use super::packet_type::PacketType;
use crate::error::ImksError;

/// A packet and its namespace (Socket.IO protocol v5, "Packet encoding").
#[derive(Debug, Clone, PartialEq)]
pub struct Packet {
    /// The path of the namespace, `/` if the packet names none.
    pub namespace: Cow<'static, str>,
    /// The content, by packet type.
    pub body: PacketBody,
}

/// The content of a packet. Binary events and acks are events and acks whose arguments have attachments.
#[derive(Debug, Clone, PartialEq)]
pub enum PacketBody {
    /// Joins the namespace (`0`), with the JSON object of the `auth` option.
    Connect(Option<Payload>),
    /// Leaves the namespace (`1`).
    Disconnect,
    /// An event (`2` or `5`), with the ack id if an ack is wanted.
    Event(Option<u64>, Args),
    /// An ack (`3` or `6`). Without an id it is ignored.
    Ack(Option<u64>, Args),
    /// The refusal of a namespace (`4`), with the reason as a JSON string or object.
    ConnectError(String),
    /// An event that is valid but exceeds a limit of this server. It is refused, and the connection stays
    /// open.
    Refused {
        /// The ack id, if an ack is wanted.
        id: Option<u64>,
        /// The limit.
        reason: &'static str,
    },
    /// A CONNECT that is valid but exceeds a limit of this server. It is refused for this reason, and the
    /// connection stays open.
    ConnectRefused(&'static str),
}

impl PacketBody {
    /// Returns the refusal of an event that exceeds a limit. An ack is ignored instead, and its caller waits
    /// until the deadline.
    pub(super) fn refused(self, reason: &'static str) -> Self {
        match self {
            Self::Event(id, _) => Self::Refused { id, reason },
            Self::Ack(..) => Self::Ack(None, Args::none()),
            other => other,
        }
    }
}

/// The JSON object of a CONNECT packet and its attachments. Only the msgpack parser can send attachments
/// here. `Debug` shows their sizes only, because the object contains the client's credentials.
#[derive(Clone, PartialEq)]
pub struct Payload {
    /// The JSON text.
    pub json: String,
    /// The attachments, in the order of the placeholders' numbers.
    pub attachments: Vec<Bytes>,
}

impl fmt::Debug for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, attachments) = (self.json.len(), self.attachments.len());
        write!(formatter, "Payload({bytes} bytes, {attachments} attachments)")
    }
}

/// The limits for the attachments of one packet.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The maximum number of attachments.
    pub attachments_max: usize,
    /// The maximum total size of the attachments in bytes.
    pub attachment_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { attachments_max: ATTACHMENTS_MAX, attachment_bytes_max: ATTACHMENT_BYTES_MAX }
    }
}

/// The namespace of packets that name none.
pub const MAIN_NAMESPACE: &str = "/";

/// The default maximum number of attachments, that of the reference since its parser 4.2.6. An event with
/// more is refused.
pub const ATTACHMENTS_MAX: usize = 10;

/// The default maximum size of all attachments: ten default maximum payloads. An event with more is refused.
pub const ATTACHMENT_BYTES_MAX: usize = 10_000_000;

/// The reason for refusing an event whose arguments are nested deeper than [`JSON_DEPTH_MAX`].
pub(super) const TOO_DEEP: &str = "arguments are nested too deep";

/// The reason for refusing an event with more attachments than [`Limits::attachments_max`].
pub(super) const TOO_MANY_ATTACHMENTS: &str = "too many attachments";

/// The reason for refusing an event with more bytes than [`Limits::attachment_bytes_max`].
pub(super) const ATTACHMENTS_TOO_LARGE: &str = "attachments are too large";

/// The reason for refusing an event with an object that would be mistaken for one of its attachments.
pub(super) const LOOKALIKE: &str = "an object looks like an attachment";

/// The reason for refusing an event whose ack id could not be returned as it came.
pub(super) const ID_TOO_LARGE: &str = "the ack id is larger than 64 bits";

/// Creates the error for a message that violates the protocol.
pub(super) fn malformed(rule: &'static str) -> ImksError {
    ImksError::InvalidSocketPacketFormat(rule)
}
