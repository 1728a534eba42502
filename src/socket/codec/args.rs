//! The arguments of events and acks, kept as the received JSON text. Only the envelope is validated on
//! arrival. The arguments are deserialized when a handler asks for a type.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::value::RawValue;
use tungstenite::Utf8Bytes;

use super::binary;
use super::json::{is_too_deep, unescape};
use super::non_json::Note;
use super::packet_type::PacketType;
use super::placeholder::all_have_attachments;
use super::shape::Shape;
use crate::error::{ImksError, ImksResult};
use crate::shown::shown;

/// The arguments of an event or ack: validated JSON text, and the attachments it refers to.
///
/// In the text, an attachment is `{"_placeholder":true,"num":N}`, where N is its index in
/// [`Args::attachments`].
#[derive(Debug, Clone, PartialEq)]
pub struct Args {
    text: Utf8Bytes,
    /// The range of the array in `text`.
    array: Range,
    /// The range of the event name in `text`, without quotes if it has no escapes.
    name: Range,
    /// The range of the comma-separated arguments in `text`, without brackets.
    values: Range,
    /// The range of the first argument in `text`, empty if there is none.
    first: Range,
    /// The start of the arguments after the first in `text`.
    rest: u32,
    /// The event name, if it was written with escapes.
    unescaped_name: Option<Box<str>>,
    attachments: Vec<Bytes>,
    /// The values that JSON does not have, by their position in `values`.
    non_json: Box<[Note]>,
}

type Range = (u32, u32);

impl Args {
    /// Parses `["name", …]` at `text[start..]`.
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

    /// Parses `[…]` at `text[start..]`.
    pub(crate) fn ack(text: Utf8Bytes, start: usize) -> ImksResult<Self> {
        let elements = split_array(&text, start)?;
        Ok(Self::new(text, NO_NAME, None, elements.array, &elements.ranges))
    }

    /// Validates the arguments of a packet that another node has split into parts.
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

    /// Creates empty arguments.
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
            non_json: Box::default(),
        }
    }

    /// Adds the values that JSON does not have, by their position in the array.
    pub(crate) fn with_non_json(mut self, notes: &[Note]) -> Self {
        let skipped = self.values.0 - self.array.0;
        let in_values = |&(at, value): &Note| Some((at.checked_sub(skipped)?, value));
        self.non_json = notes.iter().filter_map(in_values).collect();
        self
    }

    /// Returns the values that JSON does not have, by their position in [`Args::json`].
    pub(crate) fn non_json(&self) -> &[Note] {
        &self.non_json
    }

    /// Returns the size of the arguments in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let attachments: usize = self.attachments.iter().map(Bytes::len).sum();
        self.text.len() + attachments + size_of_val(&*self.non_json)
    }

    /// Adds the attachments, once all have arrived.
    pub(crate) fn with_attachments(mut self, attachments: Vec<Bytes>) -> Self {
        self.attachments = attachments;
        self
    }

    /// Whether there is an event name. `false` for an ack, and for an event without a payload.
    pub fn has_name(&self) -> bool {
        self.name != NO_NAME
    }

    /// Returns the event name, empty if there is none.
    pub fn name(&self) -> &str {
        match &self.unescaped_name {
            Some(name) => name,
            None => self.slice(self.name),
        }
    }

    /// Returns the event name as a log shows it, because a client chose it: truncated, and without characters that are not
    /// seen.
    pub(crate) fn logged_name(&self) -> Cow<'_, str> {
        logged(self.name())
    }

    /// Returns the arguments as comma-separated JSON text without brackets: `1,{"a":2}`.
    pub fn json(&self) -> &str {
        self.slice(self.values)
    }

    /// Returns the whole array as JSON text.
    pub(super) fn array(&self) -> &str {
        self.slice(self.array)
    }

    /// Returns the attachments, in the order of their placeholders. Their bytes are shared.
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }

    /// Returns each argument as JSON text.
    pub fn values(&self) -> ImksResult<Vec<&RawValue>> {
        self.deserialize()
    }

    /// Deserializes all arguments as a tuple or a list, for example `(String, u32)` or `Vec<Value>`, and the only
    /// argument as any other type.
    ///
    /// # Errors
    /// [`ImksError::InvalidPayload`] for another number of arguments, and [`ImksError::Json`] for other types.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        match Shape::of::<T>() {
            Shape::Single => self.only(),
            Shape::Tuple | Shape::Any => self.deserialize(),
        }
    }

    /// Deserializes the first argument.
    pub fn first<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        match self.slice(self.first) {
            "" => Err(ImksError::InvalidPayload("an argument is missing".into())),
            first => Ok(binary::reading(&self.attachments, || serde_json::from_str(first))?),
        }
    }

    /// Returns the first argument as JSON text, empty if there is none.
    pub fn first_json(&self) -> &str {
        self.slice(self.first)
    }

    /// Deserializes all arguments if `T` is a tuple or `()`, and the only argument otherwise, also as a list.
    ///
    /// # Errors
    /// [`ImksError::InvalidPayload`] for another number of arguments, and [`ImksError::Json`] for other types.
    pub fn extract<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        match Shape::of::<T>() {
            Shape::Tuple => self.deserialize(),
            Shape::Single | Shape::Any => self.only(),
        }
    }

    fn only<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        if self.rest != self.values.1 {
            return Err(ImksError::InvalidPayload("more arguments than one".into()));
        }
        match self.slice(self.first) {
            // A missing argument counts as `null`, so that an optional one can be omitted.
            "" => serde_json::from_str("null").or_else(|_| self.first()),
            _ => self.first(),
        }
    }

    /// Deserializes the first argument, and returns the others as JSON text.
    pub fn split_first<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<(T, &'a str)> {
        Ok((self.first()?, self.slice((self.rest, self.values.1))))
    }

    /// Returns the last argument as JSON text.
    #[cfg(feature = "client")]
    pub(crate) fn last_json(&self) -> ImksResult<Option<&str>> {
        Ok(self.values()?.last().map(|last| last.get()))
    }

    /// Returns the event without its last argument.
    #[cfg(feature = "client")]
    pub(crate) fn without_last(&self) -> ImksResult<Self> {
        let Some(last) = self.last_json()? else { return Ok(self.clone()) };
        let before = self.text[self.array.0 as usize..offset_in(&self.text, last)].trim_ascii_end();
        let shorter = format!("{}]", before.strip_suffix(',').unwrap_or(before));
        Ok(Self::event(shorter.into(), 0)?.with_attachments(self.attachments.clone()))
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

/// The range of a missing name. A real name never begins at 0, because a bracket precedes it.
const NO_NAME: Range = (0, 0);

/// The event names that clients may not use. The reference closes the connection too.
const RESERVED_EVENTS: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Returns what a log shows of the name of an event or a room, which a client may have chosen.
pub(crate) fn logged(name: &str) -> Cow<'_, str> {
    shown(name.char_indices().nth(LOGGED_CHARS_MAX).map_or(name, |(end, _)| &name[..end]))
}

