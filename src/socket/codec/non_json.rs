//! The values that msgpack has and JSON does not: dates, NaN and infinities.
//!
//! Every payload is JSON text, whatever the parser of its receivers. Where the text has `null` or a quoted time
//! in place of such a value, the value is noted with its position, for clients of the msgpack parser.

use std::cell::Cell;
use std::fmt::Display;
use std::io;

use serde::ser::{self, Serialize, Serializer};

use super::binary;
use crate::engine::FrameWriter;
use crate::error::{ImksError, ImksResult};

/// A value that JSON does not have.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum NonJson {
    /// Not a number. In JSON it is `null`, as are the infinities.
    NaN,
    /// The positive infinity.
    Infinity,
    /// The negative infinity.
    NegativeInfinity,
    /// A date in milliseconds since 1970. In JSON it is a text in RFC 3339.
    Date(i64),
}

impl NonJson {
    /// Returns the value of a float that JSON does not have.
    pub(super) fn of_float(value: f64) -> Option<Self> {
        match value {
            value if value.is_nan() => Some(Self::NaN),
            f64::INFINITY => Some(Self::Infinity),
            f64::NEG_INFINITY => Some(Self::NegativeInfinity),
            _ => None,
        }
    }
}

/// A value with the position in bytes of the JSON that stands for it.
pub type Note = (u32, NonJson);

/// Writes a value as JSON, and notes its floats that JSON does not have for [`binary::writing`].
///
/// # Errors
/// [`ImksError::EngineSerialization`] for a value that cannot be JSON, such as a map whose keys are not texts.
pub(super) fn write(out: &mut FrameWriter, value: &(impl Serialize + ?Sized)) -> ImksResult<()> {
    let at = Cell::new(out.len());
    let mut json = serde_json::Serializer::new(Tracked { out, at: &at });
    value.serialize(Noting { inner: &mut json, at: &at }).map_err(ImksError::EngineSerialization).map(drop)
}

/// A writer that shows its position.
struct Tracked<'a> {
    out: &'a mut FrameWriter,
    at: &'a Cell<usize>,
}

impl io::Write for Tracked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.at.set(self.out.len());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A serializer or a part of one, with the position of the writer behind it.
struct Noting<'a, S> {
    inner: S,
    at: &'a Cell<usize>,
}

/// A value that is serialized with [`Noting`].
struct Noted<'a, T: ?Sized> {
    value: &'a T,
    at: &'a Cell<usize>,
}

impl<T: Serialize + ?Sized> Serialize for Noted<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Noting { inner: serializer, at: self.at })
    }
}

impl<'a, S> Noting<'a, S> {
    fn note(&self, value: f64) {
        if let Some(value) = NonJson::of_float(value) {
            binary::note((self.at.get() as u32, value));
        }
    }

    fn compound<C>(inner: C, at: &'a Cell<usize>) -> Noting<'a, C> {
        Noting { inner, at }
    }
}

/// Forwards values that have no parts.
macro_rules! forward_values {
    ($($method:ident($($value:ident: $type:ty),*);)*) => {
        $(fn $method(self, $($value: $type),*) -> Result<S::Ok, S::Error> {
            self.inner.$method($($value),*)
        })*
    };
}

/// Forwards the beginning of values that have parts.
macro_rules! forward_compounds {
    ($($method:ident($($value:ident: $type:ty),*) -> $part:ident;)*) => {
        $(fn $method(self, $($value: $type),*) -> Result<Self::$part, S::Error> {
            Ok(Self::compound(self.inner.$method($($value),*)?, self.at))
        })*
    };
}

impl<'a, S: Serializer> Serializer for Noting<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Noting<'a, S::SerializeSeq>;
    type SerializeTuple = Noting<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Noting<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Noting<'a, S::SerializeTupleVariant>;
    type SerializeMap = Noting<'a, S::SerializeMap>;
    type SerializeStruct = Noting<'a, S::SerializeStruct>;
    type SerializeStructVariant = Noting<'a, S::SerializeStructVariant>;

