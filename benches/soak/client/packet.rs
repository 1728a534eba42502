//! Packets of Socket.IO as a client writes and reads them, inside packets of Engine.IO.

use serde_json::{Value, json};

use super::Outcome;

/// One packet of Engine.IO: a text with its type in front, or a binary message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Text(String),
    Binary(Vec<u8>),
}

/// How packets of Socket.IO are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parser {
    Default,
    MsgPack,
}

/// Types of Socket.IO packets.
pub const CONNECT: u64 = 0;
pub const DISCONNECT: u64 = 1;
pub const EVENT: u64 = 2;
pub const ACK: u64 = 3;
pub const CONNECT_ERROR: u64 = 4;

/// What a server said.
#[derive(Debug)]
pub struct Heard {
    pub kind: u64,
    pub data: Value,
}

impl Parser {
    pub fn write(self, kind: u64, namespace: &str, id: Option<u64>, data: Option<Value>) -> Outcome<Packet> {
        if self == Self::MsgPack {
            let mut packet = json!({ "type": kind, "nsp": namespace });
            let more = [("id", id.map(Value::from)), ("data", data)];
            more.into_iter().filter_map(|(name, value)| Some((name, value?))).for_each(|(name, value)| {
                packet[name] = value;
            });
            return Ok(Packet::Binary(rmp_serde::to_vec_named(&packet)?));
        }
        let namespace = if namespace == "/" { String::new() } else { format!("{namespace},") };
        let [id, data] =
            [id.map(|it| it.to_string()), data.map(|it| it.to_string())].map(Option::unwrap_or_default);
        Ok(Packet::Text(format!("4{kind}{namespace}{id}{data}")))
    }

    pub fn read(self, packet: &Packet) -> Outcome<Heard> {
        match packet {
            Packet::Text(text) => {
                read_text(text).ok_or_else(|| format!("no packet of Socket.IO: {text}").into())
            }
            Packet::Binary(data) => {
                let mut packet: Value = rmp_serde::from_slice(data)?;
                let kind = packet["type"].as_u64().ok_or("no type")?;
                Ok(Heard { kind, data: packet["data"].take() })
            }
        }
    }
}

fn read_text(text: &str) -> Option<Heard> {
    let text = text.strip_prefix('4')?;
    let kind = text.chars().next()?.to_digit(10)?;
    let rest = &text[1..];
    let rest = if rest.starts_with('/') { rest.split_once(',').map_or("", |(_, rest)| rest) } else { rest };
    let data = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let data = if data.is_empty() { Value::Null } else { serde_json::from_str(data).ok()? };
    Some(Heard { kind: kind.into(), data })
}
