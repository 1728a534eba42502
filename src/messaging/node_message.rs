//! How messages between nodes of different versions are written and read: as msgpack maps that name their version.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::Cause;
use crate::{ImksError, ImksResult};

/// A message between nodes. Received ones are untrusted.
pub(super) trait NodeMessage<'a>: Serialize + Deserialize<'a> {
    /// The version that this node writes.
    const VERSION: u8;

    /// Returns the version that the sender has written.
    fn version(&self) -> u8;

    /// Encodes the message as a msgpack map, whose readers skip fields that they do not know.
    fn encode(&self) -> ImksResult<Bytes> {
        rmp_serde::to_vec_named(self).map(Bytes::from).map_err(unreadable)
    }

    /// Decodes a message of this version, the one before or the one after.
    fn decode(bytes: &'a [u8]) -> ImksResult<Self> {
        let message: Self = rmp_serde::from_slice(bytes).map_err(unreadable)?;
        let version = message.version();
        if version.abs_diff(Self::VERSION) > 1 {
            return Err(unreadable(format!("version {version} is not ours")));
        }
        Ok(message)
    }
}

fn unreadable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ImksError {
    ImksError::AdapterSerialization(Cause::new(cause))
}
