//! The default Socket.IO parser: packets to text and binary frames, and back.
//!
//! Grammar of the text part (Socket.IO protocol v5, "Packet encoding"):
//! `<type>[<attachments>-][<namespace>,][<ack id>][<JSON>]`.

use std::borrow::Cow;
use std::io::Write;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use smallvec::SmallVec;
use tungstenite::Utf8Bytes;

use super::arguments::DEFAULT_JSON_BYTES;
pub use super::arguments::{Arguments, One, Placeholder, RawArgs};
use super::binary;
use super::packet::{Args, Packet, PacketBody};
use crate::engine::{Frame, FrameWriter, Message};
use crate::error::{ImksError, ImksResult};

/// Reassembles packets from messages: a binary event is one text message followed by its attachments.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    format: Format,
    pending: Option<Box<Pending>>,
}

/// How packets are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Default,
    MsgPack,
    /// The default one, with a query in the namespace.
    #[cfg(feature = "server")]
    Version2,
}

/// What one packet may bring along.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most attachments of one packet.
    pub attachments_max: usize,
    /// Most bytes of all attachments of one packet together.
    pub attachment_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { attachments_max: ATTACHMENTS_MAX, attachment_bytes_max: ATTACHMENT_BYTES_MAX }
    }
}

/// A packet whose attachments are still on their way.
#[derive(Debug)]
struct Pending {
    packet: Packet,
    expected: usize,
    attachments: Vec<Bytes>,
    bytes: usize,
}

impl Decoder {
    /// With these limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, format: Format::Default, pending: None }
    }

    /// With these limits, for packets of the msgpack parser.
    pub fn msgpack(limits: Limits) -> Self {
        Self { limits, format: Format::MsgPack, pending: None }
    }

    /// With these limits, for packets of a client of Socket.IO v2.
    #[cfg(feature = "server")]
    pub(crate) fn version2(limits: Limits) -> Self {
        Self { limits, format: Format::Version2, pending: None }
    }

    /// Takes the next message of the connection. `None`: more attachments are needed first.
    ///
    /// Every error is final for the connection: the peer and we no longer agree on where packets begin.
    pub fn add(&mut self, message: Message) -> ImksResult<Option<Packet>> {
        if self.format == Format::MsgPack {
            return match message {
                Message::Binary(data) => super::msgpack::decode(&data, &self.limits).map(Some),
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
        #[cfg(feature = "server")]
        let packet = match self.format {
            Format::Version2 => super::dialect::from_version2(packet),
            _ => packet,
        };
        if expected == 0 {
            return Ok(Some(packet));
        }
        if expected > self.limits.attachments_max {
            return Err(ImksError::InvalidAttachmentCount);
        }
        let attachments = Vec::with_capacity(expected);
        self.pending = Some(Box::new(Pending { packet, expected, attachments, bytes: 0 }));
        Ok(None)
    }

    fn add_attachment(&mut self, data: Bytes, mut pending: Box<Pending>) -> ImksResult<Option<Packet>> {
        pending.bytes += data.len();
        if pending.bytes > self.limits.attachment_bytes_max {
            return Err(ImksError::PayloadTooLarge);
        }
        pending.attachments.push(data);
        if pending.attachments.len() < pending.expected {
            self.pending = Some(pending);
            return Ok(None);
        }
        let Pending { packet, attachments, .. } = *pending;
        let attach = |args: Args| -> ImksResult<Args> {
            check_placeholders(&args, attachments.len())?;
            Ok(args.with_attachments(attachments))
        };
        let body = match packet.body {
            PacketBody::Event(id, args) => PacketBody::Event(id, attach(args)?),
            PacketBody::Ack(id, args) => PacketBody::Ack(id, attach(args)?),
            other => other,
        };
        Ok(Some(Packet { namespace: packet.namespace, body }))
    }
}

/// The text part of a packet before its payload.
pub(crate) struct Head<'a> {
    /// Packet type, 0 to 9.
    pub(crate) kind: u8,
    /// Attachments that follow.
    pub(crate) attachments: usize,
    pub(crate) namespace: Cow<'static, str>,
    pub(crate) id: Option<u64>,
    /// The payload; empty if there is none.
    pub(crate) json: &'a str,
}

