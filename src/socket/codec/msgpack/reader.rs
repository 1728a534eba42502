//! Msgpack, value by value, from untrusted bytes.

use super::malformed;
use crate::error::{ImksError, ImksResult};

/// One value, or the beginning of an array or map with this many entries.
#[derive(Debug, PartialEq)]
pub(super) enum Token<'a> {
    Nil,
    /// JavaScript's, as `notepack.io` writes it.
    Undefined,
    Bool(bool),
    Unsigned(u64),
    /// Below zero.
    Signed(i64),
    Float(f64),
    Text(&'a str),
    Binary(&'a [u8]),
    Array(u32),
    Map(u32),
    /// Milliseconds since 1970, as `notepack.io` writes a `Date`.
    Date(i64),
}

/// What is left to read. Nothing that is announced is believed before it has been seen.
pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn next(&mut self) -> ImksResult<Token<'a>> {
        let [kind] = self.fixed()?;
        Ok(match kind {
            0x00..=0x7f => Token::Unsigned(u64::from(kind)),
            0x80..=0x8f => Token::Map(u32::from(kind & 0x0f)),
            0x90..=0x9f => Token::Array(u32::from(kind & 0x0f)),
            0xa0..=0xbf => self.text(usize::from(kind & 0x1f))?,
            0xc0 => Token::Nil,
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xc4..=0xc6 => {
                let length = self.length(kind - 0xc4)?;
                Token::Binary(self.take(length)?)
            }
            0xc7..=0xc9 => self.extension(kind - 0xc7)?,
            0xca => Token::Float(f64::from(f32::from_be_bytes(self.fixed()?))),
            0xcb => Token::Float(f64::from_be_bytes(self.fixed()?)),
            0xcc => Token::Unsigned(u64::from(u8::from_be_bytes(self.fixed()?))),
            0xcd => Token::Unsigned(u64::from(u16::from_be_bytes(self.fixed()?))),
            0xce => Token::Unsigned(u64::from(u32::from_be_bytes(self.fixed()?))),
            0xcf => Token::Unsigned(u64::from_be_bytes(self.fixed()?)),
            0xd0 => signed(i64::from(i8::from_be_bytes(self.fixed()?))),
            0xd1 => signed(i64::from(i16::from_be_bytes(self.fixed()?))),
            0xd2 => signed(i64::from(i32::from_be_bytes(self.fixed()?))),
            0xd3 => signed(i64::from_be_bytes(self.fixed()?)),
            0xd4..=0xd8 => self.fixed_extension(kind - 0xd4)?,
            0xd9..=0xdb => {
                let length = self.length(kind - 0xd9)?;
                self.text(length)?
            }
            0xdc => Token::Array(u32::from(u16::from_be_bytes(self.fixed()?))),
            0xdd => Token::Array(u32::from_be_bytes(self.fixed()?)),
            0xde => Token::Map(u32::from(u16::from_be_bytes(self.fixed()?))),
            0xdf => Token::Map(u32::from_be_bytes(self.fixed()?)),
            0xe0..=0xff => Token::Signed(i64::from(kind as i8)),
            0xc1 => return Err(malformed("unknown msgpack type")),
        })
    }

    /// Passes over one value, whatever it holds, and gives its bytes.
    pub(super) fn skip(&mut self) -> ImksResult<&'a [u8]> {
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

    /// A length of 1, 2 or 4 bytes.
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

    /// `notepack.io` writes an `ArrayBuffer` as type 0; other extensions have no meaning that both ends know.
    fn extension(&mut self, size: u8) -> ImksResult<Token<'a>> {
        let length = self.length(size)?;
        let [kind] = self.fixed()?;
        let data = self.take(length)?;
        match kind {
            0 => Ok(Token::Binary(data)),
            _ => Err(malformed("unknown msgpack extension")),
        }
    }

    fn fixed_extension(&mut self, size: u8) -> ImksResult<Token<'a>> {
        let [kind] = self.fixed()?;
        let data = self.take(1 << size)?;
        match (kind, size, data.first_chunk()) {
            (0, 0, _) => Ok(Token::Undefined),
            (0, 3, Some(millis)) => Ok(Token::Date(i64::from_be_bytes(*millis))),
            _ => Err(malformed("unknown msgpack extension")),
        }
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

fn signed<'a>(value: i64) -> Token<'a> {
    u64::try_from(value).map_or(Token::Signed(value), Token::Unsigned)
}

fn short() -> ImksError {
    malformed("packet ends too early")
}
