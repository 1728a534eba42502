//! The rooms of a namespace. The members of a room are stored densely, so that a broadcast iterates over an
//! array without lookups.

use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::RwLock;

/// All rooms of one namespace. A room exists while it has members.
#[derive(Debug)]
pub(crate) struct Rooms<M> {
    by_name: DashMap<Arc<str>, Arc<Room<M>>>,
}

impl<M> Default for Rooms<M> {
    fn default() -> Self {
        Self { by_name: DashMap::new() }
    }
}

/// One room. A member keeps its slot for as long as it stays.
#[derive(Debug)]
pub(crate) struct Room<M> {
    name: Arc<str>,
    slots: RwLock<Slots<M>>,
}

#[derive(Debug)]
struct Slots<M> {
    members: Vec<Option<M>>,
    free: Vec<u32>,
}

impl<M> Slots<M> {
    const fn new() -> Self {
        Self { members: Vec::new(), free: Vec::new() }
    }
}

/// The slot of a member in a room, needed to leave the room.
#[derive(Debug)]
pub(crate) struct Membership<M> {
    room: Arc<Room<M>>,
    slot: u32,
}

/// The outcome of joining a room.
#[derive(Debug)]
pub(crate) struct JoinOutcome<M> {
    pub(crate) membership: Membership<M>,
    /// Whether the room is new.
    pub(crate) created: bool,
}

impl<M> Rooms<M> {
    /// Adds a member to a room. The caller ensures that a socket joins a room only once.
    pub(crate) fn join(&self, name: Arc<str>, member: M) -> JoinOutcome<M> {
        // Hold the lock of the entry until the member is in the room, so that a leaving member cannot remove
        // the room in between.
        let mut created = false;
        let entry = self.by_name.entry(name.clone()).or_insert_with(|| {
            created = true;
            Arc::new(Room::new(name))
        });
        let room = entry.value().clone();
        let slot = room.insert(member);
        JoinOutcome { membership: Membership { room, slot }, created }
    }

    /// Removes a member from its room, and the room if it is empty. Returns whether the room was removed.
    pub(crate) fn leave(&self, membership: Membership<M>) -> bool {
        let Membership { room, slot } = membership;
        room.remove(slot) && self.by_name.remove_if(&room.name, |_, room| room.is_empty()).is_some()
    }

    /// Returns the room, if it has members.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Room<M>>> {
        self.by_name.get(name).map(|room| room.value().clone())
    }

    /// Returns the names of all rooms.
    pub(crate) fn names(&self) -> Vec<Arc<str>> {
        self.by_name.iter().map(|room| room.key().clone()).collect()
    }

    /// Returns the number of rooms.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }
}

impl<M> Room<M> {
    /// Creates an empty room.
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self { name, slots: RwLock::new(Slots::new()) }
    }

    /// Inserts a member and returns its slot.
    pub(crate) fn insert(&self, member: M) -> u32 {
        let mut slots = self.slots.write();
        if let Some(slot) = slots.free.pop()
            && let Some(place) = slots.members.get_mut(slot as usize)
        {
            *place = Some(member);
            return slot;
        }
        slots.members.push(Some(member));
        u32::try_from(slots.members.len() - 1).unwrap_or(u32::MAX)
    }

    /// Frees a slot. Returns whether the room is empty now.
    pub(crate) fn remove(&self, slot: u32) -> bool {
        let mut slots = self.slots.write();
        if slots.members.get_mut(slot as usize).and_then(Option::take).is_some() {
            slots.free.push(slot);
        }
        let empty = slots.free.len() == slots.members.len();
        if empty {
            *slots = Slots::new();
        }
        empty
    }

    /// Calls `visit` for each member.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&M)) {
        for member in self.slots.read().members.iter().flatten() {
            visit(member);
        }
    }

    /// Returns the number of members.
    pub(crate) fn len(&self) -> usize {
        let slots = self.slots.read();
        slots.members.len() - slots.free.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<M> Membership<M> {
    /// Returns the name of the room.
    pub(crate) fn room(&self) -> &Arc<str> {
        &self.room.name
    }
}