/// Splits the text part of a packet.
pub(crate) fn split_head(text: &str) -> ImksResult<Head<'_>> {
    let first = text.chars().next().ok_or(ImksError::EmptySocketPacket)?;
    let kind = first.to_digit(10).ok_or(ImksError::InvalidSocketPacketTypeChar(first))? as u8;
    let mut at = 1;
    let attachments = match kind {
        5 | 6 => take_attachment_count(text, &mut at)?,
        _ => 0,
    };
    let namespace = take_namespace(text, &mut at);
    let id = take_ack_id(text, &mut at)?;
    Ok(Head { kind, attachments, namespace, id, json: &text[at..] })
}

/// Reads the text part of a packet; the number says how many attachments follow.
fn decode(text: Utf8Bytes) -> ImksResult<(Packet, usize)> {
    let Head { kind, attachments, namespace, id, json } = split_head(&text)?;
    let (has_payload, at) = (!json.is_empty(), text.len() - json.len());
    let body = match kind {
        0 => PacketBody::Connect(has_payload.then(|| object(json)).transpose()?),
        1 if has_payload => return Err(malformed("DISCONNECT has a payload")),
        1 => PacketBody::Disconnect,
        2 | 3 if !has_payload => without_payload(kind, id),
        2 | 5 => PacketBody::Event(id, Args::event(text, at)?),
        3 | 6 => PacketBody::Ack(id, Args::ack(text, at)?),
        4 => PacketBody::ConnectError(connect_error(json)?),
        _ => return Err(ImksError::InvalidSocketPacketType(kind)),
    };
    Ok((Packet { namespace, body }, attachments))
}

/// The reference takes `42` and `43` for packets without arguments.
fn without_payload(kind: u8, id: Option<u64>) -> PacketBody {
    match kind {
        2 => PacketBody::Event(id, Args::none()),
        _ => PacketBody::Ack(id, Args::none()),
    }
}

fn take_attachment_count(text: &str, at: &mut usize) -> ImksResult<usize> {
    let rest = &text[*at..];
    let digits = rest.find('-').ok_or(ImksError::InvalidAttachmentCount)?;
    let count = parse_digits(&rest[..digits]).ok_or(ImksError::InvalidAttachmentCount)?;
    *at += digits + 1;
    match usize::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(ImksError::InvalidAttachmentCount),
    }
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

fn take_ack_id(text: &str, at: &mut usize) -> ImksResult<Option<u64>> {
    let rest = &text[*at..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return Ok(None);
    }
    *at += digits;
    parse_digits(&rest[..digits]).map(Some).ok_or_else(|| malformed("ack id beyond 64 bits"))
}

fn parse_digits(digits: &str) -> Option<u64> {
    let only_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    only_digits.then(|| digits.parse().ok()).flatten()
}

