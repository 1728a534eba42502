//! The counters of a channel, for session:ready, subscriptions and `sync`.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, json_ids};
use crate::ImksResult;
use crate::clock::Micros;

/// The newest numbers of a channel. A channel without messages has no row; all its numbers are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow, Serialize, JsonSchema)]
pub struct ChannelHead {
    /// The channel.
    pub channel_id: Uuid,
    /// The number of its newest message.
    pub last_seq: i64,
    /// The number of its newest change.
    #[serde(rename = "rev")]
    pub last_rev: i64,
    /// The number of messages so far that count as unread.
    #[serde(skip)]
    pub last_cseq: i64,
    /// The id of its newest message.
    pub last_message_id: Option<Uuid>,
    /// When its newest message was written.
    #[serde(skip)]
    pub last_message_at: Option<Micros>,
    /// The number of the newest message that was removed because its time was over; 0 if none was. The history of the
    /// channel begins after it.
    pub horizon_seq: i64,
    /// The id of that message. Those before it in the channel have lower ids.
    pub horizon_id: Option<Uuid>,
}

impl ChannelHead {
    /// Returns the head of a channel in which nothing was ever written.
    pub fn empty(channel_id: Uuid) -> Self {
        Self {
            channel_id,
            last_seq: 0,
            last_rev: 0,
            last_cseq: 0,
            last_message_id: None,
            last_message_at: None,
            horizon_seq: 0,
            horizon_id: None,
        }
    }
}

/// Returns the heads of many channels with one query, in the order of `channels`.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn heads(db: &Db, channels: &[Uuid]) -> ImksResult<Vec<ChannelHead>> {
    if channels.is_empty() {
        return Ok(Vec::new());
    }
    let mut found: Vec<ChannelHead> = match db {
        Db::Postgres(pool) => sqlx::query_as(HEADS_POSTGRES).bind(channels).fetch_all(pool).await?,
        Db::Sqlite(sqlite) => {
            sqlx::query_as(HEADS_SQLITE).bind(json_ids(channels)).fetch_all(&sqlite.reader).await?
        }
    };
    found.sort_unstable_by_key(|head| head.channel_id);
    let head = |channel: &Uuid| {
        let index = found.binary_search_by_key(channel, |head| head.channel_id);
        index.map_or_else(|_| ChannelHead::empty(*channel), |index| found[index])
    };
    Ok(channels.iter().map(head).collect())
}

const HEADS_POSTGRES: &str = "SELECT channel_id, last_seq, last_rev, last_cseq, last_message_id, \
    last_message_at, horizon_seq, horizon_id FROM channel_state WHERE channel_id = ANY($1)";
const HEADS_SQLITE: &str = "SELECT channel_id, last_seq, last_rev, last_cseq, last_message_id, \
    last_message_at, horizon_seq, horizon_id FROM channel_state \
    WHERE channel_id IN (SELECT unhex(value) FROM json_each($1))";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_head_shows_clients_the_numbers_of_the_channel_and_nothing_else() {
        let channel = Uuid::nil();
        let head = ChannelHead { last_seq: 3, last_rev: 2, last_cseq: 1, ..ChannelHead::empty(channel) };
        let expected = json!({
            "channel_id": channel, "last_seq": 3, "rev": 2, "last_message_id": null, "horizon_seq": 0, "horizon_id": null
        });
        assert_eq!(json!(head), expected);
    }
}
