//! The messages of Node.js servers as bytes (npm `@socket.io/redis-adapter` 8, `createAdapter`, and
//! `@socket.io/redis-emitter` 5): broadcasts, requests and responses, in JSON or msgpack. What arrives is untrusted.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::super::family::{MESSAGE_BYTES_MAX, unreadable};
use super::rooms::{Room, TARGETS_MAX, json_rooms, names};
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::msgpack::servers::{Reader, Token, reader};
use crate::socket::codec::packet::{Limits, MAIN_NAMESPACE};
use crate::socket::namespace::cluster_link::Target;

/// The selection of sockets, and how they get an event.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
pub(super) struct Options<'a> {
    #[serde(borrow, default, deserialize_with = "json_rooms")]
    pub(super) rooms: Vec<Room<'a>>,
    #[serde(borrow, default, deserialize_with = "json_rooms")]
    pub(super) except: Vec<Room<'a>>,
    #[serde(skip)]
    pub(super) flags: Flags,
}

/// How sockets get an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) volatile: bool,
    pub(super) compress: bool,
    /// How long acks are awaited, in milliseconds.
    pub(super) timeout_millis: Option<u64>,
}

impl Default for Flags {
    fn default() -> Self {
        Self { volatile: false, compress: true, timeout_millis: None }
    }
}

impl<'a> Options<'a> {
    pub(super) fn of(target: &Target<'a>) -> Self {
        let rooms = |names: &[&'a str]| names.iter().map(|name| Room(Cow::Borrowed(*name))).collect();
        Self { rooms: rooms(&target.rooms), except: rooms(&target.except), flags: Flags::default() }
    }

    /// Returns the selection.
    pub(super) fn target(&self) -> Target<'_> {
        Target { rooms: names(&self.rooms), except: names(&self.except) }
    }
}

/// An event in msgpack, not converted yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Event<'a> {
    /// The array of the name and the arguments.
    pub(super) data: &'a [u8],
    namespace: Option<&'a str>,
}

impl Event<'_> {
    pub(super) fn namespace(&self) -> &str {
        self.namespace.unwrap_or(MAIN_NAMESPACE)
    }
}

/// What arrives on the channels of broadcasts and of requests.
#[derive(Debug)]
pub(super) enum Incoming<'a> {
    Broadcast { uid: &'a str, event: Event<'a>, options: Options<'a> },
    Request { uid: Option<Cow<'a, str>>, request: Request<'a> },
}

/// A request of another node.
#[derive(Debug)]
pub(super) enum Request<'a> {
    Sockets {
        id: Cow<'a, str>,
        rooms: Vec<Room<'a>>,
    },
    AllRooms {
        id: Cow<'a, str>,
    },
    Join {
        options: Options<'a>,
        rooms: Vec<Room<'a>>,
    },
    Leave {
        options: Options<'a>,
        rooms: Vec<Room<'a>>,
    },
    Disconnect {
        options: Options<'a>,
        close: bool,
    },
    /// The form of old versions of a change, which concerns one socket and wants a response.
    One {
        id: Option<Cow<'a, str>>,
        sid: Cow<'a, str>,
        change: OneChange<'a>,
    },
    Fetch {
        id: Cow<'a, str>,
        options: Options<'a>,
    },
    /// A server event; `data` is an array of its name and its arguments.
    ServerEvent {
        id: Option<Cow<'a, str>>,
        data: &'a RawValue,
    },
    BroadcastWithAck {
        id: &'a str,
        event: Event<'a>,
        options: Options<'a>,
    },
}

/// A change of one socket.
#[derive(Debug)]
pub(super) enum OneChange<'a> {
    Join(Room<'a>),
    Leave(Room<'a>),
    Disconnect { close: bool },
}

/// A response of another node to the request with this id.
#[derive(Debug)]
pub(super) struct Response<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) content: Content<'a>,
}

