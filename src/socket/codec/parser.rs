//! The decoder of messages into packets, and the text grammar of the default parser. [`encode_event`] and the
//! other encoders write the same grammar.

use std::borrow::Cow;
use std::num::ParseIntError;

use bytes::Bytes;
use serde_json::value::RawValue;
use tungstenite::Utf8Bytes;

pub use super::arguments::{Arguments, One, Placeholder, RawArgs};
pub use super::encoder::{
    EncodedPacket, Frames, encode_ack, encode_connect, encode_connect_error, encode_disconnect, encode_event,
};
use super::json::is_too_deep;
use super::msgpack;
pub use super::packet::{ATTACHMENT_BYTES_MAX, ATTACHMENTS_MAX, Limits, MAIN_NAMESPACE};
use super::packet::{
    ATTACHMENTS_TOO_LARGE, Args, ID_TOO_LARGE, Packet, PacketBody, Payload, TOO_DEEP, TOO_MANY_ATTACHMENTS,
    malformed,
};
use super::placeholder::all_have_attachments;
#[cfg(feature = "socketio")]
use super::version2;
use crate::engine::Message;
use crate::error::{ImksError, ImksResult};

/// A decoder that reassembles packets from messages. A binary event is a text message followed by its
/// attachments.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    format: Format,
    pending: Option<Box<Pending>>,
}

/// The format of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Default,
    MsgPack,
    /// The default format, with a query in the namespace.
    #[cfg(feature = "socketio")]
    Version2,
}

/// A packet that still lacks attachments. Those of a refused packet are dropped as they arrive.
#[derive(Debug)]
struct Pending {
    packet: Packet,
    missing: usize,
    attachments: Vec<Bytes>,
    bytes: usize,
}

impl Decoder {
    /// Creates a decoder for the default parser.
    pub fn new(limits: Limits) -> Self {
        Self { limits, format: Format::Default, pending: None }
    }

    /// Creates a decoder for the msgpack parser.
    pub fn msgpack(limits: Limits) -> Self {
        Self { limits, format: Format::MsgPack, pending: None }
    }

    /// Creates a decoder for a client of Socket.IO v2.
    #[cfg(feature = "socketio")]
    pub(crate) fn version2(limits: Limits) -> Self {
        Self { limits, format: Format::Version2, pending: None }
    }

    /// Processes the next message of the connection. Returns `None` if more attachments are needed first.
    ///
    /// Every error is final for the connection, because the two sides no longer agree on where packets begin.
    pub fn add(&mut self, message: Message) -> ImksResult<Option<Packet>> {
        if self.format == Format::MsgPack {
            return match message {
                Message::Binary(data) => msgpack::decode(&data, &self.limits).map(Some),
                Message::Text(_) => Err(malformed("text for the msgpack parser")),
            };
        }
        match (message, self.pending.take()) {
            (Message::Text(text), None) => self.add_text(text),
            (Message::Text(_), Some(_)) => Err(malformed("text while attachments are expected")),
            (Message::Binary(data), Some(pending)) => self.add_attachment(data, pending),
            (Message::Binary(_), None) => Err(malformed("attachment without a packet")),
        }
    }

    fn add_text(&mut self, text: Utf8Bytes) -> ImksResult<Option<Packet>> {
        let (packet, expected) = decode(text)?;
        #[cfg(feature = "socketio")]
        let packet = match self.format {
            Format::Version2 => version2::read(packet),
            _ => packet,
        };
        if expected == 0 {
            return Ok(Some(packet));
        }
        let mut pending = Pending { packet, missing: expected, attachments: Vec::new(), bytes: 0 };
        match expected > self.limits.attachments_max {
            true => pending.refuse(TOO_MANY_ATTACHMENTS),
            false => pending.attachments.reserve_exact(expected),
        }
        self.pending = Some(Box::new(pending));
        Ok(None)
    }

