//! What the log shows of text that a peer has chosen.

use std::borrow::Cow;

/// Returns text of a peer for the log: each character that is not seen, or that changes how the rest of its line is seen, is
/// replaced. Give it to the log as a text (`name = &*shown(name)`), not by its display (`%name`): the log puts quotes
/// around texts, so that none looks like the fields after it.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    match text.contains(is_unseen) {
        true => text.replace(is_unseen, "\u{fffd}").into(),
        false => text.into(),
    }
}

/// Whether a character is not seen: controls, marks of direction, separators of lines and paragraphs, and characters
/// without a width.
pub(crate) fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_shown_as_a_mark_and_letters_stay() {
        let hostile = "a\u{202e}b\u{2066}c\u{2028}d\u{2029}e\u{85}f\u{200b}g\u{feff}h\n\u{1b}[31m";
        assert_eq!(
            shown(hostile),
            "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}e\u{fffd}f\u{fffd}g\u{fffd}h\u{fffd}\u{fffd}[31m"
        );
        for good in ["", "alice", "Zoë 😀", "नमस्ते", "a \"b\"", "\u{fffd}"] {
            assert!(matches!(shown(good), Cow::Borrowed(same) if same == good), "{good}");
        }
    }
}
