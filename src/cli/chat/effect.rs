//! What a conversation wants done.

use serde_json::Value;

use super::message::Message;

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    /// Ask the server, and give its answer back with the purpose.
    Ask { purpose: Purpose, event: &'static str, payload: Value },
    /// Send a message by the outbox, and give the outcome back.
    Send { channel: String, nonce: String, payload: Value },
    /// Tell the server something that may be lost.
    Tell { event: &'static str, payload: Value },
    /// Print something, where there is no screen.
    Print(Printed),
    /// A message was refused for good.
    Failed,
    /// Show numbers about the connection.
    Stats,
    /// Show which transport carries the connection.
    Transport,
    /// End.
    Quit,
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
}

impl Purpose {
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
