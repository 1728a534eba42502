//! The channels that are so small that everybody may know how far the others have read.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};
use uuid::Uuid;

/// Which channels are small, as the core said of late.
#[derive(Debug, Default)]
pub(super) struct SmallChannels(Mutex<HashMap<Uuid, (Instant, bool)>>);

impl SmallChannels {
    /// Returns what is known at `now`.
    pub(super) fn known(&self, channel: Uuid, now: Instant) -> Option<bool> {
        self.0.lock().get(&channel).filter(|(until, _)| now < *until).map(|(_, is_small)| *is_small)
    }

    /// Notes at `now` how many members a channel has; 0 if the core does not say. Returns whether it is small.
    pub(super) fn note(&self, channel: Uuid, members: usize, now: Instant) -> bool {
        let (is_small, mut known) = ((1..=MEMBERS_MAX).contains(&members), self.0.lock());
        if known.len() >= CHANNELS_MAX {
            known.retain(|_, (until, _)| now < *until);
        }
        if known.len() < CHANNELS_MAX {
            known.insert(channel, (now + KNOWN_FOR, is_small));
        }
        is_small
    }
}

/// The most members of a channel in which everybody is told how far the others have read.
pub(super) const MEMBERS_MAX: usize = 50;
/// How long the size of a channel is remembered.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// The most channels whose size is remembered; the core is asked again about others.
const CHANNELS_MAX: usize = 65_536;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_channel_is_remembered_for_a_minute() {
        let (channels, channel, now) = (SmallChannels::default(), Uuid::from_u128(1), Instant::now());
        assert_eq!(channels.known(channel, now), None);
        assert!(channels.note(channel, MEMBERS_MAX, now));
        assert_eq!(channels.known(channel, now), Some(true));
        assert_eq!(channels.known(channel, now + KNOWN_FOR), None);
        assert!(!channels.note(channel, MEMBERS_MAX + 1, now + KNOWN_FOR));
        assert_eq!(channels.known(channel, now + KNOWN_FOR), Some(false));
    }
}
