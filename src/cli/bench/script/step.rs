//! The steps of a scenario file: what a client does, one after the other.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::values::{Count, Name, Pause, Time};
use crate::cli::bench::plan::MESSAGE_BYTES_MAX;
use crate::client::RESERVED;

/// What a client does.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RawStep")]
pub(in crate::cli::bench) enum Step {
    /// Sends an event.
    Emit(Sending),
    /// Sends an event and waits for its ack.
    Ack(Sending),
    /// Enters a room, which the server acknowledges.
    Join(Joining),
    /// Waits for an event.
    Expect(Expecting),
    /// Does nothing.
    Wait(Pause),
}

/// An event to send.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli::bench) struct Sending {
    pub(in crate::cli::bench) event: String,
    pub(in crate::cli::bench) args: Vec<Arg>,
    /// The size of the text or of the bytes among the arguments.
    pub(in crate::cli::bench) bytes: usize,
    /// How long an ack may take; without it, as long as the command line says.
    pub(in crate::cli::bench) within: Option<Duration>,
}

/// An argument of an event.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli::bench) enum Arg {
    /// A value of the file, as JSON.
    Json(String),
    /// A text of the wanted size.
    Text,
    /// Binary of the wanted size.
    Bytes,
    /// The room that the client has entered last.
    Room,
    /// The number of the client.
    Client,
}

/// A room to enter.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli::bench) struct Joining {
    /// The event by which a client asks for it, with the name of the room as its argument.
    pub(in crate::cli::bench) event: String,
    pub(in crate::cli::bench) room: String,
    /// How many rooms there are: clients enter them in turn, as `room-0` and so on. `None` is one with the name itself.
    pub(in crate::cli::bench) rooms: Option<u64>,
    pub(in crate::cli::bench) within: Option<Duration>,
}

/// An event to wait for.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli::bench) struct Expecting {
    pub(in crate::cli::bench) event: String,
    /// Whether it must have the text in it that the client itself has sent last.
    pub(in crate::cli::bench) own: bool,
    pub(in crate::cli::bench) within: Option<Duration>,
}

/// A step as it is written: its kind is the one key of five that it has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    emit: Option<Name>,
    ack: Option<Name>,
    join: Option<Name>,
    expect: Option<Name>,
    wait: Option<Pause>,
    args: Option<Vec<toml::Value>>,
    bytes: Option<Count<MESSAGE_BYTES_MAX>>,
    event: Option<Name>,
    rooms: Option<Count<ROOMS_MAX>>,
    own: Option<bool>,
    within: Option<Time>,
}

impl TryFrom<RawStep> for Step {
    type Error = String;

    fn try_from(raw: RawStep) -> Result<Self, String> {
        let RawStep { emit, ack, join, expect, wait, args, bytes, event, rooms, own, within } = raw;
        let within = within.map(|time| time.0);
        let given: Vec<&str> = [
            ("args", args.is_some()),
            ("bytes", bytes.is_some()),
            ("event", event.is_some()),
            ("rooms", rooms.is_some()),
            ("own", own.is_some()),
            ("within", within.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_given)| is_given.then_some(name))
        .collect();
        match (emit, ack, join, expect, wait) {
            (Some(event), None, None, None, None) => {
                only(&given, "emit", &["args", "bytes"])?;
                Ok(Self::Emit(Sending::new(of_event(event)?, args, bytes, None)?))
            }
            (None, Some(event), None, None, None) => {
                only(&given, "ack", &["args", "bytes", "within"])?;
                Ok(Self::Ack(Sending::new(of_event(event)?, args, bytes, within)?))
            }
            (None, None, Some(Name(room)), None, None) => {
                only(&given, "join", &["event", "rooms", "within"])?;
                let event = event.map_or_else(|| Ok("join".to_owned()), of_event)?;
                Ok(Self::Join(Joining { event, room, rooms: rooms.map(|rooms| rooms.0), within }))
            }
            (None, None, None, Some(event), None) => {
                only(&given, "expect", &["own", "within"])?;
                let (event, own) = (of_event(event)?, own.unwrap_or_default());
                Ok(Self::Expect(Expecting { event, own, within }))
            }
            (None, None, None, None, Some(pause)) => {
                only(&given, "wait", &[])?;
                Ok(Self::Wait(pause))
            }
            _ => Err("a step has one of `emit`, `ack`, `join`, `expect` and `wait`".into()),
        }
    }
}

