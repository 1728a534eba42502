//! The encoding of Engine.IO v3, which clients of Socket.IO v2 use. Packets are preceded by their length, and
//! binary data by a type byte.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};

use crate::engine::{Frame, Message, Packet, codec};
use crate::{ImksError, ImksResult};

/// Decodes one text packet: a WebSocket text frame, or one part of a text payload.
///
/// # Errors
/// Fails if the packet is empty, has an unknown type, is not UTF-8 or contains invalid base64.
pub fn decode_text(mut packet: Bytes) -> ImksResult<Packet> {
    if packet.first() != Some(&b'b') {
        return codec::decode_text(packet);
    }
    packet.advance(1);
    match packet.split_first() {
        Some((b'4', base64)) => Ok(Packet::Message(Message::Binary(codec::decode_base64(base64)?))),
        Some((other, _)) => Err(ImksError::InvalidEnginePacketTypeChar(char::from(*other))),
        None => Err(ImksError::EmptyEnginePacket),
    }
}

/// Decodes one binary packet, always a message: a WebSocket binary frame, or one part of a binary payload.
/// binary.
///
/// # Errors
/// Fails if the packet is empty or has another type.
pub fn decode_binary(mut packet: Bytes) -> ImksResult<Packet> {
    match packet.first() {
        Some(&MESSAGE) => {
            packet.advance(1);
            Ok(Packet::Message(Message::Binary(packet)))
        }
        Some(other) => Err(ImksError::InvalidEnginePacketType(*other)),
        None => Err(ImksError::EmptyEnginePacket),
    }
}

/// Decodes a polling payload, text or binary. Stops after the first bad packet.
pub fn decode_payload(payload: &[u8], binary: bool) -> impl Iterator<Item = ImksResult<Packet>> + '_ {
    let mut rest = Some(payload);
    std::iter::from_fn(move || {
        let current = rest.take().filter(|current| !current.is_empty() || current.len() == payload.len())?;
        let taken = if binary { take_binary(current) } else { take_text(current) };
        Some(taken.map(|(packet, left)| {
            rest = Some(left);
            packet
        }))
    })
}

/// Decodes `<length>:<packet>`, with the length in UTF-16 code units.
fn take_text(payload: &[u8]) -> ImksResult<(Packet, &[u8])> {
    let colon = memchr::memchr(b':', &payload[..payload.len().min(LENGTH_DIGITS_MAX + 1)]).ok_or_else(cut)?;
    let digits = std::str::from_utf8(&payload[..colon]).map_err(|_| cut())?;
    let only_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    let units: usize = digits.parse().ok().filter(|_| only_digits).ok_or_else(cut)?;
    let content = &payload[colon + 1..];
    let bytes = bytes_of_units(content, units).ok_or_else(cut)?;
    // Copied, so that a waiting message does not keep the whole request body alive.
    let packet = decode_text(Bytes::copy_from_slice(&content[..bytes]))?;
    Ok((packet, &content[bytes..]))
}

/// Returns the number of bytes of the first `units` UTF-16 code units of a UTF-8 text, or `None` if it is
/// shorter.
fn bytes_of_units(text: &[u8], units: usize) -> Option<usize> {
    let (mut bytes, mut left) = (0, units);
    while left > 0 {
        let (width, units) = match text.get(bytes)? {
            0x00..=0x7f => (1, 1),
            0x80..=0xdf => (2, 1),
            0xe0..=0xef => (3, 1),
            _ => (4, 2),
        };
        bytes += width;
        left = left.checked_sub(units)?;
    }
    (bytes <= text.len()).then_some(bytes)
}

/// Decodes `<0: text, 1: binary> <length, a byte per digit> ff <packet>`, with the length in bytes.
fn take_binary(payload: &[u8]) -> ImksResult<(Packet, &[u8])> {
    let (kind, rest) = payload.split_first().ok_or_else(cut)?;
    let end =
        memchr::memchr(END_OF_LENGTH, &rest[..rest.len().min(LENGTH_DIGITS_MAX + 1)]).ok_or_else(cut)?;
    let mut length = 0_usize;
    for digit in &rest[..end] {
        length = match digit {
            0..=9 => length * 10 + usize::from(*digit),
            _ => return Err(cut()),
        };
    }
    let (packet, rest) = rest[end + 1..].split_at_checked(length).ok_or_else(cut)?;
    let packet = Bytes::copy_from_slice(packet);
    match kind {
        0 => Ok((decode_text(packet)?, rest)),
        1 => Ok((decode_binary(packet)?, rest)),
        _ => Err(cut()),
    }
}

