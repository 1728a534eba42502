//! Outgoing messages that are encoded and framed once and shared by all their receivers.
//!
//! The bytes are a complete server WebSocket frame (RFC 6455 section 5.2, unmasked), so that a broadcast
//! costs each receiver only a reference count. The Engine.IO packet follows the frame header, and polling
//! sends just that part.

use std::io;

use bytes::Bytes;
use serde::Serialize;

#[cfg(feature = "socketio")]
pub use self::server::Reservation;
#[cfg(feature = "socketio")]
pub(crate) use self::server::{CLOSE, NOOP, PING, PONG, PONG_PROBE};
use crate::{ImksError, ImksResult};

#[cfg(feature = "socketio")]
mod server;

/// A complete, preframed, shared outgoing message. Cloning it copies a pointer.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Bytes,
    header: u8,
    kind: Kind,
    deflate: Deflate,
    /// Whether the frame answers a request of the client that receives it.
    answer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
    /// A binary message with the type byte of Engine.IO v3 before the data.
    TypedBinary,
    /// A WebSocket control frame, which is never part of a polling payload.
    Control,
}

/// The state of a frame in permessage-deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deflate {
    /// The frame may be compressed.
    Open,
    /// The frame stays uncompressed, because its sender wants that or compression does not make it smaller.
    Refused,
    /// The frame is compressed. Only a WebSocket that negotiated compression can carry it.
    Done,
}

impl Frame {
    /// Creates an Engine.IO text message: `4` followed by `message`.
    pub fn text(message: &str) -> Self {
        let mut writer = Self::writer(message.len());
        writer.push_str(message);
        writer.finish()
    }

    /// Starts a text message with a capacity of about `capacity` bytes. Written text follows the `4`.
    pub fn writer(capacity: usize) -> FrameWriter {
        let mut buffer = Vec::with_capacity(HEADER_ROOM + 1 + capacity);
        buffer.extend_from_slice(&[0; HEADER_ROOM]);
        buffer.push(b'4');
        FrameWriter { buffer }
    }

    /// Creates an Engine.IO binary message.
    pub fn binary(data: &[u8]) -> Self {
        let mut buffer = Vec::with_capacity(HEADER_ROOM + data.len());
        buffer.extend_from_slice(&[0; HEADER_ROOM]);
        buffer.extend_from_slice(data);
        frame(buffer, BINARY, Kind::Binary)
    }

    /// Returns the message with compression disabled.
    #[must_use]
    pub fn uncompressed(self) -> Self {
        Self { deflate: Deflate::Refused, ..self }
    }

    /// Returns the whole WebSocket frame, including its header.
    pub fn wire(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the Engine.IO packet: `4…` for text, the raw bytes for binary.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[usize::from(self.header)..]
    }

    /// Whether the message is binary.
    pub fn is_binary(&self) -> bool {
        matches!(self.kind, Kind::Binary | Kind::TypedBinary)
    }

    /// Returns the size in bytes on a WebSocket, including the header.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns false, because a frame has at least its header.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Creates an Engine.IO text packet of any type, for example `0{…}`.
    pub(crate) fn packet(packet: &str) -> Self {
        let mut buffer = Vec::with_capacity(HEADER_ROOM + packet.len());
        buffer.extend_from_slice(&[0; HEADER_ROOM]);
        buffer.extend_from_slice(packet.as_bytes());
        frame(buffer, TEXT, Kind::Text)
    }

    /// Creates a binary message of Engine.IO v3: its type, then the data.
    pub(crate) fn typed_binary(kind: u8, data: &[u8]) -> Self {
        let mut buffer = Vec::with_capacity(HEADER_ROOM + 1 + data.len());
        buffer.extend_from_slice(&[0; HEADER_ROOM]);
        buffer.push(kind);
        buffer.extend_from_slice(data);
        frame(buffer, BINARY, Kind::TypedBinary)
    }

    /// Whether the payload begins with a type byte of Engine.IO v3.
    pub(crate) fn is_typed(&self) -> bool {
        self.kind == Kind::TypedBinary
    }

    /// Whether this is a WebSocket control frame, which polling must not send.
    pub(crate) fn is_control(&self) -> bool {
        self.kind == Kind::Control
    }
}

