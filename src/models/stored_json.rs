//! JSON in columns of the database. What cannot be written or read is an error of ours, and never taken for nothing.

use serde::{Deserialize, Serialize};

use crate::{ImksError, ImksResult};

/// Returns the text for a column.
///
/// # Errors
/// [`ImksError::Internal`] for a value that cannot be JSON.
pub(super) fn to_column<T: Serialize + ?Sized>(value: &T) -> ImksResult<String> {
    serde_json::to_string(value).map_err(|error| {
        tracing::error!(%error, "a value cannot be stored");
        ImksError::Internal("a value cannot be stored as JSON")
    })
}

/// Parses the text of a column; `None` if it is null.
///
/// # Errors
/// [`ImksError::Internal`] for a text that this version cannot read.
pub(super) fn from_column<'a, T: Deserialize<'a>>(text: Option<&'a str>) -> ImksResult<Option<T>> {
    let Some(text) = text else { return Ok(None) };
    serde_json::from_str(text).map(Some).map_err(|error| {
        tracing::error!(%error, "a stored value cannot be read");
        ImksError::Internal("a stored value cannot be read")
    })
}
