//! The state of a thread, which is stored as JSON in the row of its first message.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use super::stored_json::{from_column, to_column};
use crate::ImksResult;
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

/// The state of a thread, as its first message shows it.
#[derive(Serialize, JsonSchema)]
struct Shown<'a> {
    reply_count: i64,
    last_reply_at: Timestamp,
    last_reply_seq: i64,
    participant_ids: &'a [Uuid],
}

impl JsonSchema for ThreadState {
    fn schema_name() -> Cow<'static, str> {
        "ThreadState".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Shown::json_schema(generator)
    }
}

impl Serialize for ThreadState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { reply_count, last_reply_at, last_reply_seq, ref participant_ids } = *self;
        let last_reply_at = Timestamp(last_reply_at);
        Shown { reply_count, last_reply_at, last_reply_seq, participant_ids }.serialize(serializer)
    }
}

impl ThreadState {
    /// Parses the column of the message's row.
    pub(crate) fn from_stored(text: Option<&str>) -> ImksResult<Option<Box<Self>>> {
        let stored: Option<Stored> = from_column(text)?;
        Ok(stored.map(|Stored { reply_count, last_reply_at, last_reply_seq, participant_ids }| {
            Box::new(Self { reply_count, last_reply_at, last_reply_seq, participant_ids })
        }))
    }

    /// Returns the value for the column of the message's row.
    pub(super) fn stored(&self) -> ImksResult<String> {
        let Self { reply_count, last_reply_at, last_reply_seq, ref participant_ids } = *self;
        let participant_ids = participant_ids.clone();
        to_column(&Stored { reply_count, last_reply_at, last_reply_seq, participant_ids })
    }

    /// Counts a reply, which is the newest one.
    pub(super) fn add(&mut self, author: Uuid, seq: i64, created_at: Micros) {
        self.reply_count += 1;
        (self.last_reply_at, self.last_reply_seq) = (created_at, seq);
        self.participant_ids.retain(|user| *user != author);
        self.participant_ids.insert(0, author);
        self.participant_ids.truncate(PARTICIPANTS_SHOWN);
    }

    /// Puts another id in the place of a user. Returns whether the user took part.
    pub(super) fn rename(&mut self, user: Uuid, alias: Uuid) -> bool {
        let shown = self.participant_ids.iter_mut().find(|shown| **shown == user);
        shown.map(|shown| *shown = alias).is_some()
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
        let read = ThreadState::from_stored(Some(&state.stored().unwrap())).unwrap();
        assert_eq!(read.as_deref(), Some(&state));
        assert_eq!(ThreadState::from_stored(None).unwrap(), None);
    }
}
