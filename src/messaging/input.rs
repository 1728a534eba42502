//! Values that cannot be wrong once they exist: their limits are checked while they are read.

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};

use crate::socket::packet::Args;
use crate::{ImksError, ImksResult};

/// Text of a message: 1 to 8,000 Unicode scalar values, at most 32 KiB, no U+0000, not only white space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageBody(String);

impl MessageBody {
    /// The text.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl<'de> Deserialize<'de> for MessageBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() > BODY_BYTES_MAX || text.chars().count() > BODY_CHARS_MAX {
            return Err(refusal("body", format!("is longer than {BODY_CHARS_MAX} characters or 32 KiB")));
        }
        if text.trim().is_empty() {
            return Err(refusal("body", "is empty"));
        }
        if text.contains('\0') {
            return Err(refusal("body", "must not contain the character U+0000"));
        }
        Ok(Self(text))
    }
}

/// A client's name for one send: 1 to 64 characters without control characters.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Nonce(String);

impl Nonce {
    /// The text.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.chars().take(NONCE_CHARS_MAX + 1).count() {
            0 => Err(refusal("nonce", "is empty")),
            length if length > NONCE_CHARS_MAX => {
                Err(refusal("nonce", format!("is longer than {NONCE_CHARS_MAX} characters")))
            }
            _ if text.chars().any(char::is_control) => Err(refusal("nonce", "has control characters")),
            _ => Ok(Self(text)),
        }
    }
}

/// One to `MAX` items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Few<T, const MAX: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Few<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = Vec::deserialize(deserializer)?;
        match items.len() {
            0 => Err(refusal("list", "is empty")),
            length if length > MAX => Err(refusal("list", format!("has more than {MAX} items"))),
            _ => Ok(Self(items)),
        }
    }
}

/// The first argument of an event, which must be an object; further ones are ignored.
pub fn request<T: DeserializeOwned>(args: &Args) -> ImksResult<T> {
    if !args.json().trim_start().starts_with('{') {
        return Err(ImksError::InvalidPayload("The first argument must be an object".into()));
    }
    match args.first() {
        Ok(request) => Ok(request),
        Err(ImksError::Json(error)) => Err(explain(&error)),
        Err(error) => Err(error),
    }
}

/// A field's own rule is broken, rather than the shape of the payload.
fn refusal<E: Error>(field: &'static str, reason: impl std::fmt::Display) -> E {
    E::custom(format_args!("{REFUSAL}{field}: {reason}"))
}

/// From the text of a parser's error to a sentence for the peer.
fn explain(error: &serde_json::Error) -> ImksError {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    if let Some((name, reason)) = text.strip_prefix(REFUSAL).and_then(|text| text.split_once(": "))
        && let Some(field) = FIELDS.iter().find(|field| **field == name)
    {
        return ImksError::invalid(*field, reason);
    }
    ImksError::InvalidPayload(text.chars().take(EXPLANATION_CHARS_MAX).collect())
}

/// Longest body in Unicode scalar values.
pub const BODY_CHARS_MAX: usize = 8_000;
const BODY_BYTES_MAX: usize = 32 * 1024;
const NONCE_CHARS_MAX: usize = 64;
/// A parser's error may quote what the peer sent; that much of it goes back.
const EXPLANATION_CHARS_MAX: usize = 200;
/// Marks our own sentences in a parser's error. A peer cannot forge it: quoted input stands later in the text.
const REFUSAL: &str = "refused ";
const FIELDS: [&str; 3] = ["body", "nonce", "list"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(text: &str) -> Result<MessageBody, ImksError> {
        serde_json::from_value(serde_json::json!(text)).map_err(|error| explain(&error))
    }

    #[test]
    fn a_body_of_eight_thousand_characters_fits_and_one_more_does_not() {
        assert!(body(&"ä".repeat(8_000)).is_ok());
        let error = body(&"a".repeat(8_001)).unwrap_err();
        assert_eq!(
            (error.code().as_str(), error.client_message().starts_with("body: is longer")),
            ("invalid_input", true)
        );
        assert!(body(&"👍".repeat(8_000)).is_ok(), "exactly 32 KiB minus 768");
    }

    #[test]
    fn empty_and_nul_are_refused_and_everything_else_is_kept_as_it_is() {
        for refused in ["", " \n\t", "a\0b"] {
            assert_eq!(body(refused).unwrap_err().code(), "invalid_input", "{refused:?}");
        }
        for kept in ["a", " a ", "\u{202e}rtl\u{200b}", "'; DROP TABLE message; --"] {
            assert_eq!(body(kept).unwrap().into_string(), kept);
        }
    }

    #[test]
    fn a_wrong_type_is_a_wrong_payload_and_little_of_it_is_repeated() {
        let error = serde_json::from_str::<Nonce>("{}").unwrap_err();
        assert_eq!(explain(&error).code(), "invalid_payload");
        let long = format!("\"{}\"", "x".repeat(10_000));
        let error = explain(&serde_json::from_str::<u8>(&long).unwrap_err());
        assert!(error.client_message().chars().count() <= 200);
    }

    #[test]
    fn a_nonce_has_up_to_sixty_four_characters() {
        let nonce = |text: String| serde_json::from_value::<Nonce>(text.into()).is_ok();
        assert!(nonce("n".repeat(64)) && !nonce("n".repeat(65)) && !nonce(String::new()));
        assert!(!nonce("a\nb".into()));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = body(&text);
            let _ = serde_json::from_str::<MessageBody>(&text).map_err(|error| explain(&error));
        }
    }
}