/// What a response says.
#[derive(Debug)]
pub(super) enum Content<'a> {
    /// The list of sockets: ids, or their descriptions.
    Sockets(&'a RawValue),
    /// The list of rooms.
    Rooms(&'a RawValue),
    /// The answer to a server event. `None` if there is no value.
    Answer(Option<&'a RawValue>),
    Clients(u64),
    /// The first argument of an ack, in msgpack.
    Ack(&'a [u8]),
    /// Something that this node never asks for.
    Other,
}

/// The types of requests and responses.
pub(super) mod kind {
    pub(in super::super) const SOCKETS: u8 = 0;
    pub(in super::super) const ALL_ROOMS: u8 = 1;
    pub(in super::super) const JOIN: u8 = 2;
    pub(in super::super) const LEAVE: u8 = 3;
    pub(in super::super) const DISCONNECT: u8 = 4;
    pub(in super::super) const FETCH: u8 = 5;
    pub(in super::super) const SERVER_EVENT: u8 = 6;
    pub(in super::super) const BROADCAST: u8 = 7;
    pub(in super::super) const CLIENT_COUNT: u8 = 8;
    pub(in super::super) const ACK: u8 = 9;
}

/// A request in JSON, with the fields of all types.
#[derive(serde::Deserialize)]
struct JsonRequest<'a> {
    #[serde(borrow, default)]
    uid: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "requestId")]
    id: Option<Cow<'a, str>>,
    r#type: u8,
    #[serde(borrow, default)]
    opts: Option<Options<'a>>,
    #[serde(borrow, default, deserialize_with = "json_rooms")]
    rooms: Vec<Room<'a>>,
    #[serde(borrow, default)]
    sid: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    room: Option<Room<'a>>,
    #[serde(default)]
    close: Option<bool>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    /// Only messages of other families have it.
    #[serde(default)]
    nsp: Option<serde::de::IgnoredAny>,
}

/// A response in JSON, with the fields of all types.
#[derive(serde::Deserialize)]
struct JsonResponse<'a> {
    #[serde(borrow, rename = "requestId")]
    id: Cow<'a, str>,
    #[serde(default)]
    r#type: Option<u8>,
    #[serde(borrow, default)]
    sockets: Option<&'a RawValue>,
    #[serde(borrow, default)]
    rooms: Option<&'a RawValue>,
    #[serde(default, rename = "clientCount")]
    clients: Option<u64>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// Reads what has arrived on the channels of broadcasts and of requests.
pub(super) fn incoming(message: &[u8]) -> ImksResult<Incoming<'_>> {
    check_size(message, MESSAGE_BYTES_MAX)?;
    match message.first() {
        Some(b'{') => json_request(message),
        // A map, in the forms of its length.
        Some(0x80..=0x8f | 0xde | 0xdf) => ack_request(message),
        Some(0x90..=0x9f | 0xdc | 0xdd) => broadcast(message),
        _ => Err(unreadable("neither JSON nor msgpack: does its sender use another parser?")),
    }
}

