//! What nodes ask each other and how they answer: a closed, versioned schema in msgpack. Input is hostile.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tungstenite::Utf8Bytes;

use crate::engine::Message;
use crate::error::{Cause, ImksError, ImksResult};
use crate::socket::codec::packet::{Args, PacketBody};
use crate::socket::codec::parser::{
    Arguments, Decoder, Frames, Limits, MAIN_NAMESPACE, encode_ack, encode_event,
};
use crate::socket::namespace::remote_socket::RemoteHandshake;
use crate::socket::socket_id::SocketId;

/// One message between nodes, beside the operations of a namespace.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope<'a> {
    pub(crate) version: u8,
    /// Who sent it; a node ignores its own.
    pub(crate) node: &'a str,
    #[serde(borrow)]
    pub(crate) body: Body<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Body<'a> {
    /// A node is new; all others answer with a heartbeat.
    Hello,
    /// A node is there.
    Heartbeat,
    /// A node leaves.
    Bye,
    /// Every node does this in its namespace and replies.
    Call {
        request: u64,
        namespace: &'a str,
        #[serde(borrow)]
        call: Call<'a>,
    },
    /// To the node that called.
    Reply {
        request: u64,
        #[serde(borrow)]
        reply: Reply<'a>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Call<'a> {
    /// Replied with `Sockets`.
    Fetch {
        #[serde(borrow)]
        rooms: Vec<&'a str>,
        #[serde(borrow)]
        except: Vec<&'a str>,
    },
    /// Replied with `Answer` if an answer is wanted.
    ServerEvent {
        #[serde(borrow)]
        packet: WirePacket<'a>,
        answer: bool,
    },
    /// Replied with `Asked` at once, then `ClientAnswer` or `ClientGone` for each socket.
    Ask {
        #[serde(borrow)]
        rooms: Vec<&'a str>,
        #[serde(borrow)]
        except: Vec<&'a str>,
        #[serde(borrow)]
        packet: WirePacket<'a>,
        compress: bool,
        timeout_millis: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Reply<'a> {
    /// Part `part` of `parts`, counted from 0.
    Sockets {
        part: u32,
        parts: u32,
        #[serde(borrow)]
        sockets: Vec<WireSocket<'a>>,
    },
    /// Nothing: the node does not know the event, or its handler did not answer.
    Answer {
        #[serde(borrow)]
        packet: Option<WirePacket<'a>>,
    },
    Asked {
        #[serde(borrow)]
        sockets: Vec<&'a str>,
    },
    ClientAnswer {
        socket: &'a str,
        #[serde(borrow)]
        packet: WirePacket<'a>,
    },
    ClientGone {
        socket: &'a str,
    },
}

/// A socket as other nodes see it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireSocket<'a> {
    pub(crate) id: &'a str,
    pub(crate) rooms: Vec<String>,
    pub(crate) handshake: RemoteHandshake,
    /// JSON text.
    pub(crate) data: String,
}

/// An event or ack of the main namespace, as the default parser writes it; whoever uses it puts its own namespace
/// and id around the arguments.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WirePacket<'a> {
    text: &'a str,
    #[serde(borrow)]
    attachments: Vec<&'a serde_bytes::Bytes>,
}

impl WirePacket<'_> {
    pub(crate) fn event(name: &str, args: &impl Arguments) -> ImksResult<Frames> {
        encode_event(MAIN_NAMESPACE, None, name, args)
    }

    pub(crate) fn ack(args: &impl Arguments) -> ImksResult<Frames> {
        encode_ack(MAIN_NAMESPACE, 0, args)
    }

    /// Name and arguments, checked as if a client had sent them.
    pub(crate) fn args(&self) -> ImksResult<Args> {
        let limits = Limits { attachments_max: ATTACHMENTS_MAX, attachment_bytes_max: MESSAGE_BYTES_MAX };
        let mut decoder = Decoder::new(limits);
        let mut packet = decoder.add(Message::Text(Utf8Bytes::from(self.text)))?;
        for attachment in &self.attachments {
            if packet.is_some() {
                return Err(unreadable("more attachments than the packet has"));
            }
            packet = decoder.add(Message::Binary(Bytes::copy_from_slice(attachment)))?;
        }
        match packet.map(|packet| packet.body) {
            Some(PacketBody::Event(_, args) | PacketBody::Ack(_, args)) => Ok(args),
            _ => Err(unreadable("neither an event nor an ack")),
        }
    }
}

impl<'a> WirePacket<'a> {
    pub(crate) fn of(frames: &'a Frames) -> ImksResult<Self> {
        let (packet, attachments) = frames.split_first().ok_or(ImksError::Internal("no packet"))?;
        let text = std::str::from_utf8(packet.payload().get(1..).unwrap_or_default()).map_err(unreadable)?;
        let attachments = attachments.iter().map(|frame| serde_bytes::Bytes::new(frame.payload())).collect();
        Ok(Self { text, attachments })
    }
}

impl<'a> Envelope<'a> {
    pub(crate) fn encode(node: SocketId, body: Body<'_>) -> ImksResult<Bytes> {
        let envelope = Envelope { version: VERSION, node: node.as_str(), body };
        rmp_serde::to_vec(&envelope).map(Bytes::from).map_err(unreadable)
    }

    pub(crate) fn decode(message: &'a [u8]) -> ImksResult<Self> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(ImksError::PayloadTooLarge);
        }
        let envelope: Self = rmp_serde::from_slice(message).map_err(unreadable)?;
        if envelope.version != VERSION {
            return Err(unreadable(format!("version {} is not ours", envelope.version)));
        }
        Ok(envelope)
    }
}

/// The id in a message of another node.
pub(crate) fn parse_id(id: &str) -> ImksResult<SocketId> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    SocketId::parse(id).filter(|_| id.bytes().all(good)).ok_or_else(|| unreadable("an id that is none"))
}

pub(crate) fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ImksError {
    ImksError::AdapterSerialization(Cause::new(error))
}

/// Of both kinds of messages; nodes of different versions ignore each other.
pub(crate) const VERSION: u8 = 3;

/// Largest message taken from the bus: a packet with its attachments at their limits, and the envelope.
pub(crate) const MESSAGE_BYTES_MAX: usize = 12_000_000;

/// Attachments of one packet between nodes.
const ATTACHMENTS_MAX: usize = 1_024;
