//! The conversion of the directory's errors to gRPC statuses.

use tonic::Status;

use crate::error::ImksError;

/// Logs an error and converts it to a status. The status does not contain the reason, which is for the log
/// only.
pub(super) fn failed(error: ImksError) -> Status {
    tracing::warn!(%error, cause = ?std::error::Error::source(&error), "a call to the directory failed");
    Status::unavailable("the directory's database does not answer")
}
