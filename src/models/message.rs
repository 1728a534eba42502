//! Messages as they go over the wire. The stored row is in [`super::message_row`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::message_poll::Poll;
use super::message_reaction_total::Reactions;
use super::message_row::Message;
use super::message_stream_state::Stream;
use super::message_thread_state::ThreadState;
use super::rows::sql_number;
use super::stored_json::{from_column, to_column};
use super::text::{Mentions, Nonce};
use crate::ImksResult;
use crate::clock::{Micros, Timestamp};

/// The author of a message, with the name they had when it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Author")]
pub struct AuthorInfo {
    /// The user.
    pub id: Uuid,
    /// The displayed name. The id, not the name, identifies the user.
    pub username: Box<str>,
}

/// Declares an enum whose numbers are stored and whose names are on the wire.
macro_rules! stored_enum {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$of_variant:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[allow(missing_docs, reason = "the names say it")]
        #[repr(i32)]
        pub enum $name {
            $($(#[$of_variant])* $variant = $number,)*
        }

        impl $name {
            /// Every variant.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),*];

            /// Converts from the stored number. A number of a later version becomes the default.
            pub fn from_stored(number: i32) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    _ => Self::default(),
                }
            }
        }
    };
}

pub(super) use stored_enum;

stored_enum! {
    /// The `type` of a message.
    pub enum MessageType {
        #[default]
        Default = 0,
        Reply = 1,
        Poll = 2,
        Bot = 3,
        Webhook = 4,
        Call = 5,
        E2ee = 6,
        Forwarded = 7,
        SystemJoin = 16,
        SystemLeave = 17,
        SystemRename = 18,
        SystemPin = 19,
    }
}

stored_enum! {
    /// How clients render a body.
    pub enum ContentType {
        #[default]
        Markdown = 0,
        Plain = 1,
        E2ee = 2,
    }
}

stored_enum! {
    /// How much a message matters to its readers.
    pub enum Priority {
        #[default]
        Normal = 0,
        Important = 1,
        Urgent = 2,
    }
}

/// `flags`: no notification.
pub const FLAG_SILENT: i32 = 1;
/// `flags`: no link previews.
pub const FLAG_SUPPRESS_EMBEDS: i32 = 2;
/// `flags`: mentions are rendered as links but notify nobody.
pub const FLAG_NO_MENTION_NOTIFY: i32 = 4;
sql_number! {
    /// `flags`: a thread reply that also appears in the channel. Set by the server from
    /// `also_send_to_channel`.
    pub const FLAG_ALSO_IN_CHANNEL: i32 = flag_also_in_channel = 8;
}
/// `flags`: sent by a program in the author's name, so that the author has not read up to it. Set by the server.
/// The table `message_author` leaves out messages with this flag.
pub const FLAG_AUTOMATED: i32 = 16;

/// The message that a reply quotes, in its current state: edits are shown, and a deleted message has no body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ReplyPreview {
    /// The message.
    pub id: Uuid,
    /// The number of the message in its channel.
    pub seq: i64,
    /// The author of the message.
    pub author: AuthorInfo,
    /// The first [`PREVIEW_CHARS`] characters of the message; empty if it is deleted or encrypted.
    pub body: String,
    /// When the message was written.
    pub created_at: Timestamp,
    /// When the message was deleted.
    pub deleted_at: Option<Timestamp>,
}

/// A forwarded message, as it was when it was forwarded. Once the original is deleted, its text is not shown any
/// more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forward {
    /// The channel of the original.
    pub channel_id: Uuid,
    /// The original.
    pub id: Uuid,
    /// The author of the original.
    pub author: AuthorInfo,
    /// The text of the original; empty if it is deleted.
    pub body: String,
    /// How clients render the text.
    pub content_type: ContentType,
    /// When the original was written.
    pub created_at: Timestamp,
    /// When the original was deleted; of one that is gone altogether, when it was written.
    pub deleted_at: Option<Timestamp>,
}

impl Forward {
    /// Parses the column of the message's row.
    pub(crate) fn from_stored(text: Option<&str>) -> ImksResult<Option<Box<Self>>> {
        from_column(text)
    }

    /// Returns the value for the column of the message's row.
    pub(crate) fn stored(&self) -> ImksResult<String> {
        to_column(self)
    }

    /// Removes the text, because the original was deleted.
    pub(crate) fn hide(&mut self, deleted_at: Micros) {
        (self.body, self.deleted_at) = (String::new(), Some(Timestamp(deleted_at)));
    }

    /// Removes the text, because the original is gone altogether.
    pub(crate) fn hide_gone(&mut self) {
        self.hide(self.created_at.0);
    }
}

/// The number of characters of a message that its replies quote.
pub const PREVIEW_CHARS: usize = 200;

