//! Emoji, as far as the server needs to recognise them.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text::{described, refused};
use crate::{ImksError, ImksResult};

/// The emoji of a reaction: one emoji (Unicode Technical Standard 51, section 1.4.9), or `:name:` for a
/// custom one, with at most [`EMOJI_BYTES_MAX`] bytes. Cloning shares the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Emoji(Arc<str>);

impl Emoji {
    /// Validates a text.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`].
    pub fn new(text: &str) -> ImksResult<Self> {
        if text.len() > EMOJI_BYTES_MAX {
            return Err(ImksError::invalid("emoji", format!("is longer than {EMOJI_BYTES_MAX} bytes")));
        }
        if !is_custom_name(text) && !is_emoji(text) {
            return Err(ImksError::invalid("emoji", "must be one emoji, or a name between colons"));
        }
        Ok(Self(text.into()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

described!([] Emoji, _ => { "type": "string", "minLength": 1, "maxLength": EMOJI_BYTES_MAX });

impl<'de> Deserialize<'de> for Emoji {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(refused)
    }
}

impl Serialize for Emoji {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

fn is_custom_name(text: &str) -> bool {
    let name = text.strip_prefix(':').and_then(|text| text.strip_suffix(':')).unwrap_or_default();
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte))
}

/// Whether a text is elements joined by U+200D. Pictographs are recognised by Unicode block, so that those of
/// future Unicode versions need no release.
fn is_emoji(text: &str) -> bool {
    text.split('\u{200d}').all(is_emoji_element)
}

/// Whether an element is a flag, a keycap, or a pictograph with a skin tone, a variation selector or the tags
/// of a subdivision flag.
fn is_emoji_element(element: &str) -> bool {
    let mut chars = element.chars();
    let Some(first) = chars.next() else { return false };
    let rest = chars.as_str();
    match first {
        '\u{1f1e6}'..='\u{1f1ff}' => {
            matches!(rest.chars().next(), Some('\u{1f1e6}'..='\u{1f1ff}')) && rest.chars().count() == 1
        }
        '0'..='9' | '#' | '*' => rest.trim_start_matches('\u{fe0f}') == "\u{20e3}",
        first if is_pictograph(first) => is_modifier(rest),
        _ => false,
    }
}

fn is_modifier(rest: &str) -> bool {
    let tags = rest.strip_suffix('\u{e007f}').filter(|tags| !tags.is_empty());
    matches!(rest, "" | "\u{fe0f}" | "\u{fe0f}\u{20e3}")
        || matches!(rest.chars().next(), Some('\u{1f3fb}'..='\u{1f3ff}')) && rest.chars().count() == 1
        || tags.is_some_and(|tags| tags.chars().all(|tag| matches!(tag, '\u{e0020}'..='\u{e007e}')))
}

fn is_pictograph(char: char) -> bool {
    matches!(char,
        '\u{a9}' | '\u{ae}' | '\u{203c}' | '\u{2049}' | '\u{2122}' | '\u{2139}' | '\u{2194}'..='\u{21aa}'
        | '\u{231a}'..='\u{23ff}' | '\u{24c2}' | '\u{25aa}'..='\u{27bf}' | '\u{2934}' | '\u{2935}'
        | '\u{2b05}'..='\u{2b55}' | '\u{3030}' | '\u{303d}' | '\u{3297}' | '\u{3299}'
        | '\u{1f004}' | '\u{1f0cf}' | '\u{1f170}'..='\u{1f19a}' | '\u{1f201}'..='\u{1f251}'
        | '\u{1f300}'..='\u{1faff}')
}

impl From<String> for Emoji {
    /// Wraps an emoji that was validated before it was stored.
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// The longest emoji, in bytes.
pub const EMOJI_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emoji_is_one_emoji_or_a_custom_name() {
        for text in ["👍", "👍🏽", "❤", "❤️", "🏳️‍🌈", "👩‍👩‍👧‍👦", "🇩🇪", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "☺️", "©", ":party_parrot:", ":+1:"]
        {
            assert_eq!(Emoji::new(text).unwrap().as_str(), text);
        }
        let long = format!(":{}:", "n".repeat(63));
        let refused = [
            "",
            "a",
            "1",
            "👍👍",
            "👍 ",
            "🇩",
            "🇩🇪🇩",
            "👍\u{200d}",
            "::",
            ":a b:",
            "\u{fe0f}",
            "\u{200d}",
            "<b>",
            "\0",
            &long,
        ];
        for text in refused {
            let error = Emoji::new(text).unwrap_err();
            assert_eq!(error.code(), "invalid_input", "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic_and_what_it_takes_is_kept(text in ".{0,40}") {
            if let Ok(emoji) = Emoji::new(&text) {
                proptest::prop_assert_eq!(emoji.as_str(), text);
            }
        }
    }
}
