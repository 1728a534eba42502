//! The checks of fields that many requests have.

use uuid::Uuid;

use crate::models::text::Nonce;
use crate::{ImksError, ImksResult};

/// Reads the id in a field: 36 characters.
pub(super) fn id(field: &'static str, text: &str) -> ImksResult<Uuid> {
    let parsed = if text.len() == ID_LENGTH { Uuid::parse_str(text).ok() } else { None };
    let reason = if text.is_empty() { "is missing" } else { "must be a UUID" };
    parsed.ok_or_else(|| ImksError::InvalidField { field: field.into(), reason: reason.into() })
}

/// Reads the id in a field that may be empty.
pub(super) fn optional_id(field: &'static str, text: &str) -> ImksResult<Option<Uuid>> {
    if text.is_empty() { Ok(None) } else { id(field, text).map(Some) }
}

/// Reads the ids in a field, at most `max`.
pub(super) fn ids(field: &'static str, texts: &[String], max: usize) -> ImksResult<Vec<Uuid>> {
    at_most(field, texts.len(), max)?;
    texts.iter().map(|text| id(field, text)).collect()
}

/// Checks the number of items in a field.
pub(super) fn at_most(field: &'static str, count: usize, max: usize) -> ImksResult<()> {
    if count <= max {
        return Ok(());
    }
    Err(ImksError::invalid(field, format!("has more than {max} items")))
}

/// Reads a request id; `None` if there is none.
pub(super) fn request_id(text: &str) -> ImksResult<Option<Nonce>> {
    if text.is_empty() {
        return Ok(None);
    }
    match Nonce::new(text) {
        Err(ImksError::InvalidInput { reason, .. }) => Err(ImksError::invalid("request_id", reason)),
        other => other.map(Some),
    }
}

const ID_LENGTH: usize = 36;
