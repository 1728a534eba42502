//! The error codes of the wire: one row per code with its text, its HTTP status, whether a retry makes sense, and the
//! sentence for people.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $retry:ident, $sentence:literal;)*) => {
        /// Stable code of an error on the wire (docs/protocol.md, "Error codes").
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code, in the order of the document.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Returns the text that programs compare with.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Returns the status of an HTTP answer with this code.
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// Whether the same request, with the same nonce, can succeed later. `internal` is worth one more attempt.
            pub const fn is_retryable(self) -> bool {
                match self { $(Self::$name => Retry::$retry.is_useful(),)* }
            }

            /// Returns what a person is told when nothing more precise is known.
            pub(super) const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

codes! {
    /// Not an object, a field is missing, or it has the wrong type.
    InvalidPayload = "invalid_payload", 400, Never, "The payload is malformed";
    /// A field breaks its own rule.
    InvalidInput = "invalid_input", 400, Never, "A field has a value that is not allowed";
    /// No valid token.
    Unauthenticated = "unauthenticated", 401, Never, "The token is missing or not valid";
    /// The token was good once: get a new one.
    TokenExpired = "token_expired", 401, Never, "The token has expired, get a new one";
    /// The token was withdrawn: sign in again.
    TokenRevoked = "token_revoked", 401, Never, "The token was revoked, sign in again";
    /// Known, but not allowed.
    Forbidden = "forbidden", 403, Never, "You may not do this";
    /// Does not exist, or the peer may not know that it does.
    NotFound = "not_found", 404, Never, "It does not exist, or it is not visible to you";
    /// No handler for this event name.
    UnknownEvent = "unknown_event", 404, Never, "No such event";
    /// The page exists, for other HTTP methods.
    MethodNotAllowed = "method_not_allowed", 405, Never, "This page answers other methods";
    /// What is there already does not allow it.
    Conflict = "conflict", 409, Never, "It is in conflict with what is there already";
    /// The caller's `expected_version` is not the current one.
    VersionMismatch = "version_mismatch", 409, Never, "Changed by somebody else in the meantime";
    /// This nonce was used for other content.
    NonceConflict = "nonce_conflict", 409, Never, "This nonce was already used with other content";
    /// The message was deleted.
    MessageDeleted = "message_deleted", 410, Never, "The message was deleted";
    /// Larger than allowed.
    PayloadTooLarge = "payload_too_large", 413, Never, "The payload is too large";
    /// A state that no other code names does not allow it.
    FailedPrecondition = "failed_precondition", 422, Never, "Not possible in the present state";
    /// The channel is archived.
    ChannelArchived = "channel_archived", 422, Never, "The channel is archived, nothing changes in it";
    /// The channel is read-only.
    ChannelReadOnly = "channel_read_only", 422, Never, "The channel is read-only";
    /// A named limit is reached.
    LimitReached = "limit_reached", 422, Never, "A limit is reached";
    /// Too fast.
    RateLimited = "rate_limited", 429, Later, "Too many requests, slow down";
    /// The channel is in slow mode.
    SlowMode = "slow_mode", 429, Later, "This channel is in slow mode, wait before the next message";
    /// A bug of the server.
    Internal = "internal", 500, Once, "Something went wrong on the server";
    /// A part that is needed does not answer.
    Unavailable = "unavailable", 503, Later, "Not available right now, retry with the same nonce";
    /// The server takes no more work right now.
    Overloaded = "overloaded", 503, Later, "The server is busy, retry later";
    /// A deadline passed.
    Timeout = "timeout", 504, Later, "Took too long, retry with the same nonce";
}

/// Whether repeating a request can help.
enum Retry {
    Never,
    /// One more attempt: a bug may depend on chance, but not for ever.
    Once,
    Later,
}

impl Retry {
    const fn is_useful(&self) -> bool {
        match self {
            Self::Never => false,
            Self::Once | Self::Later => true,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl PartialEq<&str> for Code {
    fn eq(&self, text: &&str) -> bool {
        self.as_str() == *text
    }
}

/// A state of a channel that forbids what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing changes in an archived channel.
    ChannelArchived,
    /// Only those with `MANAGE_CHANNEL` write in a read-only channel.
    ChannelReadOnly,
}

impl From<Precondition> for Code {
    fn from(precondition: Precondition) -> Self {
        match precondition {
            Precondition::ChannelArchived => Self::ChannelArchived,
            Precondition::ChannelReadOnly => Self::ChannelReadOnly,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_differ_and_are_written_as_their_text() {
        let texts: HashSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        assert_eq!(serde_json::to_string(&Code::SlowMode).unwrap(), "\"slow_mode\"");
        assert_eq!(Code::SlowMode, "slow_mode");
    }

    #[test]
    fn what_the_server_could_not_do_is_worth_a_retry_and_what_the_client_did_wrong_is_not() {
        for code in Code::ALL {
            let expected = code.http_status() >= 500 || code.http_status() == 429;
            assert_eq!(code.is_retryable(), expected, "{code}");
        }
    }
}
