//! How many characters there are of some messages.

use std::collections::VecDeque;

use uuid::Uuid;

/// Lengths of texts, by message. Those are kept that were noted last.
#[derive(Debug, Default)]
pub(super) struct Lengths(VecDeque<(Uuid, u64)>);

impl Lengths {
    pub(super) fn get(&self, id: Uuid) -> Option<u64> {
        self.iter().find_map(|(known, length)| (known == id).then_some(length))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Uuid, u64)> + '_ {
        self.0.iter().copied()
    }

    pub(super) fn note(&mut self, id: Uuid, length: u64) {
        self.forget(id);
        if self.0.len() == STREAMS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((id, length));
    }

    pub(super) fn forget(&mut self, id: Uuid) {
        self.0.retain(|(known, _)| *known != id);
    }
}

/// The maximum number of messages of one channel whose streamed text is followed at once. Of a further one, only the end is
/// told.
const STREAMS_MAX: usize = 100;
