//! Types for what clients write, which check their limits when they are created or parsed.

use std::fmt::Display;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::stored_json::{from_column, to_column};
use crate::clock::{Timestamp, parse_rfc3339};
use crate::{ImksError, ImksResult};

/// Describes a type that checks what it reads, for the contract. Its schema stands wherever the type is used.
macro_rules! described {
    ([$($parameters:tt)*] $type:ty, $generator:pat => $schema:tt) => {
        impl<$($parameters)*> schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema($generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}

pub(crate) use described;

/// The text of a message. Readable: 1 to [`BODY_CHARS_MAX`] Unicode scalar values, at most [`BODY_BYTES_MAX`] bytes,
/// without U+0000, and not only white space. Encrypted: 1 to [`E2EE_BYTES_MAX`]
/// characters of base64. The default is no text at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageBody(String);

impl MessageBody {
    /// Validates a readable text.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`].
    pub fn new(text: impl Into<String>) -> ImksResult<Self> {
        let text = text.into();
        Self::check(&text, false)?;
        Ok(Self(text))
    }

    /// Validates the beginning of a readable text, which may be blank or nothing at all.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`].
    pub fn beginning(text: impl Into<String>) -> ImksResult<Self> {
        let text = text.into();
        problem_of_length_or_nul(&text).map_or(Ok(()), |problem| Err(ImksError::invalid("body", problem)))?;
        Ok(Self(text))
    }

    /// Validates a text that is end-to-end encrypted.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`].
    pub fn encrypted(text: impl Into<String>) -> ImksResult<Self> {
        let text = text.into();
        Self::check(&text, true)?;
        Ok(Self(text))
    }

    /// Validates a text that is readable or encrypted. Whoever stores it has to [check](Self::check) which of the two.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`].
    pub fn either(text: String) -> ImksResult<Self> {
        match Self::check(&text, true) {
            Ok(()) => Ok(Self(text)),
            Err(_) => Self::new(text),
        }
    }

    /// Checks whether a text can be a body.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`].
    pub fn check(text: &str, encrypted: bool) -> ImksResult<()> {
        let problem = if encrypted { problem_of_encrypted(text) } else { problem_of_readable(text) };
        problem.map_or(Ok(()), |problem| Err(ImksError::invalid("body", problem)))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn problem_of_readable(text: &str) -> Option<String> {
    if text.trim().is_empty() {
        return Some("is empty".into());
    }
    problem_of_length_or_nul(text)
}

fn problem_of_length_or_nul(text: &str) -> Option<String> {
    if text.len() > BODY_BYTES_MAX || text.chars().count() > BODY_CHARS_MAX {
        return Some(format!("is longer than {BODY_CHARS_MAX} characters or {BODY_BYTES_MAX} bytes"));
    }
    // PostgreSQL cannot store it. Refused on SQLite too, so that both databases behave alike.
    memchr::memchr(0, text.as_bytes()).map(|_| "must not contain the character U+0000".into())
}

fn problem_of_encrypted(text: &str) -> Option<String> {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte);
    match text.len() {
        0 => Some("is empty".into()),
        length if length > E2EE_BYTES_MAX => Some(format!("is longer than {E2EE_BYTES_MAX} bytes")),
        _ => (!text.bytes().all(is_base64)).then(|| "must be base64".into()),
    }
}

impl<'de> Deserialize<'de> for MessageBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(refused)
    }
}

/// A client's own id of a send: 1 to [`NONCE_CHARS_MAX`] characters without control characters. Cloning
/// shares the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Nonce(#[serde(serialize_with = "text")] Arc<str>);

impl Nonce {
    /// Validates a text.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`].
    pub fn new(text: &str) -> ImksResult<Self> {
        match text.chars().take(NONCE_CHARS_MAX + 1).count() {
            0 => Err(ImksError::invalid("nonce", "is empty")),
            length if length > NONCE_CHARS_MAX => {
                Err(ImksError::invalid("nonce", format!("is longer than {NONCE_CHARS_MAX} characters")))
            }
            _ if text.chars().any(char::is_control) => {
                Err(ImksError::invalid("nonce", "has control characters"))
            }
            _ => Ok(Self(text.into())),
        }
    }

    /// Wraps a nonce that was validated before it was stored.
    pub(crate) fn from_stored(text: String) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

described!([] Nonce, _ => { "type": "string", "minLength": 1, "maxLength": NONCE_CHARS_MAX });

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(refused)
    }
}

