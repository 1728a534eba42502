//! The recent requests and operations of other nodes, to detect those that come twice or late. It does no I/O.

use std::collections::{HashMap, HashSet, VecDeque};

use super::members::NODES_MAX;
use super::message::Place;
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

/// The places of the last operations of other processes in one namespace. A pipe that was connected anew may carry an
/// operation twice, or an earlier one after a later one: a client must not get that.
#[derive(Default)]
pub(super) struct LastPlaces {
    numbers: HashMap<(NodeId, u32), u64>,
    order: VecDeque<(NodeId, u32)>,
}

impl LastPlaces {
    /// Records an operation. Returns false if it, or a later one of its process, was recorded before.
    pub(super) fn advance(&mut self, node: NodeId, place: Place) -> bool {
        let Place { process, number } = place;
        if let Some(last) = self.numbers.get_mut(&(node, process)) {
            let is_later = number > *last;
            *last = number.max(*last);
            return is_later;
        }
        self.numbers.insert((node, process), number);
        self.order.push_back((node, process));
        if self.order.len() > PROCESSES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.numbers.remove(&oldest);
        }
        true
    }
}

/// The number of processes whose last operation is kept: as many as a cluster has nodes, and as many that they have
/// replaced. The process that was first is forgotten first, and then counts as a new one.
const PROCESSES_MAX: usize = 2 * NODES_MAX;

/// The number of requests kept to detect duplicates.
const RECENT_REQUESTS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_counts_once_and_not_after_a_later_one_of_its_process() {
        let (mut last, node) = (LastPlaces::default(), NodeId::from_bytes([1; 5]));
        let place = |process, number| Place { process, number };
        assert!(last.advance(node, place(1, 0)) && last.advance(node, place(1, 2)));
        assert!(!last.advance(node, place(1, 2)) && !last.advance(node, place(1, 1)));
        assert!(last.advance(node, place(2, 0)), "the next process of the same name");
        assert!(last.advance(NodeId::from_bytes([2; 5]), place(1, 0)));
        assert!(!last.advance(node, place(1, 2)) && last.advance(node, place(1, 3)));
        for process in 0..PROCESSES_MAX as u32 {
            last.advance(NodeId::from_bytes([3; 5]), place(process, 0));
        }
        assert_eq!((last.numbers.len(), last.order.len()), (PROCESSES_MAX, PROCESSES_MAX));
    }

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
