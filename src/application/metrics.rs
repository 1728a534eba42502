//! The metrics of events that the operator's application answers.

use crate::telemetry::{instruments, label};

/// What came of an event.
pub enum Handled {
    /// The application answered it.
    Answered,
    /// The application refused it, or the user has too many in progress.
    Refused,
    /// The application gave no usable answer.
    Failed,
}

label!(Handled { Answered = "answered", Refused = "refused", Failed = "failed" });

instruments! {
    /// Events of clients for the operator's application, by outcome
    EVENTS: Counter[outcome: Handled] = "imks_app_events_total";
}
