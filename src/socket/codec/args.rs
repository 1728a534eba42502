//! The arguments of events and acks. They stay the JSON text they arrived as: the envelope is checked once, and
//! nothing is built from the text until a handler asks for a type.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::value::RawValue;
use tungstenite::Utf8Bytes;

use super::binary;
use super::json::{is_too_deep, unescape};
use super::packet_type::PacketType;
use super::placeholder::all_have_attachments;
use super::shape::Shape;
use crate::error::{ImksError, ImksResult};

/// The arguments of one event or ack: validated JSON text and the binary attachments it refers to.
///
/// An attachment stands in the text as `{"_placeholder":true,"num":N}`, N being its place in
/// [`Args::attachments`].
#[derive(Debug, Clone, PartialEq)]
pub struct Args {
    text: Utf8Bytes,
    /// Where the whole array lies in `text`.
    array: Range,
    /// Where the event name lies in `text`, without quotes where they can be cut off.
    name: Range,
    /// Where the arguments lie in `text`, comma separated, without the array's brackets.
    values: Range,
    /// Where the first argument lies in `text`; empty if there is none.
    first: Range,
    /// Where the arguments after the first begin in `text`.
    rest: u32,
    /// The event name, if it was written with escapes.
    unescaped_name: Option<Box<str>>,
    attachments: Vec<Bytes>,
    /// The arguments as the client of the msgpack parser wrote them: JSON has no dates, no NaN, no infinity.
    msgpack: Option<Box<MsgPackArgs>>,
}

/// Arguments in msgpack, one value after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct MsgPackArgs {
    pub(crate) count: u32,
    pub(crate) bytes: Bytes,
}

type Range = (u32, u32);

impl Args {
    /// Reads `["name", …]` at `text[start..]`.
    pub(crate) fn event(text: Utf8Bytes, start: usize) -> ImksResult<Self> {
        let elements = split_array(&text, start)?;
        let name = elements.ranges[0].ok_or_else(invalid_event_name)?;
        let raw = &text[name.0 as usize..name.1 as usize];
        let (name, unescaped_name) = match raw.as_bytes().first() {
            Some(b'"') if !raw.contains('\\') => ((name.0 + 1, name.1 - 1), None),
            Some(b'"') => (name, Some(unescape(raw).ok_or_else(invalid_event_name)?)),
            // The reference accepts a number as an event name.
            Some(b'-' | b'0'..=b'9') => (name, None),
            _ => return Err(invalid_event_name()),
        };
        let args = Self::new(text, name, unescaped_name, elements.array, &elements.ranges[1..]);
        if RESERVED_EVENTS.contains(&args.name()) {
            return Err(ImksError::InvalidSocketPacketFormat("reserved event name"));
        }
        Ok(args)
    }

    /// Reads `[…]` at `text[start..]`.
    pub(crate) fn ack(text: Utf8Bytes, start: usize) -> ImksResult<Self> {
        let elements = split_array(&text, start)?;
        Ok(Self::new(text, NO_NAME, None, elements.array, &elements.ranges))
    }

    /// The arguments of a packet that another node took apart.
    pub(crate) fn from_parts(kind: PacketType, json: &str, attachments: Vec<Bytes>) -> ImksResult<Self> {
        if is_too_deep(json) || !all_have_attachments(json, attachments.len()) {
            return Err(ImksError::InvalidSocketPacketFormat("illegal arguments"));
        }
        let text = Utf8Bytes::from(json);
        let args = match kind {
            PacketType::Event => Self::event(text, 0)?,
            _ => Self::ack(text, 0)?,
        };
        Ok(args.with_attachments(attachments))
    }

    /// No arguments at all.
    pub fn none() -> Self {
        Self::new(Utf8Bytes::from_static("[]"), NO_NAME, None, (0, 2), &[])
    }

    fn new(
        text: Utf8Bytes,
        name: Range,
        unescaped_name: Option<Box<str>>,
        array: Range,
        values: &[Option<Range>],
    ) -> Self {
        let end = array.1 - 1;
        let nth = |n: usize| values.get(n).copied().flatten();
        let first = nth(0).unwrap_or((end, end));
        let rest = nth(1).map_or(end, |second| second.0);
        Self {
            text,
            array,
            name,
            values: (first.0, end),
            first,
            rest,
            unescaped_name,
            attachments: Vec::new(),
            msgpack: None,
        }
    }

    /// Keeps what the client wrote, for other clients of the msgpack parser.
    pub(super) fn with_msgpack(mut self, count: u32, bytes: &[u8]) -> Self {
        self.msgpack = Some(Box::new(MsgPackArgs { count, bytes: Bytes::copy_from_slice(bytes) }));
        self
    }

    /// The arguments as a client of the msgpack parser wrote them, if they came from one.
    pub(super) fn msgpack(&self) -> Option<&MsgPackArgs> {
        self.msgpack.as_deref()
    }

