//! The metrics of token verification and permission checks.

use crate::telemetry::{instruments, label};

/// The outcome of a permission check that the cache could not answer.
pub enum PermissionMiss {
    /// The core answered.
    Answered,
    /// The core did not answer, and its last answer was used.
    Stale,
    /// The core did not answer, and the check failed.
    Failed,
}

label!(PermissionMiss { Answered = "answered", Stale = "stale", Failed = "failed" });

instruments! {
    /// Tokens that were refused, for whatever reason
    TOKENS_REFUSED: Counter = "imks_tokens_refused_total";
    /// Permission checks that had to ask the core, by how that ended; stale: it was silent, and its last answer counted
    PERMISSION_MISSES: Counter[outcome: PermissionMiss] = "imks_permission_misses_total";
}