/// A writer of a text message. The written bytes must be UTF-8, which `serde_json` guarantees.
#[derive(Debug)]
pub struct FrameWriter {
    buffer: Vec<u8>,
}

impl FrameWriter {
    /// Appends text.
    pub fn push_str(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
    }

    /// Appends a value as JSON text.
    ///
    /// # Errors
    /// [`ImksError::EngineSerialization`] for a value that cannot be JSON, such as a map whose keys are not
    /// texts.
    pub fn write_json<T: Serialize + ?Sized>(&mut self, value: &T) -> ImksResult<()> {
        serde_json::to_writer(self, value).map_err(ImksError::EngineSerialization)
    }

    /// Returns the number of bytes written after the `4`.
    pub fn len(&self) -> usize {
        self.buffer.len() - HEADER_ROOM - 1
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the written bytes from `start` on.
    pub(crate) fn written(&self, start: usize) -> &[u8] {
        self.buffer.get(HEADER_ROOM + 1 + start..).unwrap_or_default()
    }

    /// Returns the text written after the `4`.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.written(0)).unwrap_or_default()
    }

    /// Overwrites the text at `at`, counted from after the `4`.
    pub(crate) fn overwrite(&mut self, at: usize, text: &str) {
        if let Some(place) = self.buffer.get_mut(HEADER_ROOM + 1 + at..HEADER_ROOM + 1 + at + text.len()) {
            place.copy_from_slice(text.as_bytes());
        }
    }

    /// Finishes the message by filling in the header, without copying.
    pub fn finish(self) -> Frame {
        frame(self.buffer, TEXT, Kind::Text)
    }
}

impl io::Write for FrameWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Frames `buffer`, which starts with [`HEADER_ROOM`] free bytes: the header goes right before the payload.
fn frame(mut buffer: Vec<u8>, opcode: u8, kind: Kind) -> Frame {
    let length = buffer.len() - HEADER_ROOM;
    let header: u8 = match length {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    };
    let start = HEADER_ROOM - usize::from(header);
    buffer[start] = FIN | opcode;
    match header {
        2 => buffer[start + 1] = length as u8,
        4 => {
            buffer[start + 1] = 126;
            buffer[start + 2..HEADER_ROOM].copy_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            buffer[start + 1] = 127;
            buffer[start + 2..HEADER_ROOM].copy_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let mut bytes = Bytes::from(buffer);
    bytes::Buf::advance(&mut bytes, start);
    Frame { bytes, header, kind, deflate: Deflate::Open, answer: false }
}

const FIN: u8 = 0x80;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
/// The length of the longest header of an unmasked frame.
const HEADER_ROOM: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_message_is_a_whole_websocket_frame_and_an_engine_packet() {
        let frame = Frame::text("2[\"a\"]");
        assert_eq!(frame.wire().as_ref(), b"\x81\x0742[\"a\"]");
        assert_eq!(frame.payload(), b"42[\"a\"]");
        assert!(!frame.is_binary());
    }

    #[test]
    fn each_length_has_its_header() {
        for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let frame = Frame::binary(&vec![7; length]);
            assert_eq!((frame.len(), frame.payload().len()), (length + header, length));
            assert!(frame.is_binary());
        }
    }

    proptest! {
        #[test]
        fn the_announced_length_is_the_length(text in "\\PC{0,300}") {
            let frame = Frame::text(&text);
            prop_assert_eq!(&frame.payload()[1..], text.as_bytes());
            let length = match frame.wire()[1] {
                126 => usize::from(u16::from_be_bytes([frame.wire()[2], frame.wire()[3]])),
                short => usize::from(short),
            };
            prop_assert_eq!(length, frame.payload().len());
        }
    }

    #[test]
    fn a_value_that_cannot_be_json_is_the_fault_of_the_server_and_keeps_its_cause() {
        let not_json = std::collections::BTreeMap::from([((1, 2), 3)]);
        let error = Frame::writer(0).write_json(&not_json).unwrap_err();
        assert!(
            matches!(&error, ImksError::EngineSerialization(cause) if cause.to_string().contains("string"))
        );
        assert_eq!((error.code().as_str(), error.is_retryable()), ("internal", true));
    }
}
