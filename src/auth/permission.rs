//! What somebody may do in a channel: the core's answers, kept for a minute, given up on its word
//! (docs/rpc.md).

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::metrics::{self, PermissionMiss};
use crate::error::{ImksError, ImksResult, Precondition};
use crate::pb::{
    Change, ChannelInfo, CoreClient, Effective, IDS_MAX, Membership, Watch, WatchKind, jittered, v1,
};

/// What a user may do in a channel. The value is the bit position in the core's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Permission {
    /// Know of the channel and get its events.
    ViewChannel = 0,
    /// Write messages, show that one is typing.
    SendMessages = 1,
    /// Read what was written before.
    ReadHistory = 2,
    /// React to messages.
    AddReactions = 3,
    /// Send files.
    AttachFiles = 4,
    /// Send links that are shown with a preview.
    EmbedLinks = 5,
    /// Start polls.
    CreatePoll = 6,
    /// Answer in threads.
    SendInThreads = 7,
    /// Call for everybody of a role.
    MentionRoles = 8,
    /// Call for the whole channel.
    MentionEveryone = 9,
    /// Pin messages. Sensitive.
    PinMessages = 10,
    /// Change what others wrote. Sensitive.
    ManageMessages = 11,
    /// Write in a read-only channel. Sensitive.
    ManageChannel = 12,
}

impl Permission {
    /// All of them, in the order of their bits.
    pub const ALL: [Self; 13] = [
        Self::ViewChannel,
        Self::SendMessages,
        Self::ReadHistory,
        Self::AddReactions,
        Self::AttachFiles,
        Self::EmbedLinks,
        Self::CreatePoll,
        Self::SendInThreads,
        Self::MentionRoles,
        Self::MentionEveryone,
        Self::PinMessages,
        Self::ManageMessages,
        Self::ManageChannel,
    ];

    /// The name on the wire, as in `details.permission` of `forbidden`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ViewChannel => "VIEW_CHANNEL",
            Self::SendMessages => "SEND_MESSAGES",
            Self::ReadHistory => "READ_HISTORY",
            Self::AddReactions => "ADD_REACTIONS",
            Self::AttachFiles => "ATTACH_FILES",
            Self::EmbedLinks => "EMBED_LINKS",
            Self::CreatePoll => "CREATE_POLL",
            Self::SendInThreads => "SEND_IN_THREADS",
            Self::MentionRoles => "MENTION_ROLES",
            Self::MentionEveryone => "MENTION_EVERYONE",
            Self::PinMessages => "PIN_MESSAGES",
            Self::ManageMessages => "MANAGE_MESSAGES",
            Self::ManageChannel => "MANAGE_CHANNEL",
        }
    }

    /// The bit in a set of permissions.
    pub fn bit(self) -> u64 {
        1 << self as u8
    }

    /// Whether the core is asked each time, and its silence is a refusal.
    pub fn is_sensitive(self) -> bool {
        matches!(self, Self::PinMessages | Self::ManageMessages | Self::ManageChannel)
    }

    /// Whether an old answer will do while the core is silent: reading and writing of members.
    fn survives_outage(self) -> bool {
        matches!(
            self,
            Self::ViewChannel
                | Self::SendMessages
                | Self::ReadHistory
                | Self::AddReactions
                | Self::SendInThreads
        )
    }

    /// Whether it changes the channel, which an archived one does not allow.
    fn writes(self) -> bool {
        !matches!(self, Self::ViewChannel | Self::ReadHistory)
    }

    fn on_wire(self) -> v1::Permission {
        v1::Permission::try_from(i32::from(self as u8)).unwrap_or_default()
    }
}

/// A permission that was given, and what goes with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Grant {
    /// Time between two messages of this user in the channel; zero for none.
    pub slow_mode: Duration,
}

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
    shards: Vec<RwLock<Shard>>,
    hasher: RandomState,
    flights: Mutex<HashMap<Key, Flight>>,
    changes: broadcast::Sender<AccessChange>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// (user, channel)
type Key = (Uuid, Uuid);
/// A question under way, and where its outcome will be; `None` after the core gave no answer.
type Flight = watch::Receiver<Option<Outcome>>;
/// `None`: the core gave no answer.
type Outcome = Option<Known>;

#[derive(Default)]
struct Shard {
    known: HashMap<Key, Known>,
    /// Rises with every invalidation: an answer that was asked for before one is not kept after it.
    epoch: u64,
}

/// An answer of the core.
#[derive(Debug, Clone, Copy)]
struct Known {
    bits: u64,
    archived: bool,
    read_only: bool,
    slow_mode: Duration,
    asked_at: Instant,
    fresh_until: Instant,
    /// The core was silent when asked again; do not ask before this.
    outage_until: Option<Instant>,
}

