//! The channels that were written to since somebody last asked: what an index that follows the channels looks at.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

/// The channels with committed mutations that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Written {
    channels: Mutex<HashSet<Uuid>>,
    added: Notify,
    additions: AtomicU64,
}

impl Written {
    /// Adds channels. Beyond [`WRITTEN_MAX`], new ones are left to the comparison of all channels, which whoever
    /// follows this set repeats.
    pub fn add(&self, channels: impl IntoIterator<Item = Uuid>) {
        let mut all = self.channels.lock();
        for channel in channels {
            if all.len() < WRITTEN_MAX || all.contains(&channel) {
                all.insert(channel);
            }
        }
        drop(all);
        self.additions.fetch_add(1, Ordering::Relaxed);
        self.added.notify_one();
    }

    /// Takes up to `count` channels.
    pub fn take(&self, count: usize) -> Vec<Uuid> {
        let mut all = self.channels.lock();
        let taken: Vec<Uuid> = all.iter().take(count).copied().collect();
        for channel in &taken {
            all.remove(channel);
        }
        taken
    }

    /// Returns how often channels were added. It tells whether somebody has written since an earlier call.
    pub fn additions(&self) -> u64 {
        self.additions.load(Ordering::Relaxed)
    }

    /// Returns when channels were added since the last call.
    pub async fn added(&self) {
        self.added.notified().await;
    }
}

/// The most channels that wait to be taken.
const WRITTEN_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_waits_once_and_there_is_room_for_a_bounded_number() {
        let written = Written::default();
        written.add((0..WRITTEN_MAX as u128 + 5).map(Uuid::from_u128));
        written.add([Uuid::from_u128(0)]);
        assert_eq!(written.take(10).len(), 10);
        assert_eq!(written.take(usize::MAX).len(), WRITTEN_MAX - 10);
        assert!(written.take(1).is_empty());
        assert_eq!(written.additions(), 2);
    }
}
