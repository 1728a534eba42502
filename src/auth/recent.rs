//! A map of recent answers, bounded in entries and bytes: the oldest ones are forgotten first. Pure: the time is an
//! argument.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use tokio::time::Instant;

/// The bounds of a map of recent answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The largest number of entries.
    pub(super) entries: usize,
    /// The largest total weight of the entries, in bytes.
    pub(super) bytes: usize,
}

/// Answers by what was asked.
pub(super) struct Recent<K, V> {
    bounds: Bounds,
    entries: HashMap<K, Entry<V>>,
    /// The keys in the order in which they were stored, each with the number of its entry. A key that was removed
    /// or stored again leaves its old place behind; the number tells.
    order: VecDeque<(K, u64)>,
    bytes: usize,
    stored: u64,
}

struct Entry<V> {
    value: V,
    weight: usize,
    /// When the answer is too old; `None` means never.
    until: Option<Instant>,
    number: u64,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: HashMap::new(), order: VecDeque::new(), bytes: 0, stored: 0 }
    }

    /// Returns an answer that is not too old at `now`.
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q, now: Instant) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let entry = self.entries.get(key)?;
        entry.until.is_none_or(|until| now < until).then_some(&entry.value)
    }

    /// Stores an answer until `until`. `weight` is what it takes besides its entry, in bytes. Forgets what is too
    /// old at `now`, then the oldest answers until the bounds are kept.
    pub(super) fn insert(&mut self, key: K, value: V, weight: usize, until: Option<Instant>, now: Instant) {
        let weight = weight + size_of::<(K, Entry<V>)>() + size_of::<(K, u64)>();
        if weight > self.bounds.bytes {
            self.remove(&key);
            return;
        }
        self.stored += 1;
        let entry = Entry { value, weight, until, number: self.stored };
        if let Some(before) = self.entries.insert(key.clone(), entry) {
            self.bytes -= before.weight;
        }
        self.bytes += weight;
        self.order.push_back((key, self.stored));
        self.evict(now);
    }

    pub(super) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.weight;
        }
    }

    fn evict(&mut self, now: Instant) {
        while let Some((key, number)) = self.order.front() {
            let entry = self.entries.get(key).filter(|entry| entry.number == *number);
            let is_over = self.entries.len() > self.bounds.entries || self.bytes > self.bounds.bytes;
            let is_old = |entry: &Entry<V>| entry.until.is_some_and(|until| until <= now);
            if entry.is_some_and(|entry| !is_over && !is_old(entry)) {
                break;
            }
            let is_there = entry.is_some();
            let Some((key, _)) = self.order.pop_front() else { break };
            if is_there {
                self.remove(&key);
            }
        }
        // Places that removed keys left in the middle may not outnumber the entries.
        if self.order.len() > 2 * self.entries.len() + PLACES_SPARE {
            let entries = &self.entries;
            self.order.retain(|(key, number)| entries.get(key).is_some_and(|entry| entry.number == *number));
        }
    }
}

/// The number of left places that are always tolerated, so that a small map is not tidied at every step.
const PLACES_SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn recent(entries: usize, bytes: usize) -> Recent<u32, u32> {
        Recent::new(Bounds { entries, bytes })
    }

    #[test]
    fn a_full_map_forgets_the_oldest_answer_and_keeps_the_others() {
        let (mut recent, now) = (recent(3, usize::MAX), Instant::now());
        for key in 0..4 {
            recent.insert(key, key, 0, None, now);
        }
        assert_eq!(
            (0..4).map(|key| recent.get(&key, now).copied()).collect::<Vec<_>>(),
            [None, Some(1), Some(2), Some(3)]
        );
    }

    #[test]
    fn an_answer_that_is_too_old_is_none_and_goes_before_a_younger_one() {
        let (mut recent, now) = (recent(2, usize::MAX), Instant::now());
        recent.insert(1, 1, 0, Some(now + SECOND), now);
        assert_eq!(recent.get(&1, now + SECOND), None);
        recent.insert(2, 2, 0, Some(now + 3 * SECOND), now + 2 * SECOND);
        assert_eq!(recent.entries.len(), 1);
    }

    #[test]
    fn heavy_answers_push_out_more_and_one_that_is_too_heavy_is_not_kept() {
        let (mut recent, now) = (recent(100, 10_000), Instant::now());
        for key in 0..8 {
            recent.insert(key, key, 1_000, None, now);
        }
        recent.insert(8, 8, 9_000, None, now);
        assert_eq!(recent.entries.len(), 1);
        recent.insert(8, 9, 20_000, None, now);
        assert_eq!((recent.get(&8, now), recent.bytes), (None, 0), "nor the answer that it replaces");
    }

    proptest! {
        #[test]
        fn the_bounds_hold_whatever_is_stored_and_removed(
            steps in prop::collection::vec((any::<bool>(), 0..40_u32, 0..400_usize, 0..5_u64), 0..300)
        ) {
            let (mut recent, start) = (recent(10, 3_000), Instant::now());
            for (number, (removes, key, weight, seconds)) in steps.into_iter().enumerate() {
                let now = start + SECOND * u32::try_from(number).unwrap();
                if removes {
                    recent.remove(&key);
                } else {
                    recent.insert(key, key, weight, Some(now + Duration::from_secs(seconds)), now);
                }
                prop_assert!(recent.entries.len() <= 10 && recent.bytes <= 3_000);
                prop_assert!(recent.order.len() <= 2 * recent.entries.len() + PLACES_SPARE);
                prop_assert_eq!(recent.bytes, recent.entries.values().map(|entry| entry.weight).sum::<usize>());
            }
        }
    }
}
