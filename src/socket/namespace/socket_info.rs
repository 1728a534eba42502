//! The facts about a socket that other nodes may know.

use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::engine::Handshake;
use crate::socket::socket_id::SocketId;

/// A snapshot of a socket, as it travels between nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SocketInfo {
    pub(crate) id: SocketId,
    pub(crate) handshake: RemoteHandshake,
    pub(crate) rooms: Vec<String>,
    /// One JSON object.
    #[serde(with = "json_text")]
    pub(crate) data: serde_json::Value,
}

/// What a client told about itself when it opened its connection. Without the `auth` option: secrets do not
/// travel between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteHandshake {
    /// Address and port of the other end.
    pub address: String,
    /// Path and query of the first request.
    pub url: String,
    /// Whether it came over TLS.
    pub secure: bool,
    /// When it came, in microseconds since 1970.
    pub issued: Micros,
    /// The transport it came over.
    pub transport: String,
    /// Whether it came from a page of another origin.
    pub xdomain: bool,
    /// Headers in their order, names in lower case; those with credentials left out: `authorization`,
    /// `proxy-authorization` and `cookie`.
    pub headers: Vec<(String, String)>,
}

impl RemoteHandshake {
    pub(crate) fn of(handshake: &Handshake) -> Self {
        let public = handshake.headers().filter(|(name, _)| !SECRET_HEADERS.contains(name));
        Self {
            address: handshake.peer.to_string(),
            url: handshake.url().to_owned(),
            secure: handshake.secure,
            issued: handshake.issued,
            transport: handshake.transport.name().to_owned(),
            xdomain: handshake.xdomain(),
            headers: public.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }
}

/// JSON values as text, so that the depth limit of its reader holds.
mod json_text {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        serde_json::from_str(<&str>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Headers that are nobody else's business.
const SECRET_HEADERS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];