/// Refuses the names of events that no side sends: each round would fail at once, and be counted as lost.
fn of_event(Name(event): Name) -> Result<String, String> {
    match RESERVED.contains(&event.as_str()) {
        true => Err(format!("the event name {event:?} is reserved")),
        false => Ok(event),
    }
}

/// Refuses keys that a kind of step does not have.
fn only(given: &[&str], kind: &str, allowed: &[&str]) -> Result<(), String> {
    let Some(wrong) = given.iter().find(|name| !allowed.contains(name)) else { return Ok(()) };
    let allowed: Vec<String> = allowed.iter().map(|name| format!("`{name}`")).collect();
    Err(match allowed.is_empty() {
        true => format!("`{kind}` has no `{wrong}`"),
        false => format!("`{kind}` has no `{wrong}`; it may have {}", allowed.join(", ")),
    })
}

impl Sending {
    fn new(
        event: String,
        args: Option<Vec<toml::Value>>,
        bytes: Option<Count<MESSAGE_BYTES_MAX>>,
        within: Option<Duration>,
    ) -> Result<Self, String> {
        let args = match args {
            Some(args) if args.len() > ARGS_MAX => {
                return Err(format!("an event has at most {ARGS_MAX} `args`"));
            }
            Some(args) => args.into_iter().map(Arg::read).collect::<Result<_, _>>()?,
            None if bytes.is_some() => vec![Arg::Text],
            None => Vec::new(),
        };
        let sized = args.iter().filter(|arg| matches!(arg, Arg::Text | Arg::Bytes)).count() as u64;
        match bytes {
            None if sized > 0 => Err("`$text` and `$bytes` need a size: `bytes`".into()),
            Some(_) if sized == 0 => {
                Err("`bytes` is the size of `$text` or `$bytes`, and `args` has neither".into())
            }
            // A client has no room for more, and would count as lost what it cannot send.
            Some(bytes) if bytes.0.saturating_mul(sized) > MESSAGE_BYTES_MAX => Err(format!(
                "`$text` and `$bytes` of an event have at most {MESSAGE_BYTES_MAX} bytes together"
            )),
            bytes => {
                let bytes = bytes.and_then(|bytes| usize::try_from(bytes.0).ok()).unwrap_or_default();
                Ok(Self { event, args, bytes, within })
            }
        }
    }

    /// Whether it has a text by which the client knows it again.
    pub(super) fn is_recognisable(&self) -> bool {
        self.args.contains(&Arg::Text) && self.bytes >= TOKEN_BYTES
    }
}

impl Arg {
    fn read(value: toml::Value) -> Result<Self, String> {
        match value.as_str() {
            Some("$text") => Ok(Self::Text),
            Some("$bytes") => Ok(Self::Bytes),
            Some("$room") => Ok(Self::Room),
            Some("$client") => Ok(Self::Client),
            Some(text) if text.starts_with('$') => {
                Err(format!("{text:?} is none of `$text`, `$bytes`, `$room` and `$client`"))
            }
            _ => json(&value).map(|value| Self::Json(value.to_string())),
        }
    }
}

fn json(value: &toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => Value::from(text.as_str()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) if number.is_finite() => Value::from(*number),
        toml::Value::Float(_) => return Err("JSON has no such number".into()),
        toml::Value::Boolean(is_true) => Value::from(*is_true),
        toml::Value::Datetime(_) => return Err("JSON has no dates: write a text".into()),
        toml::Value::Array(values) => values.iter().map(json).collect::<Result<_, _>>()?,
        toml::Value::Table(table) => {
            let fields = table.iter().map(|(name, value)| Ok((name.clone(), json(value)?)));
            Value::Object(fields.collect::<Result<_, String>>()?)
        }
    })
}

/// The maximum number of rooms of one step.
const ROOMS_MAX: u64 = 1_000_000;

/// The maximum number of arguments of an event in a scenario file.
const ARGS_MAX: usize = 16;

/// The size of the smallest text by which a client knows what it has sent.
pub(super) const TOKEN_BYTES: usize = 48;
