//! The metrics of the calls of back ends.

use tokio::time::Instant;

use crate::ImksError;
use crate::envelope::RequestId;
use crate::error::Code;
use crate::telemetry::instruments;

instruments! {
    /// Time from the start of a back end's call to its answer
    CALL_SECONDS: Latency[call] = "imks_control_call_duration_seconds";
    /// Calls of back ends, and parts of calls, that were answered with an error, by its code
    CALL_ERRORS: Counter[code] = "imks_control_call_errors_total";
    /// Back ends that follow the feed now, over gRPC or with a long poll
    WATCHERS: Gauge = "imks_control_watchers";
}

/// Counts and logs a call. Its content is never logged.
pub(super) fn note(name: &'static str, started: Instant, error: Option<&ImksError>, request_id: &RequestId) {
    CALL_SECONDS.child(name).record(started.elapsed());
    let Some(error) = error else { return };
    count(error);
    match error.code() {
        Code::Internal => tracing::error!(call = name, %request_id, ?error, "call failed"),
        Code::Unavailable | Code::Overloaded | Code::Timeout => {
            tracing::warn!(call = name, %request_id, %error, "call failed");
        }
        code => tracing::debug!(call = name, %request_id, %code, "call refused"),
    }
}

/// Counts an error, which may be that of one part of a call.
pub(super) fn count(error: &ImksError) {
    CALL_ERRORS.child(error.code().as_str()).increment();
}
