//! JSON text that nobody reads into a tree.

use std::fmt;

use serde::de::{Deserializer, Visitor};

/// Whether the text is nested deeper than [`JSON_DEPTH_MAX`]: `serde_json` validates what it passes over without
/// recursion, hence without a limit of its own.
pub(super) fn is_too_deep(json: &str) -> bool {
    if memchr::memchr2_iter(b'[', b'{', json.as_bytes()).nth(JSON_DEPTH_MAX).is_none() {
        return false;
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
            return true;
        }
    }
    false
}

/// The text of a quoted JSON string. Half an emoji, which JavaScript can write and UTF-8 cannot, is replaced.
pub(super) fn unescape(quoted: &str) -> Option<Box<str>> {
    let mut json = serde_json::Deserializer::from_str(quoted);
    let bytes = json.deserialize_bytes(StringBytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into())
}

struct StringBytes;

impl Visitor<'_> for StringBytes {
    type Value = Vec<u8>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}

/// Where the quoted string that begins at `start` ends; `None` if it does not.
pub(super) fn string_end(json: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        let rest = json.get(at..)?;
        match memchr::memchr2(b'"', b'\\', rest)? {
            found if rest[found] == b'"' => return Some(at + found + 1),
            escape => at += escape + 2,
        }
    }
}

/// Deepest nesting of arrays and objects that is accepted, so that no later reader recurses without end. An event
/// that is nested deeper is refused.
pub const JSON_DEPTH_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_bounded_and_brackets_in_text_do_not_count() {
        let nested = |depth: usize| format!("[\"a\",{}{}]", "[".repeat(depth), "]".repeat(depth));
        assert!(!is_too_deep(&nested(JSON_DEPTH_MAX - 1)));
        assert!(is_too_deep(&nested(JSON_DEPTH_MAX)));
        assert!(!is_too_deep(&format!("[\"a\",\"{}\"]", "[".repeat(1_000))));
    }

    #[test]
    fn a_string_ends_at_its_own_quote() {
        let json = r#"["a\\\"]",1]"#;
        assert_eq!(string_end(json.as_bytes(), 1), Some(json.len() - 3));
        assert_eq!(string_end(br#""abc\"#, 0), None);
    }
}
