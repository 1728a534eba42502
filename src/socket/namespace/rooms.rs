//! Which sockets are in which room. Members stand densely in their room: a broadcast walks an array and looks
//! nothing up.

use std::cell::Cell;
use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::RwLock;

use super::socket::Socket;

/// All rooms of one namespace. A room exists while somebody is in it.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    by_name: DashMap<Arc<str>, Arc<Room>>,
}

/// One room: slots that members keep for as long as they stay.
#[derive(Debug)]
pub(crate) struct Room {
    name: Arc<str>,
    slots: RwLock<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    members: Vec<Option<Socket>>,
    free: Vec<u32>,
}

/// A member's place in a room, needed to leave it.
#[derive(Debug)]
pub(crate) struct Membership {
    room: Arc<Room>,
    slot: u32,
}

/// What entering a room came to.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) membership: Membership,
    /// Nobody was in the room before.
    pub(crate) created: bool,
}

impl Rooms {
    /// Enters a room. The caller makes sure that a socket enters a room once.
    pub(crate) fn join(&self, name: Arc<str>, socket: Socket) -> Entered {
        // The entry's lock is held until the member stands in the room, so that a leaver cannot remove the
        // room in between.
        let mut created = false;
        let entry = self.by_name.entry(name.clone()).or_insert_with(|| {
            created = true;
            Arc::new(Room::new(name))
        });
        let room = entry.value().clone();
        let slot = room.insert(socket);
        Entered { membership: Membership { room, slot }, created }
    }

    /// Leaves a room; the last one out closes it. Says whether that happened.
    pub(crate) fn leave(&self, membership: Membership) -> bool {
        let Membership { room, slot } = membership;
        room.remove(slot) && self.by_name.remove_if(&room.name, |_, room| room.is_empty()).is_some()
    }

    /// The room, if anybody is in it.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Room>> {
        self.by_name.get(name).map(|room| room.value().clone())
    }

    /// Names of all rooms.
    pub(crate) fn names(&self) -> Vec<Arc<str>> {
        self.by_name.iter().map(|room| room.key().clone()).collect()
    }

    /// How many rooms there are.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }
}

impl Room {
    /// An empty room.
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self { name, slots: RwLock::default() }
    }

    /// Takes a member in and says where it stands.
    pub(crate) fn insert(&self, socket: Socket) -> u32 {
        let mut slots = self.slots.write();
        if let Some(slot) = slots.free.pop()
            && let Some(place) = slots.members.get_mut(slot as usize)
        {
            *place = Some(socket);
            return slot;
        }
        slots.members.push(Some(socket));
        u32::try_from(slots.members.len() - 1).unwrap_or(u32::MAX)
    }

    /// Frees a slot. True when the room is empty now.
    pub(crate) fn remove(&self, slot: u32) -> bool {
        let mut slots = self.slots.write();
        if slots.members.get_mut(slot as usize).and_then(Option::take).is_some() {
            slots.free.push(slot);
        }
        let empty = slots.free.len() == slots.members.len();
        if empty {
            *slots = Slots::default();
        }
        empty
    }

    /// Calls `visit` for each member.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Socket)) {
        for socket in self.slots.read().members.iter().flatten() {
            visit(socket);
        }
    }

    /// How many are in the room.
    pub(crate) fn len(&self) -> usize {
        let slots = self.slots.read();
        slots.members.len() - slots.free.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Membership {
    /// Name of the room.
    pub(crate) fn room(&self) -> &Arc<str> {
        &self.room.name
    }
}

thread_local! {
    static PRESSURE: Cell<bool> = const { Cell::new(false) };
}

/// Notes that a queue this thread just wrote to is filling up faster than its connection can run.
///
/// A broadcast never waits for a receiver, but the connection that causes it can end its turn early, so that
/// receivers that are merely not scheduled yet are not mistaken for slow ones. Handlers run on the thread that
/// polls their connection, so the thread is where sender and connection meet.
pub(crate) fn note_pressure() {
    PRESSURE.set(true);
}

/// Whether pressure was noted since the last call.
pub(crate) fn take_pressure() -> bool {
    PRESSURE.replace(false)
}