/// Encodes preframed messages as one polling payload. Also returns whether it is binary, which it never is
/// with `base64`.
pub fn encode_payload<'a>(
    frames: impl IntoIterator<Item = &'a Frame, IntoIter: Clone>,
    base64: bool,
) -> (Vec<u8>, bool) {
    let frames = frames.into_iter().filter(|frame| !frame.is_control());
    let binary = !base64 && frames.clone().any(Frame::is_binary);
    let mut payload = Vec::new();
    for frame in frames {
        if binary {
            push_binary(&mut payload, frame);
        } else {
            push_text(&mut payload, frame);
        }
    }
    (payload, binary)
}

fn push_text(payload: &mut Vec<u8>, frame: &Frame) {
    let packet = match frame.is_binary() {
        true => base64_packet(frame).into(),
        false => String::from_utf8_lossy(frame.payload()),
    };
    let units: usize = packet.chars().map(char::len_utf16).sum();
    // Writing to a Vec cannot fail.
    let _ = write!(payload, "{units}:{packet}");
}

fn push_binary(payload: &mut Vec<u8>, frame: &Frame) {
    let typed = frame.is_binary() && !frame.is_typed();
    let length = frame.payload().len() + usize::from(typed);
    payload.push(u8::from(frame.is_binary()));
    payload.extend(length.to_string().bytes().map(|digit| digit - b'0'));
    payload.push(END_OF_LENGTH);
    if typed {
        payload.push(MESSAGE);
    }
    payload.extend_from_slice(frame.payload());
}

/// Returns the frame as a WebSocket of this version carries it. Copies binary data that has no type byte yet.
pub fn websocket_frame(frame: Frame, base64: bool) -> Frame {
    match (frame.is_binary(), base64) {
        (true, true) => Frame::packet(&base64_packet(&frame)),
        (true, false) if !frame.is_typed() => typed(&frame),
        _ => frame,
    }
}

/// Returns a binary message with its type byte before the data.
pub fn typed(frame: &Frame) -> Frame {
    Frame::typed_binary(MESSAGE, frame.payload())
}

fn base64_packet(frame: &Frame) -> String {
    let data = &frame.payload()[usize::from(frame.is_typed())..];
    let mut packet = String::from("b4");
    STANDARD.encode_string(data, &mut packet);
    packet
}

fn cut() -> ImksError {
    ImksError::UnexpectedEnginePacket("length and payload disagree")
}

