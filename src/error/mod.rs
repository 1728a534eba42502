//! The error type of the crate, its codes on the wire, and its messages for peers.
//!
//! `Display` is for the log. [`ImksError::client_message`] is for the peer and never contains SQL,
//! hosts or ids of other people.

mod answer;
#[cfg(feature = "server")]
mod backend;
mod cause;
mod code;

use std::borrow::Cow;
use std::time::Duration;

pub use cause::Cause;
#[cfg(feature = "server")]
pub(crate) use cause::with_causes;
pub use code::{Code, Precondition};

/// The result of every fallible public function.
pub type ImksResult<T> = Result<T, ImksError>;

/// What is there instead of what a request expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Present {
    /// The number of the channel's last message.
    LastSeq(i64),
    /// The number of characters that a streamed message has.
    Offset(usize),
    /// The value under a key of the channel.
    Key {
        /// The version of the value; 0 if there is none.
        version: i64,
        /// The value.
        value: Option<String>,
    },
}

/// Any error of this crate, classified by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum ImksError {
    /// The first byte of a binary Engine.IO packet is not a packet type.
    #[error("invalid engine packet type {0}")]
    InvalidEnginePacketType(u8),
    /// The first character of a text Engine.IO packet is not a packet type.
    #[error("invalid engine packet type {0:?}")]
    InvalidEnginePacketTypeChar(char),
    /// An Engine.IO packet is empty.
    #[error("empty engine packet")]
    EmptyEnginePacket,
    /// A binary packet of a polling payload (`b…`) is not valid base64.
    #[error("invalid base64 in an engine packet")]
    InvalidBase64,
    /// A text packet is not valid UTF-8.
    #[error("engine packet is not UTF-8")]
    InvalidPacketUtf8,
    /// A packet is valid, but not in this direction or state.
    #[error("engine packet not allowed here: {0}")]
    UnexpectedEnginePacket(&'static str),
    /// A value that is to be sent cannot be serialised as JSON.
    #[error("engine packet cannot be encoded")]
    EngineSerialization(#[source] serde_json::Error),

    /// An upgrade names a session that does not exist.
    #[error("upgrade of an unknown session")]
    UpgradeSessionNotFound,
    /// An upgrade names a session that has been closed.
    #[error("upgrade of a closed session")]
    UpgradeSessionClosed,
    /// An upgrade names a session that has upgraded or is upgrading.
    #[error("upgrade of a session that is not on polling")]
    UpgradeInvalidState,

    /// The type number of a Socket.IO packet does not exist.
    #[error("invalid socket packet type {0}")]
    InvalidSocketPacketType(u8),
    /// The first character of a Socket.IO packet is not a digit.
    #[error("invalid socket packet type {0:?}")]
    InvalidSocketPacketTypeChar(char),
    /// A Socket.IO packet is empty.
    #[error("empty socket packet")]
    EmptySocketPacket,
    /// A Socket.IO packet violates the grammar; the text names the rule.
    #[error("invalid socket packet: {0}")]
    InvalidSocketPacketFormat(&'static str),
    /// A packet lacks the namespace that the parser requires.
    #[error("socket packet without a namespace")]
    MissingNamespace,
    /// The attachment count of a binary packet is missing, zero, or above the limit.
    #[error("invalid attachment count")]
    InvalidAttachmentCount,

    /// A namespace path breaks the rules (starts with `/`, at most 256 characters, no control characters).
    #[error("invalid namespace: {0}")]
    Namespace(&'static str),
    /// There is no socket with this id.
    #[error("socket {0} not found")]
    SocketNotFound(Box<str>),
    /// The outbox of a socket is full, because its client is too slow.
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
    /// The adapter does not support the room; the text names the rule that it breaks. The adapters of this crate
    /// support every name, so this is only for adapters of applications.
    #[error("invalid room: {0}")]
    AdapterRoom(&'static str),

    /// The database failed or could not be reached. A retry with the same nonce is safe.
    #[cfg(feature = "server")]
    #[error("database")]
    Database(#[from] sqlx::Error),
    /// The database cannot be opened: its file is damaged, or its server refuses the connection or does not
    /// answer.
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
    /// A text is not the expected JSON.
    #[error("json")]
    Json(#[from] serde_json::Error),

    /// The caller has no identity: the token is missing, malformed, forged, or of an algorithm that is not
    /// allowed.
    #[error("unauthenticated: {0}")]
    Auth(&'static str),
    /// The token has expired.
    #[error("token expired")]
    TokenExpired,
    /// The token was revoked before it expired.
    #[error("token revoked")]
    TokenRevoked,
    /// The token is not valid yet: the clock of the server or of the issuer is wrong.
    #[error("token not yet valid")]
    TokenNotYetValid,
    /// The caller lacks a permission; the text names it.
    #[error("permission denied: {0}")]
    Forbidden(&'static str),
    /// The caller is not the author of the message, and no permission allows this to others.
    #[error("not the author")]
    NotAuthor,

    /// The object does not exist, or is not visible to the caller.
    #[error("not found: {0}")]
    NotFound(&'static str),
    /// An operator named something that does not exist.
    #[error("there is no {what} {name:?}")]
    UnknownName {
        /// The kind of the named object.
        what: &'static str,
        /// The name as given.
        name: String,
    },
    /// The name is taken.
    #[error("the {what} {name:?} exists already")]
    Conflict {
        /// The kind of the named object.
        what: &'static str,
        /// The name as given.
        name: String,
    },
    /// The message was deleted.
    #[error("message deleted")]
    MessageDeleted,
    /// A field has a value that is not allowed.
    #[error("invalid input in {field}: {reason}")]
    InvalidInput {
        /// The path of the field, as on the wire: `body`, `channels[3].seq`.
        field: Cow<'static, str>,
        /// The reason, for people.
        reason: String,
    },
    /// A field is missing or has the wrong type.
    #[error("invalid payload in {field}: {reason}")]
    InvalidField {
        /// The path of the field, as on the wire.
        field: String,
        /// What the field must be, for people.
        reason: String,
    },
    /// The payload does not have the expected shape.
    #[error("invalid payload: {0}")]
    InvalidPayload(String),
    /// The event has no handler.
    #[error("unknown event")]
    UnknownEvent,
    /// Another page than the first page of this server, or a program, asks for a token of the first page.
    #[error("not asked by the first page of this server")]
    NotFirstPage,
    /// The first page asks for a token of somebody who is no visitor of it, or who has more than visitors have.
    #[error(
        "{name} is a user of the directory: choose another name, or get a token for {name} with `imks token {name}`"
    )]
    NotVisitor {
        /// The name as given.
        name: String,
    },
    /// The first page has as many visitors as it may have, and asks for one more.
    #[error(
        "The first page has {max} visitors, which is all it may have: choose the name of one of them, or remove one \
         with `imks directory user remove NAME`"
    )]
    TooManyVisitors {
        /// The maximum number of visitors.
        max: i64,
    },
    /// A workspace of somebody has the name of the first page's workspace.
    #[error(
        "The workspace \"playground\" is not the one of the first page: rename it with `imks directory workspace set \
         playground --name NAME`, or switch the page off with IMKS_FIRST_PAGE=off"
    )]
    PlaygroundTaken,
    /// The page does not support this HTTP method.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// The caller's `expected_version` is not the current one.
    #[error("version mismatch, current is {current}")]
    VersionMismatch {
        /// The current version.
        current: i64,
    },
    /// A condition of the request does not hold; the value is what is there instead.
    #[error("not as expected")]
    NotAsExpected(Present),
    /// The nonce was already used with other content.
    #[error("nonce used before with other content")]
    NonceConflict,
    /// A state of the channel, or of what is to be changed, forbids the request.
    #[error("{}", .0.sentence())]
    FailedPrecondition(Precondition),
    /// A named limit is reached.
    #[error("limit reached: {0}")]
    LimitReached(&'static str),
    /// A rate limit is exceeded.
    #[error("rate limited: {bucket}")]
    RateLimited {
        /// The name of the empty bucket.
        bucket: &'static str,
        /// When a retry can succeed.
        retry_after: Duration,
    },
    /// The channel is in slow mode, and the user's last message there is too recent.
    #[error("slow mode")]
    SlowMode {
        /// When a retry can succeed.
        retry_after: Duration,
    },
    /// The payload is larger than allowed.
    #[error("payload too large")]
    PayloadTooLarge,
    /// A required service does not answer. A retry with the same nonce is safe.
    #[error("unavailable: {0}")]
    Unavailable(&'static str),
    /// The server stops and accepts no more work. Another node does, or the server when it has started again.
    #[error("unavailable: the server stops")]
    Stopping,
    /// The server accepts no more work at the moment.
    #[error("overloaded")]
    Overloaded {
        /// The time after which a retry can succeed.
        retry_after: Duration,
    },
    /// A deadline passed, and the outcome is unknown. A retry with the same nonce is safe.
    #[error("timeout: {0}")]
    Timeout(&'static str),
    /// The operator's application refused an event of a client.
    #[error("the application refused: {code}")]
    Application {
        /// The code that the client gets.
        code: Code,
        /// The words of the application, for people; those of the code if there are none.
        message: Option<String>,
        /// The time after which a retry can succeed.
        retry_after: Option<Duration>,
    },
    /// The configuration cannot work; the text says what to change.
    #[error("{0}")]
    Config(String),
    /// An I/O operation failed.
    #[error("io: {context}")]
    Io {
        /// The operation that failed.
        context: String,
        /// The cause of the failure.
        #[source]
        source: std::io::Error,
    },
    /// A task ended without its outcome: it panicked, or the runtime is shutting down.
    #[error("a task ended without its outcome")]
    Task(#[source] Cause),
    /// A token cannot be signed, or its key cannot be created.
    #[error("a token cannot be signed")]
    Signing(#[source] Cause),
    /// The operating system provides no random numbers.
    #[error("no random numbers")]
    Randomness(#[from] getrandom::Error),
    /// The server has a bug.
    #[error("internal: {0}")]
    Internal(&'static str),
}

impl ImksError {
    /// Creates an [`ImksError::InvalidInput`].
    pub fn invalid(field: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self::InvalidInput { field: field.into(), reason: reason.into() }
    }

    /// Returns a function that creates an [`ImksError::Io`], for `map_err`.
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
