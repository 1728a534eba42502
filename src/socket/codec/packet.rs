//! Socket.IO v5 packets, and the arguments that events and acks carry.
//!
//! Arguments stay the JSON text they arrived as: the envelope is checked once, and nothing is built from the
//! text until a handler asks for a type.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::value::RawValue;
use tungstenite::Utf8Bytes;

use super::binary;
use crate::error::{ImksError, ImksResult};

/// One packet and the namespace it is for (Socket.IO protocol v5, "Packet encoding").
#[derive(Debug, Clone, PartialEq)]
pub struct Packet {
    /// Path of the namespace; `/` where the packet names none.
    pub namespace: Cow<'static, str>,
    /// What it says.
    pub body: PacketBody,
}

/// The packet types. Binary events and binary acks are events and acks whose arguments have attachments.
#[derive(Debug, Clone, PartialEq)]
pub enum PacketBody {
    /// `0`: join the namespace, with the JSON object given as `auth`.
    Connect(Option<String>),
    /// `1`: leave the namespace.
    Disconnect,
    /// `2` and `5`: an event, with the ack id where an answer is wanted.
    Event(Option<u64>, Args),
    /// `3` and `6`: the answer to an event; without an id it answers nothing.
    Ack(Option<u64>, Args),
    /// `4`: the namespace is refused, with a JSON string or object that says why.
    ConnectError(String),
}

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
            Some(b'"') => (name, Some(serde_json::from_str(raw).map_err(|_| invalid_event_name())?)),
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
        }
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

    /// The arguments as JSON text, comma separated, without brackets: `1,{"a":2}`.
    pub fn json(&self) -> &str {
        self.slice(self.values)
    }

    /// The first argument as JSON text; empty when there is none.
    pub fn first_json(&self) -> &str {
        self.slice(self.first)
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

    /// The first argument as a type, and the others as JSON text.
    pub fn split_first<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<(T, &'a str)> {
        Ok((self.first()?, self.slice((self.rest, self.values.1))))
    }

    fn deserialize<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        binary::reading(&self.attachments, || self.deserialize_text())
    }

    fn deserialize_text<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        let has_name = self.has_name();
        let mut json = serde_json::Deserializer::from_str(self.slice(self.array));
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

/// Deepest nesting of arrays and objects that is accepted, so that no later reader recurses without end.
pub const JSON_DEPTH_MAX: usize = 128;

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
    check_depth(json)?;
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

/// serde_json validates ignored values without recursion, hence without a depth limit of its own.
fn check_depth(json: &str) -> ImksResult<()> {
    if memchr::memchr2_iter(b'[', b'{', json.as_bytes()).nth(JSON_DEPTH_MAX).is_none() {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > JSON_DEPTH_MAX {
            return Err(ImksError::InvalidSocketPacketFormat("payload is nested too deep"));
        }
    }
    Ok(())
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
    fn nesting_is_bounded_and_brackets_in_text_do_not_count() {
        let nested = |depth: usize| format!("[\"a\",{}{}]", "[".repeat(depth), "]".repeat(depth));
        assert!(event(&nested(JSON_DEPTH_MAX - 1)).is_ok());
        assert!(event(&nested(JSON_DEPTH_MAX)).is_err());
        assert!(event(&format!("[\"a\",\"{}\"]", "[".repeat(1_000))).is_ok());
    }

    #[test]
    fn an_ack_has_arguments_only() {
        let args = Args::ack(Utf8Bytes::from("[1,\"two\"]"), 0).unwrap();
        assert_eq!((args.name(), args.json()), ("", "1,\"two\""));
        assert_eq!(Args::ack(Utf8Bytes::from("[]"), 0).unwrap().json(), "");
    }
}
