//! Failures of the client library as errors of a subcommand.

use crate::ImksError;
use crate::client::ClientError;

/// Returns the error for something that a client of a tool could not do, with the client's own error as the cause.
pub(in crate::cli) fn failed(what: impl Into<String>, error: ClientError) -> ImksError {
    ImksError::Io { context: what.into(), source: std::io::Error::other(error) }
}
