//! Answers of the core about permissions, by user and channel, in shards. Pure: the time goes in.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use parking_lot::RwLock;
use tokio::time::Instant;
use uuid::Uuid;

use super::permission::CachedGrant;

/// (user, channel)
pub(super) type Key = (Uuid, Uuid);

/// The cache. Each shard has its own lock; all answers about a user are in one shard.
pub(super) struct GrantCache {
    shards: Vec<RwLock<Shard>>,
    hasher: RandomState,
    /// Most answers of one shard.
    entries_max: usize,
}

#[derive(Default)]
struct Shard {
    grants: HashMap<Key, CachedGrant>,
    /// Rises with every invalidation: an answer that was asked for before one is not stored after it.
    epoch: u64,
}

/// Which answers an invalidation is about: of a user, in a channel, or all where both are absent.
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
    /// Makes an empty cache of about `entries_max` answers.
    pub(super) fn new(entries_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, hasher: RandomState::new(), entries_max: (entries_max / SHARDS).max(1) }
    }

    pub(super) fn get(&self, key: Key) -> Option<CachedGrant> {
        self.shard(key.0).read().grants.get(&key).copied()
    }

    /// Returns the number to hand in with an answer that is asked for now.
    pub(super) fn epoch(&self, user: Uuid) -> u64 {
        self.shard(user).read().epoch
    }

    /// Stores an answer, unless something was invalidated since `epoch`.
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

    /// Notes that the core is silent until `until`, so that the next checks do not wait for it; returns what was cached.
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

    /// Makes every answer stale at `now`: it is asked for again, but still serves through an outage.
    pub(super) fn expire_all(&self, now: Instant) {
        for shard in &self.shards {
            let mut shard = shard.write();
            shard.epoch += 1;
            shard.grants.values_mut().for_each(|grant| grant.fresh_until = grant.fresh_until.min(now));
        }
    }

    #[cfg(feature = "testing")]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().grants.len()).sum()
    }

    fn shard(&self, user: Uuid) -> &RwLock<Shard> {
        // The remainder of a u64 by a small number.
        &self.shards[(self.hasher.hash_one(user) % SHARDS as u64) as usize]
    }
}

impl Shard {
    /// Makes room in one pass that pays for the next many insertions.
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

/// Enough that two connections rarely meet at one lock.
const SHARDS: usize = 64;
