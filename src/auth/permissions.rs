//! What a user may do in a channel: the core's answers, cached for a minute and dropped when the core says that they
//! changed (docs/rpc.md).

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::grant_cache::{Concerned, GrantCache, Key};
use super::metrics::{self, PermissionMiss};
use super::permission::{CachedGrant, Grant, Permission};
use crate::clock::jittered;
use crate::error::{ImksError, ImksResult};
use crate::pb::{Allowed, Change, ChannelInfo, CoreClient, Effective, IDS_MAX, Membership, Watch, WatchKind};

/// How long answers are kept.
#[derive(Debug, Clone)]
pub struct Config {
    /// An answer, jittered.
    pub ttl: Duration,
    /// The answer that somebody may not even see the channel: short, since joining is expected to work.
    pub ttl_denied: Duration,
    /// An answer, for reading and writing, while the core is silent.
    pub stale_max: Duration,
    /// Between two questions while the core is silent.
    pub outage_pause: Duration,
    /// Answers kept; the older half goes when there are more.
    pub entries_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(60),
            ttl_denied: Duration::from_secs(5),
            stale_max: Duration::from_secs(300),
            outage_pause: Duration::from_secs(2),
            entries_max: 1 << 18,
        }
    }
}

/// What changed at the core, for whom it means that rooms have to be joined or left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessChange {
    /// A membership is new or different.
    Joined(Membership),
    /// A membership ended: the user has to be taken out of the channel's room.
    Left {
        /// Who left.
        user_id: Uuid,
        /// What was left.
        channel_id: Uuid,
    },
    /// A channel is new or different.
    Channel(ChannelInfo),
    /// A channel is gone.
    ChannelRemoved(Uuid),
    /// Permissions may be different: of the user, in the channel, or of all where both are absent.
    Permissions {
        /// Only of this user.
        user_id: Option<Uuid>,
        /// Only in this channel.
        channel_id: Option<Uuid>,
    },
}

/// Permission checks. Cheap to clone; stops following the core when the last clone is dropped.
#[derive(Clone)]
pub struct Permissions(Arc<Inner>);

