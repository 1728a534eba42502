//! What a client is told when it may not join, or when its event is not handled.

use serde::Serialize;

use crate::error::ImksError;

/// Why a client may not join; it gets both as the `connect_error` event.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectError {
    /// For people.
    pub message: String,
    /// For programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

impl ConnectError {
    /// A refusal without data.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None }
    }

    /// A refusal with data.
    pub fn with_data(message: impl Into<String>, data: serde_json::Value) -> Self {
        Self { message: message.into(), data: Some(data) }
    }
}

/// Why an event was not handled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventError {
    /// For people.
    pub message: String,
    /// For programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

impl EventError {
    /// An error without data.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None }
    }

    /// An error with data.
    pub fn with_data(message: impl Into<String>, data: serde_json::Value) -> Self {
        Self { message: message.into(), data: Some(data) }
    }
}

impl From<ImksError> for EventError {
    fn from(error: ImksError) -> Self {
        Self { message: error.client_message(), data: None }
    }
}

/// The answer to an event that was not handled.
#[derive(Serialize)]
pub(crate) struct ErrorAnswer<'a> {
    pub(crate) error: &'a EventError,
}
