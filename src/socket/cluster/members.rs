//! Which other nodes there are. Pure: `now` is an argument.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::node::NodeId;

/// The other nodes, by what was last heard of them.
#[derive(Debug, Default)]
pub(crate) struct Members {
    heard: HashMap<NodeId, Instant>,
}

impl Members {
    /// A node gave a sign of life. One more than [`NODES_MAX`] is not taken for a node.
    pub(crate) fn heard(&mut self, node: NodeId, now: Instant) {
        if self.heard.len() < NODES_MAX || self.heard.contains_key(&node) {
            self.heard.insert(node, now);
        }
    }

    /// A node said that it leaves.
    pub(crate) fn left(&mut self, node: NodeId) {
        self.heard.remove(&node);
    }

    /// Those that are alive; who was silent too long is forgotten.
    pub(crate) fn alive(&mut self, now: Instant) -> impl Iterator<Item = NodeId> + '_ {
        self.heard.retain(|_, heard| now.duration_since(*heard) < SILENCE_MAX);
        self.heard.keys().copied()
    }
}

/// How often a node says that it is there.
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// A node that was silent this long is gone: two heartbeats, as in the reference.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Nodes of one cluster.
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
