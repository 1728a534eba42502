//! Permission checks: the core's answers, cached for a minute and invalidated when the core reports a change
//! (docs/rpc.md).

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::grant_cache::{Concerned, GrantCache, Key};
use super::membership_cache::{MembershipCache, Memberships};
use super::metrics::{self, PermissionMiss};
use super::permission::{CachedGrant, Grant, Permission};
use super::policy::{Policies, Policy};
use crate::background;
use crate::clock::jittered;
use crate::error::{ImksError, ImksResult, Precondition};
use crate::pb::{Allowed, Change, ChannelInfo, CoreClient, Effective, IDS_MAX, Membership, Watch, WatchKind};
use crate::telemetry::trace;

/// The limits of the permission cache.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long an answer is fresh; jittered.
    pub ttl: Duration,
    /// How long an answer that hides the channel from the user is fresh. Short, because a user who just
    /// joined expects access.
    pub ttl_denied: Duration,
    /// How long a stale answer may be used for reading and writing while the core does not answer.
    pub stale_max: Duration,
    /// The pause between two requests about the same key while the core does not answer.
    pub outage_pause: Duration,
    /// The number of cached answers. When it is exceeded, the older half is removed.
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

/// A change at the core that may require sockets to join or leave rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessChange {
    /// A membership was created or changed.
    Joined(Membership),
    /// A membership ended: the user's sockets must leave the channel's room.
    Left {
        /// The user who left.
        user_id: Uuid,
        /// The channel that the user left.
        channel_id: Uuid,
    },
    /// A channel was created or changed.
    Channel(ChannelInfo),
    /// A channel was removed.
    ChannelRemoved(Uuid),
    /// Permissions may have changed: those of the user, those in the channel, or all if both are absent.
    Permissions {
        /// The only user concerned; `None` for all users.
        user_id: Option<Uuid>,
        /// The only channel concerned; `None` for all channels.
        channel_id: Option<Uuid>,
    },
}

/// The permission checker. Cheap to clone; stops following the core when the last clone is dropped.
#[derive(Clone)]
pub struct Permissions(Arc<Inner>);

struct Inner {
    core: CoreClient,
    config: Config,
    cache: GrantCache,
    memberships: Mutex<MembershipCache>,
    flights: Mutex<HashMap<Key, Flight>>,
    changes: broadcast::Sender<AccessChange>,
    policies: Policies,
    /// Whether the core reports changes of memberships, and of permissions.
    followed: [AtomicBool; 2],
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The future outcome of a call in flight, shared by all callers that ask for the same grant.
type Flight = watch::Receiver<Option<Outcome>>;
/// The core's answer; `None` if the call failed.
type Outcome = Option<CachedGrant>;

impl Permissions {
    /// Creates an empty cache that follows the core's invalidations. Must be called within a Tokio runtime.
    pub fn new(core: CoreClient, config: Config) -> Self {
        let inner = Arc::new(Inner {
            cache: GrantCache::new(config.entries_max),
            memberships: Mutex::default(),
            core,
            config,
            flights: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES_QUEUE),
            policies: Policies::default(),
            followed: [AtomicBool::new(true), AtomicBool::new(true)],
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        for kind in [WatchKind::Invalidations, WatchKind::Membership, WatchKind::Channels] {
            let (weak, watch) = (Arc::downgrade(&inner), inner.core.watch(kind));
            let following = inner.stop.clone().run_until_cancelled_owned(follow(weak, watch, kind));
            inner.tasks.spawn(background::essential("permissions", following));
        }
        Self(inner)
    }

    /// Returns the answer if it is cached. This is a single map read, for the hot path. If it returns `None`,
    /// call [`Permissions::require`].
    pub fn cached(&self, user: Uuid, channel: Uuid, permission: Permission) -> Option<ImksResult<Grant>> {
        self.cached_at(user, channel, permission, Instant::now())
    }

    /// Returns what [`Permissions::cached`] would return at `now`.
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

    /// Checks that `user` has this permission in `channel`. Asks the core if the answer is not cached;
    /// concurrent checks of the same user and channel share one call. A sensitive permission is never
    /// answered from the cache.
    ///
    /// # Errors
    /// `NotFound` if the user may not see the channel, whether it exists or not; `Forbidden`;
    /// `FailedPrecondition` if the channel is archived or read-only; `Unavailable` if the core does not
    /// answer.
    pub async fn require(&self, user: Uuid, channel: Uuid, permission: Permission) -> ImksResult<Grant> {
        self.require_at(user, channel, permission, Instant::now()).await
    }

    /// Returns what [`Permissions::require`] would return at `now`.
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

    /// Caches the permissions of a user in many channels with few calls, when a session starts.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`. Grants that are already cached remain.
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

    /// Returns all channels of a user. Those of the directory in this process are cached, because it reports every
    /// change within milliseconds; another core is asked each time.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn memberships(&self, user: Uuid) -> ImksResult<Memberships> {
        let now = Instant::now();
        if let Some(known) = self.0.memberships.lock().get(user, now) {
            return Ok(known);
        }
        let list = Memberships::new(self.0.core.list_user_channels(user).await?, now);
        if self.0.core.is_embedded() && self.is_followed() {
            let until = now + jittered(self.0.config.ttl);
            self.0.memberships.lock().store(user, list.clone(), until, Instant::now());
        }
        Ok(list)
    }

