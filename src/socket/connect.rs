//! Joining a namespace: what the client brings along, and what it is told.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::parser::{self, Frames, One};
use crate::error::ImksResult;

/// What a client sends along when it joins a namespace.
#[derive(Debug, Clone)]
pub struct ConnectPayload(Option<Arc<str>>);

impl ConnectPayload {
    pub(super) fn new(auth: Option<String>) -> Self {
        Self(auth.map(Arc::from))
    }

    /// The `auth` option as JSON; `{}` where the client gave none.
    pub fn json(&self) -> &str {
        self.0.as_deref().unwrap_or("{}")
    }

    /// The `auth` option as a type.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        Ok(serde_json::from_str(self.json())?)
    }
}

/// The client may join. Events added here reach it right after the CONNECT reply, before any other event.
#[derive(Debug, Default)]
pub struct Accept(Vec<(Box<str>, Box<serde_json::value::RawValue>)>);

impl Accept {
    /// Adds an event with one argument.
    pub fn with_event(mut self, event: &str, data: &impl Serialize) -> ImksResult<Self> {
        self.0.push((event.into(), serde_json::value::to_raw_value(data)?));
        Ok(self)
    }

    pub(super) fn encode(&self, namespace: &str) -> ImksResult<Vec<Frames>> {
        self.0.iter().map(|(event, data)| parser::encode_event(namespace, None, event, &One(data))).collect()
    }
}

impl From<()> for Accept {
    fn from((): ()) -> Self {
        Self::default()
    }
}

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
    /// Without data.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None }
    }

    /// With data.
    pub fn with_data(message: impl Into<String>, data: serde_json::Value) -> Self {
        Self { message: message.into(), data: Some(data) }
    }
}
