//! The state of a socket that other nodes may see.

use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::engine::Handshake;
use crate::socket::socket_id::SocketId;

/// A snapshot of a socket, as nodes exchange it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SocketInfo {
    pub(crate) id: SocketId,
    pub(crate) handshake: RemoteHandshake,
    pub(crate) rooms: Vec<String>,
    /// The shared data, as one JSON object.
    #[serde(with = "json_text")]
    pub(crate) data: serde_json::Value,
}

/// The handshake of a client, without the `auth` option because secrets do not travel between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteHandshake {
    /// The address and port of the peer.
    pub address: String,
    /// The path and query of the first request.
    pub url: String,
    /// Whether the client uses TLS.
    pub secure: bool,
    /// The time of the handshake, in microseconds since 1970.
    pub issued: Micros,
    /// The transport of the first request.
    pub transport: String,
    /// Whether the request came from a page of another origin.
    pub xdomain: bool,
    /// The headers in their order, with names in lower case and without credentials (`authorization`,
    /// `proxy-authorization` and `cookie`).
    pub headers: Vec<(String, String)>,
}

impl RemoteHandshake {
    pub(crate) fn of(handshake: &Handshake) -> Self {
        let public = handshake.headers().filter(|(name, _)| !is_secret(name));
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

/// Serializes JSON values as text, so that the depth limit of `serde_json` applies when they are read.
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

/// Whether a header has credentials, which do not travel between nodes.
pub(crate) fn is_secret(name: &str) -> bool {
    SECRET_HEADERS.contains(&name)
}

/// The headers with credentials, which are not sent to other nodes.
const SECRET_HEADERS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];
