//! The background tasks of an [`Authenticator`](super::Authenticator), which follow the core's keys and
//! revocations.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::own::OwnLogins;
use super::{Inner, START_WAIT, micros};
use crate::auth::keys::ListedKey;
use crate::auth::metrics::{self, Refresh};
use crate::clock::{Micros, jittered, now_micros};
use crate::error::ImksResult;
use crate::pb::{Change, Revocation, Watch, WatchKind};

impl Inner {
    pub(super) fn spawn(self: &Arc<Self>) {
        let tasks = TaskTracker::new();
        let stop = self.stop.clone();
        tasks.spawn(stop.clone().run_until_cancelled_owned(follow_keys(Arc::downgrade(self))));
        let watch = self.core.watch(WatchKind::Revocations);
        tasks.spawn(stop.run_until_cancelled_owned(follow_revocations(Arc::downgrade(self), watch)));
    }

    /// Waits for a refresh of the keys, which all waiting callers share. Returns at once if the last one was
    /// recent.
    pub(super) async fn refreshed(&self) {
        let mut ended = self.ended.subscribe();
        {
            let mut refreshes = self.refreshes.lock();
            let now = Instant::now();
            let recent = refreshes.caused_at.is_some_and(|at| now < at + self.config.refresh_pause);
            if !refreshes.running && recent {
                return;
            }
            if !refreshes.running {
                (refreshes.running, refreshes.caused_at) = (true, Some(now));
                self.wanted.notify_one();
            }
        }
        let _ = timeout(START_WAIT, ended.changed()).await;
    }

    /// Fetches the keys. The current set remains if the answer is missing or has no usable key.
    async fn fetch_keys(&self) {
        let etag = {
            let mut refreshes = self.refreshes.lock();
            refreshes.running = true;
            refreshes.etag.clone()
        };
        let answer = self.listed_keys(&etag).await;
        let (now, old) = (now_micros(), self.keys.read().clone());
        let failed = match answer {
            Ok(None) => {
                *self.keys.write() = Arc::new((*old).clone().confirmed(now));
                false
            }
            Ok(Some((keys, etag))) => {
                let keys = old.updated(keys, now, self.key_grace());
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
        drop(refreshes);
        self.ended.send_modify(|count| *count += 1);
    }

    /// Returns the keys of the source and their version, or `None` if they have not changed since `etag`.
    async fn listed_keys(&self, etag: &str) -> ImksResult<Option<(Vec<ListedKey>, String)>> {
        if let Some(own) = &self.own {
            // A hook decides without keys.
            let Some(keys) = own.keys() else { return Ok(None) };
            return keys.fetch().await.map(|keys| Some((keys, String::new())));
        }
        let answer = self.core.signing_keys(etag).await?;
        Ok(answer.map(|answer| (answer.keys.into_iter().map(Into::into).collect(), answer.etag)))
    }

    /// Returns how long a key is good after its source stopped listing it. A file is what the operator wrote, so
    /// it counts at once.
    fn key_grace(&self) -> Micros {
        let is_local = self.own.as_ref().and_then(OwnLogins::keys).is_some_and(|keys| !keys.is_remote());
        if is_local { 0 } else { micros(self.config.key_grace) }
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

    fn revoke(&self, revocation: Revocation) {
        if let (Some(own), Some(user)) = (&self.own, revocation.user_id) {
            own.users().forget(user);
        }
        let lifetime = micros(self.config.lifetime_max);
        self.revocations.write().add(revocation, now_micros(), lifetime);
        // Without a receiver there is nothing to do: the set is already up to date.
        let _ = self.revoked.send(revocation);
    }
}

async fn follow_keys(inner: Weak<Inner>) {
    let mut failures = 0;
    while let Some(inner) = inner.upgrade() {
        inner.fetch_keys().await;
        let failed = inner.refreshes.lock().failed;
        failures = if failed { failures + 1 } else { 0 };
        let (pause, wanted) = (inner.next_refresh(failures), inner.wanted.clone());
        // No reference is held while waiting, so that dropping the last clone of the authenticator ends this
        // task.
        drop(inner);
        let _ = timeout(pause, wanted.notified()).await;
    }
}

async fn follow_revocations(inner: Weak<Inner>, mut watch: Watch) {
    loop {
        let change = watch.next().await;
        let Some(inner) = inner.upgrade() else { return };
        match change {
            Change::Revoked(revocation) => inner.revoke(revocation),
            Change::CaughtUp => {
                inner.caught_up.send_replace(true);
            }
            // After a reset the stream sends everything again; the revocations received so far remain valid.
            _ => {}
        }
    }
}

/// The first pause between two refreshes while there are no keys.
const RETRY_WITHOUT_KEYS: Duration = Duration::from_millis(250);
