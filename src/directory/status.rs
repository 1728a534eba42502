//! Errors of the directory as its callers see them.

use tonic::Status;

use crate::error::ImksError;

/// Turns an error into a status. The reason is for the log of the directory; the caller learns only whether to try again.
pub(super) fn failed(error: ImksError) -> Status {
    tracing::warn!(%error, cause = ?std::error::Error::source(&error), "a call to the directory failed");
    Status::unavailable("the directory's database does not answer")
}
