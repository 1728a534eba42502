//! Conditions of a send, checked under the channel's lock: the number of the last message, or the version of a value that
//! the channel keeps under a key and that the message sets.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sqlx::FromRow;
use uuid::Uuid;

use super::append::records::{Lookup, Record, Write};
use super::append::{LockedChannel, References};
use super::rows::{Column, RowsSql};
use super::text::{described, refusal};
use crate::error::Present;
use crate::{ImksError, ImksResult};

/// What must be so when a message is stored. Of several sends with the same condition one succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// The channel's last message has this number.
    LastSeq(i64),
    /// A key has this version, and gets a new value with the next one.
    Key(NewValue),
}

/// A value to be stored under a key of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewValue {
    key: String,
    version: i64,
    value: String,
}

impl NewValue {
    /// Creates a value whose key must have `version`; 0 for a key that must not exist.
    ///
    /// # Errors
    /// [`ImksError::InvalidInput`] for an empty or too long key, a version that is negative or has no next one, and a
    /// too long value.
    pub fn new(key: String, version: i64, value: String) -> ImksResult<Self> {
        let is_plain = |text: &str| memchr::memchr(0, text.as_bytes()).is_none();
        let problem = match () {
            () if key.is_empty() => Some(("expect.key", "is empty".to_owned())),
            () if key.len() > KEY_BYTES_MAX => {
                Some(("expect.key", format!("is longer than {KEY_BYTES_MAX} bytes")))
            }
            () if value.len() > VALUE_BYTES_MAX => {
                Some(("expect.value", format!("is longer than {VALUE_BYTES_MAX} bytes")))
            }
            () if !is_plain(&key) || !is_plain(&value) => {
                Some(("expect", "must not contain the character U+0000".to_owned()))
            }
            () if !(0..i64::MAX).contains(&version) => {
                Some(("expect.version", format!("must be 0 to {}", i64::MAX - 1)))
            }
            () => None,
        };
        match problem {
            Some((field, reason)) => Err(ImksError::invalid(field, reason)),
            None => Ok(Self { key, version, value }),
        }
    }
}

impl Expect {
    /// Requests the row that the condition depends on.
    pub(crate) fn refers(&self, references: &mut References<'_>) {
        if let Self::Key(new) = self {
            let channel = references.scope().channel_id;
            references.rows::<ChannelKey>((channel, new.key.clone()));
            if new.version == 0 {
                references.rows::<KeyCount>(channel);
            }
        }
    }

    /// Checks the condition.
    ///
    /// # Errors
    /// [`ImksError::NotAsExpected`] with what is there, [`ImksError::LimitReached`] for a further key of a channel that
    /// has [`KEYS_MAX`].
    pub(crate) fn check(&self, channel: &mut LockedChannel<'_>) -> ImksResult<()> {
        match self {
            Self::LastSeq(expected) => match channel.last_seq()? {
                last_seq if last_seq == *expected => Ok(()),
                last_seq => Err(ImksError::NotAsExpected(Present::LastSeq(last_seq))),
            },
            Self::Key(new) => {
                let present = stored(channel, &new.key)?;
                if present.as_ref().map_or(0, |row| row.version) == new.version {
                    let is_full = present.is_none() && keys(channel)? >= KEYS_MAX;
                    return if is_full { Err(ImksError::LimitReached("channel_keys")) } else { Ok(()) };
                }
                let (version, value) = present.map_or((0, None), |row| (row.version, Some(row.value)));
                Err(ImksError::NotAsExpected(Present::Key { version, value }))
            }
        }
    }

    /// Stores what the condition brings with it.
    pub(crate) fn apply(&self, channel: &mut LockedChannel<'_>) {
        if let Self::Key(new) = self {
            let NewValue { key, version, value } = new.clone();
            let channel_id = channel.scope().channel_id;
            channel.insert(ChannelKey { channel_id, key, version: version + 1, value });
        }
    }
}

/// Returns the value of a key, with what the batch has done to it so far.
fn stored(channel: &mut LockedChannel<'_>, key: &str) -> ImksResult<Option<ChannelKey>> {
    let key = (channel.scope().channel_id, key.to_owned());
    let found = channel.rows::<ChannelKey>(&key)?.first().cloned();
    match channel.write_of::<ChannelKey>(&key) {
        Some(Write::Stored(row)) => Ok(Some(row.clone())),
        Some(Write::Removed) => Ok(None),
        None => Ok(found),
    }
}

/// Returns the number of keys of the channel, with those that the batch has added so far.
fn keys(channel: &mut LockedChannel<'_>) -> ImksResult<i64> {
    let channel_id = channel.scope().channel_id;
    let written: Vec<_> = channel.writes::<ChannelKey>().map(|(key, _)| key.clone()).collect();
    let mut keys = channel.rows::<KeyCount>(&channel_id)?.first().map_or(0, |count| count.keys);
    for key in written.iter().filter(|(of, _)| *of == channel_id) {
        keys += i64::from(channel.rows::<ChannelKey>(key)?.is_empty());
    }
    Ok(keys)
}

