//! From JSON text with placeholders to msgpack.

use serde::Deserialize;
use smallvec::SmallVec;

use super::malformed;
use crate::engine::Frame;
use crate::error::{ImksError, ImksResult};

/// Writes msgpack from JSON text. Walks the text twice: msgpack wants to know sizes before contents.
pub(super) struct Transcoder<'a> {
    pub(super) json: &'a str,
    pub(super) attachments: &'a [Frame],
    pub(super) out: &'a mut Vec<u8>,
}

/// Entries of each array and map, in the order they begin.
type Counts = SmallVec<[u32; 16]>;

impl Transcoder<'_> {
    pub(super) fn run(mut self) -> ImksResult<()> {
        let counts = count_entries(self.json)?;
        let mut counts = counts.into_iter();
        let mut at = 0;
        while let Some(&byte) = self.json.as_bytes().get(at) {
            at += match byte {
                b'[' => {
                    push_array(self.out, counts.next().ok_or_else(invalid_json)?);
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

    /// A placeholder becomes the attachment itself, in a packet that has any.
    fn map_or_attachment(&mut self, at: usize, entries: u32) -> ImksResult<usize> {
        if entries == 2
            && !self.attachments.is_empty()
            && let Some((number, length)) = placeholder(&self.json[at..])
        {
            let attachment = self.attachments.get(number).ok_or_else(|| malformed("illegal attachments"))?;
            push_binary(self.out, attachment.payload());
            return Ok(length);
        }
        push_map(self.out, entries);
        Ok(1)
    }

    fn string(&mut self, at: usize) -> ImksResult<usize> {
        let length = string_length(&self.json[at..])?;
        let quoted = &self.json[at..at + length];
        let plain = &quoted[1..length - 1];
        if plain.contains('\\') {
            let text: String = serde_json::from_str(quoted)?;
            push_text(self.out, &text);
        } else {
            push_text(self.out, plain);
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
            push_unsigned(self.out, value);
        } else if let Ok(value) = text.parse::<i64>() {
            push_signed(self.out, value);
        } else {
            self.out.push(0xcb);
            self.out.extend_from_slice(&text.parse::<f64>().map_err(|_| invalid_json())?.to_be_bytes());
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

/// Counts what the arrays and maps of a text hold. Placeholders count as maps.
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

/// Bytes of the quoted string at the start of `json`, quotes included.
fn string_length(json: &str) -> ImksResult<usize> {
    let bytes = json.as_bytes();
    let mut at = 1;
    loop {
        let found = memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default());
        match found.map(|found| (at + found, bytes[at + found])) {
            Some((end, b'"')) => return Ok(end + 1),
            Some((escape, _)) => at = escape + 2,
            None => return Err(invalid_json()),
        }
    }
}

/// Number and length in bytes of the placeholder at the start of `json`, if one is there.
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

pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        short @ 0..=0x1f => out.push(0xa0 | short as u8),
        length => push_length(out, [0xd9, 0xda, 0xdb], length),
    }
    out.extend_from_slice(text.as_bytes());
}

fn push_binary(out: &mut Vec<u8>, data: &[u8]) {
    push_length(out, [0xc4, 0xc5, 0xc6], data.len());
    out.extend_from_slice(data);
}

/// The shortest of three forms: one, two or four bytes of length.
fn push_length(out: &mut Vec<u8>, [byte, short, long]: [u8; 3], length: usize) {
    match length {
        0..=0xff => out.extend_from_slice(&[byte, length as u8]),
        0x100..=0xffff => {
            out.push(short);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(long);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

fn push_array(out: &mut Vec<u8>, entries: u32) {
    push_container(out, [0x90, 0xdc, 0xdd], entries);
}

fn push_map(out: &mut Vec<u8>, entries: u32) {
    push_container(out, [FIXMAP, 0xde, 0xdf], entries);
}

fn push_container(out: &mut Vec<u8>, [fixed, short, long]: [u8; 3], entries: u32) {
    match entries {
        0..=0xf => out.push(fixed | entries as u8),
        0x10..=0xffff => {
            out.push(short);
            out.extend_from_slice(&(entries as u16).to_be_bytes());
        }
        _ => {
            out.push(long);
            out.extend_from_slice(&entries.to_be_bytes());
        }
    }
}

pub(super) fn push_unsigned(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x7f => out.push(value as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, value as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
        _ => {
            out.push(0xcf);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// A value below zero.
fn push_signed(out: &mut Vec<u8>, value: i64) {
    match value {
        -0x20..=-1 => out.push(value as u8),
        -0x80..=-0x21 => out.extend_from_slice(&[0xd0, value as u8]),
        -0x8000..=-0x81 => {
            out.push(0xd1);
            out.extend_from_slice(&(value as i16).to_be_bytes());
        }
        -0x8000_0000..=-0x8001 => {
            out.push(0xd2);
            out.extend_from_slice(&(value as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

fn invalid_json() -> ImksError {
    malformed("payload is not JSON")
}

/// A map of up to 15 entries; their number is in the low bits.
pub(super) const FIXMAP: u8 = 0x80;
