//! The header of a WebSocket frame (RFC 6455 section 5.2).

use super::violation::Violation;

/// Who sends the frames that are read. Clients mask theirs, and servers do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    #[cfg(feature = "client")]
    Server,
}

/// The header of a frame.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub fin: bool,
    pub opcode: u8,
    /// Whether this is the first frame of a compressed message.
    pub deflated: bool,
    /// The mask; zeros, which change nothing, for a frame from a server.
    pub mask: [u8; 4],
    /// The size of the header in bytes.
    pub size: usize,
    /// The size of the payload in bytes.
    pub length: usize,
}

impl Header {
    /// Parses the header at the start of `bytes`, or returns `None` if it is incomplete. Violations are
    /// reported at once. `inflates` tells whether messages may be compressed, and `check_length` checks the
    /// opcode and length before the rest of the header has arrived.
    pub(super) fn parse(
        bytes: &[u8],
        (sender, inflates): (Sender, bool),
        check_length: impl FnOnce(u8, u64) -> Result<usize, Violation>,
    ) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let deflated = first & RESERVED == DEFLATED && inflates && matches!(first & OPCODE, TEXT | BINARY);
        if first & RESERVED != 0 && !deflated {
            return Err(Violation::Protocol("reserved bits"));
        }
        let is_masked = sender == Sender::Client;
        if (second & MASKED != 0) != is_masked {
            return Err(Violation::Protocol(if is_masked { "unmasked frame" } else { "masked frame" }));
        }
        let (fin, opcode, short) = (first & FIN != 0, first & OPCODE, second & !MASKED);
        if opcode & CONTROL != 0 && (!fin || short > CONTROL_LENGTH_MAX) {
            return Err(Violation::Protocol("control frame"));
        }
        let Some((length, extended)) = length(short, rest) else { return Ok(None) };
        let length = check_length(opcode, length)?;
        let size = 2 + extended;
        if !is_masked {
            return Ok(Some(Self { fin, opcode, deflated, mask: [0; 4], size, length }));
        }
        let Some(mask) = rest[extended..].first_chunk::<4>() else { return Ok(None) };
        Ok(Some(Self { fin, opcode, deflated, mask: *mask, size: size + 4, length }))
    }
}

/// Returns the payload length and the number of extra bytes it took, or `None` if they have not all arrived.
fn length(short: u8, rest: &[u8]) -> Option<(u64, usize)> {
    match short {
        126 => Some((u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 2)),
        127 => Some((u64::from_be_bytes(*rest.first_chunk()?), 8)),
        short => Some((u64::from(short), 0)),
    }
}

/// Appends a whole frame of a client, whose `first` byte says what it is.
#[cfg(feature = "client")]
pub(crate) fn client_frame(out: &mut bytes::BytesMut, first: u8, payload: &[u8], mask: [u8; 4]) {
    use bytes::BufMut;

    out.put_u8(first);
    match payload.len() {
        length @ 0..126 => out.put_u8(MASKED | length as u8),
        length @ 126..65_536 => {
            out.put_u8(MASKED | 126);
            out.put_u16(length as u16);
        }
        length => {
            out.put_u8(MASKED | 127);
            out.put_u64(length as u64);
        }
    }
    out.put_slice(&mask);
    let begin = out.len();
    out.put_slice(payload);
    // Masking twice is not masking.
    unmask(&mut out[begin..], mask);
}

/// Removes the mask, eight bytes at a time.
pub(super) fn unmask(data: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = data.chunks_exact_mut(8);
    for chunk in &mut chunks {
        if let Ok(bytes) = <[u8; 8]>::try_from(&*chunk) {
            chunk.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ word).to_ne_bytes());
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

pub(crate) const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
/// The only reserved bit with a meaning (RSV1, RFC 7692 section 6).
pub(crate) const DEFLATED: u8 = 0x40;
const OPCODE: u8 = 0x0F;
pub(super) const MASKED: u8 = 0x80;
pub(super) const CONTROL: u8 = 0x8;
pub(super) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;
/// The maximum payload length of a control frame (RFC 6455 section 5.5).
const CONTROL_LENGTH_MAX: u8 = 125;
