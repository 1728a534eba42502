//! The output of `imks directory`: lines for people and shells, or JSON.

use serde::Serialize;
use serde_json::Value;

use crate::clock::{Micros, rfc3339};
use crate::{ImksError, ImksResult};

/// The output of a command.
pub(super) struct Shown {
    lines: String,
    json: Value,
}

impl Shown {
    /// Nothing: the command has done what it was told.
    pub(super) fn nothing() -> ImksResult<Self> {
        Ok(Self { lines: String::new(), json: Value::Null })
    }

    /// One thing, and its line.
    pub(super) fn one(item: &impl Serialize, line: String) -> ImksResult<Self> {
        Ok(Self { lines: line, json: serde_json::to_value(item).map_err(ImksError::from)? })
    }

    /// A list, with a line for each item.
    pub(super) fn list<T: Serialize>(items: &[T], line: impl Fn(&T) -> String) -> ImksResult<Self> {
        let lines: Vec<String> = items.iter().map(line).collect();
        Self::one(&items, lines.join("\n"))
    }

    /// Returns the text to print, if there is any.
    pub(super) fn text(self, as_json: bool) -> Option<String> {
        let (is_nothing, text) = match as_json {
            true => (self.json.is_null(), self.json.to_string()),
            false => (self.lines.is_empty(), self.lines),
        };
        (!is_nothing).then_some(text)
    }
}

/// Returns a time as text, or `-` if there is none.
pub(super) fn time_or_dash(time: Option<Micros>) -> String {
    time.map_or_else(|| "-".into(), rfc3339)
}