fn json_request(message: &[u8]) -> ImksResult<Incoming<'_>> {
    let JsonRequest { uid, id, r#type, opts, rooms, sid, room, close, data, nsp } =
        serde_json::from_slice(message).map_err(unreadable)?;
    if nsp.is_some() {
        return Err(foreign());
    }
    let close = close.unwrap_or_default();
    let one = |id, sid: Option<_>, change: Option<_>| match (sid, change) {
        (Some(sid), Some(change)) => Ok(Request::One { id, sid, change }),
        _ => Err(unreadable("a change without sockets or room")),
    };
    let id = id.map(checked_id).transpose()?;
    let request = match (r#type, opts) {
        (kind::SOCKETS, _) => Request::Sockets { id: wanted(id)?, rooms },
        (kind::ALL_ROOMS, _) => Request::AllRooms { id: wanted(id)? },
        (kind::JOIN, Some(options)) => Request::Join { options, rooms: few(rooms)? },
        (kind::LEAVE, Some(options)) => Request::Leave { options, rooms: few(rooms)? },
        (kind::DISCONNECT, Some(options)) => Request::Disconnect { options, close },
        (kind::JOIN, None) => one(id, sid, room.map(OneChange::Join))?,
        (kind::LEAVE, None) => one(id, sid, room.map(OneChange::Leave))?,
        (kind::DISCONNECT, None) => one(id, sid, Some(OneChange::Disconnect { close }))?,
        (kind::FETCH, Some(options)) => Request::Fetch { id: wanted(id)?, options },
        (kind::SERVER_EVENT, _) => Request::ServerEvent {
            id,
            data: data.ok_or_else(|| unreadable("a server event without a name"))?,
        },
        (r#type, _) => return Err(unreadable(format!("a request of type {type} that cannot be"))),
    };
    Ok(Incoming::Request { uid, request })
}

fn wanted(id: Option<Cow<'_, str>>) -> ImksResult<Cow<'_, str>> {
    id.ok_or_else(|| unreadable("a request without an id"))
}

/// Checks that a change names few rooms.
fn few(rooms: Vec<Room<'_>>) -> ImksResult<Vec<Room<'_>>> {
    match rooms.len() {
        0..=ROOMS_MAX => Ok(rooms),
        _ => Err(ImksError::LimitReached("rooms in one change")),
    }
}

/// Checks the length of the id of a request, which responses repeat.
fn checked_id(id: Cow<'_, str>) -> ImksResult<Cow<'_, str>> {
    match id.len() {
        0..=ID_BYTES_MAX => Ok(id),
        _ => Err(unreadable("an id of a request that is too long")),
    }
}

fn broadcast(message: &[u8]) -> ImksResult<Incoming<'_>> {
    let mut reader = reader(message);
    if reader.next()? != Token::Array(3) {
        return Err(unreadable("a broadcast that is no array of three"));
    }
    let Token::Text(uid) = reader.next()? else { return Err(unreadable("a broadcast without a sender")) };
    let (event, options) = (read_event(&mut reader)?, read_options(&mut reader)?);
    match reader.rest {
        [] => Ok(Incoming::Broadcast { uid, event, options }),
        _ => Err(unreadable("trailing bytes")),
    }
}

fn ack_request(message: &[u8]) -> ImksResult<Incoming<'_>> {
    let (mut uid, mut id, mut r#type, mut event, mut options) = (None, None, None, None, None);
    fields(message, |key, reader| {
        match key {
            "uid" => uid = Some(text(reader)?),
            "requestId" => id = Some(text(reader)?),
            "type" => r#type = Some(reader.next()?),
            "packet" => event = Some(read_event(reader)?),
            "opts" => options = Some(read_options(reader)?),
            "nsp" => return Err(foreign()),
            _ => drop(reader.skip()?),
        }
        Ok(())
    })?;
    match (r#type, id, event, options) {
        (Some(Token::Unsigned(7)), Some(id), Some(event), Some(options)) if id.len() <= ID_BYTES_MAX => {
            let request = Request::BroadcastWithAck { id, event, options };
            Ok(Incoming::Request { uid: uid.map(Cow::Borrowed), request })
        }
        _ => Err(unreadable("a request in msgpack that is no broadcast with ack")),
    }
}

/// Reads what has arrived on the channels of responses.
pub(super) fn response(message: &[u8]) -> ImksResult<Response<'_>> {
    check_size(message, RESPONSE_BYTES_MAX)?;
    if message.first() != Some(&b'{') {
        return ack_response(message);
    }
    let JsonResponse { id, r#type, sockets, rooms, clients, data } =
        serde_json::from_slice(message).map_err(unreadable)?;
    let content = match (r#type, sockets, rooms, clients) {
        (Some(kind::SERVER_EVENT), ..) => Content::Answer(data),
        (Some(kind::CLIENT_COUNT), _, _, Some(clients)) if clients <= CLIENTS_MAX => {
            Content::Clients(clients)
        }
        (None, Some(sockets), ..) => Content::Sockets(sockets),
        (None, None, Some(rooms), _) => Content::Rooms(rooms),
        (None, None, None, _) => Content::Other,
        _ => return Err(unreadable("a response that cannot be")),
    };
    Ok(Response { id, content })
}

fn ack_response(message: &[u8]) -> ImksResult<Response<'_>> {
    let (mut id, mut r#type, mut ack) = (None, None, [0xc0].as_slice());
    fields(message, |key, reader| {
        match key {
            "requestId" => id = Some(text(reader)?),
            "type" => r#type = Some(reader.next()?),
            "packet" => ack = reader.skip()?,
            _ => drop(reader.skip()?),
        }
        Ok(())
    })?;
    match (r#type, id) {
        (Some(Token::Unsigned(9)), Some(id)) => {
            Ok(Response { id: Cow::Borrowed(id), content: Content::Ack(ack) })
        }
        _ => Err(unreadable("a response in msgpack that is no ack")),
    }
}

/// Reads a map with `field`, which reads the value of each key. Nothing may follow it.
fn fields<'a>(
    message: &'a [u8],
    mut field: impl FnMut(&'a str, &mut Reader<'a>) -> ImksResult<()>,
) -> ImksResult<()> {
    let mut reader = reader(message);
    map(&mut reader, &mut field)?;
    if reader.rest.is_empty() { Ok(()) } else { Err(unreadable("trailing bytes")) }
}

fn map<'a>(
    reader: &mut Reader<'a>,
    field: &mut impl FnMut(&'a str, &mut Reader<'a>) -> ImksResult<()>,
) -> ImksResult<()> {
    let Token::Map(entries) = reader.next()? else { return Err(unreadable("no map")) };
    for _ in 0..entries {
        let key = text(reader)?;
        field(key, reader)?;
    }
    Ok(())
}

fn read_event<'a>(reader: &mut Reader<'a>) -> ImksResult<Event<'a>> {
    let (mut event, mut r#type) = (Event::default(), None);
    map(reader, &mut |key, reader| {
        match key {
            "type" => r#type = Some(reader.next()?),
            "data" => event.data = reader.skip()?,
            "nsp" => match reader.next()? {
                Token::Text(path) => event.namespace = Some(path),
                Token::Nil | Token::Undefined => {}
                _ => return Err(unreadable("a namespace that is no text")),
            },
            _ => drop(reader.skip()?),
        }
        Ok(())
    })?;
    // EVENT and BINARY_EVENT.
    match r#type {
        Some(Token::Unsigned(2 | 5)) => Ok(event),
        _ => Err(unreadable("a packet that is no event")),
    }
}

