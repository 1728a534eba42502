//! The keys that tokens are verified with, and the task that keeps them up to date: periodically, and when a token
//! names a key that is not known.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::claims::Refusal;
use super::keys::{KeySet, ListedKey, Verifier};
use super::metrics::{self, Refresh};
use super::own_keys::KeySource;
use super::recent::{Bounds, Recent};
use super::token_config::Config;
use crate::background;
use crate::clock::{Micros, jittered, micros, now_micros};
use crate::error::{ImksError, ImksResult, Precondition};
use crate::pb::CoreClient;

/// Who lists the keys.
pub(super) enum Issuer {
    /// The core.
    Core(CoreClient),
    /// The operator's own application.
    Own(KeySource),
}

/// The known keys. Cheap to clone; the task that follows the issuer ends when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Keyring(Arc<Inner>);

struct Inner {
    issuer: Issuer,
    config: Config,
    keys: RwLock<Arc<KeySet>>,
    refreshes: Mutex<Refreshes>,
    /// When a token of an unknown key was first seen, by its hash: a look at the keys that began earlier says nothing
    /// about its key.
    unknown: Mutex<Recent<u64, Instant>>,
    hasher: RandomState,
    wanted: Arc<Notify>,
    /// The number of refreshes that ended, successfully or not.
    ended: watch::Sender<u64>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Refreshes {
    running: bool,
    /// When an unknown key last caused a refresh. Periodic refreshes do not count, because a new key may
    /// appear right after one.
    caused_at: Option<Instant>,
    failed: bool,
    /// When the last look that had an answer began.
    looked_at: Option<Instant>,
    etag: String,
}

impl Keyring {
    /// Starts to follow the keys of an issuer.
    ///
    /// # Errors
    /// `Config` if keys that are not fetched over the network cannot be used.
    pub(super) async fn start(issuer: Issuer, config: Config) -> ImksResult<Self> {
        let keys = match &issuer {
            Issuer::Own(keys) if !keys.is_remote() => {
                KeySet::default().updated(keys.fetch().await?, now_micros(), 0)
            }
            _ => KeySet::default(),
        };
        let inner = Arc::new(Inner {
            issuer,
            config,
            keys: RwLock::new(Arc::new(keys)),
            refreshes: Mutex::default(),
            unknown: Mutex::new(Recent::new(UNKNOWN)),
            hasher: RandomState::new(),
            wanted: Arc::default(),
            ended: watch::Sender::new(0),
            stop: CancellationToken::new(),
        });
        let weak = Arc::downgrade(&inner);
        let following = move |stop: CancellationToken| stop.run_until_cancelled_owned(follow(weak.clone()));
        TaskTracker::new().spawn(background::keep("keys", inner.stop.clone(), following));
        Ok(Self(inner))
    }

    /// Waits until the first refresh has ended, successfully or not.
    pub(super) async fn tried(&self) {
        let mut ended = self.0.ended.subscribe();
        // Cannot fail: this keyring holds the sender.
        ended.wait_for(|count| *count > 0).await.map(drop).unwrap_or_default();
    }

    /// Returns the keys with the id that a token names, at least one. Looks for them once if there are none. Only a
    /// look that began after the token was first seen tells that there is no such key; within the pause between two
    /// looks, nobody knows.
    pub(super) async fn named(
        &self,
        issuer: &str,
        kid: &str,
        token: &str,
        now: Micros,
    ) -> Result<Vec<Verifier>, Refusal> {
        let known = || Some(self.0.keys.read().get(issuer, kid, now)).filter(|keys| !keys.is_empty());
        if let Some(keys) = known() {
            return Ok(keys);
        }
        if self.0.keys.read().is_early(issuer, kid, now) {
            return Err(Refusal::NotYetValid);
        }
        let hash = self.0.hasher.hash_one(token);
        let seen_at = self.first_seen(hash);
        // A look that was under way when the token came may not know its key: then one more decides.
        for _ in 0..LOOKS_MAX {
            let has_ended = self.refreshed().await;
            if let Some(keys) = known() {
                return Ok(keys);
            }
            if !has_ended || self.is_settled(seen_at) {
                break;
            }
        }
        Err(self.refusal(hash, seen_at))
    }

    /// Returns when a token of an unknown key was first seen, which is now if it is new.
    fn first_seen(&self, hash: u64) -> Instant {
        let (now, mut unknown) = (Instant::now(), self.0.unknown.lock());
        if let Some(seen_at) = unknown.get(&hash, now).copied() {
            return seen_at;
        }
        unknown.insert(hash, now, 0, Some(now + UNKNOWN_KEPT), now);
        now
    }

