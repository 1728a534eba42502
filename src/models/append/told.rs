//! The events for the members of a channel about a committed mutation, independent of how they are sent.

use std::fmt::Debug;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use crate::{ImksResult, clock};

/// An event of a committed mutation. Cloning shares the payload.
#[derive(Debug, Clone)]
pub struct Told {
    channel_id: Uuid,
    event: &'static str,
    payload: Arc<dyn Payload>,
    /// The `seq` and `rev` of the channel after the mutation.
    head: (i64, i64),
}

impl Told {
    pub(crate) fn new(
        channel_id: Uuid,
        head: (i64, i64),
        event: &'static str,
        payload: Arc<dyn Payload>,
    ) -> Self {
        Self { channel_id, event, payload, head }
    }

    /// Returns the `seq` and `rev` of the channel after the mutation. It raised one of the two by one, so their
    /// sum numbers the events of a channel without holes.
    pub fn head(&self) -> (i64, i64) {
        self.head
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
#[derive(Debug, Serialize)]
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