    /// Bytes that these arguments occupy.
    pub(crate) fn bytes(&self) -> usize {
        let attachments: usize = self.attachments.iter().map(Bytes::len).sum();
        self.text.len() + attachments + self.msgpack.as_ref().map_or(0, |msgpack| msgpack.bytes.len())
    }

    /// Hands over the attachments once all have arrived.
    pub(crate) fn with_attachments(mut self, attachments: Vec<Bytes>) -> Self {
        self.attachments = attachments;
        self
    }

    /// False for an ack, and for an event that came without a payload.
    pub fn has_name(&self) -> bool {
        self.name != NO_NAME
    }

    /// The event name; empty where there is none.
    pub fn name(&self) -> &str {
        match &self.unescaped_name {
            Some(name) => name,
            None => self.slice(self.name),
        }
    }

    /// The event name as far as logs should show what a client made up.
    pub(crate) fn logged_name(&self) -> &str {
        let name = self.name();
        name.char_indices().nth(LOGGED_CHARS_MAX).map_or(name, |(end, _)| &name[..end])
    }

    /// The arguments as JSON text, comma separated, without brackets: `1,{"a":2}`.
    pub fn json(&self) -> &str {
        self.slice(self.values)
    }

    /// The whole array as JSON text.
    pub(super) fn array(&self) -> &str {
        self.slice(self.array)
    }

    /// The binary attachments, shared, in the order of their placeholders.
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }

    /// Each argument as JSON text.
    pub fn values(&self) -> ImksResult<Vec<&RawValue>> {
        self.deserialize()
    }

    /// All arguments as a tuple, for example `(String, u32)`.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        self.deserialize()
    }

    /// The first argument as a type.
    pub fn first<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        match self.slice(self.first) {
            "" => Err(ImksError::InvalidPayload("an argument is missing".into())),
            first => Ok(binary::reading(&self.attachments, || serde_json::from_str(first))?),
        }
    }

    /// The first argument as JSON text; empty when there is none.
    pub fn first_json(&self) -> &str {
        self.slice(self.first)
    }

    /// All arguments where `T` is a tuple or `()`, the only argument where it is anything else.
    pub fn extract<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        if Shape::of::<T>() != Shape::Single {
            return self.parse();
        }
        if self.rest != self.values.1 {
            return Err(ImksError::InvalidPayload("more arguments than one".into()));
        }
        match self.slice(self.first) {
            // What may be absent may also be left out.
            "" => serde_json::from_str("null").or_else(|_| self.first()),
            _ => self.first(),
        }
    }

    /// The first argument as a type, and the others as JSON text.
    pub fn split_first<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<(T, &'a str)> {
        Ok((self.first()?, self.slice((self.rest, self.values.1))))
    }

    fn deserialize<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        binary::reading(&self.attachments, || self.deserialize_text())
    }

    fn deserialize_text<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        let has_name = self.has_name();
        let mut json = serde_json::Deserializer::from_str(self.array());
        Ok(json.deserialize_seq(ArgsVisitor { has_name, marker: PhantomData })?)
    }

    fn slice(&self, range: Range) -> &str {
        self.text.get(range.0 as usize..range.1 as usize).unwrap_or_default()
    }
}

/// The name of a packet never begins where its text begins: a bracket stands there.
const NO_NAME: Range = (0, 0);

/// Event names that clients may not use; the reference closes the connection on them.
const RESERVED_EVENTS: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Characters of an event name that logs show.
const LOGGED_CHARS_MAX: usize = 64;

fn invalid_event_name() -> ImksError {
    ImksError::InvalidSocketPacketFormat("event name is neither text nor a number")
}

/// Skips the event name, then reads the rest of the array as `T`.
struct ArgsVisitor<T> {
    has_name: bool,
    marker: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ArgsVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of arguments")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
        if self.has_name {
            seq.next_element::<IgnoredAny>()?;
        }
        T::deserialize(ArgsDeserializer(seq))
    }
}

/// The arguments as a sequence, and as `()` where there are none.
struct ArgsDeserializer<A>(A);

impl<'de, A: SeqAccess<'de>> Deserializer<'de> for ArgsDeserializer<A> {
    type Error = A::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, A::Error> {
        visitor.visit_seq(self.0)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, A::Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Where an array and its first elements lie in the text it was read from.
struct Elements {
    array: Range,
    ranges: [Option<Range>; 3],
}

/// Validates that `text[start..]` is one JSON array, and finds its first elements.
fn split_array(text: &str, start: usize) -> ImksResult<Elements> {
    let json = &text[start..];
    let FirstElements(raw) = serde_json::from_str(json)
        .map_err(|_| ImksError::InvalidSocketPacketFormat("payload is not a JSON array"))?;
    let range = |raw: &RawValue| {
        let from = offset_in(text, raw.get());
        (from as u32, (from + raw.get().len()) as u32)
    };
    let array = (start as u32, (start + json.trim_ascii_end().len()) as u32);
    Ok(Elements { array, ranges: raw.map(|raw| raw.map(range)) })
}

/// Where `part`, a slice of `whole`, begins in it.
fn offset_in(whole: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize)
}

