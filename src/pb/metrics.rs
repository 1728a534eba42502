//! The metrics of the client of the core.

use crate::telemetry::{instruments, label};

/// The outcome of a call to the core.
pub enum Call {
    /// The core answered; the answer may be a refusal.
    Answered,
    /// The core gave no usable answer.
    Failed,
}

label!(Call { Answered = "answered", Failed = "failed" });

instruments! {
    /// Calls to the core, by outcome
    CORE_CALLS: Counter[outcome: Call] = "imks_core_calls_total";
}