    forward_values! {
        serialize_bool(value: bool);
        serialize_i8(value: i8);
        serialize_i16(value: i16);
        serialize_i32(value: i32);
        serialize_i64(value: i64);
        serialize_i128(value: i128);
        serialize_u8(value: u8);
        serialize_u16(value: u16);
        serialize_u32(value: u32);
        serialize_u64(value: u64);
        serialize_u128(value: u128);
        serialize_char(value: char);
        serialize_str(value: &str);
        serialize_bytes(value: &[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(name: &'static str);
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str);
    }

    forward_compounds! {
        serialize_seq(length: Option<usize>) -> SerializeSeq;
        serialize_tuple(length: usize) -> SerializeTuple;
        serialize_tuple_struct(name: &'static str, length: usize) -> SerializeTupleStruct;
        serialize_tuple_variant(name: &'static str, index: u32, variant: &'static str, length: usize)
            -> SerializeTupleVariant;
        serialize_map(length: Option<usize>) -> SerializeMap;
        serialize_struct(name: &'static str, length: usize) -> SerializeStruct;
        serialize_struct_variant(name: &'static str, index: u32, variant: &'static str, length: usize)
            -> SerializeStructVariant;
    }

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        self.note(value.into());
        self.inner.serialize_f32(value)
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        self.note(value);
        self.inner.serialize_f64(value)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&Noted { value, at: self.at })
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_struct(name, &Noted { value, at: self.at })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_variant(name, index, variant, &Noted { value, at: self.at })
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Forwards the parts of values: their methods with the arguments that are no values themselves, and `end`.
macro_rules! forward_parts {
    ($($part:ident: $($method:ident($($key:ident: $type:ty)?)),+;)*) => {
        $(impl<S: ser::$part> ser::$part for Noting<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            $(fn $method<T: Serialize + ?Sized>(
                &mut self,
                $($key: $type,)?
                value: &T,
            ) -> Result<(), S::Error> {
                self.inner.$method($($key,)? &Noted { value, at: self.at })
            })+

            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        })*
    };
}

forward_parts! {
    SerializeSeq: serialize_element();
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeMap: serialize_key(), serialize_value();
    SerializeStruct: serialize_field(key: &'static str);
    SerializeStructVariant: serialize_field(key: &'static str);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;
    use serde_json::value::RawValue;

    use super::*;
    use crate::engine::Frame;

    #[derive(Serialize)]
    enum Shape {
        Unit,
        Newtype(f64),
        Tuple(f32, u8),
        Struct { x: f64 },
    }

    #[derive(Serialize)]
    struct Everything {
        floats: Vec<f64>,
        pair: (f32, Option<f64>),
        map: BTreeMap<u8, f64>,
        shapes: Vec<Shape>,
        raw: Box<RawValue>,
        none: Option<f64>,
        text: &'static str,
    }

    #[test]
    fn floats_that_json_does_not_have_are_noted_where_the_text_has_null() {
        let value = Everything {
            floats: vec![1.5, f64::NAN, f64::INFINITY],
            pair: (f32::NEG_INFINITY, Some(f64::NAN)),
            map: BTreeMap::from([(7, f64::NAN)]),
            shapes: vec![
                Shape::Unit,
                Shape::Newtype(f64::NAN),
                Shape::Tuple(f32::INFINITY, 1),
                Shape::Struct { x: f64::NEG_INFINITY },
            ],
            raw: RawValue::from_string("[null, 1]".into()).unwrap(),
            none: None,
            text: "null\n",
        };
        let mut out = Frame::writer(0);
        out.push_str("head");
        let (written, found) = binary::writing(0, || write(&mut out, &value));
        written.unwrap();
        let text = &out.text()[4..];
        assert_eq!(text, serde_json::to_string(&value).unwrap());
        let values: Vec<_> = found.notes.iter().map(|(_, value)| *value).collect();
        use NonJson::{Infinity, NaN, NegativeInfinity};
        assert_eq!(values, [NaN, Infinity, NegativeInfinity, NaN, NaN, NaN, Infinity, NegativeInfinity]);
        for (at, _) in found.notes {
            assert!(out.text()[at as usize..].starts_with("null"), "{}", &out.text()[at as usize..]);
        }
    }
}
