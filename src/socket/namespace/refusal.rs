//! The errors that a client gets when it may not join or its event is not handled.

use serde::Serialize;

use crate::error::ImksError;

/// The reason why a client may not join. The client gets it as the `connect_error` event.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectError {
    /// The text for people.
    pub message: String,
    /// The data for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
    #[serde(skip)]
    ends_transport: bool,
}

impl ConnectError {
    /// Creates an error without data.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None, ends_transport: false }
    }

    /// Creates an error with data.
    pub fn with_data(message: impl Into<String>, data: serde_json::Value) -> Self {
        Self { message: message.into(), data: Some(data), ends_transport: false }
    }

    /// Creates the refusal of a client whose credentials are missing or not valid. It says no more than that.
    pub fn unauthenticated() -> Self {
        Self::from(&ImksError::Auth("The token is missing or not valid"))
    }

    /// Creates a refusal for a cause that passes: instead of an answer, the transport ends, so that a stock
    /// client reconnects by itself. After a `connect_error` it would not. `message` is for the log.
    pub fn reconnect(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None, ends_transport: true }
    }

    /// Whether the refusal ends the transport instead of being sent.
    pub(crate) fn ends_transport(&self) -> bool {
        self.ends_transport
    }
}

/// The reason why an event was not handled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventError {
    /// The text for people.
    pub message: String,
    /// The data for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

impl EventError {
    /// Creates an error without data.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None }
    }

    /// Creates an error with data.
    pub fn with_data(message: impl Into<String>, data: serde_json::Value) -> Self {
        Self { message: message.into(), data: Some(data) }
    }
}

/// The error as a peer sees it, with its code and whether a later attempt can succeed as data.
impl From<&ImksError> for ConnectError {
    fn from(error: &ImksError) -> Self {
        let message = error.client_message();
        let data = serde_json::json!({
            "code": error.code().as_str(), "message": message, "retryable": error.is_retryable(),
        });
        Self::with_data(message, data)
    }
}

impl From<ImksError> for EventError {
    fn from(error: ImksError) -> Self {
        Self { message: error.client_message(), data: None }
    }
}

/// The ack for an event that was not handled.
#[derive(Serialize)]
pub(crate) struct ErrorAnswer<'a> {
    pub(crate) error: &'a EventError,
}
