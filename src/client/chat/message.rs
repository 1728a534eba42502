//! Messages as the chat knows them, and what there is to send.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::client::handle::nonce;

/// A message of a channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// The id. In one channel, ids are in the order of `seq`.
    pub id: Uuid,
    /// The channel.
    pub channel_id: Uuid,
    /// The number of the message in its channel.
    pub seq: i64,
    /// Who has written it.
    pub author: Author,
    /// The text; empty for a deleted message.
    pub body: String,
    /// When it was sent, as RFC 3339.
    pub created_at: String,
    /// When it was last edited.
    pub edited_at: Option<String>,
    /// When it was deleted.
    pub deleted_at: Option<String>,
    /// The first message of the thread that it stands in.
    pub thread_id: Option<Uuid>,
    /// The value by which its sender knows it again.
    pub nonce: Option<String>,
    /// How far its text has come, if that arrives piece by piece.
    pub stream: Option<TextStream>,
    /// All other fields, as docs/protocol.md lists them for `message:new`: `reactions`, `attachments`, `reply_to`, …
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Author {
    /// The id.
    pub id: Uuid,
    /// The name to show.
    pub username: String,
}

/// How far the text of a streamed message has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TextStream {
    /// `active` while more may come, then `finished`, `aborted` or `interrupted`.
    pub state: String,
    /// The number of characters so far.
    pub offset: u64,
}

impl TextStream {
    /// Whether more may come.
    pub fn is_active(&self) -> bool {
        self.state == ACTIVE
    }

    /// Creates the state of a text that has come so far.
    pub(super) fn active(offset: u64) -> Self {
        Self { state: ACTIVE.into(), offset }
    }
}

/// Something to send to a channel. A text is one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Draft {
    body: String,
    nonce: String,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl Draft {
    /// Creates a message with a text, and with a nonce of its own.
    pub fn new(body: impl Into<String>) -> Self {
        Self { body: body.into(), nonce: nonce(), more: Map::new() }
    }

    /// Sets the nonce: 1 to 64 characters. The server stores one message for the same nonce of the same author in the same
    /// channel, however often it is sent within a day.
    #[must_use]
    pub fn nonce(self, nonce: impl Into<String>) -> Self {
        Self { nonce: nonce.into(), ..self }
    }

    /// Makes it an answer to a message of the same channel.
    #[must_use]
    pub fn reply_to(self, message: Uuid) -> Self {
        self.with("reply_to_message_id", message.to_string())
    }

    /// Puts it into the thread of a message of the same channel.
    #[must_use]
    pub fn in_thread(self, first: Uuid) -> Self {
        self.with("thread_id", first.to_string())
    }

    /// Sets any other field of `message:send`, such as `mentions` or `poll`.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.more.insert(field.into(), value.into());
        self
    }

    /// Returns the nonce, by which the message is known again when it arrives.
    pub fn nonce_value(&self) -> &str {
        &self.nonce
    }
}

impl From<&str> for Draft {
    fn from(body: &str) -> Self {
        Self::new(body)
    }
}

impl From<String> for Draft {
    fn from(body: String) -> Self {
        Self::new(body)
    }
}

/// A channel of the user, as the server described it when the chat connected.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// The id.
    pub channel_id: Uuid,
    /// The name to show.
    #[serde(default)]
    pub name: String,
    /// All other fields of it in `session:ready`: `unread_count`, `last_seq`, `muted`, …
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl ChannelInfo {
    pub(super) fn new(channel_id: Uuid, name: String) -> Self {
        Self { channel_id, name, more: Map::new() }
    }
}

/// Where a page of the history of a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum At {
    /// The newest messages.
    #[default]
    Newest,
    /// The messages before the one with this id.
    Before(Uuid),
    /// The messages after the one with this id.
    After(Uuid),
    /// The message with this id, and those around it.
    Around(Uuid),
}

impl At {
    /// Returns the field of `history` that says so.
    pub(super) fn field(self) -> Option<(&'static str, Uuid)> {
        match self {
            Self::Newest => None,
            Self::Before(id) => Some(("before", id)),
            Self::After(id) => Some(("after", id)),
            Self::Around(id) => Some(("around", id)),
        }
    }
}

/// A page of the history of a channel, oldest first.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Page {
    /// The messages. Deleted ones have no text.
    pub messages: Vec<Message>,
    /// Whether there are older ones.
    #[serde(default)]
    pub has_more_before: bool,
    /// Whether there are newer ones.
    #[serde(default)]
    pub has_more_after: bool,
}

/// The state of a streamed message to which more may come.
const ACTIVE: &str = "active";
