//! Helpers for JSON text that is not parsed into a tree.

use std::fmt;

use serde::de::{Deserializer, Visitor};

/// Whether the text is nested deeper than [`JSON_DEPTH_MAX`]. `serde_json` skips values without recursion,
/// and so without a depth limit of its own.
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

/// Unescapes a quoted JSON string. Lone surrogates, which UTF-8 cannot represent, are replaced.
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

/// Returns the end of the quoted string that begins at `start`, or `None` if it is unterminated.
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

/// The maximum nesting depth of arrays and objects, which bounds the recursion of later readers. Events
/// nested more deeply are refused.
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
