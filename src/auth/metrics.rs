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
    /// Refused tokens
    TOKENS_REFUSED: Counter = "imks_tokens_refused_total";
    /// Permission checks that the cache could not answer, by outcome; `stale`: the core did not answer, so its
    /// last answer was used
    PERMISSION_MISSES: Counter[outcome: PermissionMiss] = "imks_permission_misses_total";
}
