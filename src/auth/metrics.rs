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

/// The outcome of a refresh of the keys of tokens.
pub enum Refresh {
    /// The source answered.
    Fetched,
    /// The source did not answer, or had no usable key.
    Failed,
}

label!(Refresh { Fetched = "fetched", Failed = "failed" });
/// What came of a call of the login hook.
pub enum HookCall {
    /// The hook named a user.
    Accepted,
    /// The hook refused the token.
    Refused,
    /// The hook gave no usable answer.
    Failed,
}

label!(HookCall { Accepted = "accepted", Refused = "refused", Failed = "failed" });
label!(PermissionMiss { Answered = "answered", Stale = "stale", Failed = "failed" });

instruments! {
    /// Refused tokens
    TOKENS_REFUSED: Counter = "imks_tokens_refused_total";
    /// Refreshes of the keys that tokens are verified with, by outcome
    KEY_REFRESHES: Counter[outcome: Refresh] = "imks_key_refreshes_total";
    /// Calls of the login hook, by outcome
    HOOK_CALLS: Counter[outcome: HookCall] = "imks_login_hook_calls_total";
    /// Permission checks that the cache could not answer, by outcome; `stale`: the core did not answer, so its
    /// last answer was used
    PERMISSION_MISSES: Counter[outcome: PermissionMiss] = "imks_permission_misses_total";
}
