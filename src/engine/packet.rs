//! Engine.IO v4 packets (Engine.IO protocol, "Packet types").

use bytes::Bytes;
use tungstenite::Utf8Bytes;

/// The content of a message packet, which the layer above sends and receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// UTF-8 text, without the Engine.IO `4`.
    Text(Utf8Bytes),
    /// Raw bytes.
    Binary(Bytes),
}

impl Message {
    /// Returns the number of bytes of the content.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(data) => data.len(),
        }
    }

    /// Whether the content is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One Engine.IO packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// `0{json}`, server to client, once.
    Open(Utf8Bytes),
    /// `1`, both ways.
    Close,
    /// `2`, server to client; `2probe`, client to server on a WebSocket that wants to take over.
    Ping(Utf8Bytes),
    /// `3`, client to server; `3probe`, server to client.
    Pong(Utf8Bytes),
    /// `4…`, or a binary frame, or `b<base64>`.
    Message(Message),
    /// `5`, client to server: the probed transport takes over.
    Upgrade,
    /// `6`, server to client: answers a polling request when nothing is queued.
    Noop,
}

/// The content of the ping and pong that probe a transport.
pub const PROBE: &str = "probe";