/// A message as everybody in the channel sees it: the payload of `message:new`, field for field
/// (docs/protocol.md). Contains nothing that depends on the reader.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[allow(missing_docs, reason = "the wire contract in docs/protocol.md explains each field")]
#[schemars(rename = "Message")]
pub struct MessageDetail {
    pub id: Uuid,
    pub channel_id: Uuid,
    pub author: AuthorInfo,
    /// Empty for a deleted message.
    pub body: String,
    pub created_at: Timestamp,
    pub reactions: Reactions,
    pub attachment_count: i32,

    pub seq: i64,
    pub version: i64,
    #[serde(rename = "type")]
    pub kind: MessageType,
    pub content_type: ContentType,
    pub thread_id: Option<Uuid>,
    pub reply_to_message_id: Option<Uuid>,
    pub reply_to: Option<Box<ReplyPreview>>,
    pub forward_of: Option<Box<Forward>>,
    #[schemars(extend("items" = { "$ref": "#/components/schemas/Attachment" }))]
    pub attachments: Parts,
    #[schemars(extend("items" = { "$ref": "#/components/schemas/Embed" }))]
    pub embeds: Parts,
    pub poll: Option<Box<Poll>>,
    /// Null for a message that was complete when it was sent.
    pub stream: Option<Stream>,
    pub mentions: Mentions,
    pub flags: i32,
    pub priority: Priority,
    /// Whether readers are asked to acknowledge the message.
    pub ack_requested: bool,
    /// How many users have acknowledged it.
    pub ack_count: i64,
    /// True where the reader has; not in events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acked: Option<bool>,
    pub edited_at: Option<Timestamp>,
    pub deleted_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub pinned: bool,
    pub nonce: Option<Nonce>,
    /// Only on notices of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub metadata: Option<Box<RawValue>>,
    pub thread: Option<Box<ThreadState>>,

    /// The number of the last change to this message; 0 if it was never changed. Sent beside the message.
    #[serde(skip)]
    pub rev: i64,
}

/// The size at which an answer with messages ends. The message that reaches it is still included.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Fields of a message that have tables of their own.
pub type Parts = Vec<Box<RawValue>>;

/// Whether a message counts as unread in its channel. A reply that appears only in its thread does not.
pub(crate) fn is_counted(thread: Option<Uuid>, flags: i32) -> bool {
    thread.is_none() || flags & FLAG_ALSO_IN_CHANNEL != 0
}

impl Message {
    /// Returns the messages whose state this one shows: the one it answers and the one it forwards.
    pub(crate) fn quoted(&self) -> ImksResult<impl Iterator<Item = Uuid> + use<>> {
        let forwarded = Forward::from_stored(self.forward_of.as_deref())?.map(|forward| forward.id);
        Ok(self.reply_to_message_id.into_iter().chain(forwarded))
    }

    /// Converts to the message as everybody sees it, with the message that it quotes.
    ///
    /// # Errors
    /// [`ImksError::Internal`](crate::ImksError::Internal) for a column that cannot be read.
    pub(crate) fn into_detail(self, reply_to: Option<Box<ReplyPreview>>) -> ImksResult<MessageDetail> {
        let row = self;
        let deleted = row.deleted_at.is_some();
        let stream = Stream::from_stored(row.stream.filter(|_| !deleted), &row.body);
        let mentions = Mentions::from_stored(row.mentions.as_deref().filter(|_| !deleted))?;
        Ok(MessageDetail {
            id: row.id,
            channel_id: row.channel_id,
            author: AuthorInfo { id: row.author_id, username: row.author_username.into() },
            body: if deleted { String::new() } else { row.body },
            created_at: Timestamp(row.created_at),
            reactions: Reactions::from_stored(row.reactions.as_deref().filter(|_| !deleted))?,
            attachment_count: if deleted { 0 } else { row.attachment_count },
            seq: row.seq,
            version: row.version,
            kind: MessageType::from_stored(row.kind),
            content_type: ContentType::from_stored(row.content_type),
            thread_id: row.thread_id,
            reply_to_message_id: row.reply_to_message_id,
            reply_to,
            forward_of: Forward::from_stored(row.forward_of.as_deref().filter(|_| !deleted))?,
            attachments: from_column(row.attachments.as_deref().filter(|_| !deleted))?.unwrap_or_default(),
            embeds: from_column(row.embeds.as_deref().filter(|_| !deleted))?.unwrap_or_default(),
            poll: Poll::from_stored(row.poll.as_deref().filter(|_| !deleted))?,
            stream,
            mentions,
            flags: row.flags,
            priority: Priority::from_stored(row.priority),
            ack_requested: row.acks.is_some() && !deleted,
            ack_count: row.acks.filter(|_| !deleted).unwrap_or_default(),
            acked: None,
            edited_at: row.edited_at.map(Timestamp),
            deleted_at: row.deleted_at.map(Timestamp),
            expires_at: row.expires_at.map(Timestamp),
            pinned: row.pinned_at.is_some() && !deleted,
            nonce: row.nonce.map(Nonce::from_stored),
            metadata: from_column(row.metadata.as_deref().filter(|_| !deleted))?,
            thread: ThreadState::from_stored(row.thread.as_deref())?,
            rev: row.rev,
        })
    }
}

