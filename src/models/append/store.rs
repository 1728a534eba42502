//! The transaction of a batch: lock, read, decide ([`super::batch`]), write. The number of statements does
//! not depend on the number of mutations.

use std::collections::HashMap;

use uuid::Uuid;

use super::batch::{Batch, ChannelState, Decision, Effects, Loaded, NonceKey, StoredNonce};
use super::mutation::{Job, Wanted};
use crate::clock::Micros;
use crate::models::channel_change::{self, Change};
use crate::models::db::json_ids;
use crate::models::feed_batch;
use crate::models::message_id;
use crate::models::message_row::{self, Appended, Message};
use crate::models::rows::{Column, Connection, RowsSql};

/// How a batch is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    /// Whether nonces are looked up before anything is inserted. Otherwise, the unique index detects repeats on
    /// insertion, which is cheaper while there are none; the caller then retries.
    pub expect_repeats: bool,
    /// Whether the feed records the batch.
    pub feed: bool,
}

/// Reads the input of the batch under the locks, decides, and writes. The caller owns the transaction.
pub(super) async fn apply(
    connection: &mut Connection<'_>,
    jobs: &mut [Job],
    states: Vec<ChannelState>,
    now: Micros,
    mode: Mode,
) -> Result<Effects, sqlx::Error> {
    let random =
        message_id::random_numbers(jobs.len()).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    let Wanted { messages, mut nonces, rows } = Wanted::of(jobs);
    let mut loaded = Loaded { states, rows, ..Loaded::default() };
    if mode.expect_repeats {
        load_nonces(connection, &mut loaded, std::mem::take(&mut nonces)).await?;
    }
    load_messages(connection, &mut loaded, messages).await?;
    loaded.rows.load(connection).await?;
    let mut batch = Batch::new(loaded, now, random);
    for _ in 0..LOOKS_MAX {
        match batch.decide(jobs) {
            Decision::Incomplete => batch.loaded.rows.load(connection).await?,
            // What is refused now may repeat what was sent before it was refused.
            Decision::Refused if !nonces.is_empty() => {
                load_nonces(connection, &mut batch.loaded, std::mem::take(&mut nonces)).await?;
            }
            Decision::Refused | Decision::Complete => {
                return store(connection, batch.finish(), now, mode).await;
            }
        }
    }
    Err(sqlx::Error::Encode("a mutation looks for ever more rows".into()))
}

async fn store(
    connection: &mut Connection<'_>,
    effects: Effects,
    now: Micros,
    mode: Mode,
) -> Result<Effects, sqlx::Error> {
    write(connection, &effects).await?;
    if mode.feed {
        feed_batch::record(connection, now, &effects.ranges).await?;
    }
    Ok(effects)
}

/// Whether an earlier attempt, whose commit got no answer, took effect after all. Runs under the locks, so
/// the earlier transaction has ended and can no longer commit.
pub(super) async fn was_committed(
    connection: &mut Connection<'_>,
    effects: &Effects,
) -> Result<bool, sqlx::Error> {
    if let Some(appended) = effects.appended.first() {
        return Ok(!fetch_messages(connection, vec![appended.message.id]).await?.is_empty());
    }
    let Some(change) = effects.changes.first() else { return Ok(false) };
    let found: Vec<(i64,)> = channel_change::FIND.fetch(connection, &change.key_columns()).await?;
    Ok(!found.is_empty())
}

/// Returns the channels of a batch without duplicates, in locking order.
pub(super) fn channels_of(jobs: &[Job]) -> Vec<Uuid> {
    let mut channels: Vec<Uuid> = jobs.iter().map(|job| job.scope.channel_id).collect();
    channels.sort_unstable();
    channels.dedup();
    channels
}

/// Locks the channels' rows in id order, so that batches cannot deadlock. Creates missing rows.
pub(super) async fn lock(
    connection: &mut Connection<'_>,
    channels: &[Uuid],
) -> Result<Vec<ChannelState>, sqlx::Error> {
    let states = lock_existing(connection, channels).await?;
    if states.len() == channels.len() {
        return Ok(states);
    }
    ENSURE.execute(connection, &[Column::Ids(channels.to_vec())]).await?;
    lock_existing(connection, channels).await
}

async fn lock_existing(
    connection: &mut Connection<'_>,
    channels: &[Uuid],
) -> Result<Vec<ChannelState>, sqlx::Error> {
    match connection {
        Connection::Postgres(connection) => {
            sqlx::query_as(LOCK_POSTGRES).bind(channels).fetch_all(&mut **connection).await
        }
        Connection::Sqlite(connection) => {
            sqlx::query_as(LOCK_SQLITE).bind(json_ids(channels)).fetch_all(&mut **connection).await
        }
    }
}

/// Reads the messages that were sent before with these nonces: by a separate statement, and thus in its own
/// snapshot, so that a send on another node has committed by now.
async fn load_nonces(
    connection: &mut Connection<'_>,
    loaded: &mut Loaded,
    nonces: Vec<NonceKey>,
) -> Result<(), sqlx::Error> {
    loaded.nonces = stored_nonces(connection, nonces).await?;
    let messages = loaded.nonces.values().map(|stored| stored.message_id).collect();
    load_messages(connection, loaded, messages).await
}

