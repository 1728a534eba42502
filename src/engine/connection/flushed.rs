//! The result of sending the packets that were due.

use crate::engine::close::WireEnd;

/// The result of a flush.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Everything was sent.
    All,
    /// The client accepts nothing more for now.
    Partly,
    /// The wire accepts more than before, so queued packets are due now.
    Again,
    /// The wire has ended.
    Ended(WireEnd),
}
