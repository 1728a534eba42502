//! Dialects of Socket.IO: how packets look to one client. Inside, everything is frames of the default parser; what
//! a client of another dialect gets is made from them once per broadcast, and only if such a client is there.

use std::cell::OnceCell;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::msgpack;
use super::packet::{Packet, PacketBody};
use super::parser::{self, Decoder, Frames, Limits};
use crate::engine::{
    Frame, Handshake, Outbox, Pressure, Protocol, SendError, legacy, percent_decode, query_pairs,
};
use crate::error::ImksResult;

/// Encoding of packets, the same for all clients of a server (the `parser` option of both ends).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parser {
    /// JSON text, and a binary message per attachment.
    #[default]
    Default,
    /// npm `socket.io-msgpack-parser`: one binary message per packet.
    MsgPack,
}

/// What one client understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Socket.IO v5 and the default parser.
    Default,
    /// Socket.IO v5 and msgpack.
    MsgPack,
    /// Clients of Socket.IO v2, over Engine.IO v3.
    Version2,
}

impl Dialect {
    pub(crate) fn new(parser: Parser, handshake: &Handshake) -> Self {
        match (parser, handshake.protocol) {
            (Parser::MsgPack, _) => Self::MsgPack,
            (Parser::Default, Protocol::V3 { .. }) => Self::Version2,
            (Parser::Default, Protocol::V4) => Self::Default,
        }
    }

    /// Sends a packet to a client that has no socket.
    pub(crate) fn send(self, outbox: &Outbox, frame: Frame) -> Result<Pressure, SendError> {
        outbox.send_all(Parcel::new(&smallvec::smallvec![frame]).wrapped_for(self, outbox))
    }

    pub(crate) fn decoder(self, limits: Limits) -> Decoder {
        match self {
            Self::Default => Decoder::new(limits),
            Self::MsgPack => Decoder::msgpack(limits),
            Self::Version2 => Decoder::version2(limits),
        }
    }
}

/// The frames of one packet on their way to any number of clients.
#[derive(Debug)]
pub(crate) struct Parcel<'a> {
    frames: &'a Frames,
    deflated: OnceCell<Frames>,
    msgpack: OnceCell<Frames>,
    msgpack_deflated: OnceCell<Frames>,
    version2: OnceCell<Frames>,
}

impl<'a> Parcel<'a> {
    pub(crate) fn new(frames: &'a Frames) -> Self {
        Self {
            frames,
            deflated: OnceCell::new(),
            msgpack: OnceCell::new(),
            msgpack_deflated: OnceCell::new(),
            version2: OnceCell::new(),
        }
    }

    /// As the default parser has it.
    pub(crate) fn frames(&self) -> &'a Frames {
        self.frames
    }

    /// As a client of this dialect wants it, on the wire that it has now.
    pub(crate) fn wrapped_for(&self, dialect: Dialect, outbox: &Outbox) -> &Frames {
        let (frames, deflated) = match dialect {
            Dialect::Default => (self.frames, &self.deflated),
            Dialect::MsgPack => {
                (self.msgpack.get_or_init(|| to_msgpack(self.frames)), &self.msgpack_deflated)
            }
            Dialect::Version2 if is_same_in_version2(self.frames) => return self.frames,
            Dialect::Version2 => return self.version2.get_or_init(|| to_version2(self.frames)),
        };
        if outbox.compresses(frames) {
            return deflated.get_or_init(|| outbox.compressed(frames).collect());
        }
        frames
    }
}

/// The same packet; without `compress` it is not to be compressed on its way.
pub(crate) fn with_compression(frames: Frames, compress: bool) -> Frames {
    if compress { frames } else { frames.into_iter().map(Frame::uncompressed).collect() }
}

fn to_msgpack(frames: &Frames) -> Frames {
    match msgpack::encode(frames) {
        Ok(frame) => with_compression(smallvec::smallvec![frame], frames.iter().any(Frame::is_compressible)),
        Err(error) => {
            tracing::error!(%error, "packet not sent: the application's JSON is not valid");
            Frames::new()
        }
    }
}

/// Events and acks without attachments.
fn is_same_in_version2(frames: &Frames) -> bool {
    matches!(&frames[..], [frame] if !matches!(frame.payload(), [_, b'0' | b'4', ..]))
}

fn to_version2(frames: &Frames) -> Frames {
    let Some((packet, attachments)) = frames.split_first() else { return Frames::new() };
    let text = std::str::from_utf8(packet.payload().get(1..).unwrap_or_default()).unwrap_or_default();
    let mut converted: Frames = smallvec::smallvec![
        match text.as_bytes().first() {
            Some(b'0') => connect_of_version2(text),
            Some(b'4') => error_of_version2(text),
            _ => Ok(packet.clone()),
        }
        .unwrap_or_else(|_| packet.clone())
    ];
    converted.extend(attachments.iter().map(legacy::typed));
    converted
}

/// CONNECT says nothing but the namespace: these clients make their socket id themselves.
fn connect_of_version2(text: &str) -> ImksResult<Frame> {
    let head = parser::split_head(text)?;
    Ok(Frame::text(&text[..text.len() - head.json.len()]))
}

