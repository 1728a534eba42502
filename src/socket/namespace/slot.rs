//! The slots of events: those with the same namespace, rooms and key replace each other while they wait for a client.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use crate::engine::Slot;

/// Returns the slot of an event. One for single clients has no rooms.
pub(crate) fn slot(namespace: &str, rooms: &[&str], key: &str) -> Slot {
    static HASHER: OnceLock<RandomState> = OnceLock::new();
    Slot::new(HASHER.get_or_init(RandomState::new).hash_one((namespace, rooms, key)))
}
