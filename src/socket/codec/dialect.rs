//! Dialects of Socket.IO: the encoding of packets for one client.
//!
//! Internally, a packet consists of frames of the default parser and knows its parts. The frames of another
//! dialect are made from these at most once per broadcast, and only if a client needs them.

use std::cell::OnceCell;

use super::encoder::{EncodedPacket, Frames};
use super::msgpack;
use super::packet::Limits;
use super::parser::Decoder;
use super::version2;
use crate::engine::{Frame, Handshake, Outbox, Protocol};

/// The encoding of packets for all clients of a server (the `parser` option on both ends).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parser {
    /// JSON text, with a binary message per attachment.
    #[default]
    Default,
    /// The encoding of npm `socket.io-msgpack-parser`: one binary message per packet.
    MsgPack,
}

/// The protocol version and parser of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Socket.IO v5 with the default parser.
    Default,
    /// Socket.IO v5 with the msgpack parser.
    MsgPack,
    /// Socket.IO v2 over Engine.IO v3.
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

    pub(crate) fn decoder(self, limits: Limits) -> Decoder {
        match self {
            Self::Default => Decoder::new(limits),
            Self::MsgPack => Decoder::msgpack(limits),
            Self::Version2 => Decoder::version2(limits),
        }
    }
}

/// A packet for any number of clients, in all encodings that they need. Each encoding is made at most once.
#[derive(Debug)]
pub(crate) struct Renderings<'a> {
    packet: &'a EncodedPacket,
    deflated: OnceCell<Frames>,
    msgpack: OnceCell<Frames>,
    msgpack_deflated: OnceCell<Frames>,
    version2: OnceCell<Frames>,
}

impl<'a> Renderings<'a> {
    pub(crate) fn new(packet: &'a EncodedPacket) -> Self {
        Self {
            packet,
            deflated: OnceCell::new(),
            msgpack: OnceCell::new(),
            msgpack_deflated: OnceCell::new(),
            version2: OnceCell::new(),
        }
    }

    /// Returns the packet itself.
    pub(crate) fn packet(&self) -> &'a EncodedPacket {
        self.packet
    }

    /// Returns the frames for a client of this dialect, compressed if its transport allows it.
    pub(crate) fn frames_for(&self, dialect: Dialect, outbox: &Outbox) -> &[Frame] {
        let (frames, deflated): (&[Frame], _) = match dialect {
            Dialect::Default => (self.packet, &self.deflated),
            Dialect::MsgPack => {
                (self.msgpack.get_or_init(|| to_msgpack(self.packet)), &self.msgpack_deflated)
            }
            Dialect::Version2 if version2::is_same(self.packet) => return self.packet,
            Dialect::Version2 => return self.version2.get_or_init(|| version2::encode(self.packet)),
        };
        if outbox.compresses(frames) {
            return deflated.get_or_init(|| outbox.compressed(frames).collect());
        }
        frames
    }
}

fn to_msgpack(packet: &EncodedPacket) -> Frames {
    match msgpack::encode(packet) {
        Ok(frame) if packet.iter().any(Frame::is_compressible) => smallvec::smallvec![frame],
        Ok(frame) => smallvec::smallvec![frame.uncompressed()],
        Err(error) => {
            tracing::error!(%error, "packet not sent: the application's JSON is not valid");
            Frames::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::engine::{Config, Connection};
    use crate::socket::codec::parser::{One, RawArgs, encode_event};

    fn outbox() -> Outbox {
        Connection::in_memory(&Config::default()).0.outbox().clone()
    }

    #[test]
    fn a_broadcast_is_shared_by_all_dialects_as_far_as_they_agree() {
        let packet = encode_event("/", None, "a", &One(&1)).unwrap();
        let (renderings, outbox) = (Renderings::new(&packet), outbox());
        assert!(std::ptr::eq(renderings.frames_for(Dialect::Version2, &outbox), &packet[..]));
        let attachments = [Bytes::from_static(&[7])];
        let args = RawArgs { json: r#"{"_placeholder":true,"num":0}"#, attachments: &attachments };
        let packet = encode_event("/", None, "a", &args).unwrap();
        let renderings = Renderings::new(&packet);
        let version2 = || renderings.frames_for(Dialect::Version2, &outbox);
        let (first, second) = (version2(), version2());
        assert!(std::ptr::eq(first, second), "converted once");
        assert_eq!(first[1].payload(), [4, 7]);
        assert_eq!(renderings.frames_for(Dialect::Default, &outbox)[1].payload(), [7]);
    }

    #[test]
    fn a_broadcast_is_compressed_once_for_all_who_can_read_it() {
        let attachments = [Bytes::from(vec![7; 2_000])];
        let args = RawArgs { json: r#"{"_placeholder":true,"num":0}"#, attachments: &attachments };
        let packet = encode_event("/", None, "a", &args).unwrap();
        let renderings = Renderings::new(&packet);
        let (plain, packing, other) = (outbox(), outbox().compressing(1_024), outbox().compressing(1_024));
        let wire = |dialect, outbox| renderings.frames_for(dialect, outbox).last().unwrap().wire().clone();
        for dialect in [Dialect::Default, Dialect::MsgPack] {
            let packed = wire(dialect, &packing);
            assert!(packed.len() < 200 && wire(dialect, &plain).len() > 2_000);
            assert_eq!(packed.as_ptr(), wire(dialect, &other).as_ptr(), "once, and shared");
        }
        assert!(wire(Dialect::Version2, &plain).len() > 2_000);
        let refused = packet.clone().compress(false);
        for dialect in [Dialect::Default, Dialect::MsgPack] {
            let renderings = Renderings::new(&refused);
            assert!(renderings.frames_for(dialect, &packing).last().unwrap().len() > 2_000);
        }
    }
}
