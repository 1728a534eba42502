//! One error type for the whole crate: what went wrong, what the caller can do, what the peer is told.
//!
//! `Display` is for the log. [`ImksError::client_message`] is for the peer and never contains SQL,
//! hosts or other people's ids.

use std::time::Duration;

/// Result of every fallible public function.
pub type ImksResult<T> = Result<T, ImksError>;

/// Everything that can go wrong, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum ImksError {
    /// First character of an Engine.IO packet is no packet type.
    #[error("invalid engine packet type {0:?}")]
    InvalidEnginePacketTypeChar(char),
    /// An Engine.IO packet without a single character.
    #[error("empty engine packet")]
    EmptyEnginePacket,
    /// `b…` in a polling payload that is not base64.
    #[error("invalid base64 in an engine packet")]
    InvalidBase64,
    /// Text that is not UTF-8.
    #[error("engine packet is not UTF-8")]
    InvalidPacketUtf8,
    /// A packet that is valid by itself, but not in this direction or state.
    #[error("engine packet not allowed here: {0}")]
    UnexpectedEnginePacket(&'static str),

    /// First character of a Socket.IO packet is no packet type.
    #[error("invalid socket packet type {0:?}")]
    InvalidSocketPacketTypeChar(char),
    /// A Socket.IO packet without a single character.
    #[error("empty socket packet")]
    EmptySocketPacket,
    /// A Socket.IO packet that violates the grammar; the text says which rule.
    #[error("invalid socket packet: {0}")]
    InvalidSocketPacketFormat(&'static str),
    /// The attachment count of a binary packet is missing, zero, or above the limit.
    #[error("invalid attachment count")]
    InvalidAttachmentCount,

    /// A namespace path that breaks the rules (starts with `/`, at most 256 characters, no control characters).
    #[error("invalid namespace: {0}")]
    Namespace(&'static str),
    /// The socket is gone.
    #[error("socket not found")]
    SocketNotFound,
    /// The outgoing queue of a socket is full: its reader is too slow.
    #[error("socket queue full")]
    SocketSendFull,

    /// The cluster bus failed.
    #[error("message bus: {0}")]
    AdapterMessageBus(String),
    /// A cluster message could not be encoded or decoded.
    #[error("message bus encoding: {0}")]
    AdapterSerialization(String),

    /// The database failed or could not be reached: retry with the same nonce.
    #[cfg(feature = "server")]
    #[error("database")]
    Database(#[from] sqlx::Error),
    /// A migration failed.
    #[cfg(feature = "server")]
    #[error("migration")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The core answered with an error.
    #[cfg(feature = "server")]
    #[error("core answered {}: {}", .0.code(), .0.message())]
    GrpcStatus(#[from] Box<tonic::Status>),
    /// The core could not be reached.
    #[cfg(feature = "server")]
    #[error("core transport")]
    GrpcTransport(#[from] tonic::transport::Error),
    /// Text that is not the JSON it should be.
    #[error("json")]
    Json(#[from] serde_json::Error),

    /// No identity: token missing, malformed, forged or of an algorithm that is not allowed.
    #[error("unauthenticated: {0}")]
    Auth(&'static str),
    /// The token was good once.
    #[error("token expired")]
    TokenExpired,
    /// The token was withdrawn before its end.
    #[error("token revoked")]
    TokenRevoked,
    /// Known, but not allowed; the text names the permission.
    #[error("permission denied: {0}")]
    PermissionDenied(&'static str),

    /// Does not exist, or the caller may not know that it does.
    #[error("not found: {0}")]
    NotFound(&'static str),
    /// The message was deleted.
    #[error("message deleted")]
    MessageDeleted,
    /// A field has a value that is not allowed.
    #[error("invalid input in {field}: {reason}")]
    InvalidInput {
        /// Name of the field, as on the wire.
        field: &'static str,
        /// What is wrong, in a person's words.
        reason: String,
    },
    /// The payload does not have the expected shape.
    #[error("invalid payload: {0}")]
    InvalidPayload(String),
    /// No handler for this event name.
    #[error("unknown event")]
    UnknownEvent,
    /// The caller's `expected_version` is not the current one.
    #[error("version mismatch, current is {current}")]
    VersionMismatch {
        /// Version stored now.
        current: i64,
    },
    /// The same nonce was used before for different content.
    #[error("nonce used before with other content")]
    NonceConflict,
    /// A state of the channel forbids this; the text is the wire code, for example `channel_archived`.
    #[error("failed precondition: {0}")]
    FailedPrecondition(&'static str),
    /// A named limit is reached.
    #[error("limit reached: {0}")]
    LimitReached(&'static str),
    /// Too fast.
    #[error("rate limited: {bucket}")]
    RateLimited {
        /// Which bucket is empty.
        bucket: &'static str,
        /// When a retry can succeed.
        retry_after: Duration,
    },
    /// The channel is in slow mode, and the user's last message there is too young.
    #[error("slow mode")]
    SlowMode {
        /// When a retry can succeed.
        retry_after: Duration,
    },
    /// Larger than allowed.
    #[error("payload too large")]
    PayloadTooLarge,
    /// A part that is needed does not answer; a retry with the same nonce is safe.
    #[error("unavailable: {0}")]
    Unavailable(&'static str),
    /// The server takes no more work right now.
    #[error("overloaded")]
    Overloaded {
        /// When to come back.
        retry_after: Duration,
    },
    /// A deadline passed; the outcome is unknown, a retry with the same nonce is safe.
    #[error("timeout: {0}")]
    Timeout(&'static str),
    /// Configuration that cannot work; the text says what to change.
    #[error("{0}")]
    Config(String),
    /// Input or output of the operating system.
    #[error("io: {context}")]
    Io {
        /// What was tried.
        context: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A bug of ours.
    #[error("internal: {0}")]
    Internal(&'static str),
}

impl ImksError {
    /// Stable code on the wire (docs/protocol.md, "Error codes").
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidInput { .. } | Self::Namespace(_) => "invalid_input",
            Self::UnknownEvent => "unknown_event",
            Self::Auth(_) => "unauthenticated",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::PermissionDenied(_) => "forbidden",
            Self::NotFound(_) | Self::SocketNotFound => "not_found",
            Self::MessageDeleted => "message_deleted",
            Self::VersionMismatch { .. } => "version_mismatch",
            Self::NonceConflict => "nonce_conflict",
            Self::FailedPrecondition(code) => code,
            Self::LimitReached(_) => "limit_reached",
            Self::RateLimited { .. } => "rate_limited",
            Self::SlowMode { .. } => "slow_mode",
            Self::PayloadTooLarge => "payload_too_large",
            Self::Overloaded { .. } | Self::SocketSendFull => "overloaded",
            Self::Timeout(_) => "timeout",
            Self::Unavailable(_) | Self::AdapterMessageBus(_) => "unavailable",
            #[cfg(feature = "server")]
            Self::Database(error) => database_code(error),
            #[cfg(feature = "server")]
            Self::GrpcTransport(_) => "unavailable",
            #[cfg(feature = "server")]
            Self::GrpcStatus(status) => grpc_code(status.code()),
            Self::Internal(_) | Self::Config(_) | Self::Io { .. } | Self::AdapterSerialization(_) => {
                "internal"
            }
            #[cfg(feature = "server")]
            Self::Migration(_) => "internal",
            _ => "invalid_payload",
        }
    }

    /// Whether the same request, with the same nonce, can succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.code(),
            "rate_limited" | "slow_mode" | "unavailable" | "overloaded" | "timeout" | "internal"
        )
    }

    /// When a retry can succeed, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. }
            | Self::SlowMode { retry_after }
            | Self::Overloaded { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    /// HTTP status of the same error on the HTTP interface.
    pub fn http_status(&self) -> u16 {
        match self.code() {
            "invalid_payload" | "invalid_input" => 400,
            "unauthenticated" | "token_expired" | "token_revoked" => 401,
            "forbidden" => 403,
            "unknown_event" | "not_found" => 404,
            "version_mismatch" | "nonce_conflict" | "conflict" => 409,
            "message_deleted" => 410,
            "payload_too_large" => 413,
            "rate_limited" | "slow_mode" => 429,
            "unavailable" | "overloaded" => 503,
            "timeout" => 504,
            "internal" => 500,
            _ => 422,
        }
    }

    /// What the peer is told. Says what to do; never contains SQL, hosts or other people's ids.
    pub fn client_message(&self) -> String {
        match self {
            Self::InvalidInput { field, reason } => format!("{field}: {reason}"),
            Self::InvalidPayload(reason) => reason.clone(),
            Self::PermissionDenied(permission) => format!("This needs the permission {permission}"),
            Self::NotFound(what) => format!("No such {what}, or it is not visible to you"),
            Self::LimitReached(limit) => format!("The limit {limit} is reached"),
            Self::RateLimited { .. } => "Too many requests, slow down".into(),
            Self::SlowMode { .. } => "This channel is in slow mode, wait before the next message".into(),
            Self::VersionMismatch { .. } => "Changed by somebody else in the meantime".into(),
            Self::NonceConflict => "This nonce was already used with other content".into(),
            Self::MessageDeleted => "The message was deleted".into(),
            Self::Auth(reason) => (*reason).into(),
            Self::TokenExpired => "The token has expired, get a new one".into(),
            Self::TokenRevoked => "The token was revoked, sign in again".into(),
            Self::UnknownEvent => "No such event".into(),
            Self::PayloadTooLarge => "The payload is too large".into(),
            Self::FailedPrecondition(code) => format!("Not possible now: {code}"),
            _ => match self.code() {
                "unavailable" => "Not available right now, retry with the same nonce".into(),
                "overloaded" => "The server is busy, retry later".into(),
                "timeout" => "Took too long, retry with the same nonce".into(),
                "invalid_payload" => "The payload is malformed".into(),
                _ => "Something went wrong on the server".into(),
            },
        }
    }

    /// Shorthand for [`ImksError::InvalidInput`].
    pub fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidInput { field, reason: reason.into() }
    }

    /// Shorthand for [`ImksError::Io`] as an argument of `map_err`.
    pub fn io(context: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let context = context.into();
        move |source| Self::Io { context, source }
    }
}

#[cfg(feature = "server")]
impl From<tonic::Status> for ImksError {
    fn from(status: tonic::Status) -> Self {
        Self::GrpcStatus(Box::new(status))
    }
}

#[cfg(feature = "server")]
fn database_code(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::PoolTimedOut => "overloaded",
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            "internal"
        }
        _ => "unavailable",
    }
}

#[cfg(feature = "server")]
fn grpc_code(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::InvalidArgument => "invalid_input",
        tonic::Code::Unauthenticated => "unauthenticated",
        tonic::Code::PermissionDenied => "forbidden",
        tonic::Code::NotFound => "not_found",
        tonic::Code::ResourceExhausted => "rate_limited",
        tonic::Code::DeadlineExceeded => "timeout",
        tonic::Code::Unavailable => "unavailable",
        _ => "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_outage_is_retryable_and_tells_the_peer_nothing_of_it() {
        let error = ImksError::Database(sqlx::Error::PoolClosed);
        assert_eq!((error.code(), error.http_status(), error.is_retryable()), ("unavailable", 503, true));
        assert!(!error.client_message().to_lowercase().contains("sql"));
    }

    #[test]
    fn a_refusal_is_final() {
        assert!(!ImksError::PermissionDenied("SEND_MESSAGES").is_retryable());
        assert_eq!(ImksError::NotFound("channel").http_status(), 404);
    }
}
