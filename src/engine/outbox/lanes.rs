//! What waits behind everything else for a client that does not keep up: states that pass, and what is large.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::latest::Slot;
use crate::engine::Frame;

/// How urgent a packet is for a client that does not keep up. Within a lane, packets keep their order.
///
/// A client that keeps up gets everything in the order in which it was sent, whatever its lane. Pings and closes of
/// Engine.IO go before all lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lane {
    /// Messages, and everything else that names no lane.
    #[default]
    Chat,
    /// What is of no use later, such as who is typing: it waits behind messages, while few others do. More is dropped.
    Ephemeral,
    /// What is large and asked for, such as history: it waits behind everything else.
    Bulk,
}

/// The packets that wait behind those of [`Lane::Chat`].
#[derive(Debug, Default)]
pub(super) struct Later {
    /// Packets that can be dropped for newer ones.
    droppable: VecDeque<SmallVec<[Frame; 1]>>,
    ephemeral: VecDeque<Waiting>,
    bulk: VecDeque<Waiting>,
}

/// A packet: the frames that stand together.
#[derive(Debug)]
struct Waiting {
    frames: SmallVec<[Frame; 1]>,
    slot: Option<Slot>,
}

impl Later {
    /// Whether no packet of this lane waits here.
    pub(super) fn is_empty(&self, lane: Lane) -> bool {
        match lane {
            Lane::Chat => true,
            Lane::Ephemeral => self.ephemeral.is_empty(),
            Lane::Bulk => self.bulk.is_empty(),
        }
    }

    /// Returns the number of packets that are of no use later.
    pub(super) fn ephemeral(&self) -> usize {
        self.ephemeral.len()
    }

    /// Whether a packet of this slot waits.
    pub(super) fn holds(&self, slot: Slot) -> bool {
        self.ephemeral.iter().any(|packet| packet.slot == Some(slot))
    }

    /// Adds a packet at the end of its lane.
    pub(super) fn push(&mut self, lane: Lane, frames: SmallVec<[Frame; 1]>, slot: Option<Slot>) {
        let packets = if lane == Lane::Bulk { &mut self.bulk } else { &mut self.ephemeral };
        packets.push_back(Waiting { frames, slot });
    }

    /// Whether a packet that can be dropped waits.
    pub(super) fn has_droppable(&self) -> bool {
        !self.droppable.is_empty()
    }

    /// Adds a packet that can be dropped.
    pub(super) fn push_droppable(&mut self, frames: SmallVec<[Frame; 1]>) {
        self.droppable.push_back(frames);
    }

    /// Takes the oldest packet that can be dropped.
    pub(super) fn pop_droppable(&mut self) -> Option<SmallVec<[Frame; 1]>> {
        self.droppable.pop_front()
    }

    /// Takes the packet of a slot, if there is one.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<SmallVec<[Frame; 1]>> {
        let place = self.ephemeral.iter().position(|packet| packet.slot == Some(slot))?;
        self.ephemeral.remove(place).map(|packet| packet.frames)
    }

    /// Takes the most urgent packet.
    pub(super) fn pop(&mut self) -> Option<SmallVec<[Frame; 1]>> {
        self.droppable.pop_front().or_else(|| {
            self.ephemeral.pop_front().or_else(|| self.bulk.pop_front()).map(|packet| packet.frames)
        })
    }
}
