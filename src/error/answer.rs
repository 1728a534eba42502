//! The part of an error that a peer sees: its code, whether and when to retry, and a sentence for people.

use std::time::Duration;

#[cfg(feature = "server")]
use super::backend;
use super::{Code, ImksError};

impl ImksError {
    /// Returns the code on the wire. The match has no `_` arm, so that every new variant gets its code here.
    #[allow(clippy::too_many_lines, reason = "one arm per code: a split would need `_`")]
    pub fn code(&self) -> Code {
        match self {
            Self::InvalidEnginePacketType(_)
            | Self::InvalidEnginePacketTypeChar(_)
            | Self::EmptyEnginePacket
            | Self::InvalidBase64
            | Self::InvalidPacketUtf8
            | Self::UnexpectedEnginePacket(_)
            | Self::UpgradeSessionNotFound
            | Self::UpgradeSessionClosed
            | Self::UpgradeInvalidState
            | Self::InvalidSocketPacketType(_)
            | Self::InvalidSocketPacketTypeChar(_)
            | Self::EmptySocketPacket
            | Self::InvalidSocketPacketFormat(_)
            | Self::MissingNamespace
            | Self::InvalidAttachmentCount
            | Self::Json(_)
            | Self::InvalidField { .. }
            | Self::InvalidPayload(_) => Code::InvalidPayload,
            Self::InvalidInput { .. } | Self::Namespace(_) | Self::AdapterRoom(_) => Code::InvalidInput,
            Self::Auth(_) => Code::Unauthenticated,
            Self::TokenExpired => Code::TokenExpired,
            Self::TokenRevoked => Code::TokenRevoked,
            Self::Forbidden(_) | Self::NotAuthor | Self::NotFirstPage => Code::Forbidden,
            Self::NotFound(_) | Self::UnknownName { .. } | Self::SocketNotFound(_) => Code::NotFound,
            Self::UnknownEvent => Code::UnknownEvent,
            Self::MethodNotAllowed => Code::MethodNotAllowed,
            Self::Conflict { .. }
            | Self::NotAsExpected(_)
            | Self::NotVisitor { .. }
            | Self::PlaygroundTaken => Code::Conflict,
            Self::VersionMismatch { .. } => Code::VersionMismatch,
            Self::NonceConflict => Code::NonceConflict,
            Self::MessageDeleted => Code::MessageDeleted,
            Self::PayloadTooLarge => Code::PayloadTooLarge,
            Self::FailedPrecondition(precondition) => (*precondition).into(),
            Self::Application { code, .. } => *code,
            Self::LimitReached(_) | Self::TooManyVisitors { .. } => Code::LimitReached,
            Self::RateLimited { .. } => Code::RateLimited,
            Self::SlowMode { .. } => Code::SlowMode,
            Self::Overloaded { .. } | Self::SocketSendFull => Code::Overloaded,
            Self::Timeout(_) => Code::Timeout,
            Self::Unavailable(_)
            | Self::Stopping
            | Self::TokenNotYetValid
            | Self::AdapterRedis(_)
            | Self::AdapterNats(_)
            | Self::AdapterMessageBus(_) => Code::Unavailable,
            #[cfg(feature = "server")]
            Self::Database(error) | Self::DatabaseOpen { source: error, .. } => backend::database_code(error),
            #[cfg(feature = "server")]
            Self::GrpcStatus(status) => backend::grpc_code(status.code()),
            #[cfg(feature = "server")]
            Self::GrpcTransport(_) => Code::Unavailable,
            #[cfg(feature = "server")]
            Self::Migration(_) => Code::Internal,
            Self::EngineSerialization(_)
            | Self::AdapterSerialization(_)
            | Self::Config(_)
            | Self::Io { .. }
            | Self::Task(_)
            | Self::Signing(_)
            | Self::Randomness(_)
            | Self::Internal(_) => Code::Internal,
        }
    }

    /// Whether a retry of the same request, with the same nonce, can succeed.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }

    /// Returns the HTTP status of a response with this error.
    pub fn http_status(&self) -> u16 {
        self.code().http_status()
    }

    /// Returns the time after which a retry can succeed, if it is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. }
            | Self::SlowMode { retry_after }
            | Self::Overloaded { retry_after } => Some(*retry_after),
            Self::Application { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Returns the message for the peer. It never contains SQL, hosts or ids of other people.
    pub fn client_message(&self) -> String {
        match self {
            Self::InvalidInput { field, reason } => format!("{field}: {reason}"),
            Self::InvalidField { field, reason } => format!("{field}: {reason}"),
            Self::NotAuthor => "Only its author can change this message".into(),
            Self::NotFirstPage => NOT_FIRST_PAGE.into(),
            Self::InvalidPayload(reason) | Self::Application { message: Some(reason), .. } => reason.clone(),
            Self::Auth(reason) => (*reason).into(),
            Self::Forbidden(permission) => format!("This needs the permission {permission}"),
            Self::NotFound(what) => format!("No such {what}, or it is not visible to you"),
            Self::UnknownName { .. }
            | Self::Conflict { .. }
            | Self::NotVisitor { .. }
            | Self::TooManyVisitors { .. }
            | Self::PlaygroundTaken => self.to_string(),
            Self::FailedPrecondition(precondition) => precondition.sentence().into(),
            Self::LimitReached(limit) => format!("The limit {limit} is reached"),
            _ => self.code().sentence().into(),
        }
    }
}

const NOT_FIRST_PAGE: &str = "Only the first page of this server, opened at 127.0.0.1 or localhost without a proxy, gets tokens \
     here; `imks token NAME` prints one";
