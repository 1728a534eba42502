//! The encoder of packets into frames of the default parser.
//!
//! Grammar of the text part (Socket.IO protocol v5, "Packet encoding"):
//! `<type>[<attachments>-][<namespace>,][<ack id>][<JSON>]`.

use std::io::Write;
use std::ops::Deref;

use bytes::Bytes;
use serde::Serialize;
use smallvec::SmallVec;
use tungstenite::Utf8Bytes;

use super::args::Args;
use super::arguments::{Arguments, DEFAULT_JSON_BYTES};
use super::binary::{self, Found};
use super::non_json::Note;
use super::packet::{MAIN_NAMESPACE, PacketType};
use crate::engine::{Frame, FrameWriter};
use crate::error::{ImksError, ImksResult};

/// The frames of one packet, which are sent consecutively.
pub type Frames = SmallVec<[Frame; 1]>;

/// A packet encoded as frames of the default parser.
///
/// It knows the positions of its parts, from which the encodings for other parsers, other nodes and listeners
/// are made without parsing the text again.
#[derive(Debug, Clone)]
pub struct EncodedPacket {
    frames: Frames,
    kind: PacketType,
    id: Option<u64>,
    /// The range of the namespace in the text, empty for the main namespace.
    namespace: (u32, u32),
    /// The start of the payload in the text.
    json: u32,
    /// The values that JSON does not have, by their position in the payload.
    non_json: Box<[Note]>,
}

impl EncodedPacket {
    /// Returns the packet type.
    pub fn kind(&self) -> PacketType {
        self.kind
    }

    /// Returns the ack id, if there is one.
    pub fn id(&self) -> Option<u64> {
        self.id
    }

    /// Returns the size of the packet in bytes.
    pub fn size(&self) -> usize {
        self.frames.iter().map(Frame::len).sum()
    }

    /// Returns the path of the namespace.
    pub fn namespace(&self) -> &str {
        match self.namespace {
            (start, end) if start < end => &self.text()[start as usize..end as usize],
            _ => MAIN_NAMESPACE,
        }
    }

    /// Returns the payload as JSON text, empty if there is none.
    pub fn json(&self) -> &str {
        &self.text()[self.json as usize..]
    }

    /// Returns the attachments, in the order of the placeholders' numbers.
    pub fn attachments(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.frames[1..].iter().map(Frame::payload)
    }

    /// Returns the name and arguments of an event, or the arguments of an ack. Text and attachments are
    /// shared.
    ///
    /// # Errors
    /// [`ImksError::Internal`] if the packet is neither an event nor an ack.
    pub fn args(&self) -> ImksResult<Args> {
        let text = Utf8Bytes::try_from(share(&self.frames[0]).slice(1..))
            .map_err(|_| ImksError::Internal("encoded packet is not UTF-8"))?;
        let args = match self.kind {
            PacketType::Event => Args::event(text, self.json as usize)?,
            PacketType::Ack => Args::ack(text, self.json as usize)?,
            _ => return Err(ImksError::Internal("encoded packet has no arguments")),
        };
        let attachments = self.frames[1..].iter().map(share).collect();
        Ok(args.with_attachments(attachments).with_non_json(&self.non_json))
    }

    /// Returns the values that JSON does not have, by their position in the payload.
    pub(crate) fn non_json(&self) -> &[Note] {
        &self.non_json
    }

    /// Sets whether the packet may be compressed in transit.
    #[must_use]
    pub fn compress(mut self, compress: bool) -> Self {
        if !compress {
            self.frames = self.frames.into_iter().map(Frame::uncompressed).collect();
        }
        self
    }

    /// Whether the packet may be compressed in transit.
    #[cfg(feature = "socketio")]
    pub(crate) fn is_compressible(&self) -> bool {
        self.frames.iter().all(Frame::is_compressible)
    }

    /// Returns the frames of a packet that is not shared.
    pub fn into_frames(self) -> Frames {
        self.frames
    }

    /// Returns the text part, without the packet type of Engine.IO.
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.frames[0].payload()[1..]).unwrap_or_default()
    }
}

/// Dereferences to the frames.
impl Deref for EncodedPacket {
    type Target = [Frame];

    fn deref(&self) -> &[Frame] {
        &self.frames
    }
}

