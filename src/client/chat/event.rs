//! What happens in a channel, and a list of messages that is kept up to date by it. No I/O.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::message::{Message, TextStream};

/// A place in a channel: everything up to it is known. A program that keeps it goes on from there after its restart, with
/// [`Reading::since`](crate::client::chat::Reading::since).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// The number of the newest message.
    pub seq: i64,
    /// The number of the newest change.
    pub rev: i64,
    /// The id of the newest message; `None` before the first one.
    pub id: Option<Uuid>,
}

/// Something that happened in a channel.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ChannelEvent {
    /// The next message. Its `seq` is one more than that of the last one, unless `Gap`, `Removed` or `Reset` came between.
    /// One that was deleted meanwhile has `deleted_at` and no text.
    Message(Box<Message>),
    /// A message has changed that was told before.
    Updated {
        /// The id of the message.
        id: Uuid,
        /// The number of the change.
        rev: i64,
        /// What it was: `edit`, `reaction`, `pin`, `poll`, `ack`, `thread`, `stream`, `embeds`, `author`, or `sync` for any
        /// changes during an absence.
        kind: Box<str>,
        /// What is new.
        change: Change,
        /// `Some` where the change lacks what is the reader's own (`me` of reactions, `my_votes` of a poll), which stays as
        /// it was, except for these reactions, which the reader has added (true) or taken back (false).
        own: Option<BTreeMap<String, bool>>,
    },
    /// A message was deleted that was told before. A tombstone remains.
    Deleted {
        /// The id of the message.
        id: Uuid,
        /// Its number.
        seq: i64,
        /// The number of the change.
        rev: i64,
        /// When it was deleted, as RFC 3339.
        deleted_at: String,
        /// The tombstone, where it is known, such as after an absence.
        message: Option<Box<Message>>,
    },
    /// The next piece of a streamed message, for the end of its text.
    Append {
        /// The id of the message.
        id: Uuid,
        /// The number of characters before it.
        offset: u64,
        /// The piece.
        text: String,
    },
    /// Messages are left out, as [`Reading::skip_gaps`](crate::client::chat::Reading::skip_gaps) asks for: those with
    /// numbers between these two. The history has them.
    Gap {
        /// The number of the last message before the gap.
        after: i64,
        /// The number of the first one after it.
        before: i64,
    },
    /// Messages are gone for good, because the channel keeps them only so long.
    Removed {
        /// The number of the last of them.
        until_seq: i64,
        /// Its id, where it is known.
        until_id: Option<Uuid>,
    },
    /// The changes of messages that were told before cannot be told one by one, because they were too many or too long ago.
    /// Forget all messages: these are the newest of them, as they are now. `Message` goes on after them.
    Reset {
        /// The messages, oldest first.
        messages: Vec<Message>,
    },
}

/// What is new of a message.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// The message as it is now. Fields that it lacks stay as they were.
    Message(Box<Message>),
    /// Fields among [`Message::more`].
    Fields(Map<String, Value>),
    /// The text of a streamed message so far.
    Text {
        /// The text.
        body: String,
        /// How far it has come.
        stream: TextStream,
    },
}

impl ChannelEvent {
    /// Changes a list of messages, oldest first, as the event says, for programs that show it. A `Deleted` also takes the
    /// text from the messages of the list that quote the deleted one. A `Gap` changes nothing: whoever shows one keeps the
    /// event.
    pub fn apply(&self, messages: &mut Vec<Message>) {
        match self {
            Self::Message(message) => messages.push((**message).clone()),
            Self::Updated { id, change, own, .. } => {
                if let Some(message) = find(messages, *id) {
                    update(message, change, own.as_ref());
                }
            }
            Self::Deleted { id, deleted_at, message, .. } => {
                if let Some(known) = find(messages, *id) {
                    match message {
                        Some(tombstone) => known.clone_from(tombstone),
                        None => bury(known, deleted_at),
                    }
                }
                messages.iter_mut().for_each(|message| unquote(message, *id, deleted_at));
            }
            Self::Append { id, offset, text } => {
                if let Some(message) = find(messages, *id) {
                    message.body.push_str(text);
                    message.stream = Some(TextStream::active(offset.saturating_add(characters(text))));
                }
            }
            Self::Gap { .. } => {}
            Self::Removed { until_seq, .. } => messages.retain(|message| message.seq > *until_seq),
            Self::Reset { messages: now } => messages.clone_from(now),
        }
    }
}

/// Returns the number of characters of a text as the server counts them.
pub(super) fn characters(text: &str) -> u64 {
    text.chars().count() as u64
}

/// Returns a message of a list. What changes is mostly new.
fn find(messages: &mut [Message], id: Uuid) -> Option<&mut Message> {
    messages.iter_mut().rev().find(|message| message.id == id)
}

fn update(message: &mut Message, change: &Change, own: Option<&BTreeMap<String, bool>>) {
    let fields = match change {
        Change::Text { body, stream } => {
            (message.body, message.stream) = (body.clone(), Some(stream.clone()));
            return;
        }
        Change::Fields(fields) => fields,
        Change::Message(now) => {
            let more = std::mem::take(&mut message.more);
            *message = Message { more, ..(**now).clone() };
            &now.more
        }
    };
    for (name, value) in fields {
        let mut value = value.clone();
        if let Some(own) = own {
            keep_own(name, &mut value, message.more.get(name).unwrap_or(&Value::Null), own);
        }
        message.more.insert(name.clone(), value);
    }
}

/// Puts what is the reader's own into a field of a change that everybody got.
fn keep_own(name: &str, value: &mut Value, before: &Value, own: &BTreeMap<String, bool>) {
    match (name, value) {
        ("reactions", Value::Object(reactions)) => {
            for (emoji, total) in reactions {
                let was = || before[emoji]["me"].as_bool().unwrap_or(false);
                if own.get(emoji).copied().unwrap_or_else(was) {
                    set(total, "me", Value::Bool(true));
                }
            }
        }
        ("poll", poll) => {
            if let Some(votes) = before.get("my_votes") {
                set(poll, "my_votes", votes.clone());
            }
        }
        _ => {}
    }
}

fn set(object: &mut Value, field: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(field.into(), value);
    }
}

/// Leaves of a message what the server keeps of a deleted one.
fn bury(message: &mut Message, deleted_at: &str) {
    message.body.clear();
    message.stream = None;
    message.deleted_at = Some(deleted_at.into());
    message.more.retain(|name, _| !matches!(&**name, "metadata" | "acked"));
    let Value::Object(empty) = json!({
        "reactions": {}, "attachments": [], "attachment_count": 0, "embeds": [], "poll": null, "forward_of": null,
        "mentions": { "users": [], "roles": [], "channel": false, "here": false },
        "ack_requested": false, "ack_count": 0, "pinned": false, "expires_at": null,
    }) else {
        return;
    };
    message.more.extend(empty);
}

/// Takes the text of a deleted message from one that quotes it.
fn unquote(message: &mut Message, id: Uuid, deleted_at: &str) {
    let id = id.to_string();
    for name in ["reply_to", "forward_of"] {
        let Some(quote) = message.more.get_mut(name).filter(|quote| quote["id"] == id) else { continue };
        set(quote, "body", "".into());
        set(quote, "deleted_at", deleted_at.into());
    }
}
