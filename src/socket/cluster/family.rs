//! Families: the encoding of cluster messages and the channels they use. A family is independent of the
//! broker.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::message::{Body, ClusterMessage};
use crate::error::{Cause, ImksError, ImksResult};
use crate::node::NodeId;

/// An encoding of the messages between nodes.
pub(crate) trait Family: Send + Sync {
    /// Returns the channel on which a message to all nodes is published.
    fn channel<'a>(&self, body: &Body<'a>) -> Cow<'a, str>;

    /// Returns the channel to subscribe to for a namespace or, with `None`, for messages that concern no
    /// namespace.
    fn subscription<'a>(&self, namespace: Option<&'a str>) -> Cow<'a, str>;

    /// Encodes a message.
    fn encode(&self, message: &ClusterMessage<'_>) -> ImksResult<Bytes>;

    /// Decodes a message. `None` if the node `own` sent it: it is not read further. Returns an error if it is too large, of
    /// another family, or of an unsupported version.
    fn decode<'a>(&self, bytes: &'a [u8], own: NodeId) -> ImksResult<Option<ClusterMessage<'a>>>;
}

/// The family of imks: msgpack maps, and a channel per namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Imks;

/// A message with the version of its encoding.
#[derive(Serialize)]
struct Envelope<'a> {
    version: u8,
    node: NodeId,
    body: &'a Body<'a>,
}

/// The part that all versions have in common.
#[derive(Deserialize)]
struct Versioned {
    version: u8,
    /// The sender, as far as this version says it.
    #[serde(default)]
    node: Option<NodeId>,
}

impl Family for Imks {
    fn channel<'a>(&self, body: &Body<'a>) -> Cow<'a, str> {
        match body {
            Body::Operation { namespace, .. } => Cow::Borrowed(namespace),
            _ => Cow::Borrowed(CHANNEL),
        }
    }

    fn subscription<'a>(&self, namespace: Option<&'a str>) -> Cow<'a, str> {
        Cow::Borrowed(namespace.unwrap_or(CHANNEL))
    }

    fn encode(&self, message: &ClusterMessage<'_>) -> ImksResult<Bytes> {
        let envelope = Envelope { version: VERSION, node: message.node, body: &message.body };
        let bytes = rmp_serde::to_vec_named(&envelope).map_err(unreadable)?;
        // No node would read it.
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(ImksError::PayloadTooLarge);
        }
        Ok(bytes.into())
    }

    fn decode<'a>(&self, bytes: &'a [u8], own: NodeId) -> ImksResult<Option<ClusterMessage<'a>>> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(ImksError::PayloadTooLarge);
        }
        let Versioned { version, node } = rmp_serde::from_slice(bytes).map_err(unreadable)?;
        if version.abs_diff(VERSION) > 1 {
            return Err(unreadable(format!("version {version} is not ours")));
        }
        if node == Some(own) {
            return Ok(None);
        }
        rmp_serde::from_slice(bytes).map(Some).map_err(unreadable)
    }
}

/// Creates the error for a message that this node cannot read.
pub(crate) fn unreadable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ImksError {
    ImksError::AdapterSerialization(Cause::new(cause))
}

/// The channel of all nodes. Namespaces begin with `/`, so it cannot clash with theirs.
const CHANNEL: &str = "cluster";

/// The version that this node writes.
///
/// It also reads the previous and the next version and ignores unknown fields, so that nodes can be replaced
/// one by one.
pub(crate) const VERSION: u8 = 4;

/// The maximum size of a message from the bus: a packet with its attachments at their limits, and the
/// envelope.
pub(crate) const MESSAGE_BYTES_MAX: usize = 12_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::Lane;
    use crate::socket::cluster::message::Place;
    use crate::socket::codec::arguments::One;
    use crate::socket::codec::encoder::encode_event;
    use crate::socket::namespace::cluster_link::{Change, Operation, Target, Waits};

    fn node() -> NodeId {
        NodeId::from_bytes([1, 2, 3, 4, 5])
    }

    fn other() -> NodeId {
        NodeId::from_bytes([9; 5])
    }

    #[test]
    fn a_message_is_read_as_it_was_written_and_travels_on_the_channel_of_its_namespace() {
        let packet = encode_event("/chat", None, "hi", &One(&"there")).unwrap();
        let waits = Waits { latest: Some("k"), lane: Lane::Bulk };
        let operation = Operation::broadcast(&packet, false, waits);
        let target = Target { rooms: vec!["r"], except: vec!["a", "b"] };
        let place = Some(Place { process: 7, number: 300 });
        let body = Body::Operation { place, namespace: "/chat", target, operation };
        assert_eq!(Imks.channel(&body), "/chat");
        assert_eq!(Imks.subscription(Some("/chat")), "/chat");
        assert_eq!(Imks.subscription(None), Imks.channel(&Body::Bye));
        let message = ClusterMessage { node: node(), body };
        let bytes = Imks.encode(&message).unwrap();
        assert_eq!(Imks.decode(&bytes, other()).unwrap(), Some(message));
        assert_eq!(Imks.decode(&bytes, node()).unwrap(), None, "a node does not read its own");
    }

    #[test]
    fn the_versions_before_and_after_are_read_and_unknown_fields_are_passed_over() {
        #[derive(Serialize)]
        struct Newer {
            more: Vec<u8>,
            version: u8,
            node: NodeId,
            body: Said,
        }
        #[derive(Serialize)]
        enum Said {
            Request { id: u64, hint: bool, namespace: &'static str, request: Asked },
        }
        #[derive(Serialize)]
        enum Asked {
            FetchSockets { target: Whom },
        }
        #[derive(Serialize)]
        struct Whom {
            rooms: [&'static str; 1],
            except: [&'static str; 0],
            since: u8,
        }
        let message = |version| {
            let target = Whom { rooms: ["r"], except: [], since: 9 };
            let body =
                Said::Request { id: 7, hint: true, namespace: "/", request: Asked::FetchSockets { target } };
            rmp_serde::to_vec_named(&Newer { more: vec![1], version, node: node(), body }).unwrap()
        };
        for version in [VERSION - 1, VERSION, VERSION + 1] {
            let bytes = message(version);
            let read = Imks.decode(&bytes, other()).unwrap().unwrap();
            assert!(matches!(read.body, Body::Request { id: 7, namespace: "/", .. }) && read.node == node());
        }
        for version in [0, VERSION - 2, VERSION + 2, 255] {
            assert!(Imks.decode(&message(version), other()).is_err());
        }
    }

    #[test]
    fn what_is_too_large_is_not_looked_at() {
        assert!(matches!(
            Imks.decode(&vec![0; MESSAGE_BYTES_MAX + 1], other()),
            Err(ImksError::PayloadTooLarge)
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Imks.decode(&bytes, other());
        }

        #[test]
        fn a_message_that_was_damaged_is_a_message_or_an_error(at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let target = Target { rooms: vec!["r"], ..Target::default() };
            let operation = Operation::Change(Change::Join { room: "x" });
            let body = Body::Operation { place: None, namespace: "/", target, operation };
            let mut bytes = Imks.encode(&ClusterMessage { node: node(), body }).unwrap().to_vec();
            let place = at.index(bytes.len());
            bytes[place] = to;
            let _ = Imks.decode(&bytes, other());
        }
    }
}
