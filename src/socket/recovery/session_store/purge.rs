//! The purge of expired sessions and packets.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::SessionStore;
use super::sessions::Sessions;
use crate::background;

impl SessionStore {
    /// Starts the purge task, unless it is running or there is nothing that can expire.
    pub(super) fn watch(&self, state: &mut Sessions) {
        // With a shared log, clients of other nodes may come here.
        if state.by_pid.is_empty() && self.shared.is_none() {
            state.log.clear();
            state.by_pid.shrink_to_fit();
        }
        let idle = state.away.is_empty() && state.log.len() == 0;
        if idle || state.purging {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            state.purging = true;
            let this = self.this.clone();
            // It ends with the store.
            let purging = move |_| purge_from_time_to_time(this.clone());
            self.tasks
                .spawn_on(background::keep("recovery_purge", CancellationToken::new(), purging), &runtime);
        }
    }

    /// Whether a client that left at `since` can no longer return.
    pub(super) fn is_too_late(&self, since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) >= self.config.max_disconnection_duration
    }

    /// Returns the age up to which packets are kept.
    pub(super) fn keep(&self) -> Duration {
        self.config.max_disconnection_duration + UNNOTICED_MAX
    }

    /// Removes what has expired. Returns the time of the next purge, or `None` if nothing is left.
    fn purge(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        let away_max = self.config.max_disconnection_duration;
        while state.away.first_key_value().is_some_and(|((since, _), _)| self.is_too_late(*since, now)) {
            state.remove_first_away();
        }
        let keep = self.keep();
        if let Some(before) = now.checked_sub(keep) {
            state.log.purge(before);
        }
        self.watch(&mut state);
        let oldest_session = state.away.first_key_value().map(|((since, _), _)| *since + away_max);
        let oldest_packet = state.log.oldest().map(|at| at + keep);
        let next = oldest_session.into_iter().chain(oldest_packet).min();
        state.purging = next.is_some();
        // Purge before a client that leaves right now could expire.
        next.map(|next| next.min(now + away_max).max(now + PURGE_INTERVAL))
    }
}

async fn purge_from_time_to_time(store: Weak<SessionStore>) {
    while let Some(next) = store.upgrade().and_then(|store| store.purge(Instant::now())) {
        tokio::time::sleep_until(next).await;
    }
}

/// The time for which a broken connection may go unnoticed. Packets sent into it must still be stored when
/// the client returns at the last moment.
const UNNOTICED_MAX: Duration = Duration::from_secs(60);

/// The minimum time between two purges.
const PURGE_INTERVAL: Duration = Duration::from_secs(1);
