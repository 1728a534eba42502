//! Rates of users on all nodes: each node tells the others what its users have taken from their buckets, if they are connected
//! there too. So a rate counts once for the whole cluster, up to a second late.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::node_message::NodeMessage;
use super::parts::Messaging;
use super::push::user_room;
use super::rates::Spent;
use crate::bus::Pipe;
use crate::bus::metrics as bus_metrics;
use crate::node::NodeId;
use crate::socket::Namespace;

/// A message of one node to all others. Received ones are untrusted.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Message<'a> {
    version: u8,
    node: NodeId,
    #[serde(borrow)]
    spent: Vec<Spent<'a>>,
}

impl<'a> NodeMessage<'a> for Message<'a> {
    const VERSION: u8 = VERSION;

    fn version(&self) -> u8 {
        self.version
    }
}

/// Tells the other nodes what users have taken here, and counts what they have taken there, until `stop`.
pub(super) async fn share(
    messaging: Messaging,
    (node, pipe): (NodeId, Arc<dyn Pipe>),
    namespace: Namespace,
    stop: CancellationToken,
) {
    let mut told = pipe.subscribe(CHANNEL);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => tell(&messaging, node, &*pipe),
            Some(message) = told.recv() => take(&messaging, node, &namespace, &message),
        }
    }
}

fn tell(messaging: &Messaging, node: NodeId, pipe: &dyn Pipe) {
    let mut spent = messaging.rates().spent(|user| messaging.presence().elsewhere(user) > 0);
    while !spent.is_empty() {
        let rest = spent.split_off(spent.len().min(RECORDS_MAX));
        let message = Message { version: VERSION, node, spent: std::mem::replace(&mut spent, rest) };
        match message.encode() {
            Ok(bytes) => pipe.publish(CHANNEL, bytes),
            Err(error) => tracing::warn!(%error, "other nodes were not told of rates"),
        }
    }
}

fn take(messaging: &Messaging, node: NodeId, namespace: &Namespace, message: &[u8]) {
    let message = match Message::decode(message) {
        Ok(message) => message,
        Err(error) => {
            bus_metrics::MESSAGES_DROPPED.of(bus_metrics::Drop::Unreadable).increment();
            tracing::debug!(%error, "a message about rates was dropped");
            return;
        }
    };
    if message.node == node {
        return;
    }
    let now = Instant::now();
    for spent in message.spent.iter().take(RECORDS_MAX) {
        // Only for those who are here: whatever is said, there are no more buckets than users.
        if namespace.rooms().get(&user_room(spent.user)).is_some() {
            messaging.rates().spend(spent, now);
        }
    }
}

/// The channel of the bus.
const CHANNEL: &str = "rates";
/// How often the other nodes are told.
const TICK: Duration = Duration::from_millis(500);
/// The most buckets in one message between nodes.
const RECORDS_MAX: usize = 1_000;
/// The version that this node writes.
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::messaging::Config;
    use crate::messaging::rates::Rates;
    use crate::rate_limit::Rate;

    const ALICE: Uuid = Uuid::from_u128(1);
    const BOB: Uuid = Uuid::from_u128(2);
    const CHANNEL_ID: Uuid = Uuid::from_u128(3);

    #[test]
    fn a_message_is_read_as_it_was_written_by_this_version_and_its_neighbours() {
        let spent = vec![
            Spent::new("send:user", ALICE, None, 3),
            Spent::new("send:user_channel", ALICE, Some(CHANNEL_ID), u32::MAX),
        ];
        let mut message = Message { version: VERSION, node: NodeId::from_bytes([1; 5]), spent };
        assert_eq!(Message::decode(&message.encode().unwrap()).unwrap(), message);
        message.version = VERSION + 1;
        assert!(Message::decode(&message.encode().unwrap()).is_ok());
        message.version = VERSION + 2;
        assert!(Message::decode(&message.encode().unwrap()).is_err());
    }

    #[test]
    fn the_largest_message_is_no_larger_than_what_every_broker_carries() {
        let spent = vec![Spent::new("presence:subscribe", ALICE, Some(CHANNEL_ID), u32::MAX); RECORDS_MAX];
        let message = Message { version: VERSION, node: NodeId::from_bytes([1; 5]), spent };
        assert!(message.encode().unwrap().len() < 128 << 10);
    }

    #[test]
    fn what_a_user_takes_on_one_node_is_missing_on_the_other() {
        let (sends, sends_per_channel) = (Rate::new(1, 5), Rate::new(1, 3));
        let config = Config { sends, sends_per_channel, ..Config::default() };
        let (here, there) = (Rates::new(&config, true), Rates::new(&config, true));
        for user in [ALICE, BOB] {
            here.count_send(user, CHANNEL_ID).unwrap();
            here.count_send(user, CHANNEL_ID).unwrap();
        }
        let spent = here.spent(|user| user == ALICE);
        assert_eq!(spent.len(), 2, "of both buckets of her who is connected to the other node");
        assert!(here.spent(|_| true).is_empty(), "told once");
        spent.iter().for_each(|spent| there.spend(spent, Instant::now()));
        there.count_send(ALICE, CHANNEL_ID).unwrap();
        assert!(there.count_send(ALICE, CHANNEL_ID).is_err(), "three in this channel, on both nodes");
        there.spend(&Spent::new("unknown", ALICE, None, 9), Instant::now());
        for _ in 0..3 {
            there.count_send(BOB, CHANNEL_ID).unwrap();
        }
    }

    #[test]
    fn a_single_node_notes_nothing_for_others() {
        let rates = Rates::new(&Config::default(), false);
        rates.count_send(ALICE, CHANNEL_ID).unwrap();
        assert!(rates.spent(|_| true).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&bytes);
        }
    }
}
