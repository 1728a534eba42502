//! The errors of the client. Each keeps its cause, and says whether a later attempt can succeed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::error::{Cause, ImksError};

/// The result of the client's functions.
pub type ClientResult<T> = Result<T, ClientError>;

/// Any error of the client. Cloning it is cheap, because everybody who waits for a connection gets the error that
/// ended it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The settings cannot work; the text says what to change.
    #[error("{0}")]
    Config(String),
    /// The server could not be reached, or did not answer as a server of Socket.IO does.
    #[error("cannot connect over {transport}")]
    ConnectionFailed {
        /// The name of the transport: `websocket`, `polling`, `webtransport` or `quic`.
        transport: &'static str,
        /// The cause of the failure.
        #[source]
        source: Arc<Cause>,
    },
    /// The certificates, the keys or the handshake of TLS failed.
    #[error("TLS failed")]
    Tls(#[source] Arc<Cause>),
    /// No transport could connect. Each failure stands here.
    #[error("no transport could connect: {}", Listed(.0))]
    NoTransport(Vec<ClientError>),
    /// The connection ended, so that nobody knows whether the other side has handled what was sent.
    #[error("the connection ended: {0}")]
    ConnectionClosed(DisconnectReason),
    /// The client was closed, or is not connected and was not asked to be.
    #[error("the client is closed")]
    Closed,
    /// Nothing happened within the time; the text names what was waited for.
    #[error("timeout: {0}")]
    Timeout(&'static str),
    /// The provider of credentials failed.
    #[error("no credentials")]
    AuthenticationFailed(#[source] Arc<Cause>),
    /// The server refused to let the client into the namespace, or refused what it asked, with this error as its answer.
    #[error("{0}")]
    Refused(Arc<Refusal>),
    /// A value cannot be sent, or what was received does not have the expected type.
    #[error("invalid message")]
    InvalidMessage(#[source] Arc<ImksError>),
    /// The codec of the application for the arguments of events failed, or an event came without it.
    #[error("the payload of {event:?} failed")]
    Payload {
        /// The name of the event.
        event: Box<str>,
        /// The cause of the failure.
        #[source]
        source: Arc<Cause>,
    },
    /// An event with this name cannot be sent, because both sides use it for themselves.
    #[error("the event name {0:?} is reserved")]
    ReservedEvent(Box<str>),
    /// The path of a namespace begins with `/` and contains no comma.
    #[error("invalid namespace {0:?}")]
    InvalidNamespace(Box<str>),
    /// Too much waits to be sent, or too many answers are waited for.
    #[error("the queue is full")]
    Full,
    /// A newer event took the place of this one in the queue.
    #[error("dropped for a newer event")]
    Dropped,
    /// The outbox could not be read or written.
    #[error("the outbox failed")]
    Outbox(#[source] Arc<std::io::Error>),
    /// A handler of events with this name panicked. The next event is handled as any other.
    #[error("a handler of {0:?} panicked")]
    HandlerPanicked(Box<str>),
    /// All attempts to reconnect failed.
    #[error("gave up after {attempts} attempts to connect")]
    ReconnectFailed {
        /// The number of attempts in a row.
        attempts: u32,
        /// The failure of the last one.
        #[source]
        source: Box<ClientError>,
    },
}

impl ClientError {
    /// Whether the same call can succeed later. An event that failed so may have been handled: only
    /// [`Socket::send`](crate::client::Socket::send) knows how to repeat it.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::ConnectionFailed { .. }
            | Self::ConnectionClosed(_)
            | Self::Timeout(_)
            | Self::AuthenticationFailed(_)
            | Self::Full
            | Self::Dropped
            | Self::Outbox(_)
            | Self::ReconnectFailed { .. } => true,
            Self::NoTransport(failures) => failures.iter().any(Self::is_retryable),
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::Config(_)
            | Self::Tls(_)
            | Self::Closed
            | Self::InvalidMessage(_)
            | Self::Payload { .. }
            | Self::ReservedEvent(_)
            | Self::HandlerPanicked(_)
            | Self::InvalidNamespace(_) => false,
        }
    }

    /// Creates the error for a message that does not have the expected form.
    pub(crate) fn invalid(error: ImksError) -> Self {
        Self::InvalidMessage(Arc::new(error))
    }

    /// Creates the error for the error object of an answer.
    pub(crate) fn refused(error: &Value) -> Self {
        let message = error["message"].as_str().unwrap_or_default().to_owned();
        Self::Refused(Arc::new(Refusal { message, data: error.clone() }))
    }

    /// Creates the error for a transport that cannot connect.
    pub(crate) fn connect(
        transport: &'static str,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::ConnectionFailed { transport, source: Arc::new(Cause::new(error)) }
    }
}

/// The refusal of a namespace or of a request, as the server sent it.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The text for people.
    pub message: String,
    /// The data for programs.
    pub data: Value,
}

impl Refusal {
    /// Reads the payload of a CONNECT_ERROR: a text, or an object with `message` and `data`.
    pub(crate) fn read(json: &str) -> Self {
        match serde_json::from_str(json) {
            Ok(Value::String(message)) => Self { message, data: Value::Null },
            Ok(mut object) => {
                let message = object["message"].as_str().unwrap_or_default().to_owned();
                Self { message, data: object.get_mut("data").map(Value::take).unwrap_or_default() }
            }
            Err(_) => Self { message: String::new(), data: Value::Null },
        }
    }

    /// Returns the code of the error, if the server sent one: `unauthenticated`, `token_expired`.
    pub fn code(&self) -> Option<&str> {
        self.data["code"].as_str()
    }

    /// Whether the server said that a later attempt can succeed.
    pub fn is_retryable(&self) -> bool {
        self.data["retryable"].as_bool().unwrap_or(false)
    }

    /// Returns the time after which the server said that an attempt can succeed.
    pub fn retry_after(&self) -> Option<Duration> {
        self.data["retry_after_ms"].as_u64().map(Duration::from_millis)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code() {
            Some(code) => write!(formatter, "refused with {code}: {}", self.message),
            None => write!(formatter, "refused: {}", self.message),
        }
    }
}

/// Why a connection, or the membership in a namespace, ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// This client ended it.
    ByClient,
    /// The server put the client out of the namespace. The client does not come back by itself.
    ByServer,
    /// The server closed the transport.
    TransportClosed,
    /// The transport failed.
    TransportFailed(Arc<Cause>),
    /// Nothing came from the server for longer than its heartbeat allows.
    HeartbeatTimeout,
    /// The server did not say within the time whether the client may join a namespace.
    JoinTimeout,
    /// The server violated the protocol.
    Protocol(Arc<ImksError>),
    /// The server refused to let the client in.
    Refused(Arc<Refusal>),
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByClient => formatter.write_str("closed by this client"),
            Self::ByServer => formatter.write_str("disconnected by the server"),
            Self::TransportClosed => formatter.write_str("the server closed the transport"),
            Self::TransportFailed(cause) => write!(formatter, "the transport failed: {cause}"),
            Self::HeartbeatTimeout => formatter.write_str("no heartbeat from the server"),
            Self::JoinTimeout => formatter.write_str("no answer to CONNECT"),
            Self::Protocol(error) => write!(formatter, "the server violated the protocol: {error}"),
            Self::Refused(refusal) => refusal.fmt(formatter),
        }
    }
}

