//! What the client of the core counts.

use crate::telemetry::{instruments, label};

/// How a call to the core ended.
pub enum Call {
    /// With an answer, which may be a refusal.
    Answered,
    /// Without a usable answer.
    Failed,
}

label!(Call { Answered = "answered", Failed = "failed" });

instruments! {
    /// Calls to the core, by whether they had a usable answer
    CORE_CALLS: Counter[outcome: Call] = "imks_core_calls_total";
}
