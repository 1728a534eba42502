//! The line that a person types: its text, the cursor in it, and what was typed before.

use std::collections::VecDeque;

use crate::cli::terminal::text;

/// The line and its history.
#[derive(Debug, Default)]
pub(super) struct Input {
    text: String,
    /// The byte before which the next character goes.
    cursor: usize,
    history: VecDeque<String>,
    /// The place in the history that is shown, from the newest, and the text that was there before.
    recalled: Option<(usize, String)>,
}

impl Input {
    /// Returns the text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Adds a character at the cursor.
    pub(super) fn insert(&mut self, c: char) {
        if self.text.len() + c.len_utf8() <= BYTES_MAX {
            self.text.insert(self.cursor, c);
            self.cursor += c.len_utf8();
        }
    }

    /// Adds a text at the cursor.
    pub(super) fn paste(&mut self, pasted: &str) {
        pasted.replace("\r\n", "\n").replace('\r', "\n").chars().for_each(|c| self.insert(c));
    }

    /// Takes the text, and remembers it.
    pub(super) fn take(&mut self) -> String {
        let text = std::mem::take(&mut self.text);
        (self.cursor, self.recalled) = (0, None);
        if !text.trim().is_empty() && self.history.front() != Some(&text) {
            self.history.push_front(text.clone());
            self.history.truncate(HISTORY_MAX);
        }
        text
    }

    /// Removes what is before the cursor: one character as people see it.
    pub(super) fn backspace(&mut self) {
        let start = self.before();
        self.text.replace_range(start..self.cursor, "");
        self.cursor = start;
    }

    /// Removes what is after the cursor: one character as people see it.
    pub(super) fn delete(&mut self) {
        self.text.replace_range(self.cursor..self.after(), "");
    }

    /// Removes the word before the cursor.
    pub(super) fn delete_word(&mut self) {
        let kept = self.text[..self.cursor].trim_end();
        let start = kept
            .rfind(char::is_whitespace)
            .map_or(0, |at| at + kept[at..].chars().next().map_or(0, char::len_utf8));
        self.text.replace_range(start..self.cursor, "");
        self.cursor = start;
    }

    /// Removes everything before the cursor.
    pub(super) fn delete_before(&mut self) {
        self.text.replace_range(..self.cursor, "");
        self.cursor = 0;
    }

    /// Removes everything after the cursor.
    pub(super) fn delete_after(&mut self) {
        self.text.truncate(self.cursor);
    }

    /// Moves the cursor one character to the left.
    pub(super) fn left(&mut self) {
        self.cursor = self.before();
    }

    /// Moves the cursor one character to the right.
    pub(super) fn right(&mut self) {
        self.cursor = self.after();
    }

    /// Moves the cursor to the beginning.
    pub(super) fn home(&mut self) {
        self.cursor = 0;
    }

    /// Moves the cursor to the end.
    pub(super) fn end(&mut self) {
        self.cursor = self.text.len();
    }

    /// Shows what was typed before.
    pub(super) fn older(&mut self) {
        let at = self.recalled.as_ref().map_or(0, |(at, _)| at + 1);
        let Some(text) = self.history.get(at).cloned() else { return };
        let draft = self.recalled.take().map_or_else(|| std::mem::take(&mut self.text), |(_, draft)| draft);
        self.recalled = Some((at, draft));
        self.show(text);
    }

    /// Shows what was typed after that, and at last what was there before.
    pub(super) fn newer(&mut self) {
        let Some((at, draft)) = self.recalled.take() else { return };
        match at.checked_sub(1).and_then(|at| Some((at, self.history.get(at)?.clone()))) {
            Some((at, text)) => {
                self.recalled = Some((at, draft));
                self.show(text);
            }
            None => self.show(draft),
        }
    }

    /// Returns the part of the text that fits into `columns`, and the column of the cursor in it. Line breaks are
    /// shown as a sign.
    pub(super) fn window(&self, columns: usize) -> (String, usize) {
        let columns = columns.max(3);
        let shown = |part: &str| text::line(&part.replace('\n', "⏎"));
        let (before, after) = (shown(&self.text[..self.cursor]), shown(&self.text[self.cursor..]));
        let (mut start, mut column) = (before.len(), 0);
        for (at, c) in before.char_indices().rev() {
            let wider = column + text::char_width(c);
            if wider >= columns {
                break;
            }
            (start, column) = (at, wider);
        }
        let mut window = before[start..].to_owned();
        let mut used = column;
        for c in after.chars() {
            used += text::char_width(c);
            if used > columns {
                break;
            }
            window.push(c);
        }
        (window, column)
    }