fn share(frame: &Frame) -> Bytes {
    frame.wire().slice_ref(frame.payload())
}

/// Encodes an event (`2` or `5`). With `id`, it asks for an ack.
pub fn encode_event(
    namespace: &str,
    id: Option<u64>,
    name: &str,
    args: &impl Arguments,
) -> ImksResult<EncodedPacket> {
    Ok(PacketWriter::array(PacketType::Event, namespace, id, Some(name), args, "")?.finish())
}

/// Encodes the ack (`3` or `6`) for the event with this id.
pub fn encode_ack(namespace: &str, id: u64, args: &impl Arguments) -> ImksResult<EncodedPacket> {
    Ok(PacketWriter::array(PacketType::Ack, namespace, Some(id), None, args, "")?.finish())
}

/// Encodes the CONNECT reply (`0`) with the socket id and, if the client may recover its session, the private
/// id.
pub fn encode_connect(namespace: &str, sid: &str, pid: Option<&str>) -> EncodedPacket {
    let mut packet = PacketWriter::new(PacketType::Connect, namespace, 0, DEFAULT_JSON_BYTES / 4);
    packet.text.push_str("{\"sid\":\"");
    packet.text.push_str(sid);
    if let Some(pid) = pid {
        packet.text.push_str("\",\"pid\":\"");
        packet.text.push_str(pid);
    }
    packet.text.push_str("\"}");
    packet.finish()
}

/// Encodes a disconnect packet (`1`).
pub fn encode_disconnect(namespace: &str) -> EncodedPacket {
    PacketWriter::new(PacketType::Disconnect, namespace, 0, 0).finish()
}

/// Encodes a CONNECT_ERROR (`4`) with the reason as a JSON object.
pub fn encode_connect_error(namespace: &str, reason: &impl Serialize) -> ImksResult<EncodedPacket> {
    let mut packet = PacketWriter::new(PacketType::ConnectError, namespace, 0, DEFAULT_JSON_BYTES);
    packet.text.write_json(reason)?;
    Ok(packet.finish())
}

/// A packet that is being written.
#[derive(Debug)]
pub(crate) struct PacketWriter {
    pub(crate) text: FrameWriter,
    attachments: Frames,
    packet: EncodedPacket,
}

impl PacketWriter {
    /// Writes the head of a packet, with capacity for `json_bytes` of payload.
    pub(super) fn new(kind: PacketType, namespace: &str, attachments: usize, json_bytes: usize) -> Self {
        let named = namespace != MAIN_NAMESPACE;
        let (head, digits) = (kind as usize, decimal_digits(attachments as u64));
        let head = if attachments > 0 { head + BINARY } else { head };
        let namespace_bytes = if named { namespace.len() + 1 } else { 0 };
        let count_bytes = if attachments > 0 { digits + 1 } else { 0 };
        let mut text = Frame::writer(1 + count_bytes + namespace_bytes + json_bytes);
        text.push_str(DIGITS[head]);
        if attachments > 0 {
            text.push_str(&attachments.to_string());
            text.push_str("-");
        }
        let start = text.len() as u32;
        let mut range = (start, start);
        if named {
            text.push_str(namespace);
            range.1 = text.len() as u32;
            text.push_str(",");
        }
        let json = text.len() as u32;
        let packet = EncodedPacket {
            frames: Frames::new(),
            kind,
            id: None,
            namespace: range,
            json,
            non_json: Box::default(),
        };
        Self { text, attachments: Frames::new(), packet }
    }

    /// Writes an event or ack, with `tail` after its arguments.
    pub(crate) fn array(
        kind: PacketType,
        namespace: &str,
        id: Option<u64>,
        name: Option<&str>,
        args: &impl Arguments,
        tail: &str,
    ) -> ImksResult<Self> {
        let (mut packet, attachments) = Self::unframed_array(kind, namespace, id, name, args, tail)?;
        packet.attachments = attachments.iter().map(|bytes| Frame::binary(bytes)).collect();
        Ok(packet)
    }

