//! A message as `imks chat` knows it, read from events and answers.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::cli::terminal::text;

/// A message of a channel.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) channel_id: String,
    pub(super) author: Author,
    pub(super) body: String,
    pub(super) created_at: String,
    pub(super) seq: i64,
    pub(super) thread_id: Option<String>,
    pub(super) flags: i64,
    pub(super) edited_at: Option<String>,
    pub(super) deleted_at: Option<String>,
    pub(super) nonce: Option<String>,
    pub(super) reactions: BTreeMap<String, Reaction>,
    pub(super) attachments: Vec<Attachment>,
    pub(super) thread: Option<Thread>,
}

/// Who wrote a message.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Author {
    pub(super) id: String,
    pub(super) username: String,
}

/// How often a reaction was given.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Reaction {
    pub(super) count: i64,
}

/// A file of a message.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Attachment {
    pub(super) filename: String,
}

/// The state of the thread of a message.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Thread {
    pub(super) reply_count: i64,
}

impl Message {
    /// Reads a message. `None` if the value is none.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let message = Self::deserialize(value).ok()?;
        (!message.id.is_empty() && message.seq > 0).then_some(message)
    }

    /// Whether it stands in the channel itself, and not only in a thread.
    pub(super) fn is_in_channel(&self) -> bool {
        self.thread_id.is_none() || self.flags & ALSO_IN_CHANNEL != 0
    }

    /// Returns the day, in UTC.
    pub(super) fn day(&self) -> String {
        text::line(self.created_at.get(..10).unwrap_or("????-??-??"))
    }

    /// Returns hour and minute, in UTC.
    pub(super) fn time(&self) -> String {
        text::line(self.created_at.get(11..16).unwrap_or("??:??"))
    }

    /// Returns the name of the author.
    pub(super) fn name(&self) -> String {
        text::line(&self.author.username)
    }

    /// Returns the text as it is shown, its line breaks included; what is not text is named.
    pub(super) fn shown(&self) -> String {
        if self.deleted_at.is_some() {
            return "(deleted)".into();
        }
        let mut shown = self.body.clone();
        for attachment in &self.attachments {
            shown.push_str(&format!(" [{}]", attachment.filename));
        }
        if self.edited_at.is_some() {
            shown.push_str(" (edited)");
        }
        shown
    }

    /// Returns what follows the text: reactions, and the number of replies.
    pub(super) fn addition(&self) -> Option<String> {
        let mut parts: Vec<String> = self
            .reactions
            .iter()
            .filter(|(_, reaction)| reaction.count > 0)
            .map(|(emoji, reaction)| format!("{} {}", text::line(emoji), reaction.count))
            .collect();
        if let Some(thread) = self.thread.as_ref().filter(|thread| thread.reply_count > 0) {
            let word = if thread.reply_count == 1 { "reply" } else { "replies" };
            parts.push(format!("{} {word}: /thread #{}", thread.reply_count, self.seq));
        }
        (!parts.is_empty()).then(|| parts.join("   "))
    }
}

/// The flag of a reply in a thread that also stands in the channel.
const ALSO_IN_CHANNEL: i64 = 8;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_read_with_what_is_missing_left_out() {
        let value = json!({ "id": "m", "seq": 3, "body": "hi\u{1b}[2J", "author": { "id": "u", "username": "ann" },
            "created_at": "2026-06-11T10:02:00.000Z", "reactions": { "👍": { "count": 2, "user_ids": [] } },
            "thread": { "reply_count": 1 }, "attachments": [{ "filename": "plan.pdf" }] });
        let message = Message::read(&value).unwrap();
        assert_eq!((message.day(), message.time()), ("2026-06-11".into(), "10:02".into()));
        assert_eq!(message.addition().unwrap(), "👍 2   1 reply: /thread #3");
        assert!(message.shown().ends_with("[plan.pdf]"));
        assert_eq!(Message::read(&json!({ "id": "m" })), None);
        assert_eq!(Message::read(&json!([1])), None);
    }
}
