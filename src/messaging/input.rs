//! Types for the parameters of requests, which check their limits while they are parsed. Errors name the
//! field and say in plain words what is wrong with it.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};

use crate::models::text::{REFUSAL, described, refusal};
use crate::{ImksError, ImksResult};

/// A list of one to `MAX` items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct BoundedList<T, const MAX: usize>(pub Vec<T>);

described!([T: JsonSchema, const MAX: usize] BoundedList<T, MAX>, generator => {
    "type": "array", "items": generator.subschema_for::<T>(), "minItems": 1, "maxItems": MAX,
});

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for BoundedList<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = Vec::deserialize(deserializer)?;
        match items.len() {
            0 => Err(refusal("is empty")),
            length if length > MAX => Err(refusal(format!("has more than {MAX} items"))),
            _ => Ok(Self(items)),
        }
    }
}

/// A list of at most `MAX` items, which may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ListUpTo<T, const MAX: usize>(pub Vec<T>);

described!([T: JsonSchema, const MAX: usize] ListUpTo<T, MAX>, generator => {
    "type": "array", "items": generator.subschema_for::<T>(), "maxItems": MAX,
});

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for ListUpTo<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = Vec::deserialize(deserializer)?;
        match items.len() {
            length if length > MAX => Err(refusal(format!("has more than {MAX} items"))),
            _ => Ok(Self(items)),
        }
    }
}

/// The parameters of a request, as they arrived.
#[derive(Debug)]
pub enum Payload<'a> {
    /// JSON: the first argument of an event, or the body of an HTTP request. It must be an object.
    Json(Cow<'a, str>),
    /// Pairs of names and values: the path and the query of an HTTP request.
    Form(Cow<'a, str>),
}

/// Parses the parameters of a request.
pub fn request<T: DeserializeOwned>(payload: &Payload<'_>) -> ImksResult<T> {
    match payload {
        Payload::Json(json) => from_json(json),
        Payload::Form(form) => {
            let pairs = form_urlencoded::parse(form.as_bytes());
            let read = serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs));
            read.map_err(|error| explain(&error.path().to_string(), &error.inner().to_string()))
        }
    }
}

fn from_json<T: DeserializeOwned>(json: &str) -> ImksResult<T> {
    let json = json.trim_start();
    if !json.starts_with('{') {
        return Err(ImksError::InvalidPayload("The first argument must be an object".into()));
    }
    // Tracking the path allocates per field, so it is done only when there is an error to explain.
    serde_json::from_str(json).map_err(|_| {
        let mut reader = serde_json::Deserializer::from_str(json);
        match serde_path_to_error::deserialize::<_, T>(&mut reader) {
            Ok(_) => ImksError::InvalidPayload("Something follows the object".into()),
            Err(error) => explain(&error.path().to_string(), &error.inner().to_string()),
        }
    })
}

/// Turns a parser's error into a sentence for the client.
fn explain(path: &str, error: &str) -> ImksError {
    let error = error.rsplit_once(" at line ").map_or(error, |(text, _)| text);
    let field = field_of(path, error);
    if let Some(reason) = error.strip_prefix(REFUSAL) {
        return ImksError::invalid(field, reason);
    }
    let reason = cut(&plain_words(error));
    if field.is_empty() {
        return ImksError::InvalidPayload(reason);
    }
    ImksError::InvalidField { field, reason }
}

/// Returns the field that an error is about. The path of a missing or duplicate field ends at its parent.
fn field_of(path: &str, error: &str) -> String {
    let parent = if path == "." { "" } else { path };
    let counted = error.strip_prefix("missing field `").or_else(|| error.strip_prefix("duplicate field `"));
    cut(&match counted.and_then(|rest| rest.strip_suffix('`')) {
        Some(name) if parent.is_empty() => name.to_owned(),
        Some(name) => format!("{parent}.{name}"),
        None => parent.to_owned(),
    })
}

/// Describes in plain words what a parser expected.
fn plain_words(error: &str) -> String {
    if error.starts_with("missing field") {
        return "is missing".into();
    }
    if error.starts_with("UUID parsing failed") {
        return "must be a UUID".into();
    }
    if error.starts_with("duplicate field") {
        return "is there twice".into();
    }
    if let Some((_, names)) = error.rsplit_once(", expected exactly one of ") {
        return format!("must have exactly one of {}", quoted(names).join(", "));
    }
    let expected = error.rsplit_once(", expected ").map_or(error, |(_, expected)| expected);
    if let Some(field) = error.strip_prefix("unknown field") {
        return match field.split_once(", expected ") {
            Some((_, fields)) => format!("is no field here; there are {}", quoted(fields).join(", ")),
            None => "is no field here".into(),
        };
    }
    if error.starts_with("unknown variant") || expected.starts_with("one of `") {
        return one_of(&quoted(expected));
    }
    let negative = error.starts_with("invalid value: integer `-");
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" if negative => "must not be negative".into(),
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => {
            "must be a whole number".into()
        }
        "a string" | "a borrowed string" => "must be text".into(),
        "a boolean" => "must be true or false".into(),
        "a sequence" => "must be a list".into(),
        "a map" => "must be an object".into(),
        _ if expected.contains("UUID") => "must be a UUID".into(),
        _ if expected.starts_with("struct ") => "must be an object".into(),
        _ if error.starts_with("invalid digit") || error.contains("number too") => {
            "must be a whole number".into()
        }
        _ => format!("cannot be read: {error}"),
    }
}

/// Returns the names that a parser lists in backquotes, without the one that stands for none.
fn quoted(list: &str) -> Vec<&str> {
    list.split('`').skip(1).step_by(2).filter(|name| *name != UNSPECIFIED).collect()
}

