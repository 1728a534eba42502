//! The public id of a socket.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use crate::error::{ImksError, ImksResult};

/// The public id of a socket: 20 characters of base64url, 120 random bits. It is not the Engine.IO session
/// id, which is a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId([u8; 20]);

impl SocketId {
    /// What stands for a socket of a Node.js server that has answered, or has not: such servers count their sockets and do
    /// not name them (`NamespaceBuilder::classic`).
    pub const UNNAMED: Self = Self(*b"--------------------");

    /// Creates a random id.
    pub(crate) fn random() -> ImksResult<Self> {
        let mut random = [0; 15];
        getrandom::fill(&mut random)?;
        let mut id = [0; 20];
        URL_SAFE_NO_PAD
            .encode_slice(random, &mut id)
            .map_err(|_| ImksError::Internal("socket id does not fit"))?;
        Ok(Self(id))
    }

    /// Parses an id. Only the length is checked.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.as_bytes().try_into().ok().map(Self)
    }

    /// Returns the key under which a client of Socket.IO v2 is stored. The id of such a client is its session
    /// id, of which the key holds as many of the last characters as fit. Compare the whole id after a lookup.
    pub(crate) fn of_version2(text: &str) -> Self {
        let mut id = [b'#'; 20];
        let end = &text.as_bytes()[text.len().saturating_sub(id.len())..];
        id[20 - end.len()..].copy_from_slice(end);
        Self(id)
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Serialize for SocketId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Deserializes the id from a message of another node, and checks its characters.
impl<'de> Deserialize<'de> for SocketId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let id = Self::parse(text).filter(|_| text.bytes().all(good));
        id.ok_or_else(|| D::Error::custom("not the id of a socket"))
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
