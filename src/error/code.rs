//! The error codes on the wire. Each row has a code's text, its HTTP status, whether a retry is useful, and a
//! sentence for people.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $retry:ident, $sentence:literal;)*) => {
        /// The stable code of an error on the wire (docs/protocol.md, "Error codes").
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// All codes, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Returns the code as a text, for programs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Returns the HTTP status of a response with this code.
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// Whether a retry of the same request, with the same nonce, can succeed. `internal` is worth one
            /// retry.
            pub const fn is_retryable(self) -> bool {
                match self { $(Self::$name => Retry::$retry.is_useful(),)* }
            }

            /// Returns the sentence for people if there is no more precise one.
            pub(crate) const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

codes! {
    /// The payload is not an object, or a field is missing or has the wrong type.
    InvalidPayload = "invalid_payload", 400, Never, "The payload is malformed";
    /// A field has a value that is not allowed.
    InvalidInput = "invalid_input", 400, Never, "A field has a value that is not allowed";
    /// The token is missing or not valid.
    Unauthenticated = "unauthenticated", 401, Never, "The token is missing or not valid";
    /// The token has expired; the client needs a new one.
    TokenExpired = "token_expired", 401, Never, "The token has expired, get a new one";
    /// The token was revoked; the user must sign in again.
    TokenRevoked = "token_revoked", 401, Never, "The token was revoked, sign in again";
    /// The caller is authenticated but lacks the permission.
    Forbidden = "forbidden", 403, Never, "You may not do this";
    /// The object does not exist, or is not visible to the peer.
    NotFound = "not_found", 404, Never, "It does not exist, or it is not visible to you";
    /// The event has no handler.
    UnknownEvent = "unknown_event", 404, Never, "No such event";
    /// The page exists, but not for this HTTP method.
    MethodNotAllowed = "method_not_allowed", 405, Never, "This page answers other methods";
    /// The request conflicts with an existing object.
    Conflict = "conflict", 409, Never, "It is in conflict with what is there already";
    /// The caller's `expected_version` is not the current one.
    VersionMismatch = "version_mismatch", 409, Never, "Changed by somebody else in the meantime";
    /// The nonce was already used with other content.
    NonceConflict = "nonce_conflict", 409, Never, "This nonce was already used with other content";
    /// The message was deleted.
    MessageDeleted = "message_deleted", 410, Never, "The message was deleted";
    /// The payload is larger than allowed.
    PayloadTooLarge = "payload_too_large", 413, Never, "The payload is too large";
    /// A state that has no code of its own forbids the request.
    FailedPrecondition = "failed_precondition", 422, Never, "Not possible in the present state";
    /// The channel is archived.
    ChannelArchived = "channel_archived", 422, Never, "The channel is archived, nothing changes in it";
    /// The channel is read-only.
    ChannelReadOnly = "channel_read_only", 422, Never, "The channel is read-only";
    /// The message can no longer be edited.
    EditWindowClosed = "edit_window_closed", 422, Never, "The message can no longer be edited";
    /// The poll is closed.
    PollClosed = "poll_closed", 422, Never, "The poll is closed";
    /// The streamed message takes no more text.
    StreamEnded = "stream_ended", 422, Never, "The streamed message takes no more text";
    /// A named limit is reached.
    LimitReached = "limit_reached", 422, Never, "A limit is reached";
    /// A rate limit is exceeded.
    RateLimited = "rate_limited", 429, Later, "Too many requests, slow down";
    /// The channel is in slow mode.
    SlowMode = "slow_mode", 429, Later, "This channel is in slow mode, wait before the next message";
    /// The server has a bug.
    Internal = "internal", 500, Once, "Something went wrong on the server";
    /// A required service does not answer.
    Unavailable = "unavailable", 503, Later, "Not available right now, try again";
    /// The server accepts no more work at the moment.
    Overloaded = "overloaded", 503, Later, "The server is busy, retry later";
    /// A deadline passed.
    Timeout = "timeout", 504, Later, "Took too long, try again";
}

/// Whether a retry of a request is useful.
enum Retry {
    Never,
    /// One retry is useful, because a bug may depend on chance.
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

#[cfg(feature = "server")]
impl schemars::JsonSchema for Code {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ErrorCode".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "enum": Self::ALL })
    }
}

impl PartialEq<&str> for Code {
    fn eq(&self, text: &&str) -> bool {
        self.as_str() == *text
    }
}

