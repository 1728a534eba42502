//! The members of the cluster. All functions are pure: `now` is an argument.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::node::NodeId;

/// The other nodes, with the time at which each was last heard.
#[derive(Debug, Default)]
pub(crate) struct Members {
    heard: HashMap<NodeId, Instant>,
}

impl Members {
    /// Records a sign of life from a node. Ignores new nodes beyond [`NODES_MAX`].
    pub(crate) fn heard(&mut self, node: NodeId, now: Instant) {
        if self.heard.len() < NODES_MAX || self.heard.contains_key(&node) {
            self.heard.insert(node, now);
        }
    }

    /// Removes a node that announced its leave.
    pub(crate) fn left(&mut self, node: NodeId) {
        self.heard.remove(&node);
    }

    /// Returns the nodes that are alive, and removes those that were silent for too long.
    pub(crate) fn alive(&mut self, now: Instant) -> impl Iterator<Item = NodeId> + '_ {
        self.heard.retain(|_, heard| now.duration_since(*heard) < SILENCE_MAX);
        self.heard.keys().copied()
    }
}

/// The interval of heartbeats.
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// The silence after which a node counts as gone: two heartbeats, as in the reference.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The maximum number of other nodes in a cluster.
pub(crate) const NODES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_there_until_it_leaves_or_is_silent_for_ten_seconds() {
        let (mut members, start) = (Members::default(), Instant::now());
        let nodes = [NodeId::random().unwrap(), NodeId::random().unwrap(), NodeId::random().unwrap()];
        nodes.iter().for_each(|node| members.heard(*node, start));
        members.left(nodes[2]);
        members.heard(nodes[0], start + HEARTBEAT_INTERVAL);
        assert_eq!(members.alive(start + SILENCE_MAX - Duration::from_nanos(1)).count(), 2);
        assert_eq!(members.alive(start + SILENCE_MAX).collect::<Vec<_>>(), [nodes[0]]);
    }

    #[test]
    fn the_number_of_nodes_is_bounded() {
        let (mut members, start) = (Members::default(), Instant::now());
        for _ in 0..NODES_MAX + 10 {
            members.heard(NodeId::random().unwrap(), start);
        }
        assert_eq!(members.alive(start).count(), NODES_MAX);
    }
}