/// The maximum number of characters of the name of an event or a room in logs.
const LOGGED_CHARS_MAX: usize = 64;

fn invalid_event_name() -> ImksError {
    ImksError::InvalidSocketPacketFormat("event name is neither text nor a number")
}

/// A visitor that skips the event name, then reads the rest of the array as `T`.
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
        let args = T::deserialize(ArgsDeserializer(&mut seq))?;
        match seq.next_element::<IgnoredAny>()? {
            None => Ok(args),
            Some(_) => Err(A::Error::custom("more arguments than are taken")),
        }
    }
}

/// A deserializer of the arguments as a sequence, or as `()` if there are none.
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

/// The ranges of an array and its first elements in the text.
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

/// Returns the offset of `part`, a slice of `whole`.
fn offset_in(whole: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize)
}

/// The first elements of an array as text. The others are only validated.
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
    fn what_is_neither_a_tuple_nor_a_list_is_parsed_from_the_only_argument() {
        #[derive(serde::Deserialize, PartialEq, Debug)]
        #[serde(rename_all = "lowercase")]
        enum Colour {
            Red,
        }
        let raw = event(r#"["a",{"x":1}]"#).unwrap();
        assert_eq!(event(r#"["a","b"]"#).unwrap().parse::<String>().unwrap(), "b");
        assert_eq!(event(r#"["a","red"]"#).unwrap().parse::<Colour>().unwrap(), Colour::Red);
        assert_eq!(event(r#"["a"]"#).unwrap().parse::<Option<u8>>().unwrap(), None);
        assert_eq!(raw.parse::<Box<RawValue>>().unwrap().get(), r#"{"x":1}"#);
        assert_eq!(event(r#"["a",1,2]"#).unwrap().parse::<Vec<u8>>().unwrap(), [1, 2]);
        assert_eq!(
            event(r#"["a",1]"#).unwrap().parse::<serde_json::Value>().unwrap(),
            serde_json::json!([1])
        );
        assert!(event(r#"["a",1,2]"#).unwrap().parse::<u8>().is_err());
        assert!(event(r#"["a"]"#).unwrap().parse::<u8>().is_err());
    }

    #[cfg(feature = "client")]
    #[test]
    fn an_event_loses_its_last_argument_only() {
        for (whole, shorter) in [
            (r#" [ "hi" , 1 , "o" ]"#, r#" [ "hi" , 1 ]"#),
            (r#"["hi","o"]"#, r#"["hi"]"#),
            (r#"["hi"]"#, r#"["hi"]"#),
        ] {
            assert_eq!(event(whole).unwrap().without_last().unwrap().array(), shorter);
        }
        assert_eq!(event(r#"["hi",1,"o"]"#).unwrap().last_json().unwrap(), Some("\"o\""));
    }

    #[test]
    fn an_ack_has_arguments_only() {
        let args = Args::ack(Utf8Bytes::from("[1,\"two\"]"), 0).unwrap();
        assert_eq!((args.name(), args.json()), ("", "1,\"two\""));
        assert_eq!(Args::ack(Utf8Bytes::from("[]"), 0).unwrap().json(), "");
    }
}