/// A text of `MIN` to `MAX` Unicode scalar values without U+0000. Unless `MIN` is 0, it is not only white space.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct ShortText<const MIN: usize, const MAX: usize>(String);

impl<const MIN: usize, const MAX: usize> ShortText<MIN, MAX> {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Validates a text.
    ///
    /// # Errors
    /// The reason, for people.
    pub(crate) fn new(text: String) -> Result<Self, String> {
        if text.chars().take(MAX + 1).count() > MAX {
            return Err(format!("is longer than {MAX} characters"));
        }
        if MIN > 0 && (text.trim().is_empty() || text.chars().take(MIN).count() < MIN) {
            return Err("is empty".into());
        }
        if memchr::memchr(0, text.as_bytes()).is_some() {
            return Err("must not contain the character U+0000".into());
        }
        Ok(Self(text))
    }

    /// Makes a text of one that was not written for this place: without white space around it and U+0000, and as long as
    /// may be. `None` if less than `MIN` is left of it.
    pub(crate) fn cut(text: &str) -> Option<Self> {
        let text: String = text.trim().chars().filter(|it| *it != '\0').take(MAX).collect();
        (MIN == 0 || text.chars().take(MIN).count() == MIN && !text.trim().is_empty()).then_some(Self(text))
    }
}

described!([const MIN: usize, const MAX: usize] ShortText<MIN, MAX>, _ => {
    "type": "string", "minLength": MIN, "maxLength": MAX,
});

impl<'de, const MIN: usize, const MAX: usize> Deserialize<'de> for ShortText<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(refusal)
    }
}

described!([] Timestamp, _ => { "type": "string", "format": "date-time" });

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_rfc3339(&text).map(Self).ok_or_else(|| refusal("must be a time like 2026-06-11T10:00:00.000Z"))
    }
}

/// What programs read beside the text of a message: a JSON object of at most [`METADATA_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata(String);

impl Metadata {
    /// Validates a JSON text.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`].
    pub fn new(json: impl Into<String>) -> ImksResult<Self> {
        let json = json.into();
        let refuse = |reason: String| Err(ImksError::invalid("metadata", reason));
        if json.len() > METADATA_BYTES_MAX {
            return refuse(format!("is longer than {METADATA_BYTES_MAX} bytes"));
        }
        let is_object = serde_json::from_str::<&RawValue>(&json).is_ok_and(|it| it.get().starts_with('{'));
        if is_object { Ok(Self(json)) } else { refuse("must be a JSON object".into()) }
    }

    /// Returns the JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The mentions of a message: at most [`MENTIONED_USERS_MAX`] users and [`MENTIONED_ROLES_MAX`] roles.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Mentions {
    /// The mentioned users.
    #[serde(deserialize_with = "few_users")]
    #[schemars(length(max = MENTIONED_USERS_MAX))]
    pub users: Vec<Uuid>,
    /// The mentioned roles.
    #[serde(deserialize_with = "few_roles")]
    #[schemars(length(max = MENTIONED_ROLES_MAX))]
    pub roles: Vec<Uuid>,
    /// Whether everybody in the channel is mentioned.
    pub channel: bool,
    /// Whether everybody who is online is mentioned.
    pub here: bool,
}

impl Mentions {
    /// Whether nobody is mentioned.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.roles.is_empty() && !self.channel && !self.here
    }

    /// Returns the JSON for the column; `None` if nobody is mentioned.
    pub(crate) fn stored(&self) -> ImksResult<Option<String>> {
        (!self.is_empty()).then(|| to_column(self)).transpose()
    }

    /// Parses the output of [`Mentions::stored`].
    pub(crate) fn from_stored(text: Option<&str>) -> ImksResult<Self> {
        Ok(from_column(text)?.unwrap_or_default())
    }
}

fn few_users<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Uuid>, D::Error> {
    at_most(deserializer, MENTIONED_USERS_MAX)
}

fn few_roles<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Uuid>, D::Error> {
    at_most(deserializer, MENTIONED_ROLES_MAX)
}