    fn show(&mut self, text: String) {
        self.cursor = text.len();
        self.text = text;
    }

    /// Returns where the character before the cursor begins, with everything that belongs to it: accents, modifiers,
    /// and what a joiner connects.
    fn before(&self) -> usize {
        let mut chars = self.text[..self.cursor].char_indices().rev().peekable();
        while let Some((at, c)) = chars.next() {
            let is_joined = chars.peek().is_some_and(|(_, before)| *before == JOINER);
            if !belongs_to_previous(c) && !is_joined {
                return at;
            }
        }
        0
    }

    fn after(&self) -> usize {
        let mut chars = self.text[self.cursor..].chars();
        let Some(first) = chars.next() else { return self.cursor };
        let (mut end, mut previous) = (self.cursor + first.len_utf8(), first);
        for c in chars {
            if !belongs_to_previous(c) && previous != JOINER {
                break;
            }
            end += c.len_utf8();
            previous = c;
        }
        end
    }
}

fn belongs_to_previous(c: char) -> bool {
    matches!(c, JOINER | '\u{FE00}'..='\u{FE0F}' | '\u{1F3FB}'..='\u{1F3FF}')
        || (text::char_width(c) == 0 && !c.is_control())
}

/// The character that makes one emoji of several.
const JOINER: char = '\u{200D}';
/// The most bytes of one line: more than any message may have.
const BYTES_MAX: usize = 64 * 1024;
/// The most lines that are remembered.
const HISTORY_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn typed(text: &str) -> Input {
        let mut input = Input::default();
        input.paste(text);
        input
    }

    #[test]
    fn the_cursor_moves_over_wide_characters_by_two_columns() {
        let mut input = typed("日本語");
        assert_eq!(input.window(20), ("日本語".into(), 6));
        input.left();
        assert_eq!(input.window(20).1, 4);
        input.insert('x');
        assert_eq!(input.text(), "日本x語");
        input.home();
        input.delete();
        assert_eq!(input.window(20), ("本x語".into(), 0));
    }

    #[test]
    fn an_emoji_of_several_characters_is_removed_as_one() {
        let mut input = typed("a👨\u{200d}👩\u{200d}👧👍\u{1F3FD}e\u{301}");
        input.backspace();
        assert_eq!(input.text(), "a👨\u{200d}👩\u{200d}👧👍\u{1F3FD}");
        input.backspace();
        input.backspace();
        assert_eq!(input.text(), "a");
    }

    #[test]
    fn what_was_typed_before_comes_back_and_the_unfinished_line_is_not_lost() {
        let mut input = typed("one");
        input.take();
        input.paste("two");
        input.take();
        input.paste("unfinished");
        input.older();
        input.older();
        assert_eq!(input.text(), "one");
        input.older();
        assert_eq!(input.text(), "one");
        input.newer();
        input.newer();
        assert_eq!(input.text(), "unfinished");
    }

    #[test]
    fn words_and_the_two_sides_of_the_cursor_can_be_removed() {
        let mut input = typed("one two  three");
        input.delete_word();
        assert_eq!(input.text(), "one two  ");
        input.delete_word();
        assert_eq!(input.text(), "one ");
        input.left();
        input.delete_after();
        assert_eq!(input.text(), "one");
        input.delete_before();
        assert_eq!(input.text(), "");
    }

    #[test]
    fn of_a_line_that_is_too_long_the_part_at_the_cursor_is_shown() {
        let mut input = typed("abc日本語");
        assert_eq!(input.window(6), ("本語".into(), 4));
        input.home();
        assert_eq!(input.window(6), ("abc日".into(), 0));
    }

    #[test]
    fn pasted_line_breaks_are_kept_and_shown_in_one_line() {
        let input = typed("one\r\ntwo\u{1b}[2J");
        assert!(input.text().contains("one\ntwo"));
        assert_eq!(input.window(40).0, "one⏎two[2J");
    }

    proptest! {
        #[test]
        fn nothing_that_is_typed_breaks_the_line(text in ".{0,20}", moves in prop::collection::vec(0_u8..9, 0..40)) {
            let mut input = typed(&text);
            for step in moves {
                match step {
                    0 => input.left(),
                    1 => input.right(),
                    2 => input.backspace(),
                    3 => input.delete(),
                    4 => input.insert('字'),
                    5 => input.delete_word(),
                    6 => { input.take(); }
                    7 => input.older(),
                    _ => input.newer(),
                }
                let (window, column) = input.window(10);
                prop_assert!(column < 10 && text::width(&window) <= 10);
            }
        }
    }
}
