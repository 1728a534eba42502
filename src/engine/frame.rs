//! One outgoing message, encoded and framed once, shared by everybody who receives it.
//!
//! The bytes are a complete server WebSocket frame (RFC 6455 section 5.2, unmasked), so that a broadcast
//! costs each receiver a reference count. What follows the frame header is the Engine.IO packet itself,
//! which is what polling needs.

use std::io;

use bytes::Bytes;

#[cfg(feature = "socketio")]
pub use self::server::Reservation;
#[cfg(feature = "socketio")]
pub(crate) use self::server::{CLOSE, NOOP, PING, PONG, PONG_PROBE};

#[cfg(feature = "socketio")]
mod server;

/// A complete, shared, preframed outgoing message. Cloning it copies a pointer.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Bytes,
    header: u8,
    kind: Kind,
    deflate: Deflate,
    /// It answers a request of the client that it goes to.
    answer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
    /// Binary, with the type byte of Engine.IO v3 in front of the data.
    TypedBinary,
    /// WebSocket control frame: never part of a polling payload.
    Control,
}

/// Where a frame stands with permessage-deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deflate {
    /// It may be compressed.
    Open,
    /// It stays uncompressed: its sender wants that, or compression does not make it smaller.
    Refused,
    /// It is compressed; only a WebSocket that negotiated that can carry it.
    Done,
}

impl Frame {
    /// Makes an Engine.IO text message: `4` followed by `message`.
    pub fn text(message: &str) -> Self {
        let mut writer = Self::writer(message.len());
        writer.push_str(message);
        writer.finish()
    }

    /// Starts a text message of about `capacity` bytes; what is written follows the `4`.
    pub fn writer(capacity: usize) -> FrameWriter {
        let mut buffer = Vec::with_capacity(HEADER_ROOM + 1 + capacity);
        buffer.extend_from_slice(&[0; HEADER_ROOM]);
        buffer.push(b'4');
        FrameWriter { buffer }
    }

    /// Makes an Engine.IO binary message.
    pub fn binary(data: &[u8]) -> Self {
        let mut buffer = Vec::with_capacity(HEADER_ROOM + data.len());
        buffer.extend_from_slice(&[0; HEADER_ROOM]);
        buffer.extend_from_slice(data);
        frame(buffer, BINARY, Kind::Binary)
    }

    /// Returns the message with compression ruled out.
    #[must_use]
    pub fn uncompressed(self) -> Self {
        Self { deflate: Deflate::Refused, ..self }
    }

    /// Returns the whole WebSocket frame, header included.
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

    /// Returns the size in bytes on a WebSocket, header included.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never true: a frame has at least its header.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Makes any Engine.IO text packet, for example `0{…}`.
    pub(crate) fn packet(packet: &str) -> Self {
        let mut buffer = Vec::with_capacity(HEADER_ROOM + packet.len());
        buffer.extend_from_slice(&[0; HEADER_ROOM]);
        buffer.extend_from_slice(packet.as_bytes());
        frame(buffer, TEXT, Kind::Text)
    }

    /// Makes a binary message of Engine.IO v3: its type, then the data.
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

/// A text message that is being written. What is written must be UTF-8; `serde_json` writes nothing else.
#[derive(Debug)]
pub struct FrameWriter {
    buffer: Vec<u8>,
}

impl FrameWriter {
    /// Appends text.
    pub fn push_str(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
    }

    /// Bytes written so far; what was written after the `4`.
    pub fn len(&self) -> usize {
        self.buffer.len() - HEADER_ROOM - 1
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was written, from the byte `start` on.
    pub(crate) fn written(&self, start: usize) -> &[u8] {
        self.buffer.get(HEADER_ROOM + 1 + start..).unwrap_or_default()
    }

    /// What was written after the `4`.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.written(0)).unwrap_or_default()
    }

    /// Writes over what stands at `at` after the `4`.
    pub(crate) fn overwrite(&mut self, at: usize, text: &str) {
        if let Some(place) = self.buffer.get_mut(HEADER_ROOM + 1 + at..HEADER_ROOM + 1 + at + text.len()) {
            place.copy_from_slice(text.as_bytes());
        }
    }

    /// Ends the message: fills in the header, copies nothing.
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

/// `buffer` starts with [`HEADER_ROOM`] free bytes; the header goes right before the payload.
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
/// Longest header of an unmasked frame.
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
}
