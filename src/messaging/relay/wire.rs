//! The messages of the relay on the bus. Received ones are untrusted.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Micros;
use crate::messaging::node_message::NodeMessage;
use crate::node::NodeId;

/// A message of one node to all others.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Message<'a> {
    pub(super) version: u8,
    pub(super) node: NodeId,
    /// When it was sent, by the sender's clock.
    pub(super) at: Micros,
    #[serde(borrow)]
    pub(super) body: Body<'a>,
}

/// The content of a message.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Body<'a> {
    /// Events of one channel that were committed together, in order.
    Events {
        channel: Uuid,
        #[serde(borrow)]
        events: Vec<Event<'a>>,
    },
    /// The `seq` and `rev` of channels.
    Heads(Vec<(Uuid, i64, i64)>),
}

/// An event, with the numbers of its channel after it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Event<'a> {
    pub(super) seq: i64,
    pub(super) rev: i64,
    pub(super) name: &'a str,
    pub(super) json: &'a str,
    /// What the event tells the whole state of. Older versions do not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state_of: Option<Uuid>,
    /// The span of the write as `traceparent`, if it is traced. Older versions do not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trace: Option<Cow<'a, str>>,
}

impl<'a> NodeMessage<'a> for Message<'a> {
    const VERSION: u8 = VERSION;

    fn version(&self) -> u8 {
        self.version
    }
}

/// The version that this node writes.
pub(super) const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written_by_this_version_and_its_neighbours() {
        let event = Event {
            seq: 7,
            rev: 2,
            name: "message:new",
            json: r#"{"body":"hi"}"#,
            state_of: None,
            trace: Some("00-a".into()),
        };
        let events = Body::Events { channel: Uuid::from_u128(5), events: vec![event] };
        for body in [events, Body::Heads(vec![(Uuid::from_u128(5), 7, 2)])] {
            let mut message = Message { version: VERSION, node: NodeId::from_bytes([1; 5]), at: 9, body };
            assert_eq!(Message::decode(&message.encode().unwrap()).unwrap(), message);
            message.version = VERSION + 1;
            assert!(Message::decode(&message.encode().unwrap()).is_ok());
            message.version = VERSION + 2;
            assert!(Message::decode(&message.encode().unwrap()).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&bytes);
        }
    }
}
