//! The messages of this node to Node.js servers, as bytes.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::family::{MESSAGE_BYTES_MAX, unreadable};
use super::rooms::{Names, Room, number};
use super::wire::{Flags, Options, RESPONSE_BYTES_MAX, kind};
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::msgpack::servers::Writer;
use crate::socket::codec::packet::Args;
use crate::socket::namespace::cluster_link::PacketData;

/// Encodes a broadcast.
pub(super) fn broadcast(
    uid: &str,
    namespace: &str,
    event: &PacketData<'_>,
    options: &Options<'_>,
) -> ImksResult<Bytes> {
    let mut out = Writer::with_capacity(event.size() + ENVELOPE_BYTES);
    out.array(3)?;
    out.text(uid)?;
    write_event(&mut out, namespace, event)?;
    write_options(&mut out, options)?;
    checked(out.finish(), MESSAGE_BYTES_MAX)
}

/// Encodes a broadcast whose receivers answer.
pub(super) fn broadcast_with_ack(
    uid: &str,
    id: &str,
    namespace: &str,
    event: &PacketData<'_>,
    options: &Options<'_>,
) -> ImksResult<Bytes> {
    let mut out = Writer::with_capacity(event.size() + ENVELOPE_BYTES);
    out.map(5)?;
    out.text("uid")?;
    out.text(uid)?;
    out.text("requestId")?;
    out.text(id)?;
    out.text("type")?;
    out.integer(kind::BROADCAST.into())?;
    out.text("packet")?;
    write_event(&mut out, namespace, event)?;
    out.text("opts")?;
    write_options(&mut out, options)?;
    checked(out.finish(), MESSAGE_BYTES_MAX)
}

fn write_event(out: &mut Writer, namespace: &str, event: &PacketData<'_>) -> ImksResult<()> {
    let attachments: Vec<&[u8]> = event.attachments.iter().map(|bytes| &***bytes).collect();
    out.map(3)?;
    out.text("type")?;
    out.integer(EVENT)?;
    out.text("data")?;
    out.json(event.json.trim_ascii(), &attachments, &event.non_json)?;
    out.text("nsp")?;
    out.text(namespace)
}

fn write_options(out: &mut Writer, options: &Options<'_>) -> ImksResult<()> {
    out.map(3)?;
    out.text("rooms")?;
    write_names(out, &options.rooms)?;
    out.text("except")?;
    write_names(out, &options.except)?;
    out.text("flags")?;
    let Flags { volatile, compress, timeout_millis } = options.flags;
    out.map(usize::from(volatile) + usize::from(!compress) + usize::from(timeout_millis.is_some()))?;
    if volatile {
        out.text("volatile")?;
        out.bool(true);
    }
    if !compress {
        out.text("compress")?;
        out.bool(false);
    }
    if let Some(millis) = timeout_millis {
        out.text("timeout")?;
        out.integer(i64::try_from(millis).unwrap_or(i64::MAX))?;
    }
    Ok(())
}

fn write_names(out: &mut Writer, rooms: &[Room<'_>]) -> ImksResult<()> {
    out.array(Names(rooms).len())?;
    for Room(name) in rooms {
        out.text(name)?;
        if let Some(number) = number(name) {
            out.integer(number)?;
        }
    }
    Ok(())
}

/// Encodes the first argument of a client's ack.
pub(super) fn ack(id: &str, args: &Args) -> ImksResult<Bytes> {
    let attachments: Vec<&[u8]> = args.attachments().iter().map(|bytes| &**bytes).collect();
    let mut out = Writer::with_capacity(args.bytes() + ENVELOPE_BYTES);
    out.map(3)?;
    out.text("type")?;
    out.integer(kind::ACK.into())?;
    out.text("requestId")?;
    out.text(id)?;
    out.text("packet")?;
    match args.first_json() {
        "" => out.nil(),
        first => out.json(first, &attachments, args.non_json())?,
    }
    checked(out.finish(), RESPONSE_BYTES_MAX)
}

/// A request in JSON, with the fields of all types in the order of the reference.
#[derive(Serialize)]
pub(super) struct JsonRequest<'a> {
    pub(super) uid: &'a str,
    #[serde(rename = "requestId", skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
    pub(super) r#type: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) opts: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rooms: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) close: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<&'a RawValue>,
}

/// The selection of sockets in JSON.
#[derive(Serialize)]
pub(super) struct JsonOptions<'a> {
    rooms: Names<'a, 'a>,
    except: Names<'a, 'a>,
}

impl<'a> JsonOptions<'a> {
    pub(super) fn of(options: &'a Options<'a>) -> Self {
        Self { rooms: Names(&options.rooms), except: Names(&options.except) }
    }
}

impl<'a> JsonRequest<'a> {
    /// Creates a request with no more than its type.
    pub(super) fn new(uid: &'a str, r#type: u8) -> Self {
        Self { uid, id: None, r#type, opts: None, rooms: None, close: None, data: None }
    }

    pub(super) fn encode(&self) -> ImksResult<Bytes> {
        checked(serde_json::to_vec(self).map_err(unreadable)?.into(), MESSAGE_BYTES_MAX)
    }
}

/// A response in JSON, with the fields of all types in the order of the reference.
#[derive(Serialize)]
pub(super) struct JsonResponse<'a, T: Serialize> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) r#type: Option<u8>,
    #[serde(rename = "requestId")]
    pub(super) id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sockets: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rooms: Option<T>,
    #[serde(rename = "clientCount", skip_serializing_if = "Option::is_none")]
    pub(super) clients: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<&'a RawValue>,
}

impl<'a, T: Serialize> JsonResponse<'a, T> {
    /// Creates a response with no content.
    pub(super) fn to(id: &'a str) -> Self {
        Self { r#type: None, id, sockets: None, rooms: None, clients: None, data: None }
    }

    pub(super) fn encode(&self) -> ImksResult<Bytes> {
        checked(serde_json::to_vec(self).map_err(unreadable)?.into(), RESPONSE_BYTES_MAX)
    }
}

/// Returns JSON text with its attachments in place, each as JavaScript writes a `Buffer`: requests and responses of
/// server events have no other place for them.
pub(super) fn with_buffers(json: &str, attachments: &[&[u8]]) -> ImksResult<Box<RawValue>> {
    let text = match attachments {
        [] => json.to_owned(),
        _ => {
            let mut value: Value = serde_json::from_str(json).map_err(unreadable)?;
            replace(&mut value, attachments);
            value.to_string()
        }
    };
    RawValue::from_string(text).map_err(unreadable)
}

/// Replaces placeholders. Reading has bounded the depth.
fn replace(value: &mut Value, attachments: &[&[u8]]) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, attachments)),
        Value::Object(map) if map.len() == 2 && map.get("_placeholder") == Some(&Value::Bool(true)) => {
            let number = map.get("num").and_then(Value::as_u64).and_then(|num| usize::try_from(num).ok());
            if let Some(bytes) = number.and_then(|number| attachments.get(number)) {
                *value = serde_json::json!({ "type": "Buffer", "data": bytes });
            }
        }
        Value::Object(map) => map.values_mut().for_each(|item| replace(item, attachments)),
        _ => {}
    }
}

fn checked(message: Bytes, max: usize) -> ImksResult<Bytes> {
    if message.len() > max { Err(ImksError::PayloadTooLarge) } else { Ok(message) }
}

/// The packet type EVENT. A receiver itself makes it a binary event if it has attachments.
const EVENT: i64 = 2;

/// The estimated size of everything but the payload in bytes.
const ENVELOPE_BYTES: usize = 160;