    /// Whether nothing was reported about the channels of a user since the core was asked for them.
    pub fn are_current(&self, user: Uuid, memberships: &Memberships) -> bool {
        self.0.memberships.lock().is_current(user, memberships)
    }

    /// Whether `user` is a member of `channel`. Always asks the core.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`.
    pub async fn is_member(&self, user: Uuid, channel: Uuid) -> ImksResult<bool> {
        self.0.core.is_member(user, channel).await
    }

    /// Returns a receiver of the core's changes. Each change is sent after the cache has applied it. A
    /// receiver that lags must check every room again, as after an `AccessChange::Permissions` without ids.
    pub fn changes(&self) -> broadcast::Receiver<AccessChange> {
        self.0.changes.subscribe()
    }

    /// Whether the core reports who left a channel or lost a permission. If it does not, the rooms of every session
    /// have to be checked from time to time.
    pub fn is_followed(&self) -> bool {
        self.0.followed.iter().all(|followed| followed.load(Ordering::Relaxed))
    }

    /// Marks the answers about a user as stale at `now`: they are asked for again, and used only while the core does
    /// not answer.
    pub fn expire(&self, user: Uuid, now: Instant) {
        self.0.flights.lock().retain(|key, _| key.0 != user);
        self.0.cache.expire(user, now);
        self.0.memberships.lock().change(Concerned { user: Some(user), channel: None }, now);
    }

    async fn ask(&self, user: Uuid, channel: Uuid, permission: Permission) -> ImksResult<()> {
        match self.0.core.check(user, channel, permission.on_wire()).await? {
            Allowed::Yes
                if self.0.policies.get(channel).is_some_and(|policy| policy.archived == Some(true)) =>
            {
                Err(ImksError::FailedPrecondition(Precondition::ChannelArchived))
            }
            Allowed::Yes => Ok(()),
            Allowed::No => Err(ImksError::Forbidden(permission.name())),
            Allowed::Hidden => Err(ImksError::NotFound("channel")),
        }
    }
}

/// What back ends tell.
impl Permissions {
    /// Removes the answers about the user, in the channel, about this user in this channel, or all from the cache of
    /// this node, and makes their sockets leave the rooms that they may no longer be in, as if the core had reported
    /// a change.
    pub fn invalidate(&self, user: Option<Uuid>, channel: Option<Uuid>) {
        self.0.apply(Change::Invalidated { user_id: user, channel_id: channel });
    }

    /// Removes the answer about a user in a channel from the cache of this node.
    pub fn forget(&self, user: Uuid, channel: Uuid) {
        self.0.invalidate_pair(user, channel);
    }

    /// Tells those who follow changes of a membership that was created or changed, as if the core had reported it.
    pub fn joined(&self, membership: Membership) {
        self.0.apply(Change::Joined(membership));
    }

    /// Tells those who follow changes of a membership that ended, as if the core had reported it.
    pub fn left(&self, user_id: Uuid, channel_id: Uuid) {
        self.0.apply(Change::Left { user_id, channel_id });
    }

    /// Replaces the policies of all channels. Returns the channels that now have another one; answers about them are
    /// asked for again.
    pub fn set_policies(&self, policies: HashMap<Uuid, Policy>) -> Vec<Uuid> {
        let changed = self.0.policies.replace(policies);
        for channel in &changed {
            self.0.invalidate(Concerned { user: None, channel: Some(*channel) });
        }
        changed
    }

    /// Returns the policy of a channel.
    pub fn policy(&self, channel: Uuid) -> Option<Policy> {
        self.0.policies.get(channel)
    }

    /// Returns the channels that have a policy.
    pub fn with_policy(&self) -> Vec<Uuid> {
        self.0.policies.channels()
    }

