//! The header of a WebSocket frame (RFC 6455 section 5.2), as a server reads it.

use super::violation::Violation;

/// The header of a frame from a client, which is always masked.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub fin: bool,
    pub opcode: u8,
    /// Whether this is the first frame of a compressed message.
    pub deflated: bool,
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
        inflates: bool,
        check_length: impl FnOnce(u8, u64) -> Result<usize, Violation>,
    ) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let deflated = first & RESERVED == DEFLATED && inflates && matches!(first & OPCODE, TEXT | BINARY);
        if first & RESERVED != 0 && !deflated {
            return Err(Violation::Protocol("reserved bits"));
        }
        if second & MASKED == 0 {
            return Err(Violation::Protocol("unmasked frame"));
        }
        let (fin, opcode, short) = (first & FIN != 0, first & OPCODE, second & !MASKED);
        if opcode & CONTROL != 0 && (!fin || short > CONTROL_LENGTH_MAX) {
            return Err(Violation::Protocol("control frame"));
        }
        let Some((length, extended)) = length(short, rest) else { return Ok(None) };
        let length = check_length(opcode, length)?;
        let Some(mask) = rest[extended..].first_chunk::<4>() else { return Ok(None) };
        Ok(Some(Self { fin, opcode, deflated, mask: *mask, size: 2 + extended + 4, length }))
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

pub(super) const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
/// The only reserved bit with a meaning (RSV1, RFC 7692 section 6).
pub(super) const DEFLATED: u8 = 0x40;
const OPCODE: u8 = 0x0F;
pub(super) const MASKED: u8 = 0x80;
pub(super) const CONTROL: u8 = 0x8;
pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xA;
/// The maximum payload length of a control frame (RFC 6455 section 5.5).
const CONTROL_LENGTH_MAX: u8 = 125;
