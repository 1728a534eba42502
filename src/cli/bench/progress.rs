//! What a tool tells while it works, on standard error: one line that changes on a terminal, plain lines otherwise.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The place of progress. Standard output stays free for the result.
#[derive(Debug)]
pub(in crate::cli) struct Progress {
    is_terminal: bool,
    started: Instant,
    /// When the status was last shown.
    shown: Mutex<Option<Instant>>,
}

impl Progress {
    pub(in crate::cli) fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { is_terminal, started: Instant::now(), shown: Mutex::default() }
    }

    /// Writes a line that stays.
    pub(in crate::cli) fn line(&self, text: &str) {
        let erase = if self.is_terminal { ERASE } else { "" };
        let seconds = self.started.elapsed().as_secs_f64();
        crate::cli::hint(&format!("{erase}[{seconds:6.1} s] {text}"));
    }

    /// Shows how far the work is: at once on a terminal, where the next one replaces it, and seldom otherwise.
    pub(in crate::cli) fn status(&self, text: &str) {
        let now = Instant::now();
        let is_due = self.shown.lock().is_none_or(|shown| now - shown >= PLAIN_PAUSE);
        if !self.is_terminal && !is_due {
            return;
        }
        *self.shown.lock() = Some(now);
        if !self.is_terminal {
            return self.line(text);
        }
        let text: String = text.chars().take(STATUS_CHARS_MAX).collect();
        let mut err = std::io::stderr().lock();
        // A terminal that is gone has nobody who would miss it.
        let _ = write!(err, "{ERASE}{text}").and_then(|()| err.flush());
    }

    /// Removes the status from a terminal, before the result is written.
    pub(in crate::cli) fn clear(&self) {
        if self.is_terminal {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "{ERASE}").and_then(|()| err.flush());
        }
    }
}

/// Goes to the start of the line and erases it.
const ERASE: &str = "\r\x1b[2K";

/// The pause between two lines about progress where there is no terminal.
const PLAIN_PAUSE: Duration = Duration::from_secs(5);

/// The maximum number of characters of a status, so that it stays on one line of a usual terminal.
const STATUS_CHARS_MAX: usize = 79;