/// ERROR, as CONNECT_ERROR was called, says either the data of the refusal or its message.
fn error_of_version2(text: &str) -> ImksResult<Frame> {
    #[derive(Deserialize)]
    struct Refusal<'a> {
        #[serde(borrow)]
        message: &'a RawValue,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let head = parser::split_head(text)?;
    let refusal: Refusal<'_> = serde_json::from_str(head.json)?;
    let reason = refusal.data.unwrap_or(refusal.message).get();
    Ok(Frame::text(&format!("{}{reason}", &text[..text.len() - head.json.len()])))
}

/// What newer clients send as `auth` comes as the query of the namespace (`/chat?token=x`).
pub(crate) fn from_version2(mut packet: Packet) -> Packet {
    let Some((path, query)) = packet.namespace.split_once('?') else { return packet };
    if let PacketBody::Connect(auth @ None) = &mut packet.body {
        let fields =
            query_pairs(query).map(|(name, value)| (percent_decode(name), percent_decode(value).into()));
        *auth = Some(serde_json::Value::Object(fields.collect()).to_string());
    }
    packet.namespace = match path {
        parser::MAIN_NAMESPACE => parser::MAIN_NAMESPACE.into(),
        path => path.to_owned().into(),
    };
    packet
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::engine::{Config, Connection};
    use crate::socket::codec::parser::{One, RawArgs, encode_connect, encode_connect_error, encode_event};

    fn outbox() -> Outbox {
        Connection::in_memory(&Config::default()).0.outbox().clone()
    }

    fn version2(frames: Frames) -> Vec<Vec<u8>> {
        let parcel = Parcel::new(&frames);
        parcel
            .wrapped_for(Dialect::Version2, &outbox())
            .iter()
            .map(|frame| frame.payload().to_vec())
            .collect()
    }

    #[test]
    fn clients_of_version_2_get_their_forms_of_connect_and_error() {
        let one = |frame| version2(smallvec::smallvec![frame]);
        assert_eq!(one(encode_connect("/", "id")), [b"40"]);
        assert_eq!(one(encode_connect("/x", "id")), [b"40/x,"]);
        let refusal = |json: serde_json::Value| one(encode_connect_error("/x", &json).unwrap());
        assert_eq!(refusal(serde_json::json!({"message": "no"})), [b"44/x,\"no\""]);
        assert_eq!(
            refusal(serde_json::json!({"message": "no", "data": {"code": 1}})),
            [b"44/x,{\"code\":1}"]
        );
    }

    #[test]
    fn a_broadcast_is_shared_by_all_dialects_as_far_as_they_agree() {
        let frames = encode_event("/", None, "a", &One(&1)).unwrap();
        let (parcel, outbox) = (Parcel::new(&frames), outbox());
        assert!(std::ptr::eq(parcel.wrapped_for(Dialect::Version2, &outbox), &frames));
        let attachments = [Bytes::from_static(&[7])];
        let args = RawArgs { json: r#"{"_placeholder":true,"num":0}"#, attachments: &attachments };
        let frames = encode_event("/", None, "a", &args).unwrap();
        let parcel = Parcel::new(&frames);
        let version2 = || parcel.wrapped_for(Dialect::Version2, &outbox);
        let (first, second) = (version2(), version2());
        assert!(std::ptr::eq(first, second), "converted once");
        assert_eq!(first[1].payload(), [4, 7]);
        assert_eq!(parcel.wrapped_for(Dialect::Default, &outbox)[1].payload(), [7]);
    }

    #[test]
    fn a_broadcast_is_compressed_once_for_all_who_can_read_it() {
        let attachments = [Bytes::from(vec![7; 2_000])];
        let args = RawArgs { json: r#"{"_placeholder":true,"num":0}"#, attachments: &attachments };
        let frames = encode_event("/", None, "a", &args).unwrap();
        let parcel = Parcel::new(&frames);
        let (plain, packing, other) = (outbox(), outbox().compressing(1_024), outbox().compressing(1_024));
        let wire = |dialect, outbox| parcel.wrapped_for(dialect, outbox).last().unwrap().wire().clone();
        for dialect in [Dialect::Default, Dialect::MsgPack] {
            let packed = wire(dialect, &packing);
            assert!(packed.len() < 200 && wire(dialect, &plain).len() > 2_000);
            assert_eq!(packed.as_ptr(), wire(dialect, &other).as_ptr(), "once, and shared");
        }
        assert!(wire(Dialect::Version2, &plain).len() > 2_000);
        let refused = with_compression(frames.clone(), false);
        for dialect in [Dialect::Default, Dialect::MsgPack] {
            assert!(Parcel::new(&refused).wrapped_for(dialect, &packing).last().unwrap().len() > 2_000);
        }
    }

    #[test]
    fn the_query_of_a_namespace_is_what_a_client_of_version_2_says_about_itself() {
        let packet =
            |namespace: &'static str, body| from_version2(Packet { namespace: namespace.into(), body });
        let read = packet("/x?token=a%20b&c", PacketBody::Connect(None));
        assert_eq!(read.namespace, "/x");
        assert_eq!(read.body, PacketBody::Connect(Some(r#"{"c":"","token":"a b"}"#.into())));
        assert_eq!(packet("/?a=b", PacketBody::Disconnect).namespace, "/");
    }
}