    /// Whether a further look now would say no more about the key of a token that was first seen at `seen_at`.
    fn is_settled(&self, seen_at: Instant) -> bool {
        let refreshes = self.0.refreshes.lock();
        refreshes.failed || refreshes.looked_at.is_some_and(|at| at >= seen_at)
    }

    /// Returns why a token whose key was not found is refused: for good if a look since it was first seen did not
    /// find the key, else until there can be one.
    fn refusal(&self, hash: u64, seen_at: Instant) -> Refusal {
        let is_empty = self.0.keys.read().is_empty();
        let refreshes = self.0.refreshes.lock();
        // Without an answer, a new key cannot be told from one that does not exist.
        if is_empty || refreshes.failed {
            return Refusal::Unknown(self.unavailable());
        }
        if refreshes.looked_at.is_some_and(|at| at >= seen_at) {
            // The same token may come again when its key is there.
            self.0.unknown.lock().remove(&hash);
            return Refusal::Invalid("kid");
        }
        if refreshes.running {
            return Refusal::Unknown(self.unavailable());
        }
        let ends_at = refreshes.caused_at.map(|at| at + self.0.config.refresh_pause);
        let left = ends_at.map(|at| at.saturating_duration_since(Instant::now())).unwrap_or_default();
        Refusal::Unknown(ImksError::Overloaded { retry_after: left.max(RETRY_MIN) })
    }

    /// Returns the keys that may have signed a token of one's own application: the one that it names, or those of
    /// its algorithm.
    pub(super) async fn candidates(
        &self,
        has_key_ids: bool,
        kid: Option<&str>,
        alg: &str,
        token: &str,
        now: Micros,
    ) -> Result<Vec<Verifier>, Refusal> {
        if has_key_ids && let Some(kid) = kid {
            return self.named("", kid, token, now).await;
        }
        let known = self.0.keys.read().clone();
        match known.with_algorithm(alg, now) {
            _ if known.is_empty() => Err(Refusal::Unknown(self.unavailable())),
            keys if keys.is_empty() => Err(Refusal::Invalid("no key of this algorithm")),
            keys if has_key_ids && keys.len() > 1 => {
                Err(Refusal::Invalid("the token names no key, and the key set has not exactly one"))
            }
            keys => Ok(keys),
        }
    }

    /// Fetches the keys now, without regard to when they were last fetched: their issuer says that they changed.
    ///
    /// # Errors
    /// `FailedPrecondition` if keys that are not fetched over the network cannot be read, `Unavailable` if their issuer
    /// does not list them. Those that are known stay in use.
    pub(super) async fn refresh_now(&self) -> ImksResult<()> {
        let mut ended = self.0.ended.subscribe();
        self.0.wanted.notify_one();
        let has_ended = wait(ended.changed()).await;
        if has_ended && !self.0.refreshes.lock().failed {
            return Ok(());
        }
        Err(match self.0.is_local() {
            true => ImksError::FailedPrecondition(Precondition::KeysUnreadable),
            false => self.unavailable(),
        })
    }

    /// Waits for a refresh of the keys, which all waiting callers share. Returns at once if an unknown key caused
    /// one a moment ago. Returns false if the refresh takes too long.
    async fn refreshed(&self) -> bool {
        let mut ended = self.0.ended.subscribe();
        {
            let mut refreshes = self.0.refreshes.lock();
            let now = Instant::now();
            let recent = refreshes.caused_at.is_some_and(|at| now < at + self.0.config.refresh_pause);
            if !refreshes.running && recent {
                return true;
            }
            if !refreshes.running {
                (refreshes.running, refreshes.caused_at) = (true, Some(now));
                self.0.wanted.notify_one();
            }
        }
        wait(ended.changed()).await
    }

