//! The msgpack parser (npm `socket.io-msgpack-parser` 3), which sends each packet as one binary message: a
//! msgpack map `{type, nsp, data?, id?}` with binary values in place.
//!
//! Internally, packets have the form of the default parser: JSON text with placeholders, and attachments. One
//! form is converted to the other value by value, without a tree. Values that JSON does not have (dates, NaN,
//! infinities) are noted beside the text.

mod json;
mod reader;
#[cfg(feature = "socketio")]
pub(crate) mod servers;
mod transcoder;

use std::borrow::Cow;

use bytes::Bytes;
use rmp::encode::{write_map_len, write_str, write_uint};
use smallvec::SmallVec;
use tungstenite::Utf8Bytes;

use self::json::{Json, JsonWriter};
use self::reader::{Form, Reader, Token, is_undefined};
use self::transcoder::{Transcoder, written};
use super::encoder::EncodedPacket;
use super::packet::{Args, Limits, MAIN_NAMESPACE, Packet, PacketBody, Payload, malformed};
use crate::engine::Frame;
use crate::error::{ImksError, ImksResult};

/// Decodes one packet.
///
/// # Errors
/// Whatever the reference refuses: types other than 0 to 4, a namespace that is not text, data of the wrong
/// kind for the type, ids that are not non-negative integers, and trailing bytes. Also, as with the default
/// parser, event names that are neither text nor a number, and reserved names.
pub fn decode(message: &[u8], limits: &Limits) -> ImksResult<Packet> {
    let fields = Fields::read(message)?;
    let namespace = match fields.namespace.ok_or(ImksError::MissingNamespace)? {
        MAIN_NAMESPACE => Cow::Borrowed(MAIN_NAMESPACE),
        path => Cow::Owned(path.to_owned()),
    };
    let id = fields.id;
    let kind = fields.kind.ok_or_else(|| malformed("no packet type"))?;
    let body = match kind {
        0 => match fields.data.map(|data| payload(data, limits)).transpose()?.transpose() {
            Ok(payload) => PacketBody::Connect(payload),
            Err(reason) => PacketBody::ConnectRefused(reason),
        },
        1 if fields.data.is_some() => return Err(malformed("DISCONNECT has a payload")),
        1 => PacketBody::Disconnect,
        2 => match fields.args(limits, true)? {
            Ok(args) => PacketBody::Event(id, args),
            Err(reason) => PacketBody::Refused { id, reason },
        },
        3 => match fields.args(limits, false)? {
            Ok(args) => PacketBody::Ack(id, args),
            Err(_) => PacketBody::Ack(None, Args::none()),
        },
        4 => {
            let data = fields.data.ok_or_else(|| malformed("CONNECT_ERROR without a reason"))?;
            let is_reason = |token: &Token<'_>| is_map(token) || matches!(token, Token::Text(_));
            PacketBody::ConnectError(json_of(data, limits, is_reason)?.text()?)
        }
        _ => {
            return Err(u8::try_from(kind)
                .map_or(malformed("unknown packet type"), ImksError::InvalidSocketPacketType));
        }
    };
    Ok(Packet { namespace, body })
}

/// Encodes a packet as the one frame of this parser.
///
/// # Errors
/// A payload that is not JSON. Only an application that writes invalid JSON itself can cause this.
pub fn encode(packet: &EncodedPacket) -> ImksResult<Frame> {
    let json = packet.json().trim_ascii_end();
    let attachments: usize = packet.attachments().map(<[u8]>::len).sum();
    let mut out = Vec::with_capacity(json.len() + attachments + packet.namespace().len() + ENVELOPE_BYTES);
    let entries = 2 + u32::from(packet.id().is_some()) + u32::from(!json.is_empty());
    written(write_map_len(&mut out, entries))?;
    written(write_str(&mut out, "type"))?;
    written(write_uint(&mut out, packet.kind() as u64))?;
    written(write_str(&mut out, "nsp"))?;
    written(write_str(&mut out, packet.namespace()))?;
    if let Some(id) = packet.id() {
        written(write_str(&mut out, "id"))?;
        written(write_uint(&mut out, id))?;
    }
    if !json.is_empty() {
        written(write_str(&mut out, "data"))?;
        let non_json = packet.non_json();
        let attachments: SmallVec<[&[u8]; 4]> = packet.attachments().collect();
        Transcoder { json, attachments: &attachments, non_json, form: Form::Client, out: &mut out }.run()?;
    }
    Ok(Frame::binary(&out))
}

