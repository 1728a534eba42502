//! The data that the page shows, as in `typed-events.d.ts` of npm `@socket.io/admin-ui` 0.5.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::clock::{self, Timestamp};
use crate::engine::FrameWriter;
use crate::engine::query_pairs;
use crate::error::ImksResult;
use crate::socket::codec::packet::Args;
use crate::socket::codec::parser::Arguments;
use crate::socket::namespace::remote_socket::RemoteSocket;
use crate::socket::namespace::socket_info::RemoteHandshake;

/// A socket. Fields that its node does not share are omitted.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShownSocket {
    id: String,
    /// The id of the connection, shared by all its sockets.
    #[serde(skip_serializing_if = "Value::is_null")]
    client_id: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    transport: Value,
    nsp: String,
    data: Value,
    handshake: ShownHandshake,
    rooms: Vec<String>,
}

/// The first request of a connection, without the `auth` option, cookies and credentials. A
/// [`RemoteHandshake`] does not contain these.
#[derive(Serialize)]
struct ShownHandshake {
    address: String,
    headers: Map<String, Value>,
    query: Map<String, Value>,
    /// The time in milliseconds since 1970.
    issued: i64,
    secure: bool,
    time: String,
    url: String,
    xdomain: bool,
}

impl ShownSocket {
    /// Creates the view of a socket. `id` may differ from the id that the other nodes know.
    pub(super) fn new(socket: &RemoteSocket, id: &str, nsp: &str) -> Self {
        let mut data = socket.data().clone();
        let mut facts = data.as_object_mut().and_then(|data| data.remove(FACTS)).unwrap_or_default();
        Self {
            id: id.to_owned(),
            client_id: facts["clientId"].take(),
            transport: facts["transport"].take(),
            nsp: nsp.to_owned(),
            data,
            handshake: ShownHandshake::new(socket.handshake()),
            rooms: socket.rooms().to_vec(),
        }
    }
}

impl ShownHandshake {
    fn new(handshake: &RemoteHandshake) -> Self {
        let header = |name| handshake.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        let peer = || match handshake.address.parse::<std::net::SocketAddr>() {
            Ok(address) => address.ip().to_string(),
            Err(_) => handshake.address.clone(),
        };
        let address = header("cf-connecting-ip").or_else(|| header("x-forwarded-for")).cloned();
        let query = handshake.url.split_once('?').map_or("", |(_, query)| query);
        Self {
            address: address.unwrap_or_else(peer),
            headers: headers(handshake),
            query: query_pairs(query).map(|(name, value)| (name.into_owned(), value.into())).collect(),
            issued: handshake.issued / 1_000,
            secure: handshake.secure,
            time: clock::javascript_date(handshake.issued),
            url: handshake.url.clone(),
            xdomain: handshake.xdomain,
        }
    }
}

/// Returns the headers by name. Repeated headers are joined.
fn headers(handshake: &RemoteHandshake) -> Map<String, Value> {
    let mut headers = Map::new();
    for (name, value) in &handshake.headers {
        match headers.get_mut(name) {
            Some(Value::String(known)) => known.extend([", ", value]),
            _ => drop(headers.insert(name.clone(), value.clone().into())),
        }
    }
    headers
}

/// The arguments of `event_received` and `event_sent`: namespace, socket, `[event, …arguments]` and time. The
/// event is passed on unchanged, including attachments.
pub(super) struct ShownEvent<'a> {
    pub(super) nsp: &'a str,
    pub(super) id: &'a str,
    pub(super) args: &'a Args,
    pub(super) at: Timestamp,
}

impl Arguments for ShownEvent<'_> {
    fn write_json(&self, out: &mut FrameWriter) -> ImksResult<()> {
        out.write_json(self.nsp)?;
        out.push_str(",");
        out.write_json(self.id)?;
        out.push_str(",[");
        out.write_json(self.args.name())?;
        if !self.args.json().is_empty() {
            out.push_str(",");
            out.push_str(self.args.json());
        }
        out.push_str("],");
        out.write_json(&self.at)
    }

    fn attachments(&self) -> &[bytes::Bytes] {
        self.args.attachments()
    }

    fn size_hint(&self) -> usize {
        self.args.json().len() + ENVELOPE_BYTES
    }
}

/// The name under which a node shares what the page needs to know of a socket: `{clientId, transport}`, as in
/// the reference.
pub(super) const FACTS: &str = "_admin";
/// The approximate size of a shown event without its arguments.
const ENVELOPE_BYTES: usize = 128;