/// A state that forbids a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// The channel is archived and can no longer change.
    ChannelArchived,
    /// The channel is read-only: only users with `MANAGE_CHANNEL` may write in it.
    ChannelReadOnly,
    /// The time in which the message could be edited is over.
    EditWindowClosed,
    /// The poll is closed.
    PollClosed,
    /// The streamed message takes no more text.
    StreamEnded,
    /// The message asks nobody to acknowledge it.
    AckNotRequested,
    /// The message is the caller's own.
    OwnMessage,
    /// The poll allows each voter to vote only once.
    VoteFinal,
    /// The poll does not show who voted for what.
    VotersHidden,
    /// The user is banned from the channel or workspace.
    Banned,
    /// The channel is a direct conversation, whose members, name and permissions are fixed.
    DirectConversation,
    /// The workspace still has channels.
    WorkspaceInUse,
    /// The workspace is the first one, which always exists.
    FirstWorkspace,
    /// The role is one of those that every workspace has.
    BuiltInRole,
    /// Either the user or the place is one of the first page, and the other is not.
    Playground,
    /// Users and channels are those of an external core.
    ExternalCore,
    /// The scheduled message is being sent, or is sent, failed or cancelled.
    NotPending,
    /// Nothing records what channels were told.
    FeedOff,
    /// A legal hold keeps it.
    OnHold,
    /// The operator's own application issues the tokens.
    OwnLogins,
    /// The keys of tokens could not be read again.
    KeysUnreadable,
}

impl Precondition {
    /// Returns a sentence for people about the state.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::ChannelArchived => "The channel is archived, nothing changes in it",
            Self::ChannelReadOnly => "The channel is read-only",
            Self::EditWindowClosed => "The message can no longer be edited",
            Self::PollClosed => "The poll is closed",
            Self::StreamEnded => "The streamed message takes no more text",
            Self::AckNotRequested => "The message asks nobody to acknowledge it",
            Self::OwnMessage => "The message is your own",
            Self::VoteFinal => "A vote in this poll cannot be changed",
            Self::VotersHidden => "This poll does not show who voted for what",
            Self::Banned => "The user is banned there; lift the ban first",
            Self::DirectConversation => {
                "This is a direct conversation: its members, name and permissions are fixed"
            }
            Self::WorkspaceInUse => "The workspace has channels; remove them first",
            Self::FirstWorkspace => "The first workspace cannot be removed",
            Self::BuiltInRole => "Every workspace has this role, and it does not change; make another one",
            Self::Playground => {
                "Visitors of the first page are members of its playground and of nothing else, and nobody else is a member \
                 there; take another name, or remove the visitor with `imks directory user remove NAME` first"
            }
            Self::NotPending => "It is being sent, or is sent, failed or cancelled",
            Self::ExternalCore => "Users and channels live in the core at IMKS_CORE_URL, not in this server",
            Self::FeedOff => "The feed is off on this server: IMKS_FEED_RETENTION is 0s",
            Self::OnHold => {
                "A legal hold is on it, or on somebody or something it concerns; release it first"
            }
            Self::OwnLogins => {
                "Your own application issues the tokens (IMKS_TOKEN_JWKS_URL, IMKS_TOKEN_PUBLIC_KEY_FILE, \
                 IMKS_TOKEN_HMAC_SECRET or IMKS_AUTH_URL is set): this server refuses any other token"
            }
            Self::KeysUnreadable => {
                "The keys could not be read, so those that are known stay in use: the log says why"
            }
        }
    }
}

impl From<Precondition> for Code {
    fn from(precondition: Precondition) -> Self {
        match precondition {
            Precondition::ChannelArchived => Self::ChannelArchived,
            Precondition::ChannelReadOnly => Self::ChannelReadOnly,
            Precondition::EditWindowClosed => Self::EditWindowClosed,
            Precondition::PollClosed => Self::PollClosed,
            Precondition::StreamEnded => Self::StreamEnded,
            Precondition::AckNotRequested
            | Precondition::OwnMessage
            | Precondition::VoteFinal
            | Precondition::VotersHidden
            | Precondition::Banned
            | Precondition::DirectConversation
            | Precondition::WorkspaceInUse
            | Precondition::FirstWorkspace
            | Precondition::BuiltInRole
            | Precondition::Playground
            | Precondition::ExternalCore
            | Precondition::NotPending
            | Precondition::FeedOff
            | Precondition::OnHold
            | Precondition::OwnLogins
            | Precondition::KeysUnreadable => Self::FailedPrecondition,
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