impl Permissions {
    /// An empty cache that follows the core's invalidations. Needs a runtime.
    pub fn new(core: CoreClient, config: Config) -> Self {
        let inner = Arc::new(Inner {
            core,
            config,
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
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

    /// The answer, when it is known: one map read, for the hot path. `None`: ask [`Permissions::require`].
    pub fn cached(&self, user: Uuid, channel: Uuid, permission: Permission) -> Option<ImksResult<Grant>> {
        self.cached_at(user, channel, permission, Instant::now())
    }

    /// [`Permissions::cached`] as it would be at `now`.
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
        let known = self.0.known((user, channel))?;
        let in_outage = known.outage_until.is_some_and(|until| now < until);
        let usable = now < known.fresh_until || (in_outage && self.0.tolerates(&known, permission, now));
        usable.then(|| known.allows(permission))
    }

    /// Whether `user` may do this in `channel`. Asks the core where the answer is not known, together with
    /// all others who ask the same; for a sensitive permission it always asks.
    ///
    /// # Errors
    /// `NotFound` for who may not see the channel, whether there is one or not; `Forbidden`;
    /// `FailedPrecondition` for an archived or read-only channel; `Unavailable` when the core is silent.
    pub async fn require(&self, user: Uuid, channel: Uuid, permission: Permission) -> ImksResult<Grant> {
        self.require_at(user, channel, permission, Instant::now()).await
    }

    /// [`Permissions::require`] as it would be at `now`.
    ///
    /// # Errors
    /// As [`Permissions::require`].
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
        if let Some(known) = self.0.fetch((user, channel), now).await {
            metrics::PERMISSION_MISSES.of(PermissionMiss::Answered).increment();
            return known.allows(permission);
        }
        let known =
            self.0.outage((user, channel), now).filter(|known| self.0.tolerates(known, permission, now));
        let Some(known) = known else {
            metrics::PERMISSION_MISSES.of(PermissionMiss::Failed).increment();
            return Err(ImksError::Unavailable("core"));
        };
        metrics::PERMISSION_MISSES.of(PermissionMiss::Stale).increment();
        known.allows(permission)
    }

    /// Learns what a user may do in many channels with few calls, for a session that starts.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout`; what was learnt before stays.
    pub async fn warm(&self, user: Uuid, channels: &[Uuid]) -> ImksResult<()> {
        let now = Instant::now();
        let missing: Vec<Uuid> = channels
            .iter()
            .copied()
            .filter(|channel| self.cached_at(user, *channel, Permission::ViewChannel, now).is_none())
            .collect();
        for batch in missing.chunks(IDS_MAX) {
            let epoch = self.0.epoch(user);
            for effective in self.0.core.effective_many(user, batch).await? {
                let known = self.0.learnt(&effective, now);
                self.0.keep((user, effective.channel_id), known, epoch);
            }
        }
        Ok(())
    }

    /// Forgets what is known: of the user, in the channel, of both, or everything.
    pub fn invalidate(&self, user: Option<Uuid>, channel: Option<Uuid>) {
        self.0.invalidate(user, channel);
    }

    /// Changes at the core as they come in, after the cache took them in. A receiver that lags has to check
    /// every room again, as after `AccessChange::Permissions` without ids.
    pub fn changes(&self) -> broadcast::Receiver<AccessChange> {
        self.0.changes.subscribe()
    }

    /// Answers kept now.
    pub fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| shard.read().known.len()).sum()
    }

    /// Whether no answer is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    async fn ask(&self, user: Uuid, channel: Uuid, permission: Permission) -> ImksResult<()> {
        match self.0.core.check(user, channel, permission.on_wire()).await? {
            (true, _) => Ok(()),
            (false, true) => Err(ImksError::Forbidden(permission.name())),
            (false, false) => Err(ImksError::NotFound("channel")),
        }
    }
}

impl Known {
    fn allows(&self, permission: Permission) -> ImksResult<Grant> {
        let has = |permission: Permission| self.bits & permission.bit() != 0;
        if !has(Permission::ViewChannel) {
            return Err(ImksError::NotFound("channel"));
        }
        if self.archived && permission.writes() {
            return Err(ImksError::FailedPrecondition(Precondition::ChannelArchived));
        }
        if self.read_only && permission.writes() && !has(Permission::ManageChannel) {
            return Err(ImksError::FailedPrecondition(Precondition::ChannelReadOnly));
        }
        if !has(permission) {
            return Err(ImksError::Forbidden(permission.name()));
        }
        let exempt = has(Permission::ManageMessages) || has(Permission::ManageChannel);
        Ok(Grant { slow_mode: if exempt { Duration::ZERO } else { self.slow_mode } })
    }
}

impl Inner {
    fn shard(&self, user: Uuid) -> &RwLock<Shard> {
        // By user alone, so that all of a user are in one place. The remainder of a u64 by a small number.
        &self.shards[(self.hasher.hash_one(user) % SHARDS as u64) as usize]
    }

    fn known(&self, key: Key) -> Option<Known> {
        self.shard(key.0).read().known.get(&key).copied()
    }

