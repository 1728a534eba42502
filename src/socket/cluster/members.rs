//! The members of the cluster. All functions are pure: `now` is an argument.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::node::NodeId;

/// The other nodes, with the time at which each was last heard.
#[derive(Debug, Default)]
pub(crate) struct Members {
    heard: HashMap<NodeId, Instant>,
    /// Whether this node hears nobody, and when that was last otherwise again.
    is_cut_off: bool,
    back_at: Option<Instant>,
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

    /// Records whether this node is connected to the others.
    pub(crate) fn connected(&mut self, is_connected: bool, now: Instant) {
        if is_connected && self.is_cut_off {
            self.back_at = Some(now);
        }
        self.is_cut_off = !is_connected;
    }

    /// Returns the nodes that are alive.
    pub(crate) fn alive(&mut self, now: Instant) -> impl Iterator<Item = NodeId> + '_ {
        self.forget(now);
        let alive = self.heard.iter().filter(move |(_, heard)| now.duration_since(**heard) < SILENCE_MAX);
        alive.map(|(node, _)| *node)
    }

    /// Returns the nodes whose answers make an answer of the cluster complete: those that are alive, and those that this node
    /// could not hear because it was cut off itself.
    pub(crate) fn expected(&mut self, now: Instant) -> impl Iterator<Item = NodeId> + '_ {
        self.forget(now);
        self.heard.keys().copied()
    }

    /// Removes the nodes that were silent for too long while this one could hear them.
    fn forget(&mut self, now: Instant) {
        let Self { heard, is_cut_off: false, back_at } = self else { return };
        heard.retain(|_, at| now.duration_since(back_at.map_or(*at, |back| back.max(*at))) < SILENCE_MAX);
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
    fn a_node_that_is_cut_off_knows_that_it_does_not_hear_the_others() {
        let (mut members, start) = (Members::default(), Instant::now());
        let node = NodeId::random().unwrap();
        members.connected(true, start);
        members.heard(node, start);
        members.connected(false, start);
        let later = start + SILENCE_MAX * 10;
        assert_eq!((members.alive(later).count(), members.expected(later).count()), (0, 1));
        members.connected(true, later);
        let soon = later + SILENCE_MAX - Duration::from_nanos(1);
        assert_eq!(
            (members.alive(soon).count(), members.expected(soon).count()),
            (0, 1),
            "it may be heard soon"
        );
        assert_eq!(members.expected(later + SILENCE_MAX).count(), 0, "it is not there any more");
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
