//! The events for the members of a channel about a committed mutation, independent of how they are sent.

use std::fmt::Debug;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use crate::telemetry::trace::Context;
use crate::{ImksResult, clock};

/// An event of a committed mutation. Cloning shares the payload.
#[derive(Debug, Clone)]
pub struct Told {
    channel_id: Uuid,
    event: &'static str,
    payload: Arc<dyn Payload>,
    /// The `seq` and `rev` of the channel after the mutation; `None` for an event without a number.
    head: Option<(i64, i64)>,
    /// What the event tells the whole state of: a later event of the same name about it replaces this one.
    state_of: Option<Uuid>,
    /// The span of the write, if it is traced.
    trace: Option<Context>,
}

impl Told {
    pub(crate) fn new(
        channel_id: Uuid,
        head: (i64, i64),
        event: &'static str,
        payload: Arc<dyn Payload>,
    ) -> Self {
        Self { channel_id, event, payload, head: Some(head), state_of: None, trace: None }
    }

    /// Creates an event without a number, which clients may miss.
    pub(crate) fn in_passing(channel_id: Uuid, event: &'static str, payload: Arc<dyn Payload>) -> Self {
        Self { channel_id, event, payload, head: None, state_of: None, trace: None }
    }

    /// Says what the event tells the whole state of.
    pub(crate) fn with_state_of(self, state_of: Option<Uuid>) -> Self {
        Self { state_of, ..self }
    }

    /// Returns what the event tells the whole state of, such as the reactions to a message. Clients that do not keep up
    /// need only the last such event.
    pub fn state_of(&self) -> Option<Uuid> {
        self.state_of
    }

    /// Returns the `seq` and `rev` of the channel after the mutation. It raised one of the two by one, so their
    /// sum numbers the events of a channel without holes. `None` for an event without a number.
    pub fn head(&self) -> Option<(i64, i64)> {
        self.head
    }

    /// Replaces what is sent. Its number stays.
    pub(super) fn replace(&mut self, event: &'static str, payload: Arc<dyn Payload>, state_of: Option<Uuid>) {
        (self.event, self.payload, self.state_of) = (event, payload, state_of);
    }

    pub(super) fn set_trace(&mut self, trace: Context) {
        self.trace = Some(trace);
    }

    /// Returns the span of the write, if it is traced.
    pub fn trace(&self) -> Option<&Context> {
        self.trace.as_ref()
    }

    /// Returns the channel of the event.
    pub fn channel_id(&self) -> Uuid {
        self.channel_id
    }

    /// Returns the name of the event on the wire.
    pub fn event(&self) -> &'static str {
        self.event
    }

    /// Appends the payload as JSON text.
    ///
    /// # Errors
    /// [`ImksError::Json`](crate::ImksError::Json) for a payload that cannot be JSON.
    pub fn write_json(&self, out: &mut Vec<u8>) -> ImksResult<()> {
        self.payload.write_json(out)
    }
}

/// The payload of an event: any value that can be serialised.
pub trait Payload: Debug + Send + Sync {
    /// Appends the value as JSON text.
    ///
    /// # Errors
    /// [`ImksError::Json`](crate::ImksError::Json) for a value that cannot be JSON.
    fn write_json(&self, out: &mut Vec<u8>) -> ImksResult<()>;
}

impl<T: Serialize + Debug + Send + Sync> Payload for T {
    fn write_json(&self, out: &mut Vec<u8>) -> ImksResult<()> {
        Ok(serde_json::to_writer(out, self)?)
    }
}

/// The payload of a change event: the feature's payload, the number of the change, and a name for traces.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChangeEvent<T> {
    #[serde(flatten)]
    payload: T,
    rev: i64,
    event_id: Uuid,
}

impl<T> ChangeEvent<T> {
    pub(crate) fn new(payload: T, rev: i64) -> Self {
        Self { payload, rev, event_id: clock::new_id() }
    }
}
