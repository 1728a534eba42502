//! The conversion of JSON text with placeholders to msgpack.

use rmp::encode::{
    write_array_len, write_bin, write_ext_meta, write_f64, write_map_len, write_sint, write_str, write_uint,
};
use serde::Deserialize;
use smallvec::SmallVec;

use super::super::json::{string_end, unescape};
use super::super::non_json::{NonJson, Note};
use super::super::packet::malformed;
use super::reader::{Form, TIMESTAMP};
use crate::error::{ImksError, ImksResult};

/// A converter of JSON text to msgpack. It makes two passes, because msgpack writes sizes before contents.
pub(super) struct Transcoder<'a> {
    pub(super) json: &'a str,
    pub(super) attachments: &'a [&'a [u8]],
    /// The values that JSON does not have, by their position in `json` and in this order.
    pub(super) non_json: &'a [Note],
    pub(super) form: Form,
    pub(super) out: &'a mut Vec<u8>,
}

/// The number of entries of each array and map, in the order in which they begin.
type Counts = SmallVec<[u32; 16]>;

impl Transcoder<'_> {
    pub(super) fn run(mut self) -> ImksResult<()> {
        let counts = count_entries(self.json)?;
        let mut counts = counts.into_iter();
        let mut at = 0;
        while let Some(&byte) = self.json.as_bytes().get(at) {
            if let Some(length) = self.value_beyond_json(at)? {
                at += length;
                continue;
            }
            at += match byte {
                b'[' => {
                    written(write_array_len(self.out, counts.next().ok_or_else(invalid_json)?))?;
                    1
                }
                b'{' => {
                    let entries = counts.next().ok_or_else(invalid_json)?;
                    self.map_or_attachment(at, entries)?
                }
                b'"' => self.string(at)?,
                b'-' | b'0'..=b'9' => self.number(at)?,
                b't' => self.literal(at, "true", 0xc3)?,
                b'f' => self.literal(at, "false", 0xc2)?,
                b'n' => self.literal(at, "null", 0xc0)?,
                b']' | b'}' | b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => 1,
                _ => return Err(invalid_json()),
            };
        }
        Ok(())
    }

    /// Writes the value that is noted for this position. Returns the length of the JSON that stands for it, or
    /// `None` if there is no such value.
    fn value_beyond_json(&mut self, at: usize) -> ImksResult<Option<usize>> {
        let Some(&(place, value)) = self.non_json.first().filter(|(place, _)| *place as usize <= at) else {
            return Ok(None);
        };
        self.non_json = &self.non_json[1..];
        let rest = &self.json[at..];
        // Other nodes may note anything.
        let length = match value {
            _ if place as usize != at => return Ok(None),
            NonJson::Date(_) if rest.starts_with('"') => string_length(rest)?,
            NonJson::NaN | NonJson::Infinity | NonJson::NegativeInfinity if rest.starts_with("null") => 4,
            _ => return Ok(None),
        };
        match value {
            NonJson::NaN => written(write_f64(self.out, f64::NAN))?,
            NonJson::Infinity => written(write_f64(self.out, f64::INFINITY))?,
            NonJson::NegativeInfinity => written(write_f64(self.out, f64::NEG_INFINITY))?,
            NonJson::Date(millis) if self.form == Form::Server => self.timestamp(millis)?,
            NonJson::Date(millis) => {
                written(write_ext_meta(self.out, 8, 0))?;
                self.out.extend_from_slice(&millis.to_be_bytes());
            }
        }
        Ok(Some(length))
    }

    /// Writes a date as the shortest timestamp that holds it.
    fn timestamp(&mut self, millis: i64) -> ImksResult<()> {
        let (seconds, nanos) = (millis.div_euclid(1_000), millis.rem_euclid(1_000) as u32 * 1_000_000);
        match (u32::try_from(seconds), nanos) {
            (Ok(seconds), 0) => {
                written(write_ext_meta(self.out, 4, TIMESTAMP))?;
                self.out.extend_from_slice(&seconds.to_be_bytes());
            }
            _ if (0..1 << 34).contains(&seconds) => {
                written(write_ext_meta(self.out, 8, TIMESTAMP))?;
                let both = u64::from(nanos) << 34 | seconds as u64;
                self.out.extend_from_slice(&both.to_be_bytes());
            }
            _ => {
                written(write_ext_meta(self.out, 12, TIMESTAMP))?;
                self.out.extend_from_slice(&nanos.to_be_bytes());
                self.out.extend_from_slice(&seconds.to_be_bytes());
            }
        }
        Ok(())
    }

    /// Writes a map or, if it is a placeholder in a packet with attachments, the attachment itself.
    fn map_or_attachment(&mut self, at: usize, entries: u32) -> ImksResult<usize> {
        if entries == 2
            && !self.attachments.is_empty()
            && let Some((number, length)) = placeholder(&self.json[at..])
        {
            let attachment = self.attachments.get(number).ok_or_else(|| malformed("illegal attachments"))?;
            written(write_bin(self.out, attachment))?;
            return Ok(length);
        }
        written(write_map_len(self.out, entries))?;
        Ok(1)
    }

    fn string(&mut self, at: usize) -> ImksResult<usize> {
        let length = string_length(&self.json[at..])?;
        let quoted = &self.json[at..at + length];
        let plain = &quoted[1..length - 1];
        if plain.contains('\\') {
            written(write_str(self.out, &unescape(quoted).ok_or_else(invalid_json)?))?;
        } else {
            written(write_str(self.out, plain))?;
        }
        Ok(length)
    }

    fn number(&mut self, at: usize) -> ImksResult<usize> {
        let rest = &self.json[at..];
        let length = rest
            .bytes()
            .take_while(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
            .count();
        let text = &rest[..length];
        if let Ok(value) = text.parse::<u64>() {
            written(write_uint(self.out, value))?;
        } else if let Ok(value) = text.parse::<i64>() {
            written(write_sint(self.out, value))?;
        } else {
            written(write_f64(self.out, text.parse().map_err(|_| invalid_json())?))?;
        }
        Ok(length)
    }

    fn literal(&mut self, at: usize, word: &str, byte: u8) -> ImksResult<usize> {
        if !self.json[at..].starts_with(word) {
            return Err(invalid_json());
        }
        self.out.push(byte);
        Ok(word.len())
    }
}