    fn add_attachment(&mut self, data: Bytes, mut pending: Box<Pending>) -> ImksResult<Option<Packet>> {
        pending.missing -= 1;
        pending.keep(data, self.limits.attachment_bytes_max);
        if pending.missing > 0 {
            self.pending = Some(pending);
            return Ok(None);
        }
        let Pending { packet, attachments, .. } = *pending;
        let attach = |args: Args| -> ImksResult<Args> {
            // Later readers of these arguments look up attachments by the numbers in placeholders.
            match all_have_attachments(args.array(), attachments.len()) {
                true => Ok(args.with_attachments(attachments)),
                false => Err(malformed("illegal attachments")),
            }
        };
        let body = match packet.body {
            PacketBody::Event(id, args) => PacketBody::Event(id, attach(args)?),
            PacketBody::Ack(Some(id), args) => PacketBody::Ack(Some(id), attach(args)?),
            other => other,
        };
        Ok(Some(Packet { namespace: packet.namespace, body }))
    }
}

impl Pending {
    /// Stores an attachment, unless the packet is refused or ignored.
    fn keep(&mut self, data: Bytes, bytes_max: usize) {
        if !matches!(self.packet.body, PacketBody::Event(..) | PacketBody::Ack(Some(_), _)) {
            return;
        }
        self.bytes += data.len();
        match self.bytes > bytes_max {
            true => self.refuse(ATTACHMENTS_TOO_LARGE),
            false => self.attachments.push(data),
        }
    }

    fn refuse(&mut self, reason: &'static str) {
        let body = std::mem::replace(&mut self.packet.body, PacketBody::Disconnect);
        self.packet.body = body.refused(reason);
        self.attachments = Vec::new();
    }
}

/// Decodes the text part of a packet. Returns the number of attachments that follow.
fn decode(text: Utf8Bytes) -> ImksResult<(Packet, usize)> {
    let first = text.chars().next().ok_or(ImksError::EmptySocketPacket)?;
    let kind = first.to_digit(10).ok_or(ImksError::InvalidSocketPacketTypeChar(first))? as u8;
    let mut at = 1;
    let attachments = if matches!(kind, 5 | 6) { take_attachment_count(&text, &mut at)? } else { 0 };
    let namespace = take_namespace(&text, &mut at);
    let Ok(id) = take_ack_id(&text, &mut at) else {
        let body = match kind {
            2 | 5 => PacketBody::Refused { id: None, reason: ID_TOO_LARGE },
            3 | 6 => PacketBody::Ack(None, Args::none()),
            _ => return Err(malformed("ack id beyond 64 bits")),
        };
        return Ok((Packet { namespace, body }, attachments));
    };
    let json = &text[at..];
    let has_payload = !json.is_empty();
    let body = match kind {
        0 => PacketBody::Connect(has_payload.then(|| object(json)).transpose()?),
        1 if has_payload => return Err(malformed("DISCONNECT has a payload")),
        1 => PacketBody::Disconnect,
        // The reference treats these as packets without arguments.
        2 | 5 if !has_payload => PacketBody::Event(id, Args::none()),
        3 | 6 if !has_payload => PacketBody::Ack(id, Args::none()),
        2 | 5 if is_too_deep(json) => PacketBody::Refused { id, reason: TOO_DEEP },
        3 | 6 if is_too_deep(json) => PacketBody::Ack(None, Args::none()),
        2 | 5 => PacketBody::Event(id, Args::event(text, at)?),
        3 | 6 => PacketBody::Ack(id, Args::ack(text, at)?),
        4 => PacketBody::ConnectError(connect_error(json)?),
        _ => return Err(ImksError::InvalidSocketPacketType(kind)),
    };
    Ok((Packet { namespace, body }, attachments))
}

fn take_attachment_count(text: &str, at: &mut usize) -> ImksResult<usize> {
    let rest = &text[*at..];
    let end = rest.find('-').ok_or(ImksError::InvalidAttachmentCount)?;
    *at += end + 1;
    match number(&rest[..end]) {
        Some(count) if count > 0 => Ok(count),
        _ => Err(ImksError::InvalidAttachmentCount),
    }
}

/// Returns the integer that JavaScript's `Number` makes of a text (ECMAScript, `StringToNumber`), as the
/// reference reads counts of attachments. Integers that are too large become the largest one.
fn number(text: &str) -> Option<usize> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let radix = match text.get(..2) {
        Some("0x" | "0X") => 16,
        Some("0o" | "0O") => 8,
        Some("0b" | "0B") => 2,
        _ => {
            let is_decimal = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+'));
            let value: f64 = text.parse().ok().filter(|_| is_decimal)?;
            // A cast saturates.
            return (value.fract() == 0.0).then_some(value as usize);
        }
    };
    let digits = &text[2..];
    let are_digits = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    are_digits.then(|| usize::from_str_radix(digits, radix).unwrap_or(usize::MAX))
}

