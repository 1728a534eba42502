//! What the server says about channels, as it stands in its events and answers.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::event::Change;
use super::message::{Author, ChannelInfo, Message};

/// A live event of a channel.
#[derive(Debug, Clone)]
pub(super) enum Live {
    Message(Box<Message>),
    Change(Numbered),
    Append { id: Uuid, offset: u64, text: String },
    Horizon { seq: i64, id: Option<Uuid> },
}

/// A change of a message with its number.
#[derive(Debug, Clone)]
pub(super) struct Numbered {
    pub(super) rev: i64,
    pub(super) id: Uuid,
    pub(super) changed: Changed,
}

/// What happened to a message.
#[derive(Debug, Clone)]
pub(super) enum Changed {
    Updated { kind: Box<str>, change: Change, own: Option<BTreeMap<String, bool>> },
    Deleted { seq: i64, deleted_at: String, message: Option<Box<Message>> },
}

impl Changed {
    /// Returns the change that an answer tells by the message as it is now.
    pub(super) fn by_answer(message: Message) -> Self {
        Self::to(message, "sync".into(), None)
    }

    fn to(message: Message, kind: Box<str>, own: Option<BTreeMap<String, bool>>) -> Self {
        match &message.deleted_at {
            Some(deleted_at) => Self::Deleted {
                seq: message.seq,
                deleted_at: deleted_at.clone(),
                message: Some(Box::new(message)),
            },
            None => Self::Updated { kind, change: Change::Message(Box::new(message)), own },
        }
    }

    /// Creates a change of one field, which everybody gets as it is.
    fn field(kind: &str, name: &str, value: Value) -> Self {
        let change = Change::Fields(Map::from_iter([(name.to_owned(), value)]));
        Self::Updated { kind: kind.into(), change, own: Some(BTreeMap::new()) }
    }
}

/// An event of the server that a channel has, before it is known who reads it.
pub(super) trait OfChannel {
    fn channel(&self) -> Uuid;

    /// Returns what it tells a reader.
    fn told_to(self, reader: Option<Uuid>) -> Live;
}

impl OfChannel for Message {
    fn channel(&self) -> Uuid {
        self.channel_id
    }

    fn told_to(self, _: Option<Uuid>) -> Live {
        Live::Message(Box::new(self))
    }
}

/// `message:updated`.
#[derive(Deserialize)]
pub(super) struct Updated {
    rev: i64,
    kind: Box<str>,
    #[serde(flatten)]
    message: Message,
}

impl OfChannel for Updated {
    fn channel(&self) -> Uuid {
        self.message.channel_id
    }

    fn told_to(mut self, _: Option<Uuid>) -> Live {
        self.message.more.remove("event_id");
        let id = self.message.id;
        let changed = Changed::to(self.message, self.kind, Some(BTreeMap::new()));
        Live::Change(Numbered { rev: self.rev, id, changed })
    }
}

/// `message:deleted`.
#[derive(Deserialize)]
pub(super) struct Deleted {
    channel_id: Uuid,
    id: Uuid,
    seq: i64,
    rev: i64,
    deleted_at: String,
}

impl OfChannel for Deleted {
    fn channel(&self) -> Uuid {
        self.channel_id
    }

    fn told_to(self, _: Option<Uuid>) -> Live {
        let Self { id, seq, rev, deleted_at, .. } = self;
        Live::Change(Numbered { rev, id, changed: Changed::Deleted { seq, deleted_at, message: None } })
    }
}

/// `message:append`.
#[derive(Deserialize)]
pub(super) struct Append {
    channel_id: Uuid,
    id: Uuid,
    offset: u64,
    text: String,
}

impl OfChannel for Append {
    fn channel(&self) -> Uuid {
        self.channel_id
    }

    fn told_to(self, _: Option<Uuid>) -> Live {
        Live::Append { id: self.id, offset: self.offset, text: self.text }
    }
}

/// `channel:horizon`.
#[derive(Deserialize)]
pub(super) struct Horizon {
    channel_id: Uuid,
    horizon_seq: i64,
    horizon_id: Option<Uuid>,
}

impl OfChannel for Horizon {
    fn channel(&self) -> Uuid {
        self.channel_id
    }

    fn told_to(self, _: Option<Uuid>) -> Live {
        Live::Horizon { seq: self.horizon_seq, id: self.horizon_id }
    }
}

/// `reaction:updated`.
#[derive(Deserialize)]
pub(super) struct Reactions {
    channel_id: Uuid,
    message_id: Uuid,
    rev: i64,
    reactions: Value,
    #[serde(flatten)]
    only: Option<Reaction>,
    changes: Option<Vec<Reaction>>,
}

/// A reaction that somebody has added or taken back.
#[derive(Deserialize)]
struct Reaction {
    emoji: String,
    action: Box<str>,
    user_id: Uuid,
}

impl OfChannel for Reactions {
    fn channel(&self) -> Uuid {
        self.channel_id
    }

