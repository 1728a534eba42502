//! The protocol of the demonstration in `examples/commands`: commands as text from a client, typed messages to it.

#![allow(missing_docs, reason = "the names of the fields say it")]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What the server tells a client, as the only argument of the event `message`: an object whose field `type` is `chat`,
/// `join`, `leave` or `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// Somebody said something: in a room, or to everybody if there is none.
    Chat {
        user: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        room: Option<String>,
        message: String,
        /// Milliseconds since 1970.
        timestamp: u64,
    },
    /// Somebody entered a room.
    Join { user: String, room: String },
    /// Somebody left a room.
    Leave { user: String, room: String },
    /// The client's own command was not carried out.
    Error { code: String, message: String },
}

impl fmt::Display for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chat { user, room: Some(room), message, .. } => {
                write!(formatter, "[{room}] {user}: {message}")
            }
            Self::Chat { user, room: None, message, .. } => write!(formatter, "{user}: {message}"),
            Self::Join { user, room } => write!(formatter, "[{room}] {user} is here"),
            Self::Leave { user, room } => write!(formatter, "[{room}] {user} is gone"),
            Self::Error { code, message } => write!(formatter, "{code}: {message}"),
        }
    }
}

/// What a client asks for, as the only argument of the event `message`: a line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `JOIN room`
    Join { room: String },
    /// `LEAVE room`
    Leave { room: String },
    /// `SEND room text`: to those in a room, which the sender is in too.
    Send { room: String, text: String },
    /// `BROADCAST text`: to everybody.
    Broadcast { text: String },
}

impl FromStr for Command {
    type Err = CommandError;

    fn from_str(line: &str) -> Result<Self, CommandError> {
        let (word, rest) = split(line);
        let needs = |name: &'static str, value: &str| match value {
            "" => Err(CommandError::MissingArgument(name)),
            value => Ok(value.to_owned()),
        };
        match word.to_ascii_uppercase().as_str() {
            "JOIN" => Ok(Self::Join { room: needs("room", split(rest).0)? }),
            "LEAVE" => Ok(Self::Leave { room: needs("room", split(rest).0)? }),
            "SEND" => {
                let (room, text) = split(rest);
                Ok(Self::Send { room: needs("room", room)?, text: needs("text", text)? })
            }
            "BROADCAST" => Ok(Self::Broadcast { text: needs("text", rest)? }),
            _ => Err(CommandError::UnknownCommand(word.chars().take(WORD_CHARS_MAX).collect())),
        }
    }
}

/// Why a command is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("{0:?} is no command: JOIN room, LEAVE room, SEND room text, BROADCAST text")]
    UnknownCommand(String),
    #[error("the {0} is missing")]
    MissingArgument(&'static str),
    #[error("join {0:?} first")]
    NotInRoom(String),
}

impl CommandError {
    /// Returns the text for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownCommand(_) => "unknown_command",
            Self::MissingArgument(_) => "missing_argument",
            Self::NotInRoom(_) => "not_in_room",
        }
    }
}

impl From<CommandError> for Message {
    fn from(error: CommandError) -> Self {
        Self::Error { code: error.code().into(), message: error.to_string() }
    }
}

/// Splits the first word off.
fn split(line: &str) -> (&str, &str) {
    let line = line.trim();
    line.split_once(char::is_whitespace).map_or((line, ""), |(word, rest)| (word, rest.trim_start()))
}

/// The maximum number of characters of an unknown command that its answer repeats.
const WORD_CHARS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_word_a_room_and_the_rest_of_the_line() {
        let lobby = || "lobby".to_owned();
        let text = || "hello  there".to_owned();
        assert_eq!("JOIN lobby".parse(), Ok(Command::Join { room: lobby() }));
        assert_eq!(" leave lobby ".parse(), Ok(Command::Leave { room: lobby() }));
        assert_eq!("SEND lobby hello  there".parse(), Ok(Command::Send { room: lobby(), text: text() }));
        assert_eq!("BROADCAST hello  there".parse(), Ok(Command::Broadcast { text: text() }));
    }

    #[test]
    fn what_is_no_command_or_lacks_something_says_so() {
        for (line, code) in [
            ("", "unknown_command"),
            ("DANCE lobby", "unknown_command"),
            ("JOIN", "missing_argument"),
            ("LEAVE  ", "missing_argument"),
            ("SEND", "missing_argument"),
            ("SEND lobby", "missing_argument"),
            ("BROADCAST", "missing_argument"),
        ] {
            assert_eq!(line.parse::<Command>().map_err(|error| error.code()), Err(code), "{line:?}");
        }
    }

    #[test]
    fn a_message_is_an_object_with_its_type() {
        let chat = r#"{"type":"chat","user":"anna","message":"hi","timestamp":7}"#;
        let message: Message = serde_json::from_str(chat).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), chat);
        assert_eq!(message.to_string(), "anna: hi");
        assert!(serde_json::from_str::<Message>(r#"{"type":"dance"}"#).is_err());
    }
}
