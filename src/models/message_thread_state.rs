//! The state of a thread, which is stored as JSON in the row of its first message.

use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use crate::clock::{Micros, Timestamp};

/// The state of a thread: the field `thread` of its first message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ThreadState {
    reply_count: i64,
    last_reply_at: Micros,
    last_reply_seq: i64,
    /// The users who wrote the newest replies, the newest first.
    participant_ids: Vec<Uuid>,
}

/// The form of a [`ThreadState`] in which it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    reply_count: i64,
    last_reply_at: Micros,
    last_reply_seq: i64,
    participant_ids: Vec<Uuid>,
}

impl Serialize for ThreadState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            reply_count: i64,
            last_reply_at: Timestamp,
            last_reply_seq: i64,
            participant_ids: &'a [Uuid],
        }
        let Self { reply_count, last_reply_at, last_reply_seq, ref participant_ids } = *self;
        let last_reply_at = Timestamp(last_reply_at);
        Shown { reply_count, last_reply_at, last_reply_seq, participant_ids }.serialize(serializer)
    }
}

impl ThreadState {
    /// Parses the column of the message's row.
    pub(crate) fn from_stored(text: Option<&str>) -> Option<Box<Self>> {
        let Stored { reply_count, last_reply_at, last_reply_seq, participant_ids } =
            text.and_then(|json| serde_json::from_str(json).ok())?;
        Some(Box::new(Self { reply_count, last_reply_at, last_reply_seq, participant_ids }))
    }

    /// Returns the value for the column of the message's row.
    pub(super) fn stored(&self) -> Option<String> {
        let Self { reply_count, last_reply_at, last_reply_seq, ref participant_ids } = *self;
        let participant_ids = participant_ids.clone();
        serde_json::to_string(&Stored { reply_count, last_reply_at, last_reply_seq, participant_ids }).ok()
    }

    /// Counts a reply, which is the newest one.
    pub(super) fn add(&mut self, author: Uuid, seq: i64, created_at: Micros) {
        self.reply_count += 1;
        (self.last_reply_at, self.last_reply_seq) = (created_at, seq);
        self.participant_ids.retain(|user| *user != author);
        self.participant_ids.insert(0, author);
        self.participant_ids.truncate(PARTICIPANTS_SHOWN);
    }

    /// Takes back the count of replies that are deleted.
    pub(super) fn remove(&mut self, replies: i64) {
        self.reply_count = (self.reply_count - replies).max(0);
    }
}

/// The most participants that a thread shows.
const PARTICIPANTS_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_names_the_ten_who_wrote_last_and_reads_back_what_was_stored() {
        let mut state = ThreadState::default();
        for number in (1_i64..=12).chain([5]) {
            state.add(Uuid::from_u128(u128::from(number.unsigned_abs())), number, number * 1_000);
        }
        assert_eq!((state.reply_count, state.last_reply_seq), (13, 5));
        let ids: Vec<u128> = state.participant_ids.iter().map(Uuid::as_u128).collect();
        assert_eq!(ids, [5, 12, 11, 10, 9, 8, 7, 6, 4, 3]);
        assert_eq!(ThreadState::from_stored(state.stored().as_deref()).as_deref(), Some(&state));
        assert_eq!(ThreadState::from_stored(None), None);
    }
}