/// The first elements of an array, as text; the others are validated only.
struct FirstElements<'a>([Option<&'a RawValue>; 3]);

impl<'de: 'a, 'a> Deserialize<'de> for FirstElements<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementsVisitor;
        impl<'de> Visitor<'de> for ElementsVisitor {
            type Value = FirstElements<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<FirstElements<'de>, A::Error> {
                let mut first = [None; 3];
                for place in &mut first {
                    *place = seq.next_element()?;
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FirstElements(first))
            }
        }
        deserializer.deserialize_seq(ElementsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> ImksResult<Args> {
        Args::event(Utf8Bytes::from(json), 0)
    }

    #[test]
    fn an_event_is_its_name_and_the_text_of_its_arguments() {
        let args = event(r#" [ "hi" , 1, {"a":[true]} ] "#).unwrap();
        assert_eq!((args.name(), args.json().trim_end()), ("hi", r#"1, {"a":[true]}"#));
        assert_eq!(args.values().unwrap().len(), 2);
        assert_eq!(args.first::<u8>().unwrap(), 1);
        assert_eq!(args.split_first::<u8>().unwrap(), (1, r#"{"a":[true]} "#));
        let (one, map): (u8, serde_json::Value) = args.parse().unwrap();
        assert_eq!((one, map["a"][0].as_bool()), (1, Some(true)));
    }

    #[test]
    fn an_event_without_arguments_has_none() {
        let args = event(r#"["hi"]"#).unwrap();
        assert_eq!((args.json(), args.values().unwrap().len()), ("", 0));
        assert!(args.first::<u8>().is_err());
    }

    #[test]
    fn names_may_be_escaped_or_numbers_but_nothing_else() {
        assert_eq!(event(r#"["a\u0062c\"",1]"#).unwrap().name(), "abc\"");
        assert_eq!(event("[1,2]").unwrap().name(), "1");
        for wrong in ["[]", "[null]", "[{}]", "[[\"a\"]]", "{}", "null", "[true]", "[\"a\"", "[\"a\"]x", ""] {
            assert!(event(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reserved_names_are_refused_however_they_are_written() {
        for name in RESERVED_EVENTS {
            assert!(event(&format!("[{name:?}]")).is_err());
        }
        assert!(event(r#"["c\u006fnnect"]"#).is_err());
    }

    #[test]
    fn a_name_with_half_an_emoji_is_a_name_that_logs_show_in_part() {
        assert_eq!(event(r#"["\ud83d",1]"#).unwrap().name(), "\u{fffd}\u{fffd}\u{fffd}");
        let long = event(&format!("[{:?}]", "é".repeat(200_000))).unwrap();
        assert_eq!(long.logged_name().chars().count(), LOGGED_CHARS_MAX);
    }

    #[test]
    fn what_a_handler_takes_is_all_arguments_or_the_only_one() {
        #[derive(serde::Deserialize, PartialEq, Debug)]
        struct Room(String);
        #[derive(serde::Deserialize, PartialEq, Debug)]
        struct Point {
            x: serde_json::Value,
        }
        assert_eq!(event(r#"["a","b"]"#).unwrap().extract::<String>().unwrap(), "b");
        assert_eq!(event(r#"["a","b"]"#).unwrap().extract::<Room>().unwrap(), Room("b".into()));
        assert_eq!(event(r#"["a",{"x":1}]"#).unwrap().extract::<Point>().unwrap(), Point { x: 1.into() });
        assert_eq!(event(r#"["a",[1,2]]"#).unwrap().extract::<Vec<u8>>().unwrap(), [1, 2]);
        assert_eq!(event(r#"["a",1,"b"]"#).unwrap().extract::<(u8, String)>().unwrap(), (1, "b".into()));
        assert_eq!(event(r#"["a","b"]"#).unwrap().extract::<(String,)>().unwrap(), ("b".into(),));
        assert!(event(r#"["a"]"#).unwrap().extract::<()>().is_ok());
        assert_eq!(event(r#"["a"]"#).unwrap().extract::<Option<u8>>().unwrap(), None);
        assert_eq!(event(r#"["a",7]"#).unwrap().extract::<Option<u8>>().unwrap(), Some(7));
        assert!(event(r#"["a"]"#).unwrap().extract::<String>().is_err());
        assert!(event(r#"["a","b","c"]"#).unwrap().extract::<String>().is_err());
        assert!(event(r#"["a",{}]"#).unwrap().extract::<(String, u8)>().is_err());
    }

    #[test]
    fn an_ack_has_arguments_only() {
        let args = Args::ack(Utf8Bytes::from("[1,\"two\"]"), 0).unwrap();
        assert_eq!((args.name(), args.json()), ("", "1,\"two\""));
        assert_eq!(Args::ack(Utf8Bytes::from("[]"), 0).unwrap().json(), "");
    }
}