described!([] Expect, _ => {
    "oneOf": [
        {
            "type": "object",
            "properties": { "last_seq": { "type": "integer" } },
            "required": ["last_seq"],
        },
        {
            "type": "object",
            "properties": {
                "key": { "type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX },
                "version": { "type": "integer", "minimum": 0 },
                "value": { "type": "string", "maxLength": VALUE_BYTES_MAX },
            },
            "required": ["key", "version", "value"],
        },
    ],
});

impl<'de> Deserialize<'de> for Expect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { last_seq, key, version, value } = Wire::deserialize(deserializer)?;
        match (last_seq, key, version, value) {
            (Some(last_seq), None, None, None) => Ok(Self::LastSeq(last_seq)),
            (None, Some(key), Some(version), Some(value)) => {
                NewValue::new(key, version, value).map(Self::Key).map_err(|error| match error {
                    ImksError::InvalidInput { field, reason } => {
                        let field = field.strip_prefix("expect.").unwrap_or(&field);
                        refusal(format_args!("{field} {reason}"))
                    }
                    error => refusal(error),
                })
            }
            _ => Err(refusal("needs either last_seq, or key, version and value")),
        }
    }
}

impl Serialize for Expect {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let wire = match self.clone() {
            Self::LastSeq(last_seq) => Wire { last_seq: Some(last_seq), ..Wire::default() },
            Self::Key(NewValue { key, version, value }) => {
                Wire { last_seq: None, key: Some(key), version: Some(version), value: Some(value) }
            }
        };
        wire.serialize(serializer)
    }
}

/// The two forms of a condition on the wire.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Wire {
    last_seq: Option<i64>,
    key: Option<String>,
    version: Option<i64>,
    value: Option<String>,
}

/// A row of `channel_key`.
#[derive(Debug, Clone, FromRow)]
struct ChannelKey {
    channel_id: Uuid,
    key: String,
    version: i64,
    value: String,
}

impl Record for ChannelKey {
    /// The channel and key.
    type Key = (Uuid, String);

    fn key(&self) -> Self::Key {
        (self.channel_id, self.key.clone())
    }

    fn insert() -> &'static RowsSql {
        &UPSERT
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::of(rows, |row| row.channel_id),
            Column::of(rows, |row| row.key.as_str()),
            Column::of(rows, |row| row.version),
            Column::of(rows, |row| row.value.as_str()),
        ]
    }
}

impl Lookup for ChannelKey {
    /// The channel and key.
    type Key = (Uuid, String);

    fn key(&self) -> <Self as Lookup>::Key {
        (self.channel_id, self.key.clone())
    }

    fn select() -> &'static RowsSql {
        &SELECT
    }

    fn key_columns(keys: &[<Self as Lookup>::Key]) -> Vec<Column<'_>> {
        vec![Column::of(keys, |(channel, _)| *channel), Column::of(keys, |(_, key)| key.as_str())]
    }
}

/// The number of keys of a channel.
#[derive(Debug, FromRow)]
struct KeyCount {
    channel_id: Uuid,
    keys: i64,
}

impl Lookup for KeyCount {
    /// The channel.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.channel_id
    }

    fn select() -> &'static RowsSql {
        &COUNT
    }

    fn key_columns(channels: &[Uuid]) -> Vec<Column<'_>> {
        vec![Column::of(channels, |channel| *channel)]
    }
}

static COUNT: RowsSql = RowsSql::new(
    "channel_id",
    "SELECT k.channel_id, COUNT(*) AS keys FROM r JOIN channel_key k ON k.channel_id = r.channel_id \
     WHERE r.channel_id IS NOT NULL GROUP BY k.channel_id",
);
static UPSERT: RowsSql = RowsSql::new(
    "channel_id, key, version, value",
    "INSERT INTO channel_key (channel_id, key, version, value) SELECT * FROM r WHERE r.channel_id IS NOT NULL \
     ON CONFLICT (channel_id, key) DO UPDATE SET version = excluded.version, value = excluded.value",
);
static SELECT: RowsSql = RowsSql::new(
    "channel_id, key",
    "SELECT k.channel_id, k.key, k.version, k.value FROM r JOIN channel_key k \
     ON k.channel_id = r.channel_id AND k.key = r.key",
);
/// The most keys of one channel.
pub const KEYS_MAX: i64 = 1_000;
/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// The longest value of a key, in bytes.
pub const VALUE_BYTES_MAX: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_is_one_of_two_forms_within_its_limits() {
        let parse = |value| serde_json::from_value::<Expect>(value).map_err(|error| error.to_string());
        assert_eq!(parse(json!({"last_seq": 7})), Ok(Expect::LastSeq(7)));
        let of = |key: usize, value: usize| json!({"key": "k".repeat(key), "version": 0, "value": "v".repeat(value)});
        assert!(matches!(parse(of(KEY_BYTES_MAX, VALUE_BYTES_MAX)), Ok(Expect::Key(_))));
        for wrong in [
            json!({}),
            json!({"last_seq": 1, "key": "k", "version": 0, "value": ""}),
            json!({"key": "k", "version": 0}),
            json!({"key": "k", "version": -1, "value": ""}),
            json!({"key": "k", "version": i64::MAX, "value": ""}),
            json!({"key": "a\0b", "version": 0, "value": ""}),
            of(0, 0),
            of(KEY_BYTES_MAX + 1, 0),
            of(1, VALUE_BYTES_MAX + 1),
        ] {
            let error = parse(wrong.clone()).unwrap_err();
            assert!(error.starts_with("refused "), "{wrong}: {error}");
        }
    }
}
