//! The encoding of Engine.IO v4: text packets, binary packets and polling payloads.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use bytes::{Buf, Bytes};
use tungstenite::Utf8Bytes;

use crate::engine::{Frame, Message, Packet};
use crate::{ImksError, ImksResult};

/// Decodes one text packet: a WebSocket text frame, or one part of a polling payload. A message shares the
/// memory of `packet`; nothing is copied.
///
/// # Errors
/// Fails if the packet is empty, has an unknown type, is not UTF-8 or contains invalid base64.
pub fn decode_text(mut packet: Bytes) -> ImksResult<Packet> {
    let Some(&kind) = packet.first() else { return Err(ImksError::EmptyEnginePacket) };
    packet.advance(1);
    match kind {
        b'4' => Ok(Packet::Message(Message::Text(utf8(packet)?))),
        b'0' => Ok(Packet::Open(utf8(packet)?)),
        b'1' => Ok(Packet::Close),
        b'2' => Ok(Packet::Ping(utf8(packet)?)),
        b'3' => Ok(Packet::Pong(utf8(packet)?)),
        b'5' => Ok(Packet::Upgrade),
        b'6' => Ok(Packet::Noop),
        b'b' => Ok(Packet::Message(Message::Binary(decode_base64(&packet)?))),
        other => Err(ImksError::InvalidEnginePacketTypeChar(char::from(other))),
    }
}

/// Decodes a polling payload: packets separated by `\x1e`. Stops after the first bad packet.
pub fn decode_payload(payload: &[u8]) -> impl Iterator<Item = ImksResult<Packet>> + '_ {
    let mut rest = Some(payload);
    std::iter::from_fn(move || {
        let current = rest?;
        let packet = match memchr::memchr(SEPARATOR, current) {
            Some(end) => {
                rest = Some(&current[end + 1..]);
                &current[..end]
            }
            None => {
                rest = None;
                current
            }
        };
        // Copied, so that a waiting message does not keep the whole request body alive.
        let packet = decode_text(Bytes::copy_from_slice(packet));
        if packet.is_err() {
            rest = None;
        }
        Some(packet)
    })
}

/// Encodes one packet as text for polling; binary messages become `b<base64>`.
pub fn encode_text(packet: &Packet) -> String {
    match packet {
        Packet::Open(content) => format!("0{content}"),
        Packet::Close => "1".into(),
        Packet::Ping(content) => format!("2{content}"),
        Packet::Pong(content) => format!("3{content}"),
        Packet::Message(Message::Text(text)) => format!("4{text}"),
        Packet::Message(Message::Binary(data)) => format!("b{}", STANDARD.encode(data)),
        Packet::Upgrade => "5".into(),
        Packet::Noop => "6".into(),
    }
}

/// Encodes preframed messages as one polling payload.
pub fn encode_payload<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> String {
    let mut payload = String::new();
    for frame in frames.into_iter().filter(|frame| !frame.is_control()) {
        if !payload.is_empty() {
            payload.push(char::from(SEPARATOR));
        }
        if frame.is_binary() {
            payload.push('b');
            STANDARD.encode_string(frame.payload(), &mut payload);
        } else {
            // A text frame may contain anything its writer put there. Invalid UTF-8 is replaced.
            payload.push_str(&String::from_utf8_lossy(frame.payload()));
        }
    }
    payload
}

/// Decodes base64 in every form that official clients send: line breaks, no padding, URL-safe alphabet.
///
/// # Errors
/// [`ImksError::InvalidBase64`] for invalid characters, or an impossible number of characters.
pub(crate) fn decode_base64(text: &[u8]) -> ImksResult<Bytes> {
    if let Ok(data) = LENIENT.decode(text) {
        return Ok(data.into());
    }
    let plain = text.iter().filter(|byte| !byte.is_ascii_whitespace()).map(|byte| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => *other,
    });
    let data = LENIENT.decode(plain.collect::<Vec<_>>()).map_err(|_| ImksError::InvalidBase64)?;
    Ok(data.into())
}