fn at_most<'de, D: Deserializer<'de>>(deserializer: D, max: usize) -> Result<Vec<Uuid>, D::Error> {
    let ids = Vec::deserialize(deserializer)?;
    if ids.len() > max {
        return Err(refusal(format_args!("has more than {max} items")));
    }
    Ok(ids)
}

/// Creates a parse error for a field that breaks its own rule, rather than the shape of the payload.
pub fn refusal<E: Error>(reason: impl Display) -> E {
    E::custom(format_args!("{REFUSAL}{reason}"))
}

/// Turns the error of a constructor into a parse error.
pub(crate) fn refused<E: Error>(error: ImksError) -> E {
    match error {
        ImksError::InvalidInput { reason, .. } => refusal(reason),
        error => E::custom(error),
    }
}

/// The prefix of our own sentences in a parser's error. A client cannot forge it, because quoted input
/// appears later in the text.
pub const REFUSAL: &str = "refused ";
/// The longest body, in Unicode scalar values.
pub const BODY_CHARS_MAX: usize = 8_000;
/// The longest body, in bytes.
pub const BODY_BYTES_MAX: usize = 32 * 1024;
/// The longest metadata, in bytes of their JSON text.
pub const METADATA_BYTES_MAX: usize = 4 * 1024;
/// The longest encrypted body of a message, in bytes of base64.
pub const E2EE_BYTES_MAX: usize = 64 * 1024;
/// The longest nonce, in characters.
pub const NONCE_CHARS_MAX: usize = 64;
/// The most users that one message may mention.
pub const MENTIONED_USERS_MAX: usize = 100;
/// The most roles that one message may mention.
pub const MENTIONED_ROLES_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_of_eight_thousand_characters_fits_and_one_more_does_not() {
        assert!(MessageBody::new("ä".repeat(8_000)).is_ok());
        assert!(MessageBody::new("👍".repeat(8_000)).is_ok(), "exactly 32 KiB minus 768");
        assert_eq!(MessageBody::new("a".repeat(8_001)).unwrap_err().code(), "invalid_input");
        assert_eq!(MessageBody::new("👍".repeat(8_193)).unwrap_err().code(), "invalid_input");
    }

    #[test]
    fn empty_and_nul_are_refused_and_everything_else_is_kept_as_it_is() {
        for text in ["", " \n\t", "a\0b"] {
            assert_eq!(MessageBody::new(text).unwrap_err().code(), "invalid_input", "{text:?}");
        }
        for text in ["a", " a ", "\u{202e}rtl\u{200b}", "'; DROP TABLE message; --"] {
            assert_eq!(MessageBody::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_nonce_has_up_to_sixty_four_characters_and_looks_the_same_on_the_wire() {
        let nonce = |text: &str| serde_json::from_value::<Nonce>(json!(text));
        assert!(nonce(&"n".repeat(65)).is_err() && nonce("").is_err() && nonce("a\nb").is_err());
        assert_eq!(json!(nonce(&"n".repeat(64)).unwrap()), json!("n".repeat(64)));
    }

    #[test]
    fn mentions_are_limited_while_they_are_read_and_survive_the_column() {
        let of = |users: usize, roles: usize| json!({ "users": vec![Uuid::nil(); users], "roles": vec![Uuid::nil(); roles] });
        let parse = |value| serde_json::from_value::<Mentions>(value);
        let most = parse(of(100, 20)).unwrap();
        assert_eq!(Mentions::from_stored(most.stored().unwrap().as_deref()).unwrap(), most);
        for many in [of(101, 0), of(0, 21)] {
            let text = parse(many).unwrap_err().to_string();
            assert!(text.starts_with("refused has more than"), "{text}");
        }
        assert_eq!(Mentions::default().stored().unwrap(), None);
    }

    #[test]
    fn metadata_is_one_json_object() {
        for json in ["{}", r#" {"a":{"b":[1]}} "#] {
            assert_eq!(Metadata::new(json).unwrap().as_str(), json);
        }
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(METADATA_BYTES_MAX));
        for json in ["", "[]", "7", "{} {}", "{a:1}", &long] {
            assert_eq!(Metadata::new(json).unwrap_err().code(), "invalid_input", "{json:.10}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_constructor_panic(text in ".*") {
            let (_, _) = (MessageBody::new(text.as_str()), Nonce::new(&text));
        }
    }
}