/// Errors, separated by semicolons, each with its deepest cause.
struct Listed<'a>(&'a [ClientError]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(formatter, "{separator}{error}")?;
            let mut cause = std::error::Error::source(error);
            while let Some(next) = cause {
                write!(formatter, ": {next}")?;
                cause = next.source();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_in_every_form_that_servers_send() {
        let full = Refusal::read(
            r#"{"message":"slow down","data":{"code":"rate_limited","retryable":true,"retry_after_ms":1200}}"#,
        );
        assert_eq!((full.code(), full.is_retryable()), (Some("rate_limited"), true));
        assert_eq!(full.retry_after(), Some(Duration::from_millis(1200)));
        assert_eq!(full.to_string(), "refused with rate_limited: slow down");
        let text = Refusal::read(r#""no""#);
        assert_eq!((&*text.message, text.code(), text.is_retryable()), ("no", None, false));
        assert_eq!(Refusal::read(r#"{"message":"no"}"#).data, Value::Null);
        assert_eq!(Refusal::read("[1]").data, Value::Null);
    }

    #[test]
    fn who_has_no_transport_left_learns_the_cause_of_each() {
        let failures = vec![
            ClientError::connect("websocket", std::io::Error::from(std::io::ErrorKind::ConnectionRefused)),
            ClientError::connect("polling", "404 Not Found"),
        ];
        let error = ClientError::NoTransport(failures);
        assert_eq!(
            error.to_string(),
            "no transport could connect: cannot connect over websocket: connection refused; \
             cannot connect over polling: 404 Not Found"
        );
        assert!(error.is_retryable());
    }
}
