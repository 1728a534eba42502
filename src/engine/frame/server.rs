//! Frames that only servers create (fixed packets, control frames, answers), and messages on other wires.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;

use super::{BINARY, Deflate, FIN, Frame, Kind, TEXT, frame};
use crate::engine::deflate;

/// A value that is kept until an answer has been sent, for example a share of a memory budget.
pub type Reservation = Arc<dyn Any + Send + Sync>;

impl Frame {
    /// Returns the message as it is sent on a WebTransport stream: the first byte, and the rest.
    pub(crate) fn stream_parts(&self) -> (u8, &[u8]) {
        if self.is_binary() && self.payload().is_empty() {
            // Frames must not be empty there, so no bytes are sent as text: `b`, their base64 form.
            return (1, b"b");
        }
        // The length is encoded as on a WebSocket. The bit that means `masked` there means `binary` here.
        let kind = if self.is_binary() { 0x80 } else { 0 };
        (kind | self.bytes[1], &self.bytes[2..])
    }

    /// Whether the sender allows compression.
    pub(crate) fn is_compressible(&self) -> bool {
        self.deflate == Deflate::Open
    }

    /// Returns the message as a WebSocket with permessage-deflate carries it: compressed, if that is allowed
    /// and makes it smaller.
    pub(crate) fn deflated(&self) -> Self {
        if self.deflate != Deflate::Open || self.is_control() {
            return self.clone();
        }
        let mut buffer = vec![0; super::HEADER_ROOM];
        if !deflate::deflate(self.payload(), &mut buffer) {
            return self.clone().uncompressed();
        }
        let opcode = if self.is_binary() { BINARY } else { TEXT };
        Self { deflate: Deflate::Done, ..frame(buffer, DEFLATED | opcode, self.kind) }
    }

    /// Marks the message as an answer to its receiver's request. `reservation` lives as long as the message.
    pub(crate) fn into_answer(mut self, reservation: Option<&Reservation>) -> Self {
        if let Some(reservation) = reservation {
            self.bytes = Bytes::from_owner(Reserved(self.bytes, reservation.clone()));
        }
        Self { answer: true, ..self }
    }

    /// Whether the message answers a request of its receiver.
    pub(crate) fn is_answer(&self) -> bool {
        self.answer
    }

    /// Creates a short text packet from its complete frame: two bytes of header, then the packet.
    pub(crate) const fn preframed(bytes: &'static [u8]) -> Self {
        Self {
            bytes: Bytes::from_static(bytes),
            header: 2,
            kind: Kind::Text,
            deflate: Deflate::Open,
            answer: false,
        }
    }

    /// Creates a WebSocket control frame (close, pong). `payload` is truncated to 125 bytes.
    pub(crate) fn control(opcode: u8, payload: &[u8]) -> Self {
        let payload = &payload[..payload.len().min(125)];
        let mut buffer = Vec::with_capacity(2 + payload.len());
        buffer.extend_from_slice(&[FIN | opcode, payload.len() as u8]);
        buffer.extend_from_slice(payload);
        Self {
            bytes: Bytes::from(buffer),
            header: 2,
            kind: Kind::Control,
            deflate: Deflate::Refused,
            answer: false,
        }
    }
}

/// The bytes of an answer, and the reservation for them.
struct Reserved(Bytes, #[expect(dead_code, reason = "it is dropped with the bytes")] Reservation);

impl AsRef<[u8]> for Reserved {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// `2`: a ping.
pub(crate) const PING: Frame = Frame::preframed(b"\x81\x012");
/// `3`: the answer to a ping of an Engine.IO v3 client.
pub(crate) const PONG: Frame = Frame::preframed(b"\x81\x013");
/// `3probe`: the answer to a probe.
pub(crate) const PONG_PROBE: Frame = Frame::preframed(b"\x81\x063probe");
/// `1`: the close packet, on polling.
pub(crate) const CLOSE: Frame = Frame::preframed(b"\x81\x011");
/// `6`: a noop, on polling.
pub(crate) const NOOP: Frame = Frame::preframed(b"\x81\x016");

/// The flag of the first frame of a compressed message (RSV1).
const DEFLATED: u8 = 0x40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_frames_carry_their_packets() {
        for (frame, packet) in [(PING, "2"), (PONG_PROBE, "3probe"), (CLOSE, "1"), (NOOP, "6")] {
            assert_eq!(frame.payload(), packet.as_bytes());
            assert_eq!(frame.wire()[1] as usize, packet.len());
        }
    }
}
