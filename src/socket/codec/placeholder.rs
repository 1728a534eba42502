//! Placeholders, which represent attachments in JSON, and a scanner that finds them in a text.

use serde::Serialize;
use serde::ser::SerializeMap;
use smallvec::SmallVec;

use super::json::{string_end, unescape};

/// The placeholder in JSON for the attachment with this number.
#[derive(Debug, Clone, Copy)]
pub struct Placeholder(pub usize);

impl Serialize for Placeholder {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry(PLACEHOLDER, &true)?;
        map.serialize_entry(NUMBER, &self.0)?;
        map.end()
    }
}

/// Whether every placeholder in a valid JSON text refers to an attachment. CVE-2022-2421 is the attack that
/// this prevents.
///
/// Only the text is scanned: a value that no Rust type could hold is no reason to refuse an event.
pub(super) fn all_have_attachments(json: &str, attachments: usize) -> bool {
    let mut open: SmallVec<[Option<Object>; 16]> = SmallVec::new();
    let (bytes, mut at) = (json.as_bytes(), 0);
    while let Some(&byte) = bytes.get(at) {
        let end = token_end(bytes, at);
        match byte {
            b'{' => open.push(Some(Object::default())),
            b'[' => open.push(None),
            b'}' | b']' => {
                let closed = open.pop().flatten();
                if closed.is_some_and(|object| !object.has_attachment(attachments)) {
                    return false;
                }
                note(&mut open, "");
            }
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => note(&mut open, &json[at..end]),
        }
        at = end;
    }
    true
}

/// The parts of an object that matter for a placeholder. The last of duplicate keys wins, as in JavaScript.
#[derive(Default)]
struct Object {
    /// The key that precedes the next value.
    key: Option<Key>,
    is_placeholder: bool,
    number: Option<usize>,
}

enum Key {
    Placeholder,
    Number,
    Other,
}

impl Object {
    fn has_attachment(&self, attachments: usize) -> bool {
        !self.is_placeholder || self.number.is_some_and(|number| number < attachments)
    }
}

/// Records the next key or value of the innermost object.
fn note(open: &mut [Option<Object>], token: &str) {
    let Some(Some(object)) = open.last_mut() else { return };
    match object.key.take() {
        None => object.key = Some(key(token)),
        Some(Key::Placeholder) => object.is_placeholder = token == "true",
        Some(Key::Number) => object.number = token.parse().ok(),
        Some(Key::Other) => {}
    }
}

fn key(quoted: &str) -> Key {
    let unescaped = if quoted.contains('\\') { unescape(quoted) } else { None };
    match unescaped.as_deref().unwrap_or_else(|| quoted.trim_matches('"')) {
        PLACEHOLDER => Key::Placeholder,
        NUMBER => Key::Number,
        _ => Key::Other,
    }
}

/// Returns the end of the token that begins at `at`.
fn token_end(bytes: &[u8], at: usize) -> usize {
    match bytes[at] {
        b'"' => string_end(bytes, at).unwrap_or(bytes.len()),
        b'{' | b'}' | b'[' | b']' | b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => at + 1,
        _ => {
            let rest = bytes[at..].iter();
            at + rest.take_while(|byte| !b"{}[],: \t\n\r\"".contains(byte)).count()
        }
    }
}

/// The key that marks a placeholder.
pub(super) const PLACEHOLDER: &str = "_placeholder";

/// The key of an attachment's number.
pub(super) const NUMBER: &str = "num";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_placeholder_names_an_attachment_that_is_there_however_it_is_written() {
        for (json, right) in [
            (r#"[{"_placeholder":true,"num":0}]"#, true),
            (r#"[{"num":1,"_placeholder":true,"more":[{}]}]"#, true),
            (r#"[{"_placeholder":true,"num":2}]"#, false),
            (r#"[{"_pl\u0061ceholder" : true , "n\u0075m" : 7}]"#, false),
            (r#"[{"a":{"_placeholder":true,"num":-1}}]"#, false),
            (r#"[{"_placeholder":true,"num":0.5}]"#, false),
            (r#"[{"_placeholder":true,"num":"0"}]"#, false),
            (r#"[{"_placeholder":true}]"#, false),
            (r#"[{"_placeholder":true,"num":9,"num":1}]"#, true),
            (r#"[{"_placeholder":true,"_placeholder":[],"num":9}]"#, true),
            (r#"[{"_placeholder":"true","num":9}]"#, true),
            (r#"["{\"_placeholder\":true,\"num\":9}"]"#, true),
            (r#"[{"\ud83d":"\ud83d","big":1e400},{"_placeholder":true,"num":0}]"#, true),
        ] {
            assert_eq!(all_have_attachments(json, 2), right, "{json}");
        }
    }

    fn wrong(value: &serde_json::Value, attachments: u64) -> bool {
        match value {
            serde_json::Value::Array(items) => items.iter().any(|item| wrong(item, attachments)),
            serde_json::Value::Object(map) => {
                let number = map.get(NUMBER).and_then(serde_json::Value::as_u64);
                map.get(PLACEHOLDER) == Some(&true.into())
                    && number.is_none_or(|number| number >= attachments)
                    || map.values().any(|item| wrong(item, attachments))
            }
            _ => false,
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Bool(true)),
            (0_u64..4).prop_map(Into::into),
            "[\"\\\\{}\\[\\],:a]{0,6}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let key = prop_oneof![Just("_placeholder".to_owned()), Just("num".to_owned()), "[\"\\\\a]{0,3}"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::hash_map(key, inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_text_is_judged_like_the_tree(value in json(), pretty in any::<bool>()) {
            let write = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
            prop_assert_eq!(all_have_attachments(&write(&value).unwrap(), 2), !wrong(&value, 2));
        }
    }
}
