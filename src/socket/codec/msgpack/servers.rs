//! The payloads that Node.js servers exchange in msgpack (npm `notepack.io` 3): as clients send them, but with dates as
//! timestamps.

use bytes::Bytes;
use rmp::encode::{write_array_len, write_map_len, write_sint, write_str, write_uint};
use tungstenite::Utf8Bytes;

use super::super::non_json::Note;
use super::super::packet::{Args, Limits, malformed};
use super::json::{Json, JsonWriter};
pub(crate) use super::reader::{Form, Reader, Token};
use super::transcoder::{Transcoder, written};
use crate::error::{ImksError, ImksResult};

/// Reads the name and the arguments of an event from an array in msgpack.
pub(crate) fn read_event(data: &[u8], limits: &Limits) -> ImksResult<Args> {
    if !matches!(reader(data).next()?, Token::Array(_)) {
        return Err(malformed("an event is no array"));
    }
    let mut writer = JsonWriter::new(data.len(), *limits);
    writer.copy(&mut reader(data), 0)?;
    args(writer, Args::event)
}

/// Reads one value in msgpack as the only argument of an ack.
pub(crate) fn read_ack(data: &[u8], limits: &Limits) -> ImksResult<Args> {
    let mut writer = JsonWriter::new(data.len(), *limits);
    writer.copy_alone(&mut reader(data))?;
    args(writer, Args::ack)
}

/// Creates a reader.
pub(crate) fn reader(data: &[u8]) -> Reader<'_> {
    Reader::of_form(data, Form::Server)
}

fn args(writer: JsonWriter, parse: fn(Utf8Bytes, usize) -> ImksResult<Args>) -> ImksResult<Args> {
    let Json { text, attachments, non_json } =
        writer.finish().map_err(ImksError::InvalidSocketPacketFormat)?;
    let text = Utf8Bytes::try_from(Bytes::from(text)).map_err(|_| ImksError::InvalidPacketUtf8)?;
    Ok(parse(text, 0)?.with_attachments(attachments).with_non_json(&non_json))
}

/// A writer of msgpack.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Creates a writer with room for this many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Begins an array with this many elements.
    pub(crate) fn array(&mut self, elements: usize) -> ImksResult<()> {
        written(write_array_len(&mut self.0, length(elements)?))
    }

    /// Begins a map with this many entries.
    pub(crate) fn map(&mut self, entries: usize) -> ImksResult<()> {
        written(write_map_len(&mut self.0, length(entries)?))
    }

    /// Writes a text, such as a key.
    pub(crate) fn text(&mut self, text: &str) -> ImksResult<()> {
        written(write_str(&mut self.0, text))
    }

    /// Writes an integer.
    pub(crate) fn integer(&mut self, value: i64) -> ImksResult<()> {
        match u64::try_from(value) {
            Ok(value) => written(write_uint(&mut self.0, value)),
            Err(_) => written(write_sint(&mut self.0, value)),
        }
    }

    /// Writes a truth value.
    pub(crate) fn bool(&mut self, value: bool) {
        self.0.push(if value { 0xc3 } else { 0xc2 });
    }

    /// Writes no value.
    pub(crate) fn nil(&mut self) {
        self.0.push(0xc0);
    }

    /// Writes a value that is JSON text, with attachments for its placeholders and the values that JSON does not have.
    pub(crate) fn json(&mut self, json: &str, attachments: &[&[u8]], non_json: &[Note]) -> ImksResult<()> {
        Transcoder { json, attachments, non_json, form: Form::Server, out: &mut self.0 }.run()
    }

    /// Returns what was written.
    pub(crate) fn finish(self) -> Bytes {
        self.0.into()
    }
}

fn length(length: usize) -> ImksResult<u32> {
    u32::try_from(length).map_err(|_| ImksError::PayloadTooLarge)
}

#[cfg(test)]
mod tests {
    use super::super::super::non_json::NonJson;
    use super::*;

    #[test]
    fn a_date_is_the_shortest_timestamp_that_holds_it_as_notepack_writes_it() {
        // What `notepack.io` 3.0.1 writes for `new Date(millis)`.
        for (millis, bytes) in [
            (0, b"\xd6\xff\x00\x00\x00\x00".as_slice()),
            (1_700_000_000_000, b"\xd6\xff\x65\x53\xf1\x00"),
            (1_700_000_000_123, b"\xd7\xff\x1d\x53\x53\x00\x65\x53\xf1\x00"),
            (-1, b"\xc7\x0c\xff\x3b\x8b\x87\xc0\xff\xff\xff\xff\xff\xff\xff\xff"),
        ] {
            let text = format!("{:?}", crate::clock::rfc3339(millis * 1_000));
            let mut writer = Writer::default();
            writer.json(&text, &[], &[(0, NonJson::Date(millis))]).unwrap();
            assert_eq!(writer.finish(), bytes, "{millis}");
            let args = read_ack(bytes, &Limits::default()).unwrap();
            assert_eq!((args.json(), args.non_json()), (&*text, &[(0, NonJson::Date(millis))][..]));
        }
    }
}