fn take_namespace(text: &str, at: &mut usize) -> Cow<'static, str> {
    let rest = &text[*at..];
    if !rest.starts_with('/') {
        return Cow::Borrowed(MAIN_NAMESPACE);
    }
    let end = rest.find(',').unwrap_or(rest.len());
    *at = (*at + end + 1).min(text.len());
    match &rest[..end] {
        MAIN_NAMESPACE => Cow::Borrowed(MAIN_NAMESPACE),
        path => Cow::Owned(path.to_owned()),
    }
}

/// Takes the ack id, if there is one. An error means that it is larger than 64 bits.
fn take_ack_id(text: &str, at: &mut usize) -> Result<Option<u64>, ParseIntError> {
    let rest = &text[*at..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return Ok(None);
    }
    *at += digits;
    rest[..digits].parse().map(Some)
}

fn object(json: &str) -> ImksResult<Payload> {
    let raw: &RawValue = serde_json::from_str(json).map_err(|_| malformed("payload is not JSON"))?;
    match raw.get().as_bytes().first() {
        Some(b'{') => Ok(Payload { json: raw.get().to_owned(), attachments: Vec::new() }),
        _ => Err(malformed("payload is not an object")),
    }
}

fn connect_error(json: &str) -> ImksResult<String> {
    let raw: &RawValue = serde_json::from_str(json).map_err(|_| malformed("payload is not JSON"))?;
    match raw.get().as_bytes().first() {
        Some(b'{' | b'"') => Ok(raw.get().to_owned()),
        _ => Err(malformed("CONNECT_ERROR is neither text nor an object")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::Frame;

    /// Converts a frame to the message that its peer receives.
    fn message(frame: &Frame) -> Message {
        match frame.is_binary() {
            true => Message::Binary(Bytes::copy_from_slice(frame.payload())),
            false => Message::Text(std::str::from_utf8(&frame.payload()[1..]).unwrap().into()),
        }
    }

    fn receive(frames: &[Frame]) -> Packet {
        let mut decoder = Decoder::new(Limits::default());
        let mut packets = frames.iter().filter_map(|frame| decoder.add(message(frame)).unwrap());
        let packet = packets.next().unwrap();
        assert!(packets.next().is_none());
        packet
    }

    fn wire(frame: &Frame) -> &str {
        std::str::from_utf8(&frame.payload()[1..]).unwrap()
    }

    #[test]
    fn packets_look_like_the_examples_of_the_protocol_document() {
        let json = serde_json::json!({"foo": "bar"});
        assert_eq!(
            wire(&encode_connect("/", "oSO0OpakMV_3jnilAAAA", None)[0]),
            r#"0{"sid":"oSO0OpakMV_3jnilAAAA"}"#
        );
        assert_eq!(wire(&encode_connect("/admin", "x", None)[0]), r#"0/admin,{"sid":"x"}"#);
        assert_eq!(wire(&encode_disconnect("/admin")[0]), "1/admin,");
        assert_eq!(wire(&encode_event("/", None, "foo", &()).unwrap()[0]), r#"2["foo"]"#);
        assert_eq!(
            wire(&encode_event("/admin", Some(12), "foo", &One(&json)).unwrap()[0]),
            r#"2/admin,12["foo",{"foo":"bar"}]"#
        );
        assert_eq!(wire(&encode_ack("/admin", 13, &One("bar")).unwrap()[0]), r#"3/admin,13["bar"]"#);
        let refusal = serde_json::json!({"message": "Not authorized"});
        assert_eq!(
            wire(&encode_connect_error("/", &refusal).unwrap()[0]),
            r#"4{"message":"Not authorized"}"#
        );
        let attachments = [Bytes::from_static(&[1, 2, 3])];
        let args = RawArgs { json: r#"{"_placeholder":true,"num":0}"#, attachments: &attachments };
        let frames = encode_event("/", None, "baz", &args).unwrap();
        assert_eq!(wire(&frames[0]), r#"51-["baz",{"_placeholder":true,"num":0}]"#);
        assert_eq!(frames[1].payload(), [1, 2, 3]);
    }

    #[test]
    fn the_comma_after_a_namespace_may_be_missing_at_the_end_of_the_packet() {
        for (text, body) in [("0/custom", PacketBody::Connect(None)), ("1/custom", PacketBody::Disconnect)] {
            let (packet, _) = decode(text.into()).unwrap();
            assert_eq!((&*packet.namespace, packet.body), ("/custom", body));
        }
        let (packet, _) = decode("0/custom?a=b,".into()).unwrap();
        assert_eq!(packet.namespace, "/custom?a=b");
    }

    #[test]
    fn a_placeholder_must_name_an_attachment_that_is_there() {
        let placeholders = [
            r#"{"_placeholder":true,"num":1}"#,
            r#"{"_placeholder":true,"num":-1}"#,
            r#"{"_placeholder":true,"num":0.5}"#,
            r#"{"_placeholder":true,"num":"splice"}"#,
            r#"{"_placeholder":true}"#,
            r#"[{"deep":{"_placeholder":true,"num":7}}]"#,
        ];
        for placeholder in placeholders {
            let mut decoder = Decoder::new(Limits::default());
            decoder.add(Message::Text(format!(r#"51-["a",{placeholder}]"#).into())).unwrap();
            assert!(decoder.add(Message::Binary(Bytes::from_static(b"x"))).is_err(), "{placeholder}");
        }
        let plain = r#"2["a",{"_placeholder":true,"num":7}]"#;
        let packet = Decoder::new(Limits::default()).add(Message::Text(plain.into())).unwrap();
        assert!(packet.is_some(), "in a plain event it is data of the application");
    }

    #[test]
    fn attachments_are_bounded_in_number_and_bytes_and_nothing_may_come_between() {
        let add = |decoder: &mut Decoder, text: &str| decoder.add(Message::Text(text.into()));
        let limits = Limits { attachments_max: 2, attachment_bytes_max: 5 };
        let refused = |id, reason| PacketBody::Refused { id, reason };
        let ignored = PacketBody::Ack(None, Args::none());
        for (text, pieces, expected) in [
            (r#"53-7["a"]"#, ["1", "2", "3"].as_slice(), refused(Some(7), TOO_MANY_ATTACHMENTS)),
            (r#"63-7["a"]"#, &["1", "2", "3"], ignored.clone()),
            (r#"52-["a"]"#, &["123", "456"], refused(None, ATTACHMENTS_TOO_LARGE)),
            (r#"62-7["a"]"#, &["123", "456"], ignored),
        ] {
            let mut decoder = Decoder::new(limits);
            assert!(add(&mut decoder, text).unwrap().is_none());
            let mut packets =
                pieces.iter().map(|piece| decoder.add(Message::Binary((*piece).into())).unwrap());
            assert!(packets.by_ref().take(pieces.len() - 1).all(|packet| packet.is_none()), "{text}");
            assert_eq!(packets.next().flatten().unwrap().body, expected, "{text}");
            assert!(add(&mut decoder, r#"2["b"]"#).unwrap().is_some(), "the next packet is read");
        }
        let mut decoder = Decoder::new(limits);
        assert!(add(&mut decoder, r#"599999999999999999999-["a"]"#).unwrap().is_none());
        assert!(decoder.add(Message::Binary(Bytes::from_static(b"1"))).unwrap().is_none());
        assert!(decoder.pending.as_ref().is_some_and(|pending| pending.attachments.capacity() == 0));
        assert!(add(&mut decoder, r#"2["b"]"#).is_err());
    }

    #[test]
    fn a_count_of_attachments_is_what_javascript_reads_as_an_integer() {
        for one in ["1", "01", "0x1", "0X1", "0b1", "0o1", "1e0", "1.0", "1.", "+1", " 1"] {
            let mut at = 1;
            assert_eq!(take_attachment_count(&format!("5{one}-[]"), &mut at).ok(), Some(1), "{one}");
        }
        for none in ["", "0", "x", "0x", "0x+1", "1x", "1.5", "inf", "nan", "1_0", "٣", "+"] {
            assert!(take_attachment_count(&format!("5{none}-[]"), &mut 1).is_err(), "{none}");
        }
        assert!(take_attachment_count("51[]", &mut 1).is_err());
    }

    #[test]
    fn an_event_whose_ack_id_is_too_large_is_refused_and_an_ack_ignored() {
        let mut decoder = Decoder::new(Limits::default());
        let packet = decoder.add(Message::Text(r#"299999999999999999999["a"]"#.into())).unwrap().unwrap();
        assert_eq!(packet.body, PacketBody::Refused { id: None, reason: ID_TOO_LARGE });
        let packet = decoder.add(Message::Text("399999999999999999999[]".into())).unwrap().unwrap();
        assert_eq!(packet.body, PacketBody::Ack(None, Args::none()));
        assert!(decoder.add(Message::Text(r#"51-99999999999999999999["a"]"#.into())).unwrap().is_none());
        let packet = decoder.add(Message::Binary(Bytes::from_static(b"1"))).unwrap().unwrap();
        assert_eq!(packet.body, PacketBody::Refused { id: None, reason: ID_TOO_LARGE });
    }

    #[test]
    fn an_event_with_an_attachment_is_read_as_strictly_as_one_without() {
        let deep = format!("{}{}", "[".repeat(126), "]".repeat(126));
        for value in [r#""nice \ud83d""#, "1e400", r#"{"\ud83d":1}"#, &deep] {
            let mut decoder = Decoder::new(Limits::default());
            let with = format!(r#"51-["a",{{"_placeholder":true,"num":0}},{value}]"#);
            decoder.add(Message::Text(with.into())).unwrap();
            assert!(decoder.add(Message::Binary(Bytes::from_static(b"x"))).unwrap().is_some(), "{value}");
            assert!(decoder.add(Message::Text(format!(r#"2["a",{value}]"#).into())).unwrap().is_some());
        }
    }

    #[test]
    fn an_event_that_is_nested_too_deep_is_refused_with_its_attachments_and_an_ack_answers_nothing() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let refused = PacketBody::Refused { id: Some(7), reason: TOO_DEEP };
        let mut decoder = Decoder::new(Limits::default());
        let packet = decoder.add(Message::Text(format!(r#"27["a",{deep}]"#).into())).unwrap();
        assert_eq!(packet.unwrap().body, refused);
        assert!(decoder.add(Message::Text(format!(r#"51-7["a",{deep}]"#).into())).unwrap().is_none());
        let packet = decoder.add(Message::Binary(Bytes::from_static(b"x"))).unwrap();
        assert_eq!(packet.unwrap().body, refused);
        let packet = decoder.add(Message::Text(format!("37[{deep}]").into())).unwrap();
        assert_eq!(packet.unwrap().body, PacketBody::Ack(None, Args::none()));
    }

    proptest! {
        #[test]
        fn whatever_arrives_is_a_packet_or_an_error_but_never_a_panic(
            messages in prop::collection::vec(prop_oneof![
                "[0-9]{0,3}-?(/[a-z,?]{0,5})?,?[0-9]{0,3}(\\[[\"a-z{}:,0-9\\[\\]]{0,20}\\]?)?".prop_map(|text| Message::Text(text.into())),
                "\\PC{0,40}".prop_map(|text| Message::Text(text.into())),
                prop::collection::vec(any::<u8>(), 0..20).prop_map(|data| Message::Binary(data.into())),
            ], 0..8)
        ) {
            let mut decoder = Decoder::new(Limits::default());
            for message in messages {
                if decoder.add(message).is_err() {
                    break;
                }
            }
        }

        #[test]
        fn an_event_arrives_as_it_was_sent(
            namespace in "/[a-z]{0,8}",
            id in any::<Option<u64>>(),
            name in "\\PC{1,20}",
            value in prop::collection::vec("\\PC{0,20}", 0..4),
            attachments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..ATTACHMENTS_MAX)
        ) {
            prop_assume!(!["connect", "disconnect"].contains(&name.as_str()));
            let attachments: Vec<Bytes> = attachments.into_iter().map(Bytes::from).collect();
            let json = serde_json::to_string(&value).unwrap();
            let args = RawArgs { json: &json, attachments: &attachments };
            let packet = receive(&encode_event(&namespace, id, &name, &args).unwrap());
            prop_assert_eq!(&*packet.namespace, &namespace);
            let PacketBody::Event(received_id, received) = packet.body else { panic!("not an event") };
            prop_assert_eq!(received_id, id);
            prop_assert_eq!(received.name(), &name);
            prop_assert_eq!(received.first::<Vec<String>>().unwrap(), value);
            prop_assert_eq!(received.attachments(), &attachments[..]);
        }
    }
}
