//! The metrics of the calls of back ends.

use tokio::time::Instant;

use crate::ImksError;
use crate::envelope::RequestId;
use crate::error::Code;
use crate::telemetry::{instruments, label};

/// Which side caused a call to fail.
pub enum CallError {
    /// The caller, by an invalid or forbidden request.
    Refused,
    /// The caller, by too many requests.
    RateLimited,
    /// The server: unavailable, timeout, internal.
    Failed,
}

label!(CallError { Refused = "refused", RateLimited = "rate_limited", Failed = "failed" });

instruments! {
    /// Time from the start of a back end's call to its answer
    CALL_SECONDS: Latency[call] = "imks_control_call_duration_seconds";
    /// Calls of back ends that were answered with an error, by kind
    CALL_ERRORS: Counter[kind: CallError] = "imks_control_call_errors_total";
    /// Back ends that follow the feed now, over gRPC or with a long poll
    WATCHERS: Gauge = "imks_control_watchers";
}

/// Counts and logs a call. Its content is never logged. `name` is empty for one that did not reach its handler.
pub(super) fn note(name: &'static str, started: Instant, error: Option<&ImksError>, request_id: &RequestId) {
    if !name.is_empty() {
        CALL_SECONDS.child(name).record(started.elapsed());
    }
    let Some(error) = error else { return };
    match error.code() {
        Code::RateLimited => CALL_ERRORS.of(CallError::RateLimited).increment(),
        Code::Internal => {
            CALL_ERRORS.of(CallError::Failed).increment();
            tracing::error!(call = name, %request_id, ?error, "call failed");
        }
        Code::Unavailable | Code::Overloaded | Code::Timeout => {
            CALL_ERRORS.of(CallError::Failed).increment();
            tracing::warn!(call = name, %request_id, %error, "call failed");
        }
        code => {
            CALL_ERRORS.of(CallError::Refused).increment();
            tracing::debug!(call = name, %request_id, %code, "call refused");
        }
    }
}