/// Reads messages, and those that they quote or forward: answers and events depend on them.
async fn load_messages(
    connection: &mut Connection<'_>,
    loaded: &mut Loaded,
    ids: Vec<Uuid>,
) -> Result<(), sqlx::Error> {
    let messages = fetch_messages(connection, ids).await?;
    let mut quoted = Vec::new();
    for message in messages.values() {
        let of_message = message.quoted().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        quoted.extend(of_message.filter(|id| !messages.contains_key(id)));
    }
    loaded.messages.extend(messages);
    loaded.messages.extend(fetch_messages(connection, quoted).await?);
    Ok(())
}

async fn stored_nonces(
    connection: &mut Connection<'_>,
    nonces: Vec<NonceKey>,
) -> Result<HashMap<NonceKey, StoredNonce>, sqlx::Error> {
    let columns = [
        Column::Numbers((0..).zip(&nonces).map(|(number, _)| number).collect()),
        Column::Ids(nonces.iter().map(|(channel, ..)| *channel).collect()),
        Column::Ids(nonces.iter().map(|(_, author, _)| *author).collect()),
        Column::Texts(nonces.iter().map(|(.., nonce)| nonce.as_str()).collect()),
    ];
    let stored: Vec<StoredNonce> = NONCES.fetch(connection, &columns).await?;
    let key_of = |stored: &StoredNonce| nonces.get(usize::try_from(stored.number).ok()?).cloned();
    Ok(stored.into_iter().filter_map(|stored| Some((key_of(&stored)?, stored))).collect())
}

async fn fetch_messages(
    connection: &mut Connection<'_>,
    mut ids: Vec<Uuid>,
) -> Result<HashMap<Uuid, Message>, sqlx::Error> {
    ids.sort_unstable();
    ids.dedup();
    let rows: Vec<Message> = message_row::BY_IDS.fetch(connection, &[Column::Ids(ids)]).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

async fn write(connection: &mut Connection<'_>, effects: &Effects) -> Result<(), sqlx::Error> {
    RELEASE_NONCES.execute(connection, &[Column::Ids(effects.released.clone())]).await?;
    message_row::INSERT.execute(connection, &Appended::columns(&effects.appended)).await?;
    let changed = effects.changed.iter().filter(|it| it.stored);
    let changed: Vec<_> = changed.map(|it| (&it.row, it.new_body())).collect();
    message_row::UPDATE.execute(connection, &Message::update_columns(&changed)).await?;
    channel_change::INSERT.execute(connection, &Change::columns(&effects.changes)).await?;
    effects.records.write(connection).await?;
    UPDATE_COUNTERS.execute(connection, &counter_columns(&effects.states)).await
}

fn counter_columns(states: &[ChannelState]) -> [Column<'_>; 8] {
    [
        Column::of(states, |state| state.channel_id),
        Column::of(states, |state| state.last_seq),
        Column::of(states, |state| state.last_cseq),
        Column::of(states, |state| state.last_rev),
        Column::of(states, |state| state.last_ms),
        Column::of(states, |state| state.last_message_id),
        Column::of(states, |state| state.last_message_at),
        Column::of(states, |state| state.message_count),
    ]
}

/// The most times that a batch is decided: again when a mutation needs rows that it could not name before, or when
/// one is refused that may repeat an earlier one.
const LOOKS_MAX: usize = 6;

/// The columns of [`ChannelState`], for `concat!`.
macro_rules! state_columns {
    () => {
        "channel_id, last_seq, last_cseq, last_rev, last_ms, last_message_id, last_message_at, message_count"
    };
}
const LOCK_POSTGRES: &str = concat!(
    "SELECT ",
    state_columns!(),
    " FROM channel_state WHERE channel_id = ANY($1) ORDER BY channel_id FOR UPDATE"
);
/// Needs no row locks: the transaction already holds SQLite's only write lock.
const LOCK_SQLITE: &str = concat!(
    "SELECT ",
    state_columns!(),
    " FROM channel_state WHERE channel_id IN (SELECT unhex(value) FROM json_each($1))"
);
static ENSURE: RowsSql = RowsSql::new(
    "channel_id",
    "INSERT INTO channel_state (channel_id) SELECT channel_id FROM r WHERE channel_id IS NOT NULL \
     ORDER BY channel_id ON CONFLICT DO NOTHING",
);
static NONCES: RowsSql = RowsSql::new(
    "number, channel_id, author_id, nonce",
    "SELECT r.number, m.id AS message_id, m.content_hash, m.created_at FROM r JOIN message m \
     ON m.channel_id = r.channel_id AND m.author_id = r.author_id AND m.nonce = r.nonce WHERE r.number IS NOT NULL",
);
static RELEASE_NONCES: RowsSql =
    RowsSql::new("id", "UPDATE message SET nonce = NULL FROM r WHERE message.id = r.id");
static UPDATE_COUNTERS: RowsSql = RowsSql::new(
    state_columns!(),
    "UPDATE channel_state SET last_seq = r.last_seq, last_cseq = r.last_cseq, last_rev = r.last_rev, \
     last_ms = r.last_ms, last_message_id = r.last_message_id, last_message_at = r.last_message_at, \
     message_count = r.message_count FROM r WHERE channel_state.channel_id = r.channel_id",
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::db::sqlite_plan;

    #[tokio::test]
    async fn a_nonce_is_found_by_its_whole_key() {
        let plan = sqlite_plan(&NONCES.sqlite_text(4, 2).unwrap()).await;
        let whole = "USING INDEX message_nonce (author_id=? AND nonce=? AND channel_id=?)";
        assert!(plan.iter().any(|line| line.contains(whole)), "{plan:#?}");
    }
}
