//! What bounds the cost of looking up who of a channel is online, however many ask.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Duration, Instant, timeout};
use uuid::Uuid;

use crate::{ImksError, ImksResult};

/// The users of large channels who were online on this node a moment ago, and the questions to other nodes in progress.
#[derive(Debug)]
pub(super) struct Lookups {
    recent: Mutex<HashMap<Uuid, Recent>>,
    at_once: Semaphore,
}

/// Until when a list is recent, and the users by id.
type Recent = (Instant, Arc<[Uuid]>);

impl Default for Lookups {
    fn default() -> Self {
        Self { recent: Mutex::default(), at_once: Semaphore::new(QUESTIONS_AT_ONCE) }
    }
}

impl Lookups {
    /// Waits until other nodes may be asked. The permit is held until they have answered.
    ///
    /// # Errors
    /// [`ImksError::Overloaded`] if too many others wait for answers.
    pub(super) async fn begin(&self) -> ImksResult<SemaphorePermit<'_>> {
        match timeout(WAIT, self.at_once.acquire()).await {
            Ok(permit) => permit.map_err(|_| ImksError::Internal("the limit of lookups is closed")),
            Err(_elapsed) => Err(ImksError::Overloaded { retry_after: WAIT }),
        }
    }

    /// Returns the users of a large channel who were online a moment before `now`, by id, if somebody has asked then.
    pub(super) fn recent(&self, channel: Uuid, now: Instant) -> Option<Arc<[Uuid]>> {
        let recent = self.recent.lock();
        recent.get(&channel).filter(|(until, _)| now < *until).map(|(_, users)| users.clone())
    }

    /// Remembers for a moment who of a channel is online at `now`, by id. `sockets` is how many had to be looked at: what is
    /// found quickly is always looked up anew.
    pub(super) fn note(&self, channel: Uuid, sockets: usize, users: &Arc<[Uuid]>, now: Instant) {
        if sockets <= SOCKETS_LOOKED_AT {
            return;
        }
        let mut recent = self.recent.lock();
        recent.retain(|_, (until, _)| now < *until);
        let remembered: usize = recent.values().map(|(_, users)| users.len()).sum();
        if recent.len() < CHANNELS_MAX && remembered + users.len() <= USERS_MAX {
            recent.insert(channel, (now + RECENT, users.clone()));
        }
    }
}

/// The number of sockets of a channel up to which they are looked at for everybody who asks: a fraction of a millisecond.
const SOCKETS_LOOKED_AT: usize = 1_000;
/// How long the users of a large channel are remembered.
const RECENT: Duration = Duration::from_secs(1);
/// The most channels whose users are remembered for a second; the sockets of others are looked at each time.
const CHANNELS_MAX: usize = 256;
/// The most users of all channels together who are remembered for a second; 16 bytes each.
const USERS_MAX: usize = 1_000_000;
/// The questions to other nodes at once: a fraction of all requests between nodes, so that others go on while a node is silent.
const QUESTIONS_AT_ONCE: usize = 256;
/// How long a question may wait for its turn.
const WAIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const CLUB: Uuid = Uuid::from_u128(1);

    fn users(count: usize) -> Arc<[Uuid]> {
        (0..count as u128).map(Uuid::from_u128).collect()
    }

    #[test]
    fn a_large_channel_is_remembered_for_a_second_and_a_small_one_is_not() {
        let (lookups, some, now) = (Lookups::default(), users(3), Instant::now());
        lookups.note(CLUB, SOCKETS_LOOKED_AT, &some, now);
        assert_eq!(lookups.recent(CLUB, now), None);
        lookups.note(CLUB, SOCKETS_LOOKED_AT + 1, &some, now);
        assert_eq!(lookups.recent(CLUB, now), Some(some));
        assert_eq!(lookups.recent(CLUB, now + RECENT), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_in_channels_and_users() {
        let (lookups, few, now) = (Lookups::default(), users(1), Instant::now());
        let known = |at: Instant| lookups.recent.lock().values().filter(|(until, _)| at < *until).count();
        for channel in (0..CHANNELS_MAX as u128 + 9).map(Uuid::from_u128) {
            lookups.note(channel, usize::MAX, &few, now);
        }
        assert_eq!(known(now), CHANNELS_MAX);
        let (later, half) = (now + RECENT, users(USERS_MAX / 2));
        for channel in (0..3).map(Uuid::from_u128) {
            lookups.note(channel, usize::MAX, &half, later);
        }
        assert_eq!((known(later), lookups.recent.lock().len()), (2, 2), "what is over is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_for_other_questions_is_refused() {
        let lookups = Lookups::default();
        let mut permits = Vec::new();
        for _ in 0..QUESTIONS_AT_ONCE {
            permits.push(lookups.begin().await.unwrap());
        }
        assert!(matches!(lookups.begin().await, Err(ImksError::Overloaded { .. })));
        permits.pop();
        assert!(lookups.begin().await.is_ok());
    }
}