fn object(json: &str) -> ImksResult<String> {
    let raw: &RawValue = serde_json::from_str(json).map_err(|_| malformed("payload is not JSON"))?;
    match raw.get().as_bytes().first() {
        Some(b'{') => Ok(raw.get().to_owned()),
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

/// Every placeholder must name an attachment that is there (CVE-2022-2421 is what happens otherwise).
fn check_placeholders(args: &Args, attachments: usize) -> ImksResult<()> {
    let values: Vec<serde_json::Value> = args.parse()?;
    let mut left: Vec<&serde_json::Value> = values.iter().collect();
    while let Some(value) = left.pop() {
        match value {
            serde_json::Value::Array(items) => left.extend(items),
            serde_json::Value::Object(map)
                if map.get(PLACEHOLDER) == Some(&serde_json::Value::Bool(true)) =>
            {
                let number = map.get("num").and_then(serde_json::Value::as_u64);
                if number.is_none_or(|number| number >= attachments as u64) {
                    return Err(malformed("illegal attachments"));
                }
            }
            serde_json::Value::Object(map) => left.extend(map.values()),
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn malformed(rule: &'static str) -> ImksError {
    ImksError::InvalidSocketPacketFormat(rule)
}

/// The frames of one packet: they leave next to each other.
pub type Frames = SmallVec<[Frame; 1]>;

/// `2` or `5`: an event; `id` where an answer is wanted.
pub fn encode_event(
    namespace: &str,
    id: Option<u64>,
    name: &str,
    args: &impl Arguments,
) -> ImksResult<Frames> {
    encode_array(EVENT, namespace, id, Some(name), args)
}

/// `3` or `6`: the answer to the event with this id.
pub fn encode_ack(namespace: &str, id: u64, args: &impl Arguments) -> ImksResult<Frames> {
    encode_array(ACK, namespace, Some(id), None, args)
}

/// `0`: the namespace is joined, under this socket id.
pub fn encode_connect(namespace: &str, sid: &str) -> Frame {
    let mut out = packet_writer("0", namespace, 0);
    out.push_str("{\"sid\":\"");
    out.push_str(sid);
    out.push_str("\"}");
    out.finish()
}

/// `1`: the namespace is left.
pub fn encode_disconnect(namespace: &str) -> Frame {
    packet_writer("1", namespace, 0).finish()
}

/// `4`: the namespace is refused, with a JSON object that says why.
pub fn encode_connect_error(namespace: &str, reason: &impl Serialize) -> ImksResult<Frame> {
    let mut out = packet_writer("4", namespace, DEFAULT_JSON_BYTES);
    serde_json::to_writer(&mut out, reason)?;
    Ok(out.finish())
}

pub(crate) struct Kind {
    plain: &'static str,
    binary: &'static str,
}

pub(crate) const EVENT: Kind = Kind { plain: "2", binary: "5" };
const ACK: Kind = Kind { plain: "3", binary: "6" };

fn encode_array(
    kind: Kind,
    namespace: &str,
    id: Option<u64>,
    name: Option<&str>,
    args: &impl Arguments,
) -> ImksResult<Frames> {
    let (text, mut attachments) = write_array(kind, namespace, id, name, args, "")?;
    let mut frames = Frames::new();
    frames.push(text.finish());
    frames.append(&mut attachments);
    Ok(frames)
}

/// The text of an event or ack with `tail` after its arguments, and its attachments.
pub(crate) fn write_array(
    kind: Kind,
    namespace: &str,
    id: Option<u64>,
    name: Option<&str>,
    args: &impl Arguments,
    tail: &str,
) -> ImksResult<(FrameWriter, Frames)> {
    let attachments = args.attachments();
    // Exact where the arguments' size is known: a frame that fits its buffer needs no second allocation.
    let name_bytes = name.map_or(0, |name| name.len() + QUOTES + usize::from(!args.is_empty()));
    let json_bytes = id.map_or(0, decimal_digits) + BRACKETS + name_bytes + args.size_hint() + tail.len();
    let mut out = if attachments.is_empty() {
        packet_writer(kind.plain, namespace, json_bytes)
    } else {
        binary_packet_writer(kind.binary, attachments.len(), namespace, json_bytes)?
    };
    let start = out.len();
    if let Some(id) = id {
        write!(out, "{id}").map_err(serde_json::Error::io)?;
    }
    out.push_str("[");
    if let Some(name) = name {
        serde_json::to_writer(&mut out, name)?;
        if !args.is_empty() {
            out.push_str(",");
        }
    }
    let mut found = Vec::new();
    if args.may_hold_binary() {
        let written;
        (written, found) = binary::writing(attachments.len(), || args.write_json(&mut out));
        written?;
    } else {
        args.write_json(&mut out)?;
    }
    out.push_str(tail);
    out.push_str("]");
    if !found.is_empty() {
        // The number of attachments stands in front of the text and is known only now.
        let (text, count) = (out, attachments.len() + found.len());
        out = binary_packet_writer(kind.binary, count, namespace, text.len() - start)?;
        out.write_all(text.written(start)).map_err(serde_json::Error::io)?;
    }
    Ok((out, attachments.iter().chain(&found).map(|attachment| Frame::binary(attachment)).collect()))
}

pub(crate) fn packet_writer(kind: &str, namespace: &str, json_bytes: usize) -> FrameWriter {
    let namespace_bytes = if namespace == MAIN_NAMESPACE { 0 } else { namespace.len() + 1 };
    let mut out = Frame::writer(kind.len() + namespace_bytes + json_bytes);
    out.push_str(kind);
    push_namespace(&mut out, namespace);
    out
}

fn decimal_digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

fn binary_packet_writer(
    kind: &str,
    count: usize,
    namespace: &str,
    json_bytes: usize,
) -> ImksResult<FrameWriter> {
    let mut out = Frame::writer(1 + namespace.len() + 1 + json_bytes);
    out.push_str(kind);
    write!(out, "{count}-").map_err(serde_json::Error::io)?;
    push_namespace(&mut out, namespace);
    Ok(out)
}

fn push_namespace(out: &mut FrameWriter, namespace: &str) {
    if namespace != MAIN_NAMESPACE {
        out.push_str(namespace);
        out.push_str(",");
    }
}

/// The namespace of packets that name none.
pub const MAIN_NAMESPACE: &str = "/";

/// The reference's limit since its parser 4.2.6; more closes the connection.
pub const ATTACHMENTS_MAX: usize = 10;

/// Ten attachments of the default maximum payload.
pub const ATTACHMENT_BYTES_MAX: usize = 10_000_000;

/// Key that marks a placeholder for an attachment.
pub(crate) const PLACEHOLDER: &str = "_placeholder";

/// Around the array.
const BRACKETS: usize = 2;

/// Around a name.
const QUOTES: usize = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the peer of a frame receives.
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
        assert_eq!(wire(&encode_connect("/", "oSO0OpakMV_3jnilAAAA")), r#"0{"sid":"oSO0OpakMV_3jnilAAAA"}"#);
        assert_eq!(wire(&encode_connect("/admin", "x")), r#"0/admin,{"sid":"x"}"#);
        assert_eq!(wire(&encode_disconnect("/admin")), "1/admin,");
        assert_eq!(wire(&encode_event("/", None, "foo", &()).unwrap()[0]), r#"2["foo"]"#);
        assert_eq!(
            wire(&encode_event("/admin", Some(12), "foo", &One(&json)).unwrap()[0]),
            r#"2/admin,12["foo",{"foo":"bar"}]"#
        );
        assert_eq!(wire(&encode_ack("/admin", 13, &One("bar")).unwrap()[0]), r#"3/admin,13["bar"]"#);
        let refusal = serde_json::json!({"message": "Not authorized"});
        assert_eq!(wire(&encode_connect_error("/", &refusal).unwrap()), r#"4{"message":"Not authorized"}"#);
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
        let limits = Limits { attachments_max: 10, attachment_bytes_max: 5 };
        assert!(add(&mut Decoder::new(limits), r#"511-["a"]"#).is_err());
        let mut decoder = Decoder::new(limits);
        assert!(add(&mut decoder, r#"52-["a"]"#).unwrap().is_none());
        assert!(decoder.add(Message::Binary(Bytes::from_static(b"123"))).unwrap().is_none());
        assert!(decoder.add(Message::Binary(Bytes::from_static(b"456"))).is_err());
        let mut decoder = Decoder::new(limits);
        add(&mut decoder, r#"51-["a"]"#).unwrap();
        assert!(add(&mut decoder, r#"2["b"]"#).is_err());
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