/// The type of a binary message packet.
const MESSAGE: u8 = 4;
const END_OF_LENGTH: u8 = 0xff;
/// The maximum number of digits of a length. They can express far more than any payload.
const LENGTH_DIGITS_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(content: &str) -> Packet {
        Packet::Message(Message::Text(content.into()))
    }

    fn binary(content: &[u8]) -> Packet {
        Packet::Message(Message::Binary(Bytes::copy_from_slice(content)))
    }

    fn decode(payload: &[u8], binary: bool) -> ImksResult<Vec<Packet>> {
        decode_payload(payload, binary).collect()
    }

    #[test]
    fn the_vectors_of_the_protocol_document() {
        let frames = [Frame::text("hello"), Frame::binary(&[1, 2, 3, 4])];
        let as_text = b"6:4hello10:b4AQIDBA==".as_slice();
        let as_binary = b"\x00\x06\xff4hello\x01\x05\xff\x04\x01\x02\x03\x04".as_slice();
        assert_eq!(encode_payload(&frames, true), (as_text.to_vec(), false));
        assert_eq!(encode_payload(&frames, false), (as_binary.to_vec(), true));
        let packets = [text("hello"), binary(&[1, 2, 3, 4])];
        assert_eq!(decode(as_text, false).unwrap(), packets);
        assert_eq!(decode(as_binary, true).unwrap(), packets);
        assert_eq!(encode_payload(&[Frame::text("a")], false), (b"2:4a".to_vec(), false));
    }

    #[test]
    fn base64_is_read_as_clients_write_it() {
        for text in ["AQIDBA==", "AQID\nBA==", "AQIDBA", "AQ\r\nIDBA"] {
            let packet = format!("b4{text}");
            assert_eq!(decode_text(packet.clone().into()).unwrap(), binary(&[1, 2, 3, 4]), "{text:?}");
            let payload = format!("{}:{packet}", packet.len());
            assert_eq!(decode(payload.as_bytes(), false).unwrap(), [binary(&[1, 2, 3, 4])], "{text:?}");
        }
    }

    #[test]
    fn lengths_count_as_javascript_does() {
        let frames = [Frame::text("é€😀"), Frame::text("x")];
        let (payload, _) = encode_payload(&frames, true);
        assert_eq!(payload, "5:4é€😀2:4x".as_bytes());
        assert_eq!(decode(&payload, false).unwrap(), [text("é€😀"), text("x")]);
        assert!(decode("2:😀".as_bytes(), false).is_err(), "no such type");
        assert!(decode("4:4é€😀".as_bytes(), false).is_err(), "in the middle of a character");
    }

    #[test]
    fn a_bad_packet_ends_the_payload_after_the_good_ones() {
        let payloads: [(&[u8], bool, usize); 12] = [
            (b"", false, 0),
            (b"abc", false, 0),
            (b"2:4", false, 0),
            (b":4a", false, 0),
            (b"+2:4a", false, 0),
            (b"0:", false, 0),
            (b"99999999999:4", false, 0),
            (b"2:4a3", false, 1),
            (b"2:4a2:9a", false, 1),
            (b"\x00\x09\xff4a", true, 0),
            (b"\x02\x02\xff4a", true, 0),
            (b"\x00\x02\xff4a\x01\x01\xff\x03", true, 1),
        ];
        for (payload, binary, good) in payloads {
            let decoded: Vec<_> = decode_payload(payload, binary).collect();
            assert_eq!((decoded.len(), decoded[good].is_err()), (good + 1, true), "{payload:?}");
        }
    }

    #[test]
    fn a_websocket_carries_binary_with_its_type_or_as_text() {
        let frame = Frame::binary(&[1, 2]);
        let typed = websocket_frame(frame.clone(), false);
        assert_eq!((typed.payload(), typed.is_binary()), ([4, 1, 2].as_slice(), true));
        assert_eq!(websocket_frame(typed.clone(), false).payload(), [4, 1, 2], "once is enough");
        assert_eq!(websocket_frame(typed, true).payload(), b"b4AQI=");
        assert_eq!(websocket_frame(frame, true).payload(), b"b4AQI=");
        assert_eq!(websocket_frame(Frame::text("a"), true).payload(), b"4a");
        assert_eq!(decode_binary(Bytes::from_static(&[4, 1, 2])).unwrap(), binary(&[1, 2]));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_without_harm(payload in proptest::collection::vec(any::<u8>(), 0..100), binary in any::<bool>()) {
            decode_payload(&payload, binary).for_each(drop);
            let _ = (decode_text(payload.clone().into()), decode_binary(payload.into()));
        }

        #[test]
        fn any_lengths_decode_or_fail_without_harm(payload in "([0-9]{0,3}:?[b4]?[a😀é:]{0,4}){0,4}") {
            decode_payload(payload.as_bytes(), false).for_each(drop);
        }

        #[test]
        fn what_is_encoded_decodes_to_itself(
            texts in proptest::collection::vec("\\PC{0,20}", 1..5),
            data in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
            base64 in any::<bool>(),
        ) {
            let mut frames: Vec<Frame> = texts.iter().map(|text| Frame::text(text)).collect();
            frames.extend(data.iter().map(|data| Frame::binary(data)));
            let (payload, is_binary) = encode_payload(&frames, base64);
            prop_assert_eq!(is_binary, data.is_some() && !base64);
            let mut expected: Vec<_> = texts.iter().map(|content| text(content)).collect();
            expected.extend(data.iter().map(|data| binary(data)));
            prop_assert_eq!(decode(&payload, is_binary).unwrap(), expected);
        }
    }
}
