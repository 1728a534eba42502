//! Dialects of Socket.IO: how packets look to one client. Inside, everything is frames of the default parser; what
//! a client of another dialect gets is made from them once per broadcast, and only if such a client is there.

use std::cell::OnceCell;

use super::msgpack;
use super::parser::{Decoder, Frames, Limits};

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
pub(super) enum Dialect {
    /// Socket.IO v5 and the default parser.
    Default,
    /// Socket.IO v5 and msgpack.
    MsgPack,
}

impl Dialect {
    pub(super) fn new(parser: Parser) -> Self {
        match parser {
            Parser::Default => Self::Default,
            Parser::MsgPack => Self::MsgPack,
        }
    }

    pub(super) fn decoder(self, limits: Limits) -> Decoder {
        match self {
            Self::Default => Decoder::new(limits),
            Self::MsgPack => Decoder::msgpack(limits),
        }
    }
}

/// The frames of one packet on their way to any number of clients.
#[derive(Debug)]
pub(super) struct Parcel<'a> {
    frames: &'a Frames,
    msgpack: OnceCell<Frames>,
}

impl<'a> Parcel<'a> {
    pub(super) fn new(frames: &'a Frames) -> Self {
        Self { frames, msgpack: OnceCell::new() }
    }

    /// As the default parser has it.
    pub(super) fn frames(&self) -> &'a Frames {
        self.frames
    }

    /// As a client of this dialect wants it.
    pub(super) fn wrapped_for(&self, dialect: Dialect) -> &Frames {
        match dialect {
            Dialect::Default => self.frames,
            Dialect::MsgPack => self.msgpack.get_or_init(|| to_msgpack(self.frames)),
        }
    }
}

fn to_msgpack(frames: &Frames) -> Frames {
    match msgpack::encode(frames) {
        Ok(frame) => smallvec::smallvec![frame],
        Err(error) => {
            tracing::error!(%error, "packet not sent: the application's JSON is not valid");
            Frames::new()
        }
    }
}
