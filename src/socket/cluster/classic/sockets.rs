//! Sockets as Node.js servers describe them to each other (`fetchSockets`), in JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::rooms::Room;
use crate::clock;
use crate::socket::namespace::remote_socket::RemoteSocket;
use crate::socket::namespace::socket::Socket;
use crate::socket::namespace::socket_info::{RemoteHandshake, SocketInfo, is_secret};
use crate::socket::socket_id::SocketId;

/// A socket of this node, as others see it.
#[derive(Serialize)]
pub(super) struct Described {
    id: String,
    handshake: Handshake,
    rooms: Vec<String>,
    data: Value,
}

/// The handshake in the form of the reference. `auth` stays empty, because secrets do not travel between nodes.
#[derive(Serialize)]
struct Handshake {
    headers: BTreeMap<String, String>,
    time: String,
    address: String,
    xdomain: bool,
    secure: bool,
    /// Milliseconds since 1970.
    issued: i64,
    url: String,
    query: Map<String, Value>,
    auth: Map<String, Value>,
}

impl Described {
    pub(super) fn of(socket: &Socket) -> Self {
        let remote = RemoteSocket::of(socket);
        let SocketInfo { handshake, rooms, data, .. } = remote.info().clone();
        Self { id: socket.id().to_owned(), handshake: Handshake::of(handshake), rooms, data }
    }
}

impl Handshake {
    fn of(handshake: RemoteHandshake) -> Self {
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in handshake.headers {
            let values = headers.entry(name).or_default();
            if !values.is_empty() {
                values.push_str(", ");
            }
            values.push_str(&value);
        }
        let query = handshake.url.split_once('?').map(|(_, query)| query).unwrap_or_default();
        let query = form_urlencoded::parse(query.as_bytes());
        let query = query.map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect();
        let address = handshake.address.parse::<SocketAddr>().map(|address| address.ip().to_string());
        Self {
            headers,
            time: clock::javascript_date(handshake.issued),
            address: address.unwrap_or(handshake.address),
            xdomain: handshake.xdomain,
            secure: handshake.secure,
            issued: handshake.issued / MICROS_PER_MILLI,
            url: handshake.url,
            query,
            auth: Map::new(),
        }
    }
}

/// A socket of another node, as it is described.
#[derive(Deserialize)]
struct Received<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    handshake: ReceivedHandshake<'a>,
    #[serde(borrow, default)]
    rooms: Vec<Room<'a>>,
    #[serde(default)]
    data: Value,
}

/// A handshake. An application can change everything in it, so nothing is required.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ReceivedHandshake<'a> {
    headers: Map<String, Value>,
    #[serde(borrow)]
    address: Option<Cow<'a, str>>,
    xdomain: Option<bool>,
    secure: Option<bool>,
    issued: Option<f64>,
    #[serde(borrow)]
    url: Option<Cow<'a, str>>,
    query: Map<String, Value>,
}

/// Reads a list of descriptions.
pub(super) fn read(json: &str) -> Result<Vec<SocketInfo>, serde_json::Error> {
    let sockets: Vec<Received<'_>> = serde_json::from_str(json)?;
    Ok(sockets.into_iter().map(Received::info).collect())
}

impl Received<'_> {
    fn info(self) -> SocketInfo {
        SocketInfo {
            // Clients of Socket.IO v2 have ids of another form.
            id: SocketId::parse(&self.id).unwrap_or_else(|| SocketId::of_version2(&self.id)),
            handshake: self.handshake.remote(),
            rooms: self.rooms.into_iter().map(|Room(name)| name.into_owned()).collect(),
            data: self.data,
        }
    }
}

impl ReceivedHandshake<'_> {
    fn remote(self) -> RemoteHandshake {
        let transport = self.query.get("transport").and_then(Value::as_str).unwrap_or_default();
        let text = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned).unwrap_or_default();
        RemoteHandshake {
            transport: transport.to_owned(),
            address: text(self.address),
            url: text(self.url),
            secure: self.secure.unwrap_or_default(),
            issued: (self.issued.unwrap_or_default() as i64).saturating_mul(MICROS_PER_MILLI),
            xdomain: self.xdomain.unwrap_or_default(),
            headers: headers(self.headers),
        }
    }
}

/// Returns the headers without credentials, which Node.js servers do not keep to themselves.
fn headers(headers: Map<String, Value>) -> Vec<(String, String)> {
    let public = headers.into_iter().filter(|(name, _)| !is_secret(name));
    let mut all = Vec::new();
    for (name, value) in public {
        match value {
            Value::String(value) => all.push((name, value)),
            Value::Array(values) => {
                let texts = values.into_iter().filter_map(|value| value.as_str().map(str::to_owned));
                all.extend(texts.map(|value| (name.clone(), value)));
            }
            _ => {}
        }
    }
    all
}

/// The microseconds of a millisecond.
const MICROS_PER_MILLI: i64 = 1_000;
