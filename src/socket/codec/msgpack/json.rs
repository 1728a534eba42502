//! The conversion of msgpack to JSON text with placeholders, and their attachments.

use std::io::Write;

use bytes::Bytes;

use super::super::json::JSON_DEPTH_MAX;
use super::super::non_json::{NonJson, Note};
use super::super::packet::{
    ATTACHMENTS_TOO_LARGE, LOOKALIKE, Limits, TOO_DEEP, TOO_MANY_ATTACHMENTS, malformed,
};
use super::super::placeholder::PLACEHOLDER;
use super::reader::{Reader, Token, is_undefined};
use crate::clock;
use crate::error::{ImksError, ImksResult};

/// JSON text with what it does not contain itself.
pub(super) struct Json {
    pub(super) text: Vec<u8>,
    /// The attachments, in the order of the placeholders' numbers.
    pub(super) attachments: Vec<Bytes>,
    /// The values that JSON does not have, by their position in the text.
    pub(super) non_json: Vec<Note>,
}

/// A writer that converts msgpack to JSON.
pub(super) struct JsonWriter {
    out: Vec<u8>,
    attachments: Vec<Bytes>,
    attachment_bytes: usize,
    limits: Limits,
    /// The limit that the value exceeds.
    refused: Option<&'static str>,
    /// The values that JSON does not have, by their position in `out`.
    non_json: Vec<Note>,
    /// Whether the peer sent a map that looks like a placeholder.
    lookalike: bool,
}

impl JsonWriter {
    pub(super) fn new(bytes: usize, limits: Limits) -> Self {
        let out = Vec::with_capacity(bytes + bytes / 4);
        Self {
            out,
            attachments: Vec::new(),
            attachment_bytes: 0,
            limits,
            refused: None,
            non_json: Vec::new(),
            lookalike: false,
        }
    }

    /// Converts the bytes of one value to an array that contains it alone.
    #[cfg(feature = "socketio")]
    pub(super) fn copy_alone(&mut self, reader: &mut Reader<'_>) -> ImksResult<()> {
        self.out.push(b'[');
        self.copy(reader, 1)?;
        self.out.push(b']');
        Ok(())
    }

    /// Converts one value.
    pub(super) fn copy(&mut self, reader: &mut Reader<'_>, depth: usize) -> ImksResult<()> {
        if depth > JSON_DEPTH_MAX {
            self.refused = Some(TOO_DEEP);
            self.out.extend_from_slice(b"null");
            return reader.skip().map(drop);
        }
        match reader.next()? {
            Token::Nil | Token::Undefined => self.out.extend_from_slice(b"null"),
            Token::Bool(true) => self.out.extend_from_slice(b"true"),
            Token::Bool(false) => self.out.extend_from_slice(b"false"),
            Token::Unsigned(value) => self.write(format_args!("{value}"))?,
            Token::Signed(value) => self.write(format_args!("{value}"))?,
            Token::Float(value) => {
                NonJson::of_float(value).into_iter().for_each(|value| self.note(value));
                self.json(&value)?;
            }
            Token::Text(text) => self.json(text)?,
            Token::Date(millis) => {
                self.note(NonJson::Date(millis));
                self.json(&clock::rfc3339(millis.saturating_mul(1_000)))?;
            }
            Token::Binary(data) => self.attach(data)?,
            Token::Extension(kind, data) => {
                self.write(format_args!("[{kind},"))?;
                self.attach(data)?;
                self.out.push(b']');
            }
            Token::Array(length) => self.copy_array(length, reader, depth)?,
            Token::Map(length) => self.copy_map(length, reader, depth)?,
        }
        Ok(())
    }

    fn note(&mut self, value: NonJson) {
        self.non_json.push((self.out.len() as u32, value));
    }

    fn copy_array(&mut self, length: u32, reader: &mut Reader<'_>, depth: usize) -> ImksResult<()> {
        self.out.push(b'[');
        for index in 0..length {
            if index > 0 {
                self.out.push(b',');
            }
            self.copy(reader, depth + 1)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn copy_map(&mut self, length: u32, reader: &mut Reader<'_>, depth: usize) -> ImksResult<()> {
        self.out.push(b'{');
        let mut first = true;
        for _ in 0..length {
            let key = reader.next()?;
            if is_undefined(reader.rest.get(..3).unwrap_or_default()) {
                // `JSON.stringify` omits such entries.
                reader.skip()?;
                continue;
            }
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            match key {
                Token::Text(key) => {
                    self.lookalike |= key == PLACEHOLDER;
                    self.json(key)?;
                }
                Token::Unsigned(key) => self.write(format_args!("\"{key}\""))?,
                Token::Signed(key) => self.write(format_args!("\"{key}\""))?,
                Token::Float(key) => self.write(format_args!("\"{key}\""))?,
                Token::Bool(key) => self.write(format_args!("\"{key}\""))?,
                Token::Nil => self.out.extend_from_slice(b"\"null\""),
                Token::Undefined => self.out.extend_from_slice(b"\"undefined\""),
                _ => return Err(malformed("key is not a plain value")),
            }
            self.out.push(b':');
            self.copy(reader, depth + 1)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn attach(&mut self, data: &[u8]) -> ImksResult<()> {
        let number = self.attachments.len();
        self.attachment_bytes += data.len();
        if number >= self.limits.attachments_max {
            self.refused = Some(TOO_MANY_ATTACHMENTS);
        } else if self.attachment_bytes > self.limits.attachment_bytes_max {
            self.refused = Some(ATTACHMENTS_TOO_LARGE);
        } else {
            self.attachments.push(Bytes::copy_from_slice(data));
        }
        self.write(format_args!("{{\"{}\":true,\"num\":{number}}}", PLACEHOLDER))
    }

    fn json(&mut self, value: &(impl serde::Serialize + ?Sized)) -> ImksResult<()> {
        Ok(serde_json::to_writer(&mut self.out, value)?)
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) -> ImksResult<()> {
        Ok(self.out.write_fmt(text).map_err(serde_json::Error::io)?)
    }

    /// Returns the text of a value that may not have attachments.
    pub(super) fn text(self) -> ImksResult<String> {
        String::from_utf8(self.out).map_err(|_| ImksError::InvalidPacketUtf8)
    }

    /// Returns the text and what belongs to it, or the reason for refusing them.
    pub(super) fn finish(self) -> Result<Json, &'static str> {
        // Next to real attachments, a lookalike would refer to one of them.
        match self.refused.or((self.lookalike && !self.attachments.is_empty()).then_some(LOOKALIKE)) {
            Some(reason) => Err(reason),
            None => Ok(Json { text: self.out, attachments: self.attachments, non_json: self.non_json }),
        }
    }
}
