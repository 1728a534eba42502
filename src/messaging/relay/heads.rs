//! The announcements of heads: whoever wrote to a channel tells its numbers again after a moment and after a few
//! seconds, so that nobody misses the last event.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use super::flow::Head;

/// The channels whose numbers are still to be announced.
#[derive(Default)]
pub(super) struct Announcements(Mutex<HashMap<Uuid, Announcement>>);

struct Announcement {
    head: Head,
    at: Instant,
    /// The number of announcements so far.
    made: usize,
}

/// The `seq` and `rev` of channels.
type Heads = Vec<(Uuid, i64, i64)>;

impl Announcements {
    /// Records a write. Beyond [`ANNOUNCED_MAX`] channels, new ones are left to the comparison after reconnects.
    pub(super) fn wrote(&self, channel: Uuid, head: Head, now: Instant) {
        let mut all = self.0.lock();
        if all.len() < ANNOUNCED_MAX || all.contains_key(&channel) {
            all.insert(channel, Announcement { head, at: now + PAUSES[0], made: 0 });
        }
    }

    /// Returns the numbers to announce now, in parts of a message each.
    pub(super) fn due(&self, now: Instant) -> Vec<Heads> {
        let mut due = Vec::new();
        self.0.lock().retain(|channel, announcement| {
            if announcement.at > now {
                return true;
            }
            due.push((*channel, announcement.head.seq, announcement.head.rev));
            announcement.made += 1;
            let next = PAUSES.get(announcement.made);
            next.inspect(|pause| announcement.at = now + **pause).is_some()
        });
        due.chunks(HEADS_PER_MESSAGE).map(<[_]>::to_vec).collect()
    }
}

/// The pauses before an announcement, since the write and since the announcement before.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(4_500)];

/// The maximum number of channels whose numbers wait to be announced.
const ANNOUNCED_MAX: usize = 65_536;

/// The most channels in one message.
const HEADS_PER_MESSAGE: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_numbers_are_announced_after_half_a_second_and_after_five() {
        let (announcements, start) = (Announcements::default(), Instant::now());
        let channel = Uuid::from_u128(1);
        announcements.wrote(channel, Head { seq: 1, rev: 0 }, start);
        announcements.wrote(channel, Head { seq: 2, rev: 0 }, start);
        let after = |millis| start + Duration::from_millis(millis);
        assert!(announcements.due(after(499)).is_empty());
        assert_eq!(announcements.due(after(500)), [[(channel, 2, 0)]]);
        assert!(announcements.due(after(4_999)).is_empty());
        assert_eq!(announcements.due(after(5_000)), [[(channel, 2, 0)]]);
        assert!(announcements.due(after(60_000)).is_empty());
        assert!(announcements.0.lock().is_empty());
    }

    #[test]
    fn many_channels_are_announced_in_few_messages_and_within_a_bound() {
        let (announcements, start) = (Announcements::default(), Instant::now());
        for n in 0..ANNOUNCED_MAX as u128 + 10 {
            announcements.wrote(Uuid::from_u128(n), Head::default(), start);
        }
        let parts = announcements.due(start + PAUSES[0]);
        assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), ANNOUNCED_MAX);
        assert!(parts.iter().all(|part| part.len() <= HEADS_PER_MESSAGE));
    }
}
