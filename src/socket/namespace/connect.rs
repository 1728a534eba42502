//! Joining a namespace: what the client brings along, and what it is told.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::socket::Socket;
use crate::error::ImksResult;
use crate::socket::DisconnectReason;
use crate::socket::codec::parser::{self, Frames, One};
use crate::socket::recovery::event::Unstamped;

/// What a client sends along when it joins a namespace.
#[derive(Debug, Clone)]
pub struct ConnectPayload {
    auth: Option<Arc<str>>,
    /// It cannot go on with an earlier session.
    anew: bool,
}

impl ConnectPayload {
    pub(crate) fn new(auth: Option<String>) -> Self {
        Self { auth: auth.map(Arc::from), anew: false }
    }

    /// The same, for a client that cannot go on with its earlier session.
    pub(crate) fn anew(self) -> Self {
        Self { anew: true, ..self }
    }

    /// What may name an earlier session.
    pub(crate) fn credentials(&self) -> Option<&str> {
        self.auth.as_deref().filter(|_| !self.anew)
    }

    /// The `auth` option as JSON; `{}` where the client gave none.
    pub fn json(&self) -> &str {
        self.auth.as_deref().unwrap_or("{}")
    }

    /// The `auth` option as a type.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> ImksResult<T> {
        Ok(serde_json::from_str(self.json())?)
    }
}

/// The client may join. Events added here reach it right after the CONNECT reply, before any other event.
#[derive(Debug, Default)]
pub struct Accept {
    events: Vec<(Box<str>, Box<serde_json::value::RawValue>)>,
    owner: Option<Box<str>>,
}

impl Accept {
    /// Adds an event with one argument.
    pub fn with_event(mut self, event: &str, data: &impl Serialize) -> ImksResult<Self> {
        self.events.push((event.into(), serde_json::value::to_raw_value(data)?));
        Ok(self)
    }

    /// Says whom the connect hook authenticated. With connection state recovery, only a client of the same owner can
    /// go on with this session; others who know its private id get a new one.
    pub fn with_owner(mut self, owner: impl Into<Box<str>>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    pub(crate) fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    pub(crate) fn encode(&self, namespace: &str) -> ImksResult<Vec<Frames>> {
        let encode = |(event, data): &(Box<str>, _)| parser::encode_event(namespace, None, event, &One(data));
        self.events.iter().map(encode).collect()
    }

    /// The events, and the last of them with room for an offset: whoever has it, has them all.
    pub(crate) fn encode_recoverable(&self, namespace: &str) -> ImksResult<(Vec<Frames>, Option<Unstamped>)> {
        let Some(((event, data), earlier)) = self.events.split_last() else { return Ok((Vec::new(), None)) };
        let last = Unstamped::event(namespace, event, &One(data))?;
        let encode = |(event, data): &(Box<str>, _)| parser::encode_event(namespace, None, event, &One(data));
        Ok((earlier.iter().map(encode).collect::<ImksResult<_>>()?, Some(last)))
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

/// A socket that is not taken in yet. However its connect hook ends, it leaves no trace in any room.
pub(crate) struct Candidate(pub(crate) Socket);

impl Drop for Candidate {
    fn drop(&mut self) {
        if !self.0.is_connected() {
            self.0.namespace().remove(&self.0, DisconnectReason::ServerNamespace);
        }
    }
}
