//! Violations of the WebSocket protocol by a peer.

use crate::engine::inflate::InflateError;

/// A violation of the protocol by the peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A violated rule, by its description.
    Protocol(&'static str),
    /// A message of at least this many bytes.
    TooLarge(u64),
    Utf8,
    /// A compressed message that cannot be inflated.
    Deflate,
    /// Too many control frames or fragments that are empty or nearly empty.
    Flood,
}

impl From<InflateError> for Violation {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::TooLarge(bytes) => Self::TooLarge(bytes),
            InflateError::Corrupt => Self::Deflate,
        }
    }
}
