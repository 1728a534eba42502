//! How the messages of `imks.v1` look as JSON, where serde's own form does not fit. The attributes that refer to
//! these functions are written by `build.rs`.

use std::fmt;

use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, SeqAccess, Visitor};
use serde::ser::{Error, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A field `…_json`: its text is a value of the JSON around it.
pub mod text {
    use super::*;

    /// Writes the text as a value; `null` if it is empty.
    pub fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        raw(text).map_err(S::Error::custom)?.serialize(serializer)
    }

    /// Reads any value as its text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        let value = Box::<RawValue>::deserialize(deserializer)?;
        Ok(String::from(Box::<str>::from(value)))
    }
}

/// A repeated field `…_json`.
pub mod texts {
    use super::*;

    /// Writes each text as a value.
    pub fn serialize<S: Serializer>(texts: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        let values: Result<Vec<_>, _> = texts.iter().map(|text| raw(text)).collect();
        values.map_err(S::Error::custom)?.serialize(serializer)
    }

    /// Reads each value as its text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        let values = Vec::<Box<RawValue>>::deserialize(deserializer)?;
        Ok(values.into_iter().map(|value| String::from(Box::<str>::from(value))).collect())
    }
}

/// A field with an enum, which protobuf stores as a number: the name of the value, in lower case.
pub mod name {
    use super::*;

    /// Writes the name of a number; a number that this version does not know stays a number.
    pub fn write<E: TryFrom<i32> + Serialize, S: Serializer>(
        number: &i32,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match E::try_from(*number) {
            Ok(value) => value.serialize(serializer),
            Err(_) => number.serialize(serializer),
        }
    }

    /// Reads the number of a name.
    pub fn read<'de, E: Into<i32> + Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<i32, D::Error> {
        E::deserialize(deserializer).map(Into::into)
    }
}

/// Reads a list of ids, or in a query one text with commas between them.
pub fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Ids;

    impl<'de> Visitor<'de> for Ids {
        type Value = Vec<String>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a sequence")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text.split(',').map(|id| id.trim().to_owned()).collect())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Self::Value, A::Error> {
            Deserialize::deserialize(de::value::SeqAccessDeserializer::new(sequence))
        }
    }

    deserializer.deserialize_any(Ids)
}

/// Reads a message that is nothing but a choice: an object with exactly one field.
pub fn choice<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let Some(fields) = Option::<Map<String, Value>>::deserialize(deserializer)? else { return Ok(None) };
    if fields.len() == 1 {
        return T::deserialize(Value::Object(fields)).map(Some).map_err(de::Error::custom);
    }
    // The error about a field that does not exist names those that do.
    let error = T::deserialize(Value::String(String::new())).err().map(|error| error.to_string());
    Err(de::Error::custom(error.unwrap_or_default().replace("expected one of", "expected exactly one of")))
}

/// Returns a JSON text as a value, and the empty text as `null`.
fn raw(text: &str) -> Result<&RawValue, serde_json::Error> {
    serde_json::from_str(if text.is_empty() { "null" } else { text })
}