    fn epoch(&self, user: Uuid) -> u64 {
        self.shard(user).read().epoch
    }

    /// Whether an answer that ran out will do while the core is silent.
    fn tolerates(&self, known: &Known, permission: Permission, now: Instant) -> bool {
        permission.survives_outage() && now < known.asked_at + self.config.ttl + self.config.stale_max
    }

    /// The core's answer, asked once for all who wait for it.
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
            let epoch = inner.epoch(key.0);
            let answer = inner.core.effective(key.0, key.1).await;
            let known = answer.ok().map(|effective| inner.learnt(&effective, now));
            if let Some(known) = known {
                inner.keep(key, known, epoch);
            }
            if let Slot::Occupied(flight) = inner.flights.lock().entry(key)
                && flight.get().same_channel(&own)
            {
                flight.remove();
            }
            outcome.send_replace(Some(known));
        });
        flight
    }

    fn learnt(&self, effective: &Effective, now: Instant) -> Known {
        let visible = effective.bits & Permission::ViewChannel.bit() != 0;
        let own = if visible { self.config.ttl } else { self.config.ttl_denied };
        let asked_for = Duration::from_millis(effective.expires_in_ms.into());
        let ttl = if asked_for.is_zero() { own } else { own.min(asked_for) };
        Known {
            bits: effective.bits,
            archived: effective.archived,
            read_only: effective.read_only,
            slow_mode: Duration::from_secs(effective.slow_mode_s.into()).min(SLOW_MODE_MAX),
            asked_at: now,
            fresh_until: now + jittered(ttl),
            outage_until: None,
        }
    }

    fn keep(&self, key: Key, known: Known, epoch: u64) {
        let mut shard = self.shard(key.0).write();
        if shard.epoch != epoch {
            return;
        }
        if shard.known.len() >= (self.config.entries_max / SHARDS).max(1) && !shard.known.contains_key(&key) {
            shard.drop_older_half();
        }
        shard.known.insert(key, known);
    }

    /// The core did not answer: notes it, so that the next do not wait for it, and returns what was known.
    fn outage(&self, key: Key, now: Instant) -> Option<Known> {
        let mut shard = self.shard(key.0).write();
        let known = shard.known.get_mut(&key)?;
        known.outage_until = Some(now + jittered(self.config.outage_pause));
        Some(*known)
    }

    fn invalidate(&self, user: Option<Uuid>, channel: Option<Uuid>) {
        let concerns = |key: &Key| {
            user.is_none_or(|user| user == key.0) && channel.is_none_or(|channel| channel == key.1)
        };
        // First the questions under way: who asks from now on gets an answer of now.
        self.flights.lock().retain(|key, _| !concerns(key));
        let clear = |shard: &RwLock<Shard>| {
            let mut shard = shard.write();
            shard.epoch += 1;
            shard.known.retain(|key, _| !concerns(key));
        };
        match user {
            Some(user) => clear(self.shard(user)),
            None => self.shards.iter().for_each(clear),
        }
    }

    /// Something may have been missed: ask again, but what is known still serves through an outage.
    fn expire_all(&self, now: Instant) {
        self.flights.lock().clear();
        for shard in &self.shards {
            let mut shard = shard.write();
            shard.epoch += 1;
            shard.known.values_mut().for_each(|known| known.fresh_until = known.fresh_until.min(now));
        }
    }

    fn take_in(&self, change: Change) {
        let change = match change {
            Change::Invalidated { user_id, channel_id } => {
                self.invalidate(user_id, channel_id);
                AccessChange::Permissions { user_id, channel_id }
            }
            Change::Joined(membership) => {
                self.invalidate(Some(membership.user_id), Some(membership.channel_id));
                AccessChange::Joined(membership)
            }
            Change::Left { user_id, channel_id } => {
                self.invalidate(Some(user_id), Some(channel_id));
                AccessChange::Left { user_id, channel_id }
            }
            Change::Channel(channel) => {
                self.invalidate(None, Some(channel.id));
                AccessChange::Channel(channel)
            }
            Change::ChannelRemoved(channel) => {
                self.invalidate(None, Some(channel));
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

impl Shard {
    /// Makes room in one pass that pays for the next many insertions.
    fn drop_older_half(&mut self) {
        let mut times: Vec<Instant> = self.known.values().map(|known| known.asked_at).collect();
        let middle = times.len() / 2;
        if times.is_empty() {
            return;
        }
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        self.known.retain(|_, known| known.asked_at > median);
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
        inner.take_in(change);
    }
}

/// Longest time between two messages of one user; more is taken as this.
pub const SLOW_MODE_MAX: Duration = Duration::from_secs(21_600);
/// Enough that two connections rarely meet at one lock.
const SHARDS: usize = 64;
/// Changes a listener may be behind before it has to check everything.
const CHANGES_QUEUE: usize = 1_024;
