//! The error codes for errors of the database and of the core.

use tonic::Code as GrpcCode;

use super::{Code, ImksError};

impl From<tonic::Status> for ImksError {
    fn from(status: tonic::Status) -> Self {
        Self::GrpcStatus(Box::new(status))
    }
}

/// Returns the code of an error of the database.
pub(super) fn database_code(error: &sqlx::Error) -> Code {
    match error {
        sqlx::Error::PoolTimedOut => Code::Overloaded,
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => Code::Timeout,
        sqlx::Error::Database(error) if error.code().as_deref() == Some(STATEMENT_TIMEOUT) => Code::Timeout,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            Code::Internal
        }
        _ => Code::Unavailable,
    }
}

/// The SQLSTATE of a statement that PostgreSQL cancelled because it took too long.
const STATEMENT_TIMEOUT: &str = "57014";

/// Returns the code of a gRPC status (docs/rpc.md, "Status codes").
pub(super) const fn grpc_code(status: GrpcCode) -> Code {
    match status {
        GrpcCode::InvalidArgument | GrpcCode::OutOfRange => Code::InvalidInput,
        GrpcCode::Unauthenticated => Code::Unauthenticated,
        GrpcCode::PermissionDenied => Code::Forbidden,
        GrpcCode::NotFound => Code::NotFound,
        GrpcCode::AlreadyExists | GrpcCode::Aborted => Code::Conflict,
        GrpcCode::FailedPrecondition => Code::FailedPrecondition,
        GrpcCode::ResourceExhausted => Code::RateLimited,
        GrpcCode::DeadlineExceeded => Code::Timeout,
        GrpcCode::Unavailable | GrpcCode::Cancelled => Code::Unavailable,
        GrpcCode::Ok
        | GrpcCode::Unknown
        | GrpcCode::Unimplemented
        | GrpcCode::Internal
        | GrpcCode::DataLoss => Code::Internal,
    }
}

impl Code {
    /// Returns the gRPC status of an answer of imks with this code (docs/server-api.md).
    pub const fn grpc(self) -> GrpcCode {
        match self {
            Self::InvalidPayload | Self::InvalidInput | Self::PayloadTooLarge => GrpcCode::InvalidArgument,
            Self::Unauthenticated | Self::TokenExpired | Self::TokenRevoked => GrpcCode::Unauthenticated,
            Self::Forbidden => GrpcCode::PermissionDenied,
            Self::NotFound | Self::MessageDeleted => GrpcCode::NotFound,
            Self::UnknownEvent | Self::MethodNotAllowed => GrpcCode::Unimplemented,
            Self::NonceConflict => GrpcCode::AlreadyExists,
            Self::Conflict | Self::VersionMismatch => GrpcCode::Aborted,
            Self::FailedPrecondition
            | Self::ChannelArchived
            | Self::ChannelReadOnly
            | Self::EditWindowClosed
            | Self::PollClosed
            | Self::StreamEnded
            | Self::LimitReached => GrpcCode::FailedPrecondition,
            Self::RateLimited | Self::SlowMode => GrpcCode::ResourceExhausted,
            Self::Internal => GrpcCode::Internal,
            Self::Unavailable | Self::Overloaded => GrpcCode::Unavailable,
            Self::Timeout => GrpcCode::DeadlineExceeded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_outage_is_retryable_and_tells_the_peer_nothing_of_it() {
        let error = ImksError::Database(sqlx::Error::PoolClosed);
        assert_eq!((error.code(), error.http_status(), error.is_retryable()), (Code::Unavailable, 503, true));
        assert!(!error.client_message().to_lowercase().contains("sql"));
    }

    #[test]
    fn each_grpc_status_has_a_code_and_an_http_status() {
        let table = [
            (GrpcCode::Ok, "internal", 500),
            (GrpcCode::Cancelled, "unavailable", 503),
            (GrpcCode::Unknown, "internal", 500),
            (GrpcCode::InvalidArgument, "invalid_input", 400),
            (GrpcCode::DeadlineExceeded, "timeout", 504),
            (GrpcCode::NotFound, "not_found", 404),
            (GrpcCode::AlreadyExists, "conflict", 409),
            (GrpcCode::PermissionDenied, "forbidden", 403),
            (GrpcCode::ResourceExhausted, "rate_limited", 429),
            (GrpcCode::FailedPrecondition, "failed_precondition", 422),
            (GrpcCode::Aborted, "conflict", 409),
            (GrpcCode::OutOfRange, "invalid_input", 400),
            (GrpcCode::Unimplemented, "internal", 500),
            (GrpcCode::Internal, "internal", 500),
            (GrpcCode::Unavailable, "unavailable", 503),
            (GrpcCode::DataLoss, "internal", 500),
            (GrpcCode::Unauthenticated, "unauthenticated", 401),
        ];
        for (number, (status, code, http)) in (0..).zip(table) {
            assert_eq!(GrpcCode::from_i32(number), status, "the table has every status, in order");
            let error = ImksError::from(tonic::Status::new(status, "secret host 10.0.0.1"));
            assert_eq!((error.code().as_str(), error.http_status()), (code, http), "{status:?}");
            assert!(!error.client_message().contains("secret"), "{status:?}");
        }
    }
}