struct Inner {
    core: CoreClient,
    config: Config,
    cache: GrantCache,
    flights: Mutex<HashMap<Key, Flight>>,
    changes: broadcast::Sender<AccessChange>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A call under way that all who ask the same share, and where its outcome will be.
type Flight = watch::Receiver<Option<Outcome>>;
/// The core's answer; `None` when it gave none.
type Outcome = Option<CachedGrant>;

impl Permissions {
    /// Makes an empty cache that follows the core's invalidations. Needs a runtime.
    pub fn new(core: CoreClient, config: Config) -> Self {
        let inner = Arc::new(Inner {
            cache: GrantCache::new(config.entries_max),
            core,
            config,
            flights: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES_QUEUE),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        for kind in [WatchKind::Invalidations, WatchKind::Membership, WatchKind::Channels] {
            let (weak, watch) = (Arc::downgrade(&inner), inner.core.watch(kind));
            inner.tasks.spawn(inner.stop.clone().run_until_cancelled_owned(follow(weak, watch)));
        }
        Self(inner)
    }

    /// Returns the answer when it is cached: one map read, for the hot path. `None`: ask [`Permissions::require`].
    pub fn cached(&self, user: Uuid, channel: Uuid, permission: Permission) -> Option<ImksResult<Grant>> {
        self.cached_at(user, channel, permission, Instant::now())
    }

    /// Returns what [`Permissions::cached`] would at `now`.
    pub fn cached_at(
        &self,
        user: Uuid,
        channel: Uuid,
        permission: Permission,
        now: Instant,
    ) -> Option<ImksResult<Grant>> {
        if permission.is_sensitive() {
            return None;
        }
        let cached = self.0.cache.get((user, channel))?;
        let in_outage = cached.outage_until.is_some_and(|until| now < until);
        let usable = now < cached.fresh_until || (in_outage && self.0.tolerates(&cached, permission, now));
        usable.then(|| cached.allows(permission))
    }

    /// Whether `user` may do this in `channel`. Asks the core where the answer is not cached, together with
    /// all others who ask the same; for a sensitive permission it always asks.
    ///
    /// # Errors
    /// `NotFound` for who may not see the channel, whether there is one or not; `Forbidden`;
    /// `FailedPrecondition` for an archived or read-only channel; `Unavailable` when the core is silent.
    pub async fn require(&self, user: Uuid, channel: Uuid, permission: Permission) -> ImksResult<Grant> {
        self.require_at(user, channel, permission, Instant::now()).await
    }

    /// Answers what [`Permissions::require`] would at `now`.
    ///
    /// # Errors
    /// The errors of [`Permissions::require`].
    pub async fn require_at(
        &self,
        user: Uuid,
        channel: Uuid,
        permission: Permission,
        now: Instant,
    ) -> ImksResult<Grant> {
        if permission.is_sensitive() {
            return self.ask(user, channel, permission).await.map(|()| Grant::default());
        }
        if let Some(answer) = self.cached_at(user, channel, permission, now) {
            return answer;
        }
        if let Some(cached) = self.0.fetch((user, channel), now).await {
            metrics::PERMISSION_MISSES.of(PermissionMiss::Answered).increment();
            return cached.allows(permission);
        }
        let until = now + jittered(self.0.config.outage_pause);
        let cached = self.0.cache.note_outage((user, channel), until);
        let Some(cached) = cached.filter(|cached| self.0.tolerates(cached, permission, now)) else {
            metrics::PERMISSION_MISSES.of(PermissionMiss::Failed).increment();
            return Err(ImksError::Unavailable("core"));
        };
        metrics::PERMISSION_MISSES.of(PermissionMiss::Stale).increment();
        cached.allows(permission)
    }

    /// Caches what a user may do in many channels with few calls, for a session that starts.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`; what was cached before stays.
    pub async fn warm(&self, user: Uuid, channels: &[Uuid]) -> ImksResult<()> {
        let now = Instant::now();
        let missing: Vec<Uuid> = channels
            .iter()
            .copied()
            .filter(|channel| self.cached_at(user, *channel, Permission::ViewChannel, now).is_none())
            .collect();
        for batch in missing.chunks(IDS_MAX) {
            let epoch = self.0.cache.epoch(user);
            for effective in self.0.core.effective_many(user, batch).await? {
                let cached = self.0.grant_of(&effective, now);
                self.0.cache.store((user, effective.channel_id), cached, epoch);
            }
        }
        Ok(())
    }

    /// Whether `user` is a member of `channel`, asked now.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn is_member(&self, user: Uuid, channel: Uuid) -> ImksResult<bool> {
        self.0.core.is_member(user, channel).await
    }

    /// Returns the changes at the core as they come in, after the cache has applied them. A receiver that lags has to check
    /// every room again, as after `AccessChange::Permissions` without ids.
    pub fn changes(&self) -> broadcast::Receiver<AccessChange> {
        self.0.changes.subscribe()
    }

    async fn ask(&self, user: Uuid, channel: Uuid, permission: Permission) -> ImksResult<()> {
        match self.0.core.check(user, channel, permission.on_wire()).await? {
            Allowed::Yes => Ok(()),
            Allowed::No => Err(ImksError::Forbidden(permission.name())),
            Allowed::Hidden => Err(ImksError::NotFound("channel")),
        }
    }
}

#[cfg(feature = "testing")]
impl Permissions {
    /// Drops cached answers: of the user, in the channel, of both, or all.
    pub fn invalidate(&self, user: Option<Uuid>, channel: Option<Uuid>) {
        self.0.invalidate(Concerned { user, channel });
    }

    /// Returns the number of cached answers.
    #[allow(clippy::len_without_is_empty, reason = "for tests of the bound")]
    pub fn len(&self) -> usize {
        self.0.cache.len()
    }
}

impl Inner {
    /// Whether an answer that ran out will do while the core is silent.
    fn tolerates(&self, cached: &CachedGrant, permission: Permission, now: Instant) -> bool {
        permission.survives_outage() && now < cached.asked_at + self.config.ttl + self.config.stale_max
    }

