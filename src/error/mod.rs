//! One error type for the whole crate: what went wrong, what the caller can do, what the peer is told.
//!
//! `Display` is for the log. [`ImksError::client_message`] is for the peer and never contains SQL,
//! hosts or other people's ids.

mod answer;
#[cfg(feature = "server")]
mod backend;
mod cause;
mod code;

use std::borrow::Cow;
use std::time::Duration;

pub use cause::Cause;
pub use code::{Code, Precondition};

/// Result of every fallible public function.
pub type ImksResult<T> = Result<T, ImksError>;

/// Everything that can go wrong, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum ImksError {
    /// The first byte of a binary Engine.IO packet is not a packet type.
    #[error("invalid engine packet type {0}")]
    InvalidEnginePacketType(u8),
    /// The first character of a text Engine.IO packet is not a packet type.
    #[error("invalid engine packet type {0:?}")]
    InvalidEnginePacketTypeChar(char),
    /// An Engine.IO packet without a single character.
    #[error("empty engine packet")]
    EmptyEnginePacket,
    /// A binary packet of a polling payload (`b…`) that is not base64.
    #[error("invalid base64 in an engine packet")]
    InvalidBase64,
    /// Text that is not UTF-8.
    #[error("engine packet is not UTF-8")]
    InvalidPacketUtf8,
    /// A packet that is valid by itself, but not in this direction or state.
    #[error("engine packet not allowed here: {0}")]
    UnexpectedEnginePacket(&'static str),
    /// An Engine.IO packet could not be written as JSON.
    #[error("engine packet cannot be encoded")]
    EngineSerialization(#[source] serde_json::Error),

    /// An upgrade for a session that does not exist.
    #[error("upgrade of an unknown session")]
    UpgradeSessionNotFound,
    /// An upgrade for a session that ended meanwhile.
    #[error("upgrade of a closed session")]
    UpgradeSessionClosed,
    /// An upgrade for a session that has upgraded, or is about to.
    #[error("upgrade of a session that is not on polling")]
    UpgradeInvalidState,

    /// The number of a Socket.IO packet type that does not exist.
    #[error("invalid socket packet type {0}")]
    InvalidSocketPacketType(u8),
    /// The first character of a Socket.IO packet is not a digit.
    #[error("invalid socket packet type {0:?}")]
    InvalidSocketPacketTypeChar(char),
    /// A Socket.IO packet without a single character.
    #[error("empty socket packet")]
    EmptySocketPacket,
    /// A Socket.IO packet that violates the grammar; the text says which rule.
    #[error("invalid socket packet: {0}")]
    InvalidSocketPacketFormat(&'static str),
    /// A packet that names no namespace where the parser demands one.
    #[error("socket packet without a namespace")]
    MissingNamespace,
    /// The attachment count of a binary packet is missing, zero, or above the limit.
    #[error("invalid attachment count")]
    InvalidAttachmentCount,

    /// A namespace path that breaks the rules (starts with `/`, at most 256 characters, no control characters).
    #[error("invalid namespace: {0}")]
    Namespace(&'static str),
    /// The socket with this id is gone.
    #[error("socket {0} not found")]
    SocketNotFound(Box<str>),
    /// The outgoing queue of a socket is full: its reader is too slow.
    #[error("socket queue full")]
    SocketSendFull,

    /// Redis failed, or could not be reached.
    #[error("redis")]
    AdapterRedis(#[source] Cause),
    /// NATS failed, or could not be reached.
    #[error("nats")]
    AdapterNats(#[source] Cause),
    /// The bus between the nodes failed.
    #[error("message bus")]
    AdapterMessageBus(#[source] Cause),
    /// A message between nodes could not be encoded or decoded.
    #[error("message bus encoding")]
    AdapterSerialization(#[source] Cause),
    /// A room that the adapter cannot carry; the text says which rule it breaks.
    #[error("invalid room: {0}")]
    AdapterRoom(&'static str),

    /// The database failed or could not be reached: retry with the same nonce.
    #[cfg(feature = "server")]
    #[error("database")]
    Database(#[from] sqlx::Error),
    /// The database cannot be opened: its file is damaged, or its server does not answer or refuses.
    #[cfg(feature = "server")]
    #[error("cannot open the database {place}")]
    DatabaseOpen {
        /// The file, or the server without user and password.
        place: String,
        /// The cause of the failure.
        #[source]
        source: sqlx::Error,
    },
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
    /// The token is good from a later time on: the clock of the server or of the issuer is wrong.
    #[error("token not yet valid")]
    TokenNotYetValid,
    /// Known, but not allowed; the text names the permission that is missing.
    #[error("permission denied: {0}")]
    Forbidden(&'static str),
    /// Only the author of a message may do this, whatever permissions others have.
    #[error("not the author")]
    NotAuthor,

    /// Does not exist, or the caller may not know that it does.
    #[error("not found: {0}")]
    NotFound(&'static str),
    /// An operator named something that does not exist.
    #[error("there is no {what} {name:?}")]
    UnknownName {
        /// What kind of thing was named.
        what: &'static str,
        /// The name, as it was given.
        name: String,
    },
    /// The name is taken.
    #[error("the {what} {name:?} exists already")]
    Conflict {
        /// What kind of thing was named.
        what: &'static str,
        /// The name, as it was given.
        name: String,
    },
    /// The message was deleted.
    #[error("message deleted")]
    MessageDeleted,
    /// A field has a value that is not allowed.
    #[error("invalid input in {field}: {reason}")]
    InvalidInput {
        /// Name of the field, as on the wire: `body`, `channels[3].seq`.
        field: Cow<'static, str>,
        /// What is wrong, in a person's words.
        reason: String,
    },
    /// A field is missing or has another type than the expected one.
    #[error("invalid payload in {field}: {reason}")]
    InvalidField {
        /// Path of the field, as on the wire.
        field: String,
        /// What the field has to be, in a person's words.
        reason: String,
    },
    /// The payload does not have the expected shape.
    #[error("invalid payload: {0}")]
    InvalidPayload(String),
    /// No handler for this event name.
    #[error("unknown event")]
    UnknownEvent,
    /// A page that answers other HTTP methods.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// The caller's `expected_version` is not the current one.
    #[error("version mismatch, current is {current}")]
    VersionMismatch {
        /// Version stored now.
        current: i64,
    },
    /// A nonce was used before for different content.
    #[error("nonce used before with other content")]
    NonceConflict,
    /// A state of the channel forbids this.
    #[error("failed precondition: {0:?}")]
    FailedPrecondition(Precondition),
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
        /// The cause of the failure.
        #[source]
        source: std::io::Error,
    },
    /// A task ended without its outcome: it panicked, or the runtime is shutting down.
    #[error("a task ended without its outcome")]
    Task(#[source] Cause),
    /// A token cannot be signed, or a key for it cannot be made.
    #[error("a token cannot be signed")]
    Signing(#[source] Cause),
    /// The operating system gives no random numbers.
    #[error("no random numbers")]
    Randomness(#[from] getrandom::Error),
    /// A bug of the server.
    #[error("internal: {0}")]
    Internal(&'static str),
}

impl ImksError {
    /// Makes an [`ImksError::InvalidInput`].
    pub fn invalid(field: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self::InvalidInput { field: field.into(), reason: reason.into() }
    }

    /// Makes an [`ImksError::Io`], as an argument of `map_err`.
    pub fn io(context: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let context = context.into();
        move |source| Self::Io { context, source }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn a_refusal_is_final() {
        assert!(!ImksError::Forbidden("SEND_MESSAGES").is_retryable());
        assert_eq!(ImksError::NotFound("channel").http_status(), 404);
    }

    #[test]
    fn the_error_of_an_adapter_keeps_its_cause() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = ImksError::AdapterRedis(Cause::new(refused));
        assert_eq!(error.code(), Code::Unavailable);
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("connection refused"));
    }
}
