//! The recently performed requests of other nodes, to detect duplicates. It does no I/O.

use std::collections::{HashSet, VecDeque};

use crate::node::NodeId;

/// The requests that were performed recently. A duplicate is not performed again.
#[derive(Default)]
pub(super) struct RecentRequests {
    known: HashSet<(NodeId, u64)>,
    order: VecDeque<(NodeId, u64)>,
}

impl RecentRequests {
    /// Records a request. Returns whether it is new.
    pub(super) fn is_new(&mut self, request: (NodeId, u64)) -> bool {
        if !self.known.insert(request) {
            return false;
        }
        self.order.push_back(request);
        if self.order.len() > RECENT_REQUESTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// The number of requests kept to detect duplicates.
const RECENT_REQUESTS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_recognised_until_many_others_have_come() {
        let (mut recent, node) = (RecentRequests::default(), NodeId::from_bytes([1; 5]));
        assert!(recent.is_new((node, 0)) && !recent.is_new((node, 0)));
        assert!(recent.is_new((NodeId::from_bytes([2; 5]), 0)));
        (1..RECENT_REQUESTS_MAX as u64).for_each(|id| assert!(recent.is_new((node, id))));
        assert!(recent.is_new((node, 0)), "forgotten");
        assert!(!recent.is_new((node, 7)));
    }
}