fn read_options<'a>(reader: &mut Reader<'a>) -> ImksResult<Options<'a>> {
    let mut options = Options::default();
    map(reader, &mut |key, reader| {
        match key {
            "rooms" => options.rooms = read_rooms(reader)?,
            "except" => options.except = read_rooms(reader)?,
            "flags" => options.flags = read_flags(reader)?,
            _ => drop(reader.skip()?),
        }
        Ok(())
    })?;
    Ok(options)
}

fn read_rooms<'a>(reader: &mut Reader<'a>) -> ImksResult<Vec<Room<'a>>> {
    let length = match reader.next()? {
        Token::Array(length) if length as usize <= TARGETS_MAX => length,
        Token::Nil | Token::Undefined => return Ok(Vec::new()),
        _ => return Err(unreadable("rooms that are no array, or too many")),
    };
    let mut rooms = Vec::new();
    for _ in 0..length {
        rooms.push(Room(match reader.next()? {
            Token::Text(name) => Cow::Borrowed(name),
            Token::Unsigned(name) => Cow::Owned(name.to_string()),
            Token::Signed(name) => Cow::Owned(name.to_string()),
            Token::Float(name) => Cow::Owned(name.to_string()),
            _ => return Err(unreadable("a room that is neither text nor a number")),
        }));
    }
    Ok(rooms)
}

fn read_flags(reader: &mut Reader<'_>) -> ImksResult<Flags> {
    let mut flags = Flags::default();
    if matches!(reader.rest.first(), Some(0xc0)) {
        return reader.next().map(|_| flags);
    }
    map(reader, &mut |key, reader| {
        match key {
            "volatile" => flags.volatile = reader.next()? == Token::Bool(true),
            "compress" => flags.compress = reader.next()? != Token::Bool(false),
            "timeout" => match reader.next()? {
                Token::Unsigned(millis) => flags.timeout_millis = Some(millis),
                Token::Float(millis) => flags.timeout_millis = Some(millis as u64),
                _ => return Err(unreadable("a timeout that is no number")),
            },
            _ => drop(reader.skip()?),
        }
        Ok(())
    })?;
    Ok(flags)
}

fn text<'a>(reader: &mut Reader<'a>) -> ImksResult<&'a str> {
    match reader.next()? {
        Token::Text(text) => Ok(text),
        _ => Err(unreadable("no text")),
    }
}

fn check_size(message: &[u8], max: usize) -> ImksResult<()> {
    if message.len() > max { Err(ImksError::PayloadTooLarge) } else { Ok(()) }
}

fn foreign() -> ImksError {
    unreadable(
        "it is of another adapter (sharded, streams or another one) with the same prefix; give that another one",
    )
}

/// The limits of events and acks: those of the message.
pub(super) const LIMITS: Limits =
    Limits { attachments_max: ATTACHMENTS_MAX, attachment_bytes_max: MESSAGE_BYTES_MAX };

/// The maximum number of attachments of an event. Node.js servers have no limit; their clients allow ten.
const ATTACHMENTS_MAX: usize = 1_000;

/// The maximum size of a response in bytes. Node.js servers list all of their sockets in one.
pub(super) const RESPONSE_BYTES_MAX: usize = 32 << 20;

/// The maximum number of rooms that one message makes sockets join or leave.
pub(super) const ROOMS_MAX: usize = 1_024;

/// The maximum number of clients that a server may say it has asked.
pub(super) const CLIENTS_MAX: u64 = 1_000_000;

/// The maximum length of the id of a request in bytes. Those of Node.js servers have 6.
const ID_BYTES_MAX: usize = 256;