    /// Writes an event or ack without its attachments, which are returned as they are.
    pub(super) fn unframed_array(
        kind: PacketType,
        namespace: &str,
        id: Option<u64>,
        name: Option<&str>,
        args: &impl Arguments,
        tail: &str,
    ) -> ImksResult<(Self, Vec<Bytes>)> {
        let mut attachments = args.attachments().to_vec();
        // Exact if the size of the arguments is known, so that the frame needs only one allocation.
        let name_bytes = name.map_or(0, |name| name.len() + QUOTES + usize::from(!args.is_empty()));
        let json_bytes = id.map_or(0, decimal_digits) + BRACKETS + name_bytes + args.size_hint() + tail.len();
        let mut packet = Self::new(kind, namespace, attachments.len(), json_bytes);
        packet.write_id(id)?;
        packet.text.push_str("[");
        if let Some(name) = name {
            packet.text.write_json(name)?;
            if !args.is_empty() {
                packet.text.push_str(",");
            }
        }
        let found = packet.write_args(args)?;
        packet.text.push_str(tail);
        packet.text.push_str("]");
        if !found.is_empty() {
            packet = packet.with_attachment_count(namespace, attachments.len() + found.len())?;
        }
        attachments.extend(found);
        Ok((packet, attachments))
    }

    /// Writes the arguments. Returns the attachments that were found in them.
    fn write_args(&mut self, args: &impl Arguments) -> ImksResult<Vec<Bytes>> {
        let start = self.text.len() as u32 - self.packet.json;
        let known = args.non_json().iter().map(|(at, value)| (start + at, *value));
        if !args.may_hold_binary() {
            args.write_json(&mut self.text)?;
            self.packet.non_json = known.collect();
            return Ok(Vec::new());
        }
        let first = args.attachments().len();
        let (written, Found { attachments, notes }) =
            binary::writing(first, || args.write_json(&mut self.text));
        written?;
        let json = self.packet.json;
        self.packet.non_json = known.chain(notes.into_iter().map(|(at, value)| (at - json, value))).collect();
        Ok(attachments)
    }

    fn write_id(&mut self, id: Option<u64>) -> ImksResult<()> {
        if let Some(id) = id {
            write!(self.text, "{id}").map_err(serde_json::Error::io)?;
            self.packet.id = Some(id);
            self.packet.json = self.text.len() as u32;
        }
        Ok(())
    }

    /// Rewrites the packet with its number of attachments, which precedes the text but is known only at the
    /// end.
    fn with_attachment_count(self, namespace: &str, attachments: usize) -> ImksResult<Self> {
        let json = self.text.written(self.packet.json as usize);
        let room = json.len() + self.packet.id.map_or(0, decimal_digits);
        let mut packet = Self::new(self.packet.kind, namespace, attachments, room);
        packet.write_id(self.packet.id)?;
        packet.text.write_all(json).map_err(serde_json::Error::io)?;
        packet.packet.non_json = self.packet.non_json;
        Ok(packet)
    }

    /// Creates a packet from the current head and attachments, with `json` as its payload.
    pub(crate) fn snapshot(&self, json: &str) -> EncodedPacket {
        let mut text = Frame::writer(self.text.len());
        text.push_str(&self.text.text()[..self.packet.json as usize]);
        text.push_str(json);
        let mut packet = self.packet.clone();
        packet.frames.push(text.finish());
        packet.frames.extend(self.attachments.iter().cloned());
        packet
    }

    /// Returns the JSON text written so far.
    pub(crate) fn json(&self) -> &str {
        &self.text.text()[self.packet.json as usize..]
    }

    /// Returns the text of the packet as Engine.IO sends it: `4`, then the packet. Nothing is copied.
    #[cfg(feature = "client")]
    pub(super) fn into_text(self) -> ImksResult<Utf8Bytes> {
        Utf8Bytes::try_from(share(&self.text.finish()))
            .map_err(|_| ImksError::Internal("encoded packet is not UTF-8"))
    }

    pub(crate) fn finish(mut self) -> EncodedPacket {
        self.packet.frames.push(self.text.finish());
        self.packet.frames.append(&mut self.attachments);
        self.packet
    }
}

fn decimal_digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// The packet types as text.
const DIGITS: [&str; 7] = ["0", "1", "2", "3", "4", "5", "6"];

/// The offset from the type of an event or ack to its binary variant.
const BINARY: usize = 3;

/// The length of the brackets around the array.
const BRACKETS: usize = 2;

/// The length of the quotes around a name.
const QUOTES: usize = 2;