    fn told_to(self, reader: Option<Uuid>) -> Live {
        let changes = self.changes.unwrap_or_else(|| self.only.into_iter().collect());
        let mine = changes.into_iter().filter(|change| Some(change.user_id) == reader);
        let own = mine.map(|change| (change.emoji, &*change.action == "add")).collect();
        let change = Change::Fields(Map::from_iter([("reactions".to_owned(), self.reactions)]));
        let changed = Changed::Updated { kind: "reaction".into(), change, own: Some(own) };
        Live::Change(Numbered { rev: self.rev, id: self.message_id, changed })
    }
}

/// `pin:updated` and `poll:updated`: one field of a message.
#[derive(Deserialize)]
pub(super) struct Field {
    channel_id: Uuid,
    message_id: Uuid,
    rev: i64,
    pinned: Option<bool>,
    #[serde(default)]
    poll: Value,
}

impl OfChannel for Field {
    fn channel(&self) -> Uuid {
        self.channel_id
    }

    fn told_to(self, _: Option<Uuid>) -> Live {
        let changed = match self.pinned {
            Some(pinned) => Changed::field("pin", "pinned", pinned.into()),
            None => Changed::field("poll", "poll", self.poll),
        };
        Live::Change(Numbered { rev: self.rev, id: self.message_id, changed })
    }
}

/// `ack:updated`.
#[derive(Deserialize)]
pub(super) struct Acks {
    channel_id: Uuid,
    message_id: Uuid,
    rev: i64,
    ack_count: i64,
    user_ids: Vec<Uuid>,
}

impl OfChannel for Acks {
    fn channel(&self) -> Uuid {
        self.channel_id
    }

    fn told_to(self, reader: Option<Uuid>) -> Live {
        let mut changed = Changed::field("ack", "ack_count", self.ack_count.into());
        let is_mine = self.user_ids.iter().any(|user| Some(*user) == reader);
        if let (true, Changed::Updated { change: Change::Fields(fields), .. }) = (is_mine, &mut changed) {
            fields.insert("acked".into(), true.into());
        }
        Live::Change(Numbered { rev: self.rev, id: self.message_id, changed })
    }
}

/// `thread:updated`.
#[derive(Deserialize)]
pub(super) struct Thread {
    channel_id: Uuid,
    thread_id: Uuid,
    rev: i64,
    #[serde(flatten)]
    state: Map<String, Value>,
}

impl OfChannel for Thread {
    fn channel(&self) -> Uuid {
        self.channel_id
    }

    fn told_to(mut self, _: Option<Uuid>) -> Live {
        self.state.remove("event_id");
        let changed = Changed::field("thread", "thread", self.state.into());
        Live::Change(Numbered { rev: self.rev, id: self.thread_id, changed })
    }
}

/// `session:ready`, and `session:channels` without a user.
#[derive(Deserialize)]
pub(super) struct Session {
    pub(super) user: Option<Author>,
    #[serde(default)]
    pub(super) channels: Vec<ChannelInfo>,
    /// Whether the channels are only those that have changed.
    #[serde(default)]
    pub(super) resumed: bool,
}

/// `sync:required`.
#[derive(Deserialize)]
pub(super) struct SyncRequired {
    pub(super) channel_ids: Vec<Uuid>,
}

/// `channel:activity`.
#[derive(Deserialize)]
pub(super) struct Activity {
    pub(super) channels: Vec<Head>,
}

/// `channel:left`.
#[derive(Deserialize)]
pub(super) struct Left {
    pub(super) channel_id: Uuid,
    #[serde(default)]
    pub(super) reason: String,
    pub(super) message: Option<String>,
}

/// How far a channel is, or why it cannot be read.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Head {
    pub(super) channel_id: Uuid,
    #[serde(default)]
    pub(super) last_seq: i64,
    #[serde(default)]
    pub(super) rev: i64,
    pub(super) last_message_id: Option<Uuid>,
    #[serde(default)]
    pub(super) horizon_seq: i64,
    pub(super) error: Option<Value>,
}

/// The answer to `channel:subscribe`.
#[derive(Debug, Deserialize)]
pub(super) struct Subscribed {
    pub(super) channels: Vec<Head>,
}

/// The answer to `sync`.
#[derive(Debug, Deserialize)]
pub(super) struct SyncAnswer {
    pub(super) channels: Vec<ChannelSync>,
    #[serde(default)]
    pub(super) removed_channels: Vec<Uuid>,
}

/// One channel of the answer to `sync`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ChannelSync {
    pub(super) channel_id: Uuid,
    pub(super) messages: Vec<Message>,
    pub(super) changes: Vec<ChangedMessage>,
    pub(super) seq: i64,
    pub(super) rev: i64,
    pub(super) truncated: bool,
    pub(super) reset: bool,
    #[serde(default)]
    pub(super) horizon_seq: i64,
    pub(super) horizon_id: Option<Uuid>,
}

/// A message that was changed, as it is now.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ChangedMessage {
    pub(super) rev: i64,
    pub(super) message: Message,
}

/// The answer to `message:get`.
#[derive(Debug, Deserialize)]
pub(super) struct Got {
    pub(super) messages: Vec<Message>,
}
