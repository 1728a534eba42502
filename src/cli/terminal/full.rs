//! The terminal as a full screen: raw input and the alternate screen, until the value is dropped.

use std::io::{self, Write};

use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::terminal::{
    DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode, size,
};
use crossterm::{cursor, execute};

use super::screen::Screen;
use crate::{ImksError, ImksResult};

/// The terminal, as long as this value lives. Dropping it gives the terminal back as it was.
pub(crate) struct FullScreen {
    shown: Option<Screen>,
}

impl FullScreen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// [`ImksError::Io`] if standard input or output is no terminal.
    pub(crate) fn open() -> ImksResult<Self> {
        let failed = || ImksError::io("taking the terminal");
        enable_raw_mode().map_err(failed())?;
        // From here on the value gives back what was taken.
        let full = Self { shown: None };
        // Without line breaks a character that is wider there than here spoils its own row only.
        execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste, DisableLineWrap)
            .map_err(failed())?;
        Ok(full)
    }

    /// Returns the number of columns and rows.
    pub(crate) fn size(&self) -> (usize, usize) {
        let (columns, rows) = size().unwrap_or((COLUMNS, ROWS));
        (columns.into(), rows.into())
    }

    /// Draws everything anew with the next screen, because the size has changed.
    pub(crate) fn forget(&mut self) {
        self.shown = None;
    }

    /// Shows a screen.
    ///
    /// # Errors
    /// [`ImksError::Io`] if the terminal is gone.
    pub(crate) fn show(&mut self, screen: Screen) -> ImksResult<()> {
        let changes = screen.changes(self.shown.as_ref());
        let mut out = io::stdout().lock();
        let written = out.write_all(changes.as_bytes()).and_then(|()| out.flush());
        self.shown = Some(screen);
        written.map_err(ImksError::io("drawing on the terminal"))
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        // A terminal that is gone cannot be given back.
        let _ =
            execute!(io::stdout(), EnableLineWrap, DisableBracketedPaste, LeaveAlternateScreen, cursor::Show);
        let _ = disable_raw_mode();
    }
}

/// The size of a terminal that does not tell it.
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;
