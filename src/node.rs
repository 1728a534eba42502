//! The identity of a node: created once at startup, and used in session ids, in the cluster and in logs.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use crate::error::ImksResult;

/// The id of a node: 5 random bytes, written as 7 characters of base64url. It is not a secret. It is short
/// because every request of a session carries it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId([u8; NODE_BYTES]);

impl NodeId {
    /// Creates an id from the operating system's random numbers.
    ///
    /// # Errors
    /// [`ImksError::Randomness`](crate::ImksError::Randomness) if the operating system has no random numbers.
    pub fn random() -> ImksResult<Self> {
        let mut bytes = [0; NODE_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Returns the id with these bytes.
    pub const fn from_bytes(bytes: [u8; NODE_BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; NODE_BYTES] {
        &self.0
    }

    /// Parses an id, or returns `None` if `text` is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; NODE_BYTES];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (read == NODE_BYTES).then_some(Self(bytes))
    }
}

/// Returns the name of this machine or container, which is the name of the node for people unless it has one of its own.
#[cfg(feature = "admin")]
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".into(),
        name => name.into(),
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        Self::parse(text).ok_or_else(|| D::Error::custom("not the name of a node"))
    }
}

/// The number of bytes of a node id.
pub const NODE_BYTES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_seven_characters_and_reads_back() {
        let node = NodeId::random().unwrap();
        let text = node.to_string();
        assert_eq!((text.len(), NodeId::parse(&text)), (7, Some(node)));
        assert_eq!(NodeId::from_bytes(*node.as_bytes()), node);
        for wrong in ["", "abc", "aaaaaaaa", "aaaaaa=", "aaaaaa\u{e9}"] {
            assert_eq!(NodeId::parse(wrong), None, "{wrong}");
        }
    }
}