/// The fields of a packet's map.
#[derive(Default)]
struct Fields<'a> {
    kind: Option<u64>,
    namespace: Option<&'a str>,
    id: Option<u64>,
    /// The value in msgpack.
    data: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    /// Reads the map. Unknown keys are ignored and the last of duplicate keys wins, as in the reference.
    fn read(message: &'a [u8]) -> ImksResult<Self> {
        let mut reader = Reader::new(message);
        let Token::Map(entries) = reader.next()? else { return Err(malformed("packet is no map")) };
        let mut fields = Self::default();
        for _ in 0..entries {
            let Token::Text(key) = reader.next()? else { return Err(malformed("key is no text")) };
            match key {
                "type" => fields.kind = Some(integer(&reader.next()?)?),
                "nsp" => match reader.next()? {
                    Token::Text(path) => fields.namespace = Some(path),
                    _ => return Err(malformed("namespace is no text")),
                },
                "id" => match reader.next()? {
                    Token::Undefined => fields.id = None,
                    token => fields.id = Some(integer(&token)?),
                },
                "data" => fields.data = Some(reader.skip()?).filter(|data| !is_undefined(data)),
                _ => drop(reader.skip()?),
            }
        }
        match reader.rest {
            [] => Ok(fields),
            _ => Err(malformed("trailing bytes")),
        }
    }

    /// Returns the arguments of an event or ack, or the reason for refusing them.
    fn args(&self, limits: &Limits, has_name: bool) -> ImksResult<Result<Args, Reason>> {
        let data = self.data.ok_or_else(|| malformed("no arguments"))?;
        let json = json_of(data, limits, |token| matches!(token, Token::Array(_)))?;
        let Json { text, attachments, non_json } = match json.finish() {
            Ok(json) => json,
            Err(reason) => return Ok(Err(reason)),
        };
        let text = Utf8Bytes::try_from(Bytes::from(text)).map_err(|_| ImksError::InvalidPacketUtf8)?;
        let args = if has_name { Args::event(text, 0)? } else { Args::ack(text, 0)? };
        Ok(Ok(args.with_attachments(attachments).with_non_json(&non_json)))
    }
}

/// The reason for refusing a packet that exceeds a limit.
type Reason = &'static str;

/// Reads the payload of CONNECT.
fn payload(data: &[u8], limits: &Limits) -> ImksResult<Result<Payload, Reason>> {
    let Json { text, attachments, .. } = match json_of(data, limits, is_map)?.finish() {
        Ok(json) => json,
        Err(reason) => return Ok(Err(reason)),
    };
    let json = String::from_utf8(text).map_err(|_| ImksError::InvalidPacketUtf8)?;
    Ok(Ok(Payload { json, attachments }))
}

