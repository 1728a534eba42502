//! The shape of argument types: whether a type is deserialized from several values or from one.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

/// The number of values that a type is deserialized from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Several values, or none.
    Tuple,
    /// One value, or any number of them: a list, or a type that reads whatever there is.
    Any,
    /// One value.
    Single,
}

impl Shape {
    /// Returns the shape of a type.
    pub(super) fn of<'a, T: Deserialize<'a>>() -> Self {
        match T::deserialize(Probe) {
            Err(shape) => shape,
            // A type that reads nothing accepts any arguments.
            Ok(_) => Self::Tuple,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

impl std::error::Error for Shape {}

impl serde::de::Error for Shape {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Single
    }
}

/// Implements methods of a deserializer that ask for one value, each with its arguments before the visitor.
macro_rules! single {
    ($($method:ident($($argument:ty),*))*) => {
        $(fn $method<V: Visitor<'de>>(self, $(_: $argument,)* _: V) -> Result<V::Value, Shape> {
            Err(Shape::Single)
        })*
    };
}

/// A deserializer whose error is the shape that the type asked for.
struct Probe;

impl<'de> Deserializer<'de> for Probe {
    type Error = Shape;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Shape> {
        Err(Shape::Any)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Shape> {
        Err(Shape::Tuple)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Shape> {
        Err(Shape::Tuple)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        _: V,
    ) -> Result<V::Value, Shape> {
        Err(Shape::Tuple)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Shape> {
        visitor.visit_newtype_struct(self)
    }

    single! {
        deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64()
        deserialize_i128() deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64()
        deserialize_u128() deserialize_f32() deserialize_f64() deserialize_char() deserialize_str()
        deserialize_string() deserialize_bytes() deserialize_byte_buf() deserialize_option()
        deserialize_map() deserialize_identifier()
        deserialize_unit_struct(&'static str)
        deserialize_struct(&'static str, &'static [&'static str])
        deserialize_enum(&'static str, &'static [&'static str])
    }

    forward_to_deserialize_any! { seq ignored_any }
}
