//! WebSocket frames of a client, prebuilt, and the reading of a server's.

use super::Outcome;

/// Any key will do for a measurement, but it must not be zero: a server might skip its work then.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Decimal digits of an ack id in a [`Template`]; ids start at [`FIRST_ACK`], so there are never leading zeros.
pub const ACK_DIGITS: usize = 7;
pub const FIRST_ACK: u64 = 1_000_000;
/// Decimal digits of a broadcast's number, at the front of its payload.
pub const SEQ_DIGITS: usize = 10;

/// One masked text frame.
pub fn text(payload: &str) -> Vec<u8> {
    masked(0x81, payload.as_bytes())
}

/// One masked frame; `first` is its first byte.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A prebuilt frame with a number of fixed width in it: sending it again costs a copy and a few digits.
pub struct Template {
    frame: Vec<u8>,
    /// Where in the payload the number stands; it may stand at several places.
    places: Vec<usize>,
    digits: usize,
}

impl Template {
    /// `payload` with each place of the number marked by `digits` times `#`.
    pub fn new(payload: &str, digits: usize) -> Outcome<Self> {
        let places: Vec<usize> = payload.match_indices(&"#".repeat(digits)).map(|(at, _)| at).collect();
        if places.is_empty() {
            return Err("the template has no number".into());
        }
        Ok(Self { frame: text(payload), places, digits })
    }

    /// Appends the frame with `number` in its places.
    pub fn write(&self, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.frame);
        for place in &self.places {
            // The payload is the end of the frame, and its first byte meets the first byte of the key.
            let payload = out.len() - self.payload_len();
            let mut rest = number;
            for at in (*place..*place + self.digits).rev() {
                out[payload + at] = (b'0' + (rest % 10) as u8) ^ MASK[at % MASK.len()];
                rest /= 10;
            }
        }
    }

    fn payload_len(&self) -> usize {
        match self.frame[1] & 0x7f {
            126 => self.frame.len() - 8,
            127 => self.frame.len() - 14,
            _ => self.frame.len() - 6,
        }
    }
}

/// A frame of a server: never masked, and for our purposes never fragmented.
pub struct Incoming<'a> {
    pub opcode: u8,
    pub payload: &'a [u8],
    /// Bytes of the input that this frame took.
    pub len: usize,
}

impl<'a> Incoming<'a> {
    /// The first frame of `bytes`, or `None` while it is incomplete.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&opcode, &short) = (bytes.first()?, bytes.get(1)?);
        let (head, len) = match short {
            126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
            short => (2, usize::from(short)),
        };
        let payload = bytes.get(head..head + len)?;
        Some(Self { opcode: opcode & 0x0f, payload, len: head + len })
    }
}

/// The decimal number at the front of `bytes`.
pub fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |number, byte| number * 10 + u64::from(byte - b'0'))
}
