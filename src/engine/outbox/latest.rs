//! The packets in a queue that a newer one of the same slot replaces.

use std::ops::Range;

/// What a packet is the latest state of. A newer packet of the same slot replaces one that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u64);

impl Slot {
    /// Creates a slot from the hash of what it stands for. Two that must not replace each other differ in it, so the hash
    /// has to be keyed with something that no client knows.
    pub fn new(hash: u64) -> Self {
        Self(hash)
    }
}

/// The places of replaceable packets, in the order of the queue.
#[derive(Debug, Default)]
pub(super) struct Latest(Vec<Place>);

#[derive(Debug)]
struct Place {
    slot: Slot,
    /// The place of its first frame in the queue.
    at: usize,
    /// The number of its frames, which stand together.
    frames: usize,
}

impl Latest {
    /// Adds a packet at the end of the queue. Beyond [`LATEST_MAX`] it is like any other packet.
    pub(super) fn add(&mut self, slot: Slot, at: usize, frames: usize) {
        if frames > 0 && self.0.len() < LATEST_MAX {
            self.0.push(Place { slot, at, frames });
        }
    }

    /// Removes the packet of a slot, if there is one. Returns the frames that the queue must remove.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<Range<usize>> {
        let index = self.0.iter().position(|place| place.slot == slot)?;
        let Place { at, frames, .. } = self.0.remove(index);
        self.0.iter_mut().skip(index).for_each(|later| later.at -= frames);
        Some(at..at + frames)
    }

    /// Notes that the queue has lost this many frames at its front. What has left, even in part, is not replaced.
    pub(super) fn advance(&mut self, taken: usize) {
        self.0.retain(|place| place.at >= taken);
        self.0.iter_mut().for_each(|place| place.at -= taken);
    }
}

/// The most packets of one queue that can be replaced. Few enough to be looked through.
pub(super) const LATEST_MAX: usize = 64;
/// The most packets of one queue that may wait although they are of no use later.
pub(super) const VOLATILE_WAITING_MAX: usize = 16;
