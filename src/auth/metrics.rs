//! What the checks of identity and permission count.

use crate::telemetry::{instruments, label};

/// How a permission check that the cache could not answer ended.
pub enum PermissionMiss {
    /// The core answered.
    Answered,
    /// The core was silent, and its last answer still counted.
    Stale,
    /// The core was silent, and nothing could be said.
    Failed,
}

label!(PermissionMiss { Answered = "answered", Stale = "stale", Failed = "failed" });

instruments! {
    /// Tokens that were refused, for whatever reason
    TOKENS_REFUSED: Counter = "imks_tokens_refused_total";
    /// Permission checks that had to ask the core, by how that ended; stale: it was silent, and its last answer counted
    PERMISSION_MISSES: Counter[outcome: PermissionMiss] = "imks_permission_misses_total";
}
