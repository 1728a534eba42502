//! The messages about presence between nodes. Received ones are untrusted.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Micros;
use crate::messaging::node_message::NodeMessage;
use crate::models::user_presence::StoredChoice;
use crate::node::NodeId;

/// A message of one node, to all others or to one of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) version: u8,
    pub(super) node: NodeId,
    /// When it was sent, by the sender's clock.
    pub(super) at: Micros,
    /// The number of the last reports of the sender, these included. They are numbered without holes.
    pub(super) number: u64,
    pub(super) body: Body,
}

/// The content of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Body {
    /// What has changed. Without any record it is a sign of life.
    Reports(Vec<Record>),
    /// A sign of life of a node that wants signs of life of the others.
    Hello,
    /// A question for all users with devices at the receiver, with ids after this one.
    Ask { after: Option<Uuid> },
    /// An answer: the next users by id. A user who is missing has no device there.
    Page { after: Option<Uuid>, records: Vec<Record>, is_last: bool },
}

/// What a node knows of one of its own users: the whole state, so that a repeat changes nothing. The names are short
/// because there are many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(rename = "u")]
    pub(super) user: Uuid,
    #[serde(rename = "d")]
    pub(super) devices: Devices,
    /// How many devices are connected. Older versions do not say it.
    #[serde(rename = "n", default)]
    pub(super) count: u16,
    /// Since when the devices say so.
    #[serde(rename = "s")]
    pub(super) since: Micros,
    #[serde(rename = "l", default)]
    pub(super) last_active: Option<Micros>,
    /// The version of what the sender shows of the user.
    #[serde(rename = "v")]
    pub(super) version: i64,
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub(super) chosen: Option<StoredChoice>,
}

/// What the devices of a user on one node say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Devices {
    /// None is connected.
    Gone,
    /// Some are connected, none is active.
    Idle,
    /// At least one is active, or was until it left a moment ago.
    Active,
}

impl NodeMessage<'_> for Message {
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

    fn record(number: u128) -> Record {
        Record {
            user: Uuid::from_u128(u128::MAX - number),
            devices: Devices::Active,
            count: 2,
            since: 1_800_000_000_000_000,
            last_active: Some(1_800_000_000_000_000),
            version: 1_800_000_000_000,
            chosen: Some(StoredChoice { choice: 2, until: Some(i64::MAX), set_at: 1_800_000_000_000_000 }),
        }
    }

    fn message(body: Body) -> Message {
        Message { version: VERSION, node: NodeId::from_bytes([1; 5]), at: 9, number: 7, body }
    }

    #[test]
    fn a_message_is_read_as_it_was_written_by_this_version_and_its_neighbours() {
        let bare = Record { last_active: None, chosen: None, devices: Devices::Gone, count: 0, ..record(1) };
        let after = Some(Uuid::from_u128(3));
        let page = Body::Page { after, records: vec![record(4)], is_last: true };
        for body in [Body::Reports(vec![record(0), bare]), Body::Hello, Body::Ask { after: None }, page] {
            let mut message = message(body);
            assert_eq!(Message::decode(&message.encode().unwrap()).unwrap(), message);
            message.version = VERSION + 1;
            assert!(Message::decode(&message.encode().unwrap()).is_ok());
            message.version = VERSION + 2;
            assert!(Message::decode(&message.encode().unwrap()).is_err());
        }
    }

    #[test]
    fn the_largest_message_is_no_larger_than_what_every_broker_carries() {
        let records = (0..super::super::exchange::RECORDS_MAX as u128).map(record).collect();
        let bytes = message(Body::Reports(records)).encode().unwrap();
        assert!(bytes.len() < 128 << 10, "{} bytes", bytes.len());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&bytes);
        }
    }
}