    /// Returns the core's answer, asked once for all who wait for it.
    async fn fetch(self: &Arc<Self>, key: Key, now: Instant) -> Outcome {
        let mut flight = match self.flights.lock().entry(key) {
            Slot::Occupied(flight) => flight.get().clone(),
            Slot::Vacant(slot) => slot.insert(self.launch(key, now)).clone(),
        };
        // An error is a task that ended without an outcome.
        flight.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.flatten())
    }

    /// Asks in a task of its own: who wanted the answer first may leave without taking it away from others.
    fn launch(self: &Arc<Self>, key: Key, now: Instant) -> Flight {
        let (outcome, flight) = watch::channel(None);
        let (inner, own) = (self.clone(), flight.clone());
        self.tasks.spawn(async move {
            let epoch = inner.cache.epoch(key.0);
            let answer = inner.core.effective(key.0, key.1).await;
            let cached = answer.ok().map(|effective| inner.grant_of(&effective, now));
            if let Some(cached) = cached {
                inner.cache.store(key, cached, epoch);
            }
            if let Slot::Occupied(flight) = inner.flights.lock().entry(key)
                && flight.get().same_channel(&own)
            {
                flight.remove();
            }
            outcome.send_replace(Some(cached));
        });
        flight
    }

    fn grant_of(&self, effective: &Effective, now: Instant) -> CachedGrant {
        let visible = effective.bits & Permission::ViewChannel.bit() != 0;
        let own = if visible { self.config.ttl } else { self.config.ttl_denied };
        let asked_for = Duration::from_millis(effective.expires_in_ms.into());
        let ttl = if asked_for.is_zero() { own } else { own.min(asked_for) };
        CachedGrant::new(effective, now, jittered(ttl))
    }

    fn invalidate(&self, concerned: Concerned) {
        // First the calls under way: who asks from now on gets an answer of now.
        self.flights.lock().retain(|key, _| !concerned.includes(key));
        self.cache.invalidate(concerned);
    }

    fn invalidate_pair(&self, user: Uuid, channel: Uuid) {
        self.invalidate(Concerned { user: Some(user), channel: Some(channel) });
    }

    /// Something may have been missed: everything is asked again.
    fn expire_all(&self, now: Instant) {
        self.flights.lock().clear();
        self.cache.expire_all(now);
    }

    fn apply(&self, change: Change) {
        let change = match change {
            Change::Invalidated { user_id, channel_id } => {
                self.invalidate(Concerned { user: user_id, channel: channel_id });
                AccessChange::Permissions { user_id, channel_id }
            }
            Change::Joined(membership) => {
                self.invalidate_pair(membership.user_id, membership.channel_id);
                AccessChange::Joined(membership)
            }
            Change::Left { user_id, channel_id } => {
                self.invalidate_pair(user_id, channel_id);
                AccessChange::Left { user_id, channel_id }
            }
            Change::Channel(channel) => {
                self.invalidate(Concerned { user: None, channel: Some(channel.id) });
                AccessChange::Channel(channel)
            }
            Change::ChannelRemoved(channel) => {
                self.invalidate(Concerned { user: None, channel: Some(channel) });
                AccessChange::ChannelRemoved(channel)
            }
            Change::CaughtUp | Change::Reset | Change::Revoked(_) => {
                self.expire_all(Instant::now());
                AccessChange::Permissions { user_id: None, channel_id: None }
            }
        };
        // Nobody listening is fine: the cache answers for itself.
        let _ = self.changes.send(change);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn follow(inner: Weak<Inner>, mut watch: Watch) {
    loop {
        let change = watch.next().await;
        let Some(inner) = inner.upgrade() else { return };
        inner.apply(change);
    }
}

/// Changes a listener may be behind before it has to check everything.
const CHANGES_QUEUE: usize = 1_024;