fn utf8(bytes: Bytes) -> ImksResult<Utf8Bytes> {
    Utf8Bytes::try_from(bytes).map_err(|_| ImksError::InvalidPacketUtf8)
}

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
/// The separator between packets of a polling payload.
const SEPARATOR: u8 = 0x1e;

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

    #[test]
    fn the_vectors_of_the_protocol_document() {
        let vectors = [
            ("0{}", Packet::Open("{}".into())),
            ("1", Packet::Close),
            ("2", Packet::Ping("".into())),
            ("2probe", Packet::Ping("probe".into())),
            ("3probe", Packet::Pong("probe".into())),
            ("4hello", text("hello")),
            ("5", Packet::Upgrade),
            ("6", Packet::Noop),
            ("bAQIDBA==", binary(&[1, 2, 3, 4])),
        ];
        for (wire, packet) in vectors {
            assert_eq!(decode_text(Bytes::from(wire)).unwrap(), packet, "{wire}");
            assert_eq!(encode_text(&packet), wire);
        }
    }

    #[test]
    fn a_payload_is_packets_between_separators() {
        let packets: Vec<_> = decode_payload(b"4a\x1ebAQ==\x1e3").map(Result::unwrap).collect();
        assert_eq!(packets, [text("a"), binary(&[1]), Packet::Pong("".into())]);
        let frames = [Frame::text("a"), Frame::control(0xA, b"x"), Frame::binary(&[1])];
        assert_eq!(encode_payload(&frames), "4a\x1ebAQ==");
    }

    #[test]
    fn a_bad_packet_ends_the_payload_after_the_good_ones() {
        for (payload, good) in
            [("", 0), ("abc", 0), ("4a\x1e", 1), ("4a\x1eb!!!\x1e4b", 1), ("4a\x1e\x1e4b", 1)]
        {
            let decoded: Vec<_> = decode_payload(payload.as_bytes()).collect();
            assert_eq!((decoded.len(), decoded[good].is_err()), (good + 1, true), "{payload:?}");
        }
    }

    #[test]
    fn base64_is_read_as_clients_write_it() {
        let data: Vec<u8> = (0..=255).collect();
        let strict = STANDARD.encode(&data);
        let lines = |end: &str| {
            strict
                .as_bytes()
                .chunks(76)
                .map(|line| format!("{}{end}", String::from_utf8_lossy(line)))
                .collect()
        };
        let written: [String; 6] = [
            strict.clone(),
            lines("\n"),
            lines("\r\n"),
            strict.trim_end_matches('=').into(),
            strict.replace('+', "-").replace('/', "_"),
            strict.trim_end_matches('=').replace('+', "-").replace('/', "_"),
        ];
        for text in written {
            assert_eq!(decode_text(format!("b{text}").into()).unwrap(), binary(&data), "{text}");
        }
        assert_eq!(
            decode_text("bAR==".into()).unwrap(),
            binary(&[1]),
            "bits that are left over do not matter"
        );
        assert_eq!(decode_text("b".into()).unwrap(), binary(&[]));
        for bad in ["b!!!", "bA", "bAA=A", "bé"] {
            assert!(matches!(decode_text(bad.into()), Err(ImksError::InvalidBase64)), "{bad}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        assert!(decode_text(Bytes::from_static(b"4\xff")).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_without_harm(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            decode_payload(&payload).for_each(drop);
        }

        #[test]
        fn what_is_encoded_decodes_to_itself(
            texts in proptest::collection::vec("[^\u{1e}]{0,20}", 1..5),
            data in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let mut frames: Vec<Frame> = texts.iter().map(|text| Frame::text(text)).collect();
            frames.push(Frame::binary(&data));
            let decoded: Vec<_> =
                decode_payload(encode_payload(&frames).as_bytes()).collect::<Result<_, _>>().unwrap();
            let mut expected: Vec<_> = texts.iter().map(|content| text(content)).collect();
            expected.push(binary(&data));
            prop_assert_eq!(decoded, expected);
        }
    }
}
