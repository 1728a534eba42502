//! Text of strangers as a terminal may show it, and its width in columns.

use unicode_width::UnicodeWidthChar;

/// Returns a text in one line that cannot move the cursor, change colours or reorder what stands beside it.
pub(crate) fn line(text: &str) -> String {
    text.chars().filter_map(shown).collect()
}

/// Returns the lines of a text, each as `line()` makes it.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(line)
}

/// Returns how many there are of something, with the word for one or for several.
pub(crate) fn counted(count: u64, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// Returns the width of a text in columns.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Returns the width of a character in columns: 0, 1 or 2.
pub(crate) fn char_width(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// Returns the beginning of a text that fits into `columns`, with `…` at its end where something is left out.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let (mut cut, mut used) = (String::new(), 1);
    for c in text.chars() {
        used += char_width(c);
        if used > columns {
            break;
        }
        cut.push(c);
    }
    if columns > 0 {
        cut.push('…');
    }
    cut
}

/// Returns a text that fills exactly `columns`: cut, or with spaces at its end.
pub(crate) fn fill(text: &str, columns: usize) -> String {
    let mut text = cut(text, columns);
    text.push_str(&" ".repeat(columns.saturating_sub(width(&text))));
    text
}

/// Returns the lines into which a text is broken, so that none is wider than `columns`: at spaces where there are
/// some, and inside of longer words.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(2);
    let mut broken = Vec::new();
    for line in lines(text) {
        let mut current = Filling::default();
        for word in line.split_inclusive(' ') {
            if current.width + width(word.trim_end()) > columns && !current.text.is_empty() {
                broken.push(std::mem::take(&mut current).text);
            }
            break_word(word, columns, &mut current, &mut broken);
        }
        broken.push(current.text);
    }
    broken.iter_mut().for_each(|line| line.truncate(line.trim_end().len()));
    if broken.is_empty() {
        broken.push(String::new());
    }
    broken
}

/// A line that is being filled, with its width: a line of strangers may have any number of characters without one.
#[derive(Default)]
struct Filling {
    text: String,
    width: usize,
}

fn break_word(word: &str, columns: usize, current: &mut Filling, broken: &mut Vec<String>) {
    for c in word.chars() {
        if current.width + char_width(c) > columns && c != ' ' {
            broken.push(std::mem::take(current).text);
        }
        current.text.push(c);
        current.width += char_width(c);
    }
}

/// Returns what stands for a character, if anything does. Left out is what acts on a terminal or on its neighbours;
/// joiners and modifiers of emoji too, because terminals disagree about the width of what they make.
fn shown(c: char) -> Option<char> {
    match c {
        '\t' | '\n' | '\r' => Some(' '),
        c if c.is_control() => None,
        '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' => None,
        '\u{061C}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' => None,
        '\u{FE00}'..='\u{FE0F}' | '\u{1F3FB}'..='\u{1F3FF}' | '\u{E0000}'..='\u{E0FFF}' => None,
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_of_strangers_never_reach_the_terminal() {
        assert_eq!(line("a\u{1b}[2J\u{7}b\u{9b}31mc"), "a[2Jb31mc");
        assert_eq!(line("\u{202e}evil\u{2066}\u{200f}"), "evil");
        assert_eq!(line("one\ntwo\tthree\r"), "one two three ");
    }

    #[test]
    fn wide_characters_take_two_columns_and_families_are_shown_one_by_one() {
        assert_eq!((width("日本語"), width("né"), width("e\u{301}")), (6, 2, 1));
        assert_eq!(line("👨\u{200d}👩\u{200d}👧👍\u{1F3FD}❤\u{FE0F}"), "👨👩👧👍❤");
        assert_eq!((cut("日本語", 5), width(&cut("日本語", 4))), ("日本…".into(), 3));
        assert_eq!(fill("日", 4), "日  ");
    }

    #[test]
    fn a_text_is_broken_at_spaces_and_inside_of_long_words() {
        assert_eq!(wrap("the quick brown fox", 10), ["the quick", "brown fox"]);
        assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrap("日本語", 5), ["日本", "語"]);
        assert_eq!(wrap("a\n\nb", 10), ["a", "", "b"]);
        assert_eq!(wrap("", 10), [""]);
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_its_place(text in ".{0,80}", columns in 2_usize..40) {
            for line in wrap(&text, columns) {
                prop_assert!(width(&line) <= columns, "{line:?}");
                prop_assert!(!line.chars().any(char::is_control));
            }
            prop_assert_eq!(width(&fill(&line(&text), columns)), columns);
        }
    }
}
