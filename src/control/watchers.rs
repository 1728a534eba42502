//! Who follows the feed now: a bounded number of watchers for each caller, and in total.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use super::metrics::WATCHERS;
use crate::{ImksError, ImksResult};

/// The numbers of watchers, by caller. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Watchers(Arc<Mutex<HashMap<Uuid, usize>>>);

/// The place of one watcher, which is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    watchers: Watchers,
    caller: Uuid,
}

impl Watchers {
    /// Takes a place for a watcher of `caller`.
    ///
    /// # Errors
    /// [`ImksError::RateLimited`] if the caller, or all of them together, have too many.
    pub(super) fn take(&self, caller: Uuid) -> ImksResult<Slot> {
        let refuse = |bucket| Err(ImksError::RateLimited { bucket, retry_after: RETRY_AFTER });
        let mut counts = self.0.lock();
        if counts.get(&caller).is_some_and(|count| *count >= WATCHERS_PER_CALLER_MAX) {
            return refuse("watchers:key");
        }
        if counts.values().sum::<usize>() >= WATCHERS_MAX {
            return refuse("watchers:all");
        }
        *counts.entry(caller).or_default() += 1;
        WATCHERS.add(1);
        Ok(Slot { watchers: self.clone(), caller })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        WATCHERS.add(-1);
        let mut counts = self.watchers.0.lock();
        if let Some(count) = counts.get_mut(&self.caller) {
            *count -= 1;
        }
        counts.retain(|_, count| *count > 0);
    }
}

/// The most watchers of one caller on a node.
const WATCHERS_PER_CALLER_MAX: usize = 16;
/// The most watchers on a node; each holds a page of events.
const WATCHERS_MAX: usize = 64;
/// When a refused watcher may try again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_and_all_together_have_a_bounded_number_of_watchers() {
        let watchers = Watchers::default();
        let take = |caller: u128| watchers.take(Uuid::from_u128(caller));
        let bucket = |refused: ImksResult<Slot>| match refused {
            Err(ImksError::RateLimited { bucket, .. }) => bucket,
            other => panic!("{other:?}"),
        };
        let mut held: Vec<Slot> = (0..WATCHERS_PER_CALLER_MAX).map(|_| take(1).unwrap()).collect();
        assert_eq!(bucket(take(1)), "watchers:key");
        held.extend((held.len()..WATCHERS_MAX).map(|n| take(n as u128 + 10).unwrap()));
        assert_eq!(bucket(take(2)), "watchers:all");
        drop(held.remove(0));
        held.push(take(1).unwrap());
        drop(held);
        assert!(watchers.0.lock().is_empty(), "nothing is kept of callers that have left");
    }
}
