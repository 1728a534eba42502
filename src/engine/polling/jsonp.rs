//! Polling by script element (`j=` in the query), for browsers without cross-origin requests. The payload
//! arrives as the argument of a callback, and is sent as a form.

use std::borrow::Cow;

use bytes::Bytes;

/// Returns a text payload as a script: `___eio[<index>]("<payload>");`, with only the digits of the index.
pub(crate) fn wrap(index: &str, payload: &[u8]) -> Vec<u8> {
    let payload = String::from_utf8_lossy(payload);
    let quoted = serde_json::Value::from(payload).to_string();
    // These characters end lines in a script, though not in JSON.
    let quoted = quoted.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    let digits: String = index.chars().filter(char::is_ascii_digit).collect();
    format!("___eio[{digits}]({quoted});").into_bytes()
}

/// Returns the payload from the field `d` of the form that a script posts, if the form has one.
pub(crate) fn unwrap(body: &[u8]) -> Option<Bytes> {
    let field = form_urlencoded::parse(body).find(|(name, _)| name == "d");
    field.map(|(_, text)| Bytes::from(lines(&text).into_owned()))
}

/// Restores line feeds. A form cannot carry them, so the client writes them as `\n`, and an original `\n` as
/// `\\n`.
fn lines(text: &str) -> Cow<'_, str> {
    if !text.contains("\\n") {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\\n") {
        let escaped = rest[..at].ends_with('\\');
        plain.push_str(&rest[..at - usize::from(escaped)]);
        plain.push_str(if escaped { "\\n" } else { "\n" });
        rest = &rest[at + 2..];
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_payload_is_a_harmless_script() {
        let script = wrap("1);alert(2", "4\"\u{2028}\\é".as_bytes());
        assert_eq!(String::from_utf8(script).unwrap(), r#"___eio[12]("4\"\u2028\\é");"#);
    }

    #[test]
    fn a_form_brings_a_payload_with_its_line_feeds() {
        assert_eq!(unwrap(b"d=8%3A4a%5Cnb%5C%5Cn+c").unwrap(), "8:4a\nb\\n c");
        assert_eq!((unwrap(b""), unwrap(b"e=4&D=3")), (None, None));
    }

    proptest! {
        #[test]
        fn any_form_is_read(form in "\\PC{0,20}d=[\\\\n%+a0-9]{0,20}") {
            unwrap(form.as_bytes());
        }
    }
}
