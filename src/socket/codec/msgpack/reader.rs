//! A reader of msgpack from untrusted bytes, value by value.

use rmp::Marker;

use super::super::packet::malformed;
use crate::error::{ImksError, ImksResult};

/// A value, or the beginning of an array or map with this many entries.
#[derive(Debug, PartialEq)]
pub(crate) enum Token<'a> {
    Nil,
    /// JavaScript's `undefined`, as `notepack.io` writes it.
    Undefined,
    Bool(bool),
    Unsigned(u64),
    /// A negative integer.
    Signed(i64),
    Float(f64),
    Text(&'a str),
    Binary(&'a [u8]),
    Array(u32),
    Map(u32),
    /// An extension of this type that has no other meaning. `notepack.io` reads it as `[type, bytes]`.
    Extension(i8, &'a [u8]),
    /// A `Date` as `notepack.io` writes it, in milliseconds since 1970.
    Date(i64),
}

/// A form of msgpack. They differ in dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// That of clients (`notepack.io` 2): a date is an extension of type 0, in milliseconds.
    Client,
    /// That of servers (`notepack.io` 3): a date is a timestamp, an extension of type -1.
    Server,
}

/// The unread bytes. Announced lengths are checked against them before use.
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
    form: Form,
}

impl<'a> Reader<'a> {
    /// Creates a reader of what clients send.
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest, form: Form::Client }
    }

    /// Creates a reader of another form.
    pub(crate) fn of_form(rest: &'a [u8], form: Form) -> Self {
        Self { rest, form }
    }

    pub(crate) fn next(&mut self) -> ImksResult<Token<'a>> {
        let [kind] = self.fixed()?;
        Ok(match Marker::from_u8(kind) {
            Marker::FixPos(value) => Token::Unsigned(value.into()),
            Marker::FixNeg(value) => Token::Signed(value.into()),
            Marker::Null => Token::Nil,
            Marker::False => Token::Bool(false),
            Marker::True => Token::Bool(true),
            Marker::U8 => Token::Unsigned(u8::from_be_bytes(self.fixed()?).into()),
            Marker::U16 => Token::Unsigned(u16::from_be_bytes(self.fixed()?).into()),
            Marker::U32 => Token::Unsigned(u32::from_be_bytes(self.fixed()?).into()),
            Marker::U64 => Token::Unsigned(u64::from_be_bytes(self.fixed()?)),
            Marker::I8 => signed(i8::from_be_bytes(self.fixed()?).into()),
            Marker::I16 => signed(i16::from_be_bytes(self.fixed()?).into()),
            Marker::I32 => signed(i32::from_be_bytes(self.fixed()?).into()),
            Marker::I64 => signed(i64::from_be_bytes(self.fixed()?)),
            Marker::F32 => Token::Float(f32::from_be_bytes(self.fixed()?).into()),
            Marker::F64 => Token::Float(f64::from_be_bytes(self.fixed()?)),
            Marker::FixStr(length) => self.text(length.into())?,
            Marker::Str8 | Marker::Str16 | Marker::Str32 => {
                let length = self.length(kind - 0xd9)?;
                self.text(length)?
            }
            Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => {
                let length = self.length(kind - 0xc4)?;
                Token::Binary(self.take(length)?)
            }
            Marker::FixArray(length) => Token::Array(length.into()),
            Marker::Array16 => Token::Array(u16::from_be_bytes(self.fixed()?).into()),
            Marker::Array32 => Token::Array(u32::from_be_bytes(self.fixed()?)),
            Marker::FixMap(length) => Token::Map(length.into()),
            Marker::Map16 => Token::Map(u16::from_be_bytes(self.fixed()?).into()),
            Marker::Map32 => Token::Map(u32::from_be_bytes(self.fixed()?)),
            Marker::Ext8 | Marker::Ext16 | Marker::Ext32 => {
                let length = self.length(kind - 0xc7)?;
                self.extension(length)?
            }
            Marker::FixExt1 | Marker::FixExt2 | Marker::FixExt4 | Marker::FixExt8 | Marker::FixExt16 => {
                self.fixed_extension(1 << (kind - 0xd4))?
            }
            Marker::Reserved => return Err(malformed("unknown msgpack type")),
        })
    }

    /// Skips one value and returns its bytes.
    pub(crate) fn skip(&mut self) -> ImksResult<&'a [u8]> {
        let start = self.rest;
        let mut left: u64 = 1;
        while left > 0 {
            left += match self.next()? {
                Token::Array(length) => u64::from(length),
                Token::Map(length) => 2 * u64::from(length),
                _ => 0,
            };
            left -= 1;
        }
        Ok(&start[..start.len() - self.rest.len()])
    }

    /// Reads a length of 1, 2 or 4 bytes.
    fn length(&mut self, size: u8) -> ImksResult<usize> {
        Ok(match size {
            0 => usize::from(u8::from_be_bytes(self.fixed()?)),
            1 => usize::from(u16::from_be_bytes(self.fixed()?)),
            _ => u32::from_be_bytes(self.fixed()?) as usize,
        })
    }

    fn text(&mut self, length: usize) -> ImksResult<Token<'a>> {
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(Token::Text).map_err(|_| ImksError::InvalidPacketUtf8)
    }

    /// Reads an extension. `notepack.io` writes an `ArrayBuffer` as type 0.
    fn extension(&mut self, length: usize) -> ImksResult<Token<'a>> {
        Ok(match self.typed(length)? {
            (0, data) => Token::Binary(data),
            (kind, data) => self.date(kind, data).unwrap_or(Token::Extension(kind, data)),
        })
    }

    /// Reads a fixed-size extension. `notepack.io` writes `undefined` and `Date` as type 0, with one and
    /// eight bytes.
    fn fixed_extension(&mut self, length: usize) -> ImksResult<Token<'a>> {
        Ok(match self.typed(length)? {
            (0, [_]) => Token::Undefined,
            (0, &[a, b, c, d, e, f, g, h]) => Token::Date(i64::from_be_bytes([a, b, c, d, e, f, g, h])),
            (kind, data) => self.date(kind, data).unwrap_or(Token::Extension(kind, data)),
        })
    }

    /// Returns the date of a timestamp (msgpack specification, "Timestamp extension type") of 32, 64 or 96 bits.
    fn date(&self, kind: i8, data: &[u8]) -> Option<Token<'a>> {
        if self.form != Form::Server || kind != TIMESTAMP {
            return None;
        }
        let (seconds, nanos) = match *data {
            [a, b, c, d] => (i64::from(u32::from_be_bytes([a, b, c, d])), 0),
            [a, b, c, d, e, f, g, h] => {
                let both = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                ((both & 0x3_ffff_ffff) as i64, (both >> 34) as u32)
            }
            [a, b, c, d, e, f, g, h, i, j, k, l] => {
                (i64::from_be_bytes([e, f, g, h, i, j, k, l]), u32::from_be_bytes([a, b, c, d]))
            }
            _ => return None,
        };
        Some(Token::Date(seconds.saturating_mul(1_000).saturating_add(i64::from(nanos / 1_000_000))))
    }

    fn typed(&mut self, length: usize) -> ImksResult<(i8, &'a [u8])> {
        let kind = i8::from_be_bytes(self.fixed()?);
        Ok((kind, self.take(length)?))
    }

    fn fixed<const N: usize>(&mut self) -> ImksResult<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(short)?;
        self.rest = rest;
        Ok(*head)
    }

    fn take(&mut self, length: usize) -> ImksResult<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or_else(short)?;
        self.rest = rest;
        Ok(head)
    }
}

/// The type of timestamps.
pub(super) const TIMESTAMP: i8 = -1;

fn signed<'a>(value: i64) -> Token<'a> {
    u64::try_from(value).map_or(Token::Signed(value), Token::Unsigned)
}

fn short() -> ImksError {
    malformed("packet ends too early")
}

/// Whether a value is JavaScript's `undefined`.
pub(super) fn is_undefined(value: &[u8]) -> bool {
    matches!(value, [0xd4, 0, _])
}