/// Says which values are allowed.
fn one_of(values: &[&str]) -> String {
    match values {
        [one, other] => format!("must be {one} or {other}"),
        [one] => format!("must be {one}"),
        _ => format!("must be one of {}", values.join(", ")),
    }
}

/// Limits the length of an explanation, because a parser's error may quote the client's input.
fn cut(text: &str) -> String {
    text.chars().take(EXPLANATION_CHARS_MAX).collect()
}

/// The longest explanation, in characters.
const EXPLANATION_CHARS_MAX: usize = 200;
/// The value of every enum of the contract for back ends that means that nothing was said.
const UNSPECIFIED: &str = "unspecified";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::models::text::{MessageBody, Nonce};

    /// A payload with a field of each kind.
    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "read from text, and looked at by no test")]
    struct Sample {
        body: MessageBody,
        #[serde(default)]
        nonce: Option<Nonce>,
        #[serde(default)]
        id: Option<uuid::Uuid>,
        #[serde(default)]
        seq: i64,
        #[serde(default)]
        limit: u32,
        #[serde(default)]
        flag: bool,
        #[serde(default)]
        ids: Option<BoundedList<uuid::Uuid, 2>>,
        #[serde(default)]
        nested: Option<Nested>,
        #[serde(default)]
        state: Option<State>,
        #[serde(default)]
        level: Option<Level>,
        #[serde(default)]
        strict: Option<Strict>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "read from text, and looked at by no test")]
    struct Nested {
        users: Vec<uuid::Uuid>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum State {
        Unspecified,
        Pending,
        Acked,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Level {
        Low,
        Middle,
        High,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "read from text, and looked at by no test")]
    struct Strict {
        one: u8,
        two: u8,
    }

    fn read(json: &str) -> ImksResult<Sample> {
        request(&Payload::Json(json.into()))
    }

    fn body(text: &str) -> ImksResult<String> {
        read(&serde_json::json!({ "body": text }).to_string()).map(|sample| sample.body.as_str().into())
    }

    #[test]
    fn what_is_wrong_is_said_in_plain_words_with_the_name_of_the_field() {
        let uuid = "01909a00-0000-7000-8000-000000000001";
        for (fields, message) in [
            (r#""id":"general""#, "id: must be a UUID"),
            (r#""id":7"#, "id: must be a UUID"),
            (r#""seq":1.5"#, "seq: must be a whole number"),
            (r#""seq":"1""#, "seq: must be a whole number"),
            (r#""limit":-1"#, "limit: must not be negative"),
            (r#""flag":1"#, "flag: must be true or false"),
            (r#""ids":[]"#, "ids: is empty"),
            (r#""ids":7"#, "ids: must be a list"),
            (r#""ids":["x"]"#, "ids[0]: must be a UUID"),
            (r#""nested":{}"#, "nested.users: is missing"),
            (r#""nested":[]"#, "nested: must be an object"),
            (r#""nested":7"#, "nested: must be an object"),
            (r#""nonce":"""#, "nonce: is empty"),
            (r#""seq":1,"seq":2"#, "seq: is there twice"),
            (r#""state":"x""#, "state: must be pending or acked"),
            (r#""level":"x""#, "level: must be one of low, middle, high"),
            (r#""strict":{"three":3}"#, "strict.three: is no field here; there are one, two"),
        ] {
            let message_of =
                |fields: &str| read(&format!(r#"{{"body":"x",{fields}}}"#)).unwrap_err().client_message();
            assert_eq!(message_of(fields), message, "{fields}");
        }
        assert_eq!(read("{}").unwrap_err().client_message(), "body: is missing");
        assert_eq!(read(r#"{"body":5}"#).unwrap_err().client_message(), "body: must be text");
        assert_eq!(read(r#"{"body":5}"#).unwrap_err().code(), "invalid_payload");
        let many = format!(r#"{{"body":"x","ids":["{uuid}","{uuid}","{uuid}"]}}"#);
        assert_eq!(read(&many).unwrap_err().client_message(), "ids: has more than 2 items");
    }

    #[test]
    fn a_query_is_read_like_an_object() {
        let uuid = "01909a00-0000-7000-8000-000000000001";
        let read = |form: &str| request::<Sample>(&Payload::Form(form.to_owned().into()));
        let sample = read(&format!("body=a%20b&limit=7&id={uuid}&other=1")).unwrap();
        assert_eq!((sample.body.as_str(), sample.limit), ("a b", 7));
        assert_eq!(sample.id.map(|id| id.to_string()).as_deref(), Some(uuid));
        for (form, message) in [
            ("body=x&limit=many", "limit: must be a whole number"),
            ("body=x&limit=-1", "limit: must be a whole number"),
            ("body=x&id=general", "id: must be a UUID"),
            ("body=x&id=", "id: must be a UUID"),
            ("limit=1", "body: is missing"),
        ] {
            assert_eq!(read(form).unwrap_err().client_message(), message, "{form}");
        }
    }

    #[test]
    fn little_of_a_wrong_payload_is_repeated() {
        let long = format!(r#"{{"body":"x","{}":1,"nonce":{{}}}}"#, "n".repeat(10_000));
        assert!(read(&long).unwrap_err().client_message().chars().count() <= 410);
        let error = read(&format!(r#"{{"body":"x","seq":"{}"}}"#, "x".repeat(10_000))).unwrap_err();
        assert_eq!(error.client_message(), "seq: must be a whole number");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = body(&text);
            let _ = read(&text);
            let _ = read(&format!("{{{text}}}"));
            let _ = request::<Sample>(&Payload::Form(text.into()));
        }
    }
}