    fn unavailable(&self) -> ImksError {
        ImksError::Unavailable(match &self.0.issuer {
            Issuer::Own(_) => "key set",
            Issuer::Core(_) => "core",
        })
    }
}

impl Inner {
    /// Fetches the keys. The current set remains if the answer is missing or has no usable key.
    async fn fetch(&self) {
        let began_at = Instant::now();
        let etag = {
            let mut refreshes = self.refreshes.lock();
            refreshes.running = true;
            refreshes.etag.clone()
        };
        let answer = self.listed(&etag).await;
        let (now, old) = (now_micros(), self.keys.read().clone());
        let failed = match answer {
            Ok(None) => {
                *self.keys.write() = Arc::new((*old).clone().confirmed(now));
                false
            }
            Ok(Some((keys, etag))) => {
                let keys = old.updated(keys, now, self.grace());
                let empty = keys.is_empty();
                if !empty {
                    *self.keys.write() = Arc::new(keys);
                    self.refreshes.lock().etag = etag;
                }
                empty
            }
            Err(error) => {
                tracing::warn!(%error, "the keys of tokens cannot be fetched; those that are known stay");
                true
            }
        };
        metrics::KEY_REFRESHES.of(if failed { Refresh::Failed } else { Refresh::Fetched }).increment();
        let mut refreshes = self.refreshes.lock();
        (refreshes.running, refreshes.failed) = (false, failed);
        if !failed {
            refreshes.looked_at = Some(began_at);
        }
        drop(refreshes);
        self.ended.send_modify(|count| *count += 1);
    }

    /// Returns the keys of the issuer and their version, or `None` if they have not changed since `etag`.
    async fn listed(&self, etag: &str) -> ImksResult<Option<(Vec<ListedKey>, String)>> {
        match &self.issuer {
            Issuer::Own(keys) => keys.fetch().await.map(|keys| Some((keys, String::new()))),
            Issuer::Core(core) => {
                let answer = core.signing_keys(etag).await?;
                Ok(answer.map(|answer| (answer.keys.into_iter().map(Into::into).collect(), answer.etag)))
            }
        }
    }

    /// Returns how long a key is good after its issuer stopped listing it. A file is what the operator wrote, so
    /// it counts at once.
    fn grace(&self) -> Micros {
        if self.is_local() { 0 } else { micros(self.config.key_grace) }
    }

    /// Whether the keys are not fetched over the network.
    fn is_local(&self) -> bool {
        matches!(&self.issuer, Issuer::Own(keys) if !keys.is_remote())
    }

    /// Returns the pause before the next periodic refresh.
    fn next_refresh(&self, failures: u32) -> Duration {
        if failures == 0 {
            return jittered(self.config.refresh);
        }
        let without_keys = self.keys.read().is_empty();
        let pause = if without_keys { RETRY_WITHOUT_KEYS } else { self.config.refresh_pause };
        jittered((pause * 2_u32.saturating_pow(failures.min(5) - 1)).min(self.config.refresh))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn follow(inner: Weak<Inner>) {
    let mut failures = 0;
    while let Some(inner) = inner.upgrade() {
        inner.fetch().await;
        let failed = inner.refreshes.lock().failed;
        failures = if failed { failures + 1 } else { 0 };
        let (pause, wanted) = (inner.next_refresh(failures), inner.wanted.clone());
        // No reference is held while waiting, so that dropping the last clone of the keyring ends this task.
        drop(inner);
        if timeout(pause, wanted.notified()).await.is_ok() {
            tracing::debug!("the keys of tokens are fetched early");
        }
    }
}

/// Waits for the end of a refresh, but not for long: whoever waits then sees that the key is still unknown. Returns
/// whether it ended.
async fn wait(ended: impl Future<Output = Result<(), watch::error::RecvError>>) -> bool {
    let has_ended = timeout(REFRESH_WAIT, ended).await.is_ok();
    if !has_ended {
        tracing::debug!("the keys of tokens were not fetched in time");
    }
    has_ended
}

/// How long a token with an unknown key waits for a refresh.
const REFRESH_WAIT: Duration = Duration::from_secs(3);
/// How many looks at the keys a token with an unknown key waits for at once: one that was under way, and its own.
const LOOKS_MAX: usize = 2;
/// The shortest time after which a token with an unknown key is worth another try.
const RETRY_MIN: Duration = Duration::from_millis(100);
const UNKNOWN: Bounds = Bounds { entries: UNKNOWN_MAX, bytes: UNKNOWN_BYTES_MAX };
/// The number of tokens of unknown keys that are remembered. One that is forgotten counts as new, and waits longer.
const UNKNOWN_MAX: usize = 1 << 16;
/// The memory of the tokens of unknown keys that are remembered, in bytes.
const UNKNOWN_BYTES_MAX: usize = 8 << 20;
/// How long a token of an unknown key is remembered.
const UNKNOWN_KEPT: Duration = Duration::from_secs(30);
/// The first pause between two refreshes while there are no keys.
const RETRY_WITHOUT_KEYS: Duration = Duration::from_millis(250);
