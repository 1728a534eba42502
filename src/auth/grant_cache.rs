//! A sharded cache of the core's answers about permissions, by user and channel. Pure: the time is an
//! argument.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use parking_lot::RwLock;
use tokio::time::Instant;
use uuid::Uuid;

use super::permission::CachedGrant;

/// A pair of user and channel.
pub(super) type Key = (Uuid, Uuid);

/// The cache of grants. Each shard has its own lock, and all answers about a user are in the same shard.
pub(super) struct GrantCache {
    shards: Vec<RwLock<Shard>>,
    hasher: RandomState,
    /// The largest number of answers in one shard.
    entries_max: usize,
}

#[derive(Default)]
struct Shard {
    grants: HashMap<Key, CachedGrant>,
    /// Increases with every invalidation. An answer that was requested before an invalidation is not stored
    /// after it.
    epoch: u64,
}

/// The answers that an invalidation covers: those about a user, in a channel, or all if both are absent.
#[derive(Clone, Copy)]
pub(super) struct Concerned {
    pub(super) user: Option<Uuid>,
    pub(super) channel: Option<Uuid>,
}

impl Concerned {
    pub(super) fn includes(self, key: &Key) -> bool {
        self.user.is_none_or(|user| user == key.0) && self.channel.is_none_or(|channel| channel == key.1)
    }
}

impl GrantCache {
    /// Creates an empty cache for about `entries_max` answers.
    pub(super) fn new(entries_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, hasher: RandomState::new(), entries_max: (entries_max / SHARDS).max(1) }
    }

    pub(super) fn get(&self, key: Key) -> Option<CachedGrant> {
        self.shard(key.0).read().grants.get(&key).copied()
    }

    /// Returns the epoch to pass to [`GrantCache::store`] with an answer that is requested now.
    pub(super) fn epoch(&self, user: Uuid) -> u64 {
        self.shard(user).read().epoch
    }

    /// Stores an answer, unless answers were invalidated since `epoch`.
    pub(super) fn store(&self, key: Key, grant: CachedGrant, epoch: u64) {
        let mut shard = self.shard(key.0).write();
        if shard.epoch != epoch {
            return;
        }
        if shard.grants.len() >= self.entries_max && !shard.grants.contains_key(&key) {
            shard.drop_older_half();
        }
        shard.grants.insert(key, grant);
    }

    /// Records that the core does not answer, so that checks before `until` do not wait for it. Returns the
    /// cached grant.
    pub(super) fn note_outage(&self, key: Key, until: Instant) -> Option<CachedGrant> {
        let mut shard = self.shard(key.0).write();
        let grant = shard.grants.get_mut(&key)?;
        grant.outage_until = Some(until);
        Some(*grant)
    }

    pub(super) fn invalidate(&self, concerned: Concerned) {
        let clear = |shard: &RwLock<Shard>| {
            let mut shard = shard.write();
            shard.epoch += 1;
            shard.grants.retain(|key, _| !concerned.includes(key));
        };
        match concerned.user {
            Some(user) => clear(self.shard(user)),
            None => self.shards.iter().for_each(clear),
        }
    }

    /// Marks every answer as stale at `now`. A stale answer is requested again, but can still be used during
    /// an outage.
    pub(super) fn expire_all(&self, now: Instant) {
        for shard in &self.shards {
            let mut shard = shard.write();
            shard.epoch += 1;
            shard.grants.values_mut().for_each(|grant| grant.fresh_until = grant.fresh_until.min(now));
        }
    }

    /// Marks every answer about a user as stale at `now`.
    pub(super) fn expire(&self, user: Uuid, now: Instant) {
        let mut shard = self.shard(user).write();
        shard.epoch += 1;
        let of_user = shard.grants.iter_mut().filter(|((whose, _), _)| *whose == user);
        of_user.for_each(|(_, grant)| grant.fresh_until = grant.fresh_until.min(now));
    }

    #[cfg(feature = "testing")]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().grants.len()).sum()
    }

    fn shard(&self, user: Uuid) -> &RwLock<Shard> {
        // The cast does not truncate: the remainder is less than `SHARDS`.
        &self.shards[(self.hasher.hash_one(user) % SHARDS as u64) as usize]
    }
}

impl Shard {
    /// Removes the older half of the answers in one pass, so that many insertions share its cost.
    fn drop_older_half(&mut self) {
        let mut times: Vec<Instant> = self.grants.values().map(|grant| grant.asked_at).collect();
        let middle = times.len() / 2;
        if times.is_empty() {
            return;
        }
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        self.grants.retain(|_, grant| grant.asked_at > median);
    }
}

/// The number of shards: enough that two connections rarely contend for one lock.
const SHARDS: usize = 64;
