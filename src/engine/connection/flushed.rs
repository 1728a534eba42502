//! What a carrier did with the packets that were due.

use crate::engine::close::WireEnd;

/// Result of a flush.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Nothing is left.
    All,
    /// The client takes nothing more for now.
    Partly,
    /// The wire takes more than before: what is queued is due now.
    Again,
    /// The wire has ended.
    Ended(WireEnd),
}
