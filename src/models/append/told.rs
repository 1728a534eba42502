//! What the members of a channel are told about a committed mutation, without knowing how.

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
}

impl Told {
    pub(super) fn new(channel_id: Uuid, event: &'static str, payload: Arc<dyn Payload>) -> Self {
        Self { channel_id, event, payload }
    }

    /// The channel it happened in.
    pub fn channel_id(&self) -> Uuid {
        self.channel_id
    }

    /// The name of the event on the wire.
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

/// Something that can be the payload of an event: whatever can be serialised.
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

/// Payload of the event of a change: what the feature tells, the number of the change, and a name for traces.
#[derive(Debug, Serialize)]
pub(super) struct ChangeEvent<T> {
    #[serde(flatten)]
    payload: T,
    rev: i64,
    event_id: Uuid,
}

impl<T> ChangeEvent<T> {
    pub(super) fn new(payload: T, rev: i64) -> Self {
        Self { payload, rev, event_id: clock::new_id() }
    }
}