impl From<&Message> for ReplyPreview {
    fn from(row: &Message) -> Self {
        let body = match row.deleted_at {
            Some(_) => String::new(),
            // The beginning of an encrypted text is of no use.
            None if row.content_type == ContentType::E2ee as i32 => String::new(),
            None => row.body.chars().take(PREVIEW_CHARS).collect(),
        };
        Self {
            id: row.id,
            seq: row.seq,
            author: AuthorInfo { id: row.author_id, username: row.author_username.as_str().into() },
            body,
            created_at: Timestamp(row.created_at),
            deleted_at: row.deleted_at.map(Timestamp),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stored_numbers_read_back_as_what_they_were_and_later_ones_as_the_default() {
        for kind in MessageType::ALL {
            assert_eq!(MessageType::from_stored(*kind as i32), *kind);
        }
        for content_type in ContentType::ALL {
            assert_eq!(ContentType::from_stored(*content_type as i32), *content_type);
        }
        assert_eq!(MessageType::from_stored(99), MessageType::Default);
        for priority in Priority::ALL {
            assert_eq!(Priority::from_stored(*priority as i32), *priority);
        }
        assert_eq!(ContentType::from_stored(-1), ContentType::Markdown);
        assert_eq!(Priority::from_stored(3), Priority::Normal);
    }

    #[test]
    fn names_on_the_wire_are_those_of_the_protocol() {
        assert_eq!(
            json!(MessageType::ALL),
            json!([
                "default",
                "reply",
                "poll",
                "bot",
                "webhook",
                "call",
                "e2ee",
                "forwarded",
                "system_join",
                "system_leave",
                "system_rename",
                "system_pin"
            ])
        );
        assert_eq!(json!(ContentType::ALL), json!(["markdown", "plain", "e2ee"]));
        assert_eq!(json!(Priority::ALL), json!(["normal", "important", "urgent"]));
    }

    #[test]
    fn a_tombstone_shows_nothing_of_what_it_was() {
        let row = Message {
            body: "secret".into(),
            mentions: Some(r#"{"channel":true}"#.into()),
            reactions: Some(r#"{"👍":{"count":1,"user_ids":[]}}"#.into()),
            pinned_at: Some(1),
            attachment_count: 2,
            attachments: Some(r#"["secret.png"]"#.into()),
            embeds: Some(r#"["secret"]"#.into()),
            ..Message::default()
        };
        let live = json!(row.clone().into_detail(None).unwrap());
        assert_eq!(
            (&live["body"], &live["pinned"], &live["mentions"]["channel"]),
            (&json!("secret"), &json!(true), &json!(true))
        );
        let preview = ReplyPreview::from(&Message { deleted_at: Some(1), ..row.clone() });
        assert_eq!((preview.body.as_str(), preview.deleted_at.is_some()), ("", true));
        let gone = Message { deleted_at: Some(1), ..row }.into_detail(Some(Box::new(preview)));
        let gone = json!(gone.unwrap());
        assert!(!gone.to_string().contains("secret") && !gone.to_string().contains("👍"));
        assert_eq!(
            (&gone["mentions"]["channel"], &gone["pinned"], &gone["attachment_count"]),
            (&json!(false), &json!(false), &json!(0))
        );
    }

    #[test]
    fn a_column_that_cannot_be_read_is_an_error_and_never_looks_like_nothing() {
        let damaged = || Some("{".into());
        let whole = Message::default();
        for row in [
            Message { mentions: damaged(), ..whole.clone() },
            Message { reactions: damaged(), ..whole.clone() },
            Message { forward_of: damaged(), ..whole.clone() },
            Message { attachments: damaged(), ..whole.clone() },
            Message { embeds: damaged(), ..whole.clone() },
            Message { poll: damaged(), ..whole.clone() },
            Message { metadata: damaged(), ..whole.clone() },
            Message { thread: damaged(), ..whole.clone() },
        ] {
            assert_eq!(row.clone().into_detail(None).unwrap_err().code(), "internal", "{row:?}");
        }
    }

    #[test]
    fn a_reply_quotes_the_first_two_hundred_characters() {
        let row = Message { body: "ä".repeat(300), ..Message::default() };
        assert_eq!(ReplyPreview::from(&row).body.chars().count(), PREVIEW_CHARS);
    }
}