fn json_of(data: &[u8], limits: &Limits, allowed: impl Fn(&Token<'_>) -> bool) -> ImksResult<JsonWriter> {
    if !allowed(&Reader::new(data).next()?) {
        return Err(malformed("data of another kind than the packet type wants"));
    }
    let mut writer = JsonWriter::new(data.len(), *limits);
    writer.copy(&mut Reader::new(data), 0)?;
    Ok(writer)
}

fn is_map(token: &Token<'_>) -> bool {
    matches!(token, Token::Map(_))
}

/// Returns a non-negative integer. JavaScript has only floats, so a float without a fraction counts as one.
fn integer(token: &Token<'_>) -> ImksResult<u64> {
    match token {
        Token::Unsigned(value) => Ok(*value),
        Token::Float(value) if value.fract() == 0.0 && (0.0..=SAFE_INTEGER_MAX).contains(value) => {
            Ok(*value as u64)
        }
        _ => Err(malformed("not an integer from 0 on")),
    }
}

/// The largest integer up to which a float is exact (ECMAScript `Number.MAX_SAFE_INTEGER`).
const SAFE_INTEGER_MAX: f64 = 9_007_199_254_740_991.0;

/// The estimated size of the keys, the type and the id.
const ENVELOPE_BYTES: usize = 40;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::socket::codec::packet::{
        ATTACHMENTS_TOO_LARGE, JSON_DEPTH_MAX, LOOKALIKE, TOO_DEEP, TOO_MANY_ATTACHMENTS,
    };
    use crate::socket::codec::parser::{
        ATTACHMENTS_MAX, RawArgs, encode_ack, encode_connect, encode_connect_error, encode_disconnect,
        encode_event,
    };

    fn limits() -> Limits {
        Limits::default()
    }

    /// Encodes a packet with the msgpack parser, and decodes it again.
    fn through(packet: &EncodedPacket) -> Packet {
        decode(encode(packet).unwrap().payload(), &limits()).unwrap()
    }

    /// Returns `{type, nsp, …}` as the npm parser writes it, with the rest given as bytes.
    fn packet(entries: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80 | entries];
        write_str(&mut packet, "type").unwrap();
        packet.push(kind);
        write_str(&mut packet, "nsp").unwrap();
        write_str(&mut packet, "/").unwrap();
        packet.extend_from_slice(rest);
        packet
    }

    fn data(value: &[u8]) -> Vec<u8> {
        [&[0xa4, b'd', b'a', b't', b'a'], value].concat()
    }

    #[test]
    fn an_event_of_the_npm_parser_is_read() {
        // {type: 2, data: ["hi", new Date(0), undefined, <01 02>, {a: undefined, b: 1.5}], options: {compress: true}, id: 7, nsp: "/x"}
        let message = [
            b"\x85\xa4type\x02\xa4data\x95\xa2hi\xd7\x00\x00\x00\x00\x00\x00\x00\x00\x00\xd4\x00\x00\xc4\x02\x01\x02\x82\xa1a\xd4\x00\x00\xa1b\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00".as_slice(),
            b"\xa7options\x81\xa8compress\xc3\xa2id\x07\xa3nsp\xa2/x",
        ]
        .concat();
        let packet = decode(&message, &limits()).unwrap();
        assert_eq!(packet.namespace, "/x");
        let PacketBody::Event(Some(7), args) = packet.body else { panic!("not that event") };
        assert_eq!(args.name(), "hi");
        let expected = r#""1970-01-01T00:00:00.000Z",null,{"_placeholder":true,"num":0},{"b":1.5}"#;
        assert_eq!(args.json(), expected);
        assert_eq!(args.attachments(), [Bytes::from_static(&[1, 2])]);
    }

    #[test]
    fn each_type_has_its_data_and_no_other() {
        let map = [0x80];
        let good: [(u8, u8, Vec<u8>); 7] = [
            (2, 0, vec![]),
            (3, 0, data(&map)),
            (2, 1, vec![]),
            (3, 2, data(b"\x91\xa1a")),
            (3, 3, data(b"\x90")),
            (3, 4, data(b"\xa2no")),
            (3, 4, data(&map)),
        ];
        for (entries, kind, rest) in good {
            assert!(decode(&packet(entries, kind, &rest), &limits()).is_ok(), "{kind} {rest:?}");
        }
        let bad: [(u8, u8, Vec<u8>); 12] = [
            (3, 0, data(b"\x90")),
            (3, 0, data(b"\xc0")),
            (3, 1, data(&map)),
            (2, 2, vec![]),
            (3, 2, data(b"\x90")),
            (3, 2, data(b"\x91\xc0")),
            (3, 2, data(b"\x91\xa7connect")),
            (3, 3, data(&map)),
            (3, 4, data(b"\x01")),
            (3, 5, data(b"\x91\xa1a")),
            (3, 2, data(b"\x91\xa1a\xc0")),
            (3, 2, data(b"\xdd\xff\xff\xff\xff\xa1a")),
        ];
        for (entries, kind, rest) in bad {
            assert!(decode(&packet(entries, kind, &rest), &limits()).is_err(), "{kind} {rest:?}");
        }
    }

    #[test]
    fn ids_are_integers_and_namespaces_text() {
        let event = |id: &[u8]| packet(4, 2, &[&data(b"\x91\xa1a"), b"\xa2id".as_slice(), id].concat());
        assert!(decode(&event(b"\x05"), &limits()).is_ok());
        assert!(decode(&event(b"\xcb\x40\x00\x00\x00\x00\x00\x00\x00"), &limits()).is_ok(), "2.0");
        for id in [b"\xff".as_slice(), b"\xa11", b"\xc0", b"\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00"] {
            assert!(decode(&event(id), &limits()).is_err(), "{id:?}");
        }
        assert!(decode(b"\x82\xa4type\x00\xa3nsp\x01", &limits()).is_err());
        assert!(decode(b"\x81\xa4type\x00", &limits()).is_err());
        assert!(decode(b"\x90", &limits()).is_err());
    }

    #[test]
    fn depth_and_attachments_are_bounded() {
        let nested = |depth: usize| {
            packet(3, 2, &data(&[b"\x92\xa1a".to_vec(), vec![0x91; depth], vec![0xc0]].concat()))
        };
        assert!(decode(&nested(JSON_DEPTH_MAX - 2), &limits()).is_ok());
        for depth in [JSON_DEPTH_MAX + 1, 100_000] {
            let packet = decode(&nested(depth), &limits()).unwrap();
            assert_eq!(packet.body, PacketBody::Refused { id: None, reason: TOO_DEEP });
        }
        let binaries = |count: u8| {
            packet(
                3,
                2,
                &data(&[vec![0xdc, 0, count + 1, 0xa1, b'a'], [0xc4, 0].repeat(count.into())].concat()),
            )
        };
        assert!(matches!(decode(&binaries(10), &limits()).unwrap().body, PacketBody::Event(None, _)));
        let refused = |id, reason| PacketBody::Refused { id, reason };
        assert_eq!(decode(&binaries(11), &limits()).unwrap().body, refused(None, TOO_MANY_ATTACHMENTS));
        let small = Limits { attachment_bytes_max: 3, ..limits() };
        let large = packet(3, 2, &data(b"\x93\xa1a\xc4\x02xx\xc4\x02yy"));
        assert_eq!(decode(&large, &small).unwrap().body, refused(None, ATTACHMENTS_TOO_LARGE));
        let connect = |value: &[u8]| decode(&packet(3, 0, &data(value)), &small).unwrap().body;
        assert_eq!(connect(b"\x81\xa1a\xc4\x04xxxx"), PacketBody::ConnectRefused(ATTACHMENTS_TOO_LARGE));
        let deep = [b"\x81\xa1a".to_vec(), vec![0x91; JSON_DEPTH_MAX], vec![0xc0]].concat();
        assert_eq!(connect(&deep), PacketBody::ConnectRefused(TOO_DEEP));
    }

    #[test]
    fn a_placeholder_of_the_clients_own_making_stays_data_and_never_meets_an_attachment() {
        let lookalike = b"\x82\xac_placeholder\xc3\xa3num\x00";
        let alone = packet(3, 2, &data(&[b"\x92\xa1a".as_slice(), lookalike].concat()));
        let PacketBody::Event(None, args) = decode(&alone, &limits()).unwrap().body else {
            panic!("no event")
        };
        assert_eq!((args.json(), args.attachments().len()), (r#"{"_placeholder":true,"num":0}"#, 0));
        let mixed = packet(3, 2, &data(&[b"\x93\xa1a\xc4\x00".as_slice(), lookalike].concat()));
        let refused = PacketBody::Refused { id: None, reason: LOOKALIKE };
        assert_eq!(decode(&mixed, &limits()).unwrap().body, refused);
    }

    #[test]
    fn extensions_and_keys_that_are_no_text_are_read_as_the_npm_parser_does() {
        let event = |value: &[u8]| {
            let packet = decode(&packet(3, 2, &data(&[b"\x92\xa1a", value].concat())), &limits()).unwrap();
            let PacketBody::Event(None, args) = packet.body else { panic!("no event") };
            args
        };
        let bytes = r#"{"_placeholder":true,"num":0}"#;
        for (value, kind, content) in [
            (b"\xd6\xff\x00\x00\x00\x01".as_slice(), -1, b"\0\0\0\x01".as_slice()),
            (b"\xd4\x05\x07", 5, b"\x07"),
            (b"\xd5\x00ab", 0, b"ab"),
            (b"\xc7\x03\x2aabc", 42, b"abc"),
        ] {
            let args = event(value);
            assert_eq!(args.json(), format!("[{kind},{bytes}]"));
            assert_eq!(args.attachments(), [Bytes::from_static(content)]);
        }
        let map = event(
            b"\x86\x01\x01\xc0\x02\xc3\x03\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\x04\xd4\x00\x00\x05\xff\x06",
        );
        assert_eq!(map.json(), r#"{"1":1,"null":2,"true":3,"1.5":4,"undefined":5,"-1":6}"#);
    }

    #[test]
    fn what_the_server_says_is_one_message() {
        let reply = encode(&encode_connect("/x", "id", None)).unwrap();
        assert_eq!(reply.payload(), b"\x83\xa4type\x00\xa3nsp\xa2/x\xa4data\x81\xa3sid\xa2id");
        assert!(reply.is_binary());
        let bye = encode(&encode_disconnect("/")).unwrap();
        assert_eq!(bye.payload(), b"\x82\xa4type\x01\xa3nsp\xa1/");
        let refusal = encode_connect_error("/", &serde_json::json!({"message": "no"})).unwrap();
        assert_eq!(
            encode(&refusal).unwrap().payload(),
            b"\x83\xa4type\x04\xa3nsp\xa1/\xa4data\x81\xa7message\xa2no"
        );
        let attachment = [Bytes::from_static(&[9])];
        let args = RawArgs { json: r#"{"a":[{"num":0,"_placeholder":true}]}"#, attachments: &attachment };
        let ack = encode(&encode_ack("/", 3, &args).unwrap()).unwrap();
        assert_eq!(
            ack.payload(),
            b"\x84\xa4type\x03\xa3nsp\xa1/\xa2id\x03\xa4data\x91\x81\xa1a\x91\xc4\x01\x09"
        );
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<i32>().prop_map(|halves| (f64::from(halves) / 2.0).into()),
            "\\PC{0,40}".prop_map(Into::into),
            "[\"\\\\\u{0}-\u{1f}]{0,5}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 64, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(Into::into),
                prop::collection::hash_map("\\PC{0,8}", inner, 0..20)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_packet_or_an_error(message in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&message, &limits());
        }

        #[test]
        fn any_data_in_a_well_formed_packet_is_accepted_or_refused(kind in 0_u8..6, value in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&packet(3, kind, &data(&value)), &limits());
        }

        #[test]
        fn an_event_arrives_as_it_was_sent(
            namespace in "/[a-z]{0,40}",
            id in any::<Option<u64>>(),
            value in json(),
            pretty in any::<bool>(),
            attachments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..ATTACHMENTS_MAX)
        ) {
            let attachments: Vec<Bytes> = attachments.into_iter().map(Bytes::from).collect();
            let mut values = vec![value.clone()];
            values.extend((0..attachments.len()).map(|num| serde_json::json!({"_placeholder": true, "num": num})));
            let write = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
            let written = write(&values).unwrap();
            let args = RawArgs { json: &written[1..written.len() - 1], attachments: &attachments };
            let packet = through(&encode_event(&namespace, id, "e", &args).unwrap());
            prop_assert_eq!(&*packet.namespace, &namespace);
            let PacketBody::Event(received_id, received) = packet.body else { panic!("not an event") };
            prop_assert_eq!(received_id, id);
            prop_assert_eq!(received.first::<serde_json::Value>().unwrap(), value);
            prop_assert_eq!(received.attachments(), &attachments[..]);
        }
    }
}
