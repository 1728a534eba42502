//! A screen as text: rows of styled pieces, and what must be written to change one screen into the next.

use std::fmt::Write as _;

/// How a piece of a row looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Style {
    #[default]
    Plain,
    Bold,
    Dim,
    /// Dark on light.
    Reverse,
    /// What needs attention.
    Alert,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Bold => "0;1",
            Self::Dim => "0;2",
            Self::Reverse => "0;7",
            Self::Alert => "0;1;33",
        }
    }
}

/// A row: pieces from left to right. Their text must be made by [`super::text`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Row(pub(crate) Vec<(Style, String)>);

impl Row {
    /// Creates a row of one piece.
    pub(crate) fn of(style: Style, text: impl Into<String>) -> Self {
        Self(vec![(style, text.into())])
    }

    /// Adds a piece.
    pub(crate) fn then(mut self, style: Style, text: impl Into<String>) -> Self {
        self.0.push((style, text.into()));
        self
    }

    /// Returns the text without its styles.
    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        self.0.iter().map(|(_, text)| &**text).collect()
    }
}

/// A whole screen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Screen {
    pub(crate) rows: Vec<Row>,
    /// Column and row of the cursor; without it the cursor is hidden.
    pub(crate) cursor: Option<(usize, usize)>,
}

impl Screen {
    /// Returns what changes a terminal that shows `before` into one that shows this screen. Without `before` all is
    /// drawn.
    pub(crate) fn changes(&self, before: Option<&Self>) -> String {
        let mut out = String::from("\x1b[?25l");
        if before.is_none() {
            out.push_str("\x1b[0m\x1b[2J");
        }
        for (at, row) in self.rows.iter().enumerate() {
            if before.and_then(|before| before.rows.get(at)) != Some(row) {
                draw(&mut out, at, row);
            }
        }
        if let Some((column, row)) = self.cursor {
            // Writing to a String cannot fail.
            let _ = write!(out, "\x1b[{};{}H\x1b[?25h", row + 1, column + 1);
        }
        out
    }
}

fn draw(out: &mut String, at: usize, row: &Row) {
    // Erased before and not after: where a row is full, some terminals would erase its last column.
    let _ = write!(out, "\x1b[{};1H\x1b[0m\x1b[K", at + 1);
    for (style, text) in &row.0 {
        let _ = write!(out, "\x1b[{}m{text}", style.code());
    }
    out.push_str("\x1b[0m");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_that_changed_are_drawn_again() {
        let before =
            Screen { rows: vec![Row::of(Style::Plain, "one"), Row::of(Style::Bold, "two")], cursor: None };
        let mut after = before.clone();
        after.rows[1] = Row::of(Style::Bold, "three");
        after.cursor = Some((2, 1));
        let drawn = after.changes(Some(&before));
        assert!(
            !drawn.contains("one") && drawn.contains("\x1b[2;1H\x1b[0m\x1b[K\x1b[0;1mthree\x1b[0m"),
            "{drawn:?}"
        );
        assert!(drawn.ends_with("\x1b[2;3H\x1b[?25h"));
        assert!(after.changes(None).contains("one"));
    }
}