/// Counts the entries of all arrays and maps. Placeholders count as maps.
fn count_entries(json: &str) -> ImksResult<Counts> {
    let mut counts = Counts::new();
    let mut open: SmallVec<[usize; 16]> = SmallVec::new();
    let mut just_opened = false;
    let mut at = 0;
    while let Some(&byte) = json.as_bytes().get(at) {
        let step = if byte == b'"' { string_length(&json[at..])? } else { 1 };
        at += step;
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b':') {
            continue;
        }
        let ends = matches!(byte, b']' | b'}');
        if let Some(&inner) = open.last()
            && ((std::mem::take(&mut just_opened) && !ends) || byte == b',')
        {
            counts[inner] += 1;
        }
        if matches!(byte, b'[' | b'{') {
            open.push(counts.len());
            counts.push(0);
            just_opened = true;
        } else if ends {
            open.pop();
        }
    }
    Ok(counts)
}

/// Returns the length in bytes of the quoted string at the start of `json`, including its quotes.
fn string_length(json: &str) -> ImksResult<usize> {
    string_end(json.as_bytes(), 0).ok_or_else(invalid_json)
}

/// Returns the number and the length in bytes of the placeholder at the start of `json`, if there is one.
fn placeholder(json: &str) -> Option<(usize, usize)> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Placeholder {
        _placeholder: bool,
        num: usize,
    }
    let mut values = serde_json::Deserializer::from_str(json).into_iter::<Placeholder>();
    let placeholder = values.next()?.ok().filter(|placeholder| placeholder._placeholder)?;
    Some((placeholder.num, values.byte_offset()))
}

/// Converts the result of a write to memory, which cannot fail.
pub(super) fn written<T, E>(result: Result<T, E>) -> ImksResult<()> {
    result.map(drop).map_err(|_| ImksError::Internal("msgpack not written"))
}

fn invalid_json() -> ImksError {
    malformed("payload is not JSON")
}
