//! What a conversation wants done.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::command::Command;
use super::message::Message;

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    /// Ask the server, and give its answer back with the purpose.
    Ask { purpose: Purpose, event: &'static str, payload: Value },
    /// Send a message by the outbox, and give the outcome back.
    Send { channel: String, nonce: String, payload: Value },
    /// Keep a message in the outbox before the server has said which channel it is for.
    Keep(Kept),
    /// Keep it no longer: it will not be sent.
    Forget { nonce: String },
    /// Tell the server something that may be lost.
    Tell { event: &'static str, payload: Value },
    /// Print something, where there is no screen.
    Print(Printed),
    /// A message was refused for good, or, without a screen, a command has failed.
    Failed,
    /// Show numbers about the connection.
    Stats,
    /// Show which transport carries the connection.
    Transport,
    /// End.
    Quit,
}

/// A message that the outbox keeps until the server has said which channels there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The name or the id of the channel.
    pub(super) channel: String,
    pub(super) body: String,
    /// The message whose thread it stands in.
    #[serde(default)]
    pub(super) thread: Option<String>,
    pub(super) nonce: String,
}

/// A command about a message that is not known here, and is looked for at the server, page by page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Search {
    pub(super) channel: String,
    pub(super) command: Command,
    /// The nonce of the message that the command sends, if it sends one.
    pub(super) nonce: String,
    /// How many pages have been asked for.
    pub(super) pages: usize,
}

/// What a question to the server was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Earlier messages. `rev` is the number up to which changes were known when they were asked for.
    History { channel: String, rev: i64 },
    /// The replies to a message.
    Thread { channel: String, seq: i64 },
    /// What was missed in these channels.
    Sync { channels: Vec<String> },
    /// A subscription.
    Join { channel: String },
    /// The end of a subscription.
    Leave { channel: String },
    /// Who is online; whether the person asked for it.
    Who { channel: String, is_asked: bool },
    /// The time of an answer, which fills in `now_ms`.
    Ping { started_ms: u64, now_ms: u64 },
    /// A change whose result comes as an event.
    Change,
    /// A message that a command is about.
    Find(Search),
}

impl Purpose {
    /// Whether the person wants it, and not the program.
    pub(super) fn is_of_person(&self) -> bool {
        !matches!(self, Self::Sync { .. } | Self::Who { is_asked: false, .. })
    }

    /// Returns a word for people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::History { .. } => "history",
            Self::Thread { .. } => "thread",
            Self::Sync { .. } => "sync",
            Self::Join { .. } => "join",
            Self::Leave { .. } => "leave",
            Self::Who { .. } => "who",
            Self::Ping { .. } => "ping",
            Self::Change => "not changed",
            Self::Find(_) => "the message was not looked up",
        }
    }
}

/// Something that is printed where there is no screen.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Printed {
    /// A new message, or an earlier one that was asked for.
    Message { channel: String, message: Box<Message> },
    /// A message that was changed.
    Edited { channel: String, message: Box<Message> },
    /// A line of the program itself.
    Notice(String),
    /// The state of the connection.
    Link(String),
}