    /// Returns a channel as the core and its policy have it.
    pub fn limited(&self, channel: ChannelInfo) -> ChannelInfo {
        self.0.policies.apply(channel)
    }
}

#[cfg(feature = "testing")]
impl Permissions {
    /// Returns the number of cached answers.
    #[allow(clippy::len_without_is_empty, reason = "for tests of the bound")]
    pub fn len(&self) -> usize {
        self.0.cache.len()
    }
}

impl Inner {
    /// Whether a stale answer may be used while the core does not answer.
    fn tolerates(&self, cached: &CachedGrant, permission: Permission, now: Instant) -> bool {
        permission.survives_outage() && now < cached.asked_at + self.config.ttl + self.config.stale_max
    }

    /// Returns the core's answer. All callers that wait for the same answer share one call.
    async fn fetch(self: &Arc<Self>, key: Key, now: Instant) -> Outcome {
        let mut flight = match self.flights.lock().entry(key) {
            Slot::Occupied(flight) => flight.get().clone(),
            Slot::Vacant(slot) => slot.insert(self.launch(key, now)).clone(),
        };
        // An error means that the task ended without an outcome: it panicked, and the call counts as failed.
        flight.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.flatten())
    }

    /// Calls the core in a separate task, so that the call continues if its first caller is dropped.
    fn launch(self: &Arc<Self>, key: Key, now: Instant) -> Flight {
        let (outcome, flight) = watch::channel(None);
        let (inner, own) = (self.clone(), flight.clone());
        // A part of the request that asks first.
        self.tasks.spawn(trace::within(trace::current(), async move {
            let epoch = inner.cache.epoch(key.0);
            let answer = inner.core.effective(key.0, key.1).await;
            // The client of the core has logged and counted a failure.
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
        }));
        flight
    }

    fn grant_of(&self, effective: &Effective, now: Instant) -> CachedGrant {
        let visible = effective.bits & Permission::ViewChannel.bit() != 0;
        let own = if visible { self.config.ttl } else { self.config.ttl_denied };
        let asked_for = Duration::from_millis(effective.expires_in_ms.into());
        let ttl = if asked_for.is_zero() { own } else { own.min(asked_for) };
        CachedGrant::new(&self.policies.limit(effective), now, jittered(ttl))
    }

    fn invalidate(&self, concerned: Concerned) {
        // Calls in flight are forgotten first, so that later callers request a new answer.
        self.flights.lock().retain(|key, _| !concerned.includes(key));
        self.cache.invalidate(concerned);
        self.memberships.lock().change(concerned, Instant::now());
    }

    fn invalidate_pair(&self, user: Uuid, channel: Uuid) {
        self.invalidate(Concerned { user: Some(user), channel: Some(channel) });
    }

    /// Marks all answers as stale, because changes may have been missed.
    fn expire_all(&self, now: Instant) {
        self.flights.lock().clear();
        self.cache.expire_all(now);
        self.memberships.lock().change(Concerned { user: None, channel: None }, now);
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
            Change::CaughtUp | Change::Reset | Change::Revoked(_) | Change::Missing | Change::Resumed => {
                self.expire_all(Instant::now());
                AccessChange::Permissions { user_id: None, channel_id: None }
            }
        };
        if self.changes.send(change).is_err() {
            tracing::trace!("nobody listens to changes of access; the cache is up to date");
        }
    }

    /// Records whether the core has a stream. Without the one of channels, cached answers say the same a minute
    /// later.
    fn follows(&self, kind: WatchKind, is_followed: bool) {
        let followed = match kind {
            WatchKind::Membership => &self.followed[0],
            WatchKind::Invalidations => &self.followed[1],
            WatchKind::Channels | WatchKind::Revocations => return,
        };
        if followed.swap(is_followed, Ordering::Relaxed) && !is_followed {
            // What is known can no longer be told from what has changed.
            self.memberships.lock().change(Concerned { user: None, channel: None }, Instant::now());
            tracing::warn!(
                ?kind,
                "the core does not report changes: it is asked about the rooms of sessions"
            );
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn follow(inner: Weak<Inner>, mut watch: Watch, kind: WatchKind) {
    loop {
        let change = watch.next().await;
        let Some(inner) = inner.upgrade() else { return };
        inner.follows(kind, change != Change::Missing);
        if !matches!(change, Change::Missing | Change::Resumed) {
            inner.apply(change);
        }
    }
}

/// The number of changes that a receiver may lag behind before it must check every room again.
const CHANGES_QUEUE: usize = 1_024;
