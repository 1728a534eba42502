//! One batch, one transaction: lock, look, decide ([`super::plan`]), write. The number of statements does not
//! depend on the number of writes.

use std::collections::HashMap;

use uuid::Uuid;

use super::plan::{self, ChannelState, LastSend, Loaded, Plan, StoredKey};
use super::{Job, Write};
use crate::clock::Micros;
use crate::models::db::json_ids;
use crate::models::message::{Message, message_columns};
use crate::models::message_id;
use crate::models::rows::{Column, Connection, RowsSql};

/// Reads under the channels' locks what the batch needs, decides, and writes. The transaction is the caller's.
///
/// `careful`: look for sends with the same nonce first, as always where slow mode would refuse the repeat. Otherwise the unique index is asked by inserting, which is
/// cheaper as long as nobody repeats anything; the caller comes back careful when it objects.
pub(super) async fn apply(
    connection: &mut Connection<'_>,
    jobs: &[Job],
    states: Vec<ChannelState>,
    now: Micros,
    careful: bool,
) -> Result<Plan, sqlx::Error> {
    // Looked up after the locks were granted, in a statement and thus a snapshot of its own: whoever sent the same
    // nonce elsewhere has committed by now.
    let careful = careful || slow_sends(jobs).next().is_some();
    let keys = if careful { stored_keys(connection, jobs).await? } else { Vec::new() };
    let last_sends = last_sends(connection, jobs).await?;
    let messages = referred_messages(connection, jobs, &keys).await?;
    let random =
        message_id::random_numbers(jobs.len()).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    let plan = plan::plan(jobs, Loaded { states, keys, last_sends, messages }, now, &random);
    write_sends(connection, jobs, &plan).await?;
    write_mutations(connection, &plan).await?;
    write_counters(connection, &plan).await?;
    Ok(plan)
}

/// Whether an earlier attempt, whose commit was never answered, took effect after all. Asked under the locks, so
/// that what is still on its way has arrived or never will.
pub(super) async fn was_committed(connection: &mut Connection<'_>, plan: &Plan) -> Result<bool, sqlx::Error> {
    if let Some(sent) = plan.sends.first() {
        return Ok(!fetch_messages(connection, vec![sent.id]).await?.is_empty());
    }
    let Some(change) = plan.changes.first() else { return Ok(false) };
    let columns = [
        Column::Ids(vec![change.channel_id]),
        Column::Numbers(vec![change.rev]),
        Column::Ids(vec![change.message_id]),
        Column::Numbers(vec![change.at]),
    ];
    let found: Vec<(i64,)> = FIND_CHANGE.fetch(connection, &columns).await?;
    Ok(!found.is_empty())
}

fn channels_of(jobs: &[Job]) -> Vec<Uuid> {
    let mut channels: Vec<Uuid> = jobs.iter().map(|job| job.write.channel()).collect();
    channels.sort_unstable();
    channels.dedup();
    channels
}

/// Locks the channels' rows in id order, so that no two batches wait for each other; creates missing ones.
pub(super) async fn lock(
    connection: &mut Connection<'_>,
    jobs: &[Job],
) -> Result<Vec<ChannelState>, sqlx::Error> {
    let channels = &channels_of(jobs);
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

async fn stored_keys(connection: &mut Connection<'_>, jobs: &[Job]) -> Result<Vec<StoredKey>, sqlx::Error> {
    let (mut numbers, mut channels, mut authors, mut nonces) = (vec![], vec![], vec![], vec![]);
    for (number, job) in (0..).zip(jobs) {
        let Write::Send(message) = &job.write else { continue };
        let Some(nonce) = message.nonce.as_deref() else { continue };
        numbers.push(number);
        channels.push(message.channel_id);
        authors.push(message.author.id);
        nonces.push(nonce);
    }
    let columns =
        [Column::Numbers(numbers), Column::Ids(channels), Column::Ids(authors), Column::Texts(nonces)];
    KEYS.fetch(connection, &columns).await
}

/// Sends that the author's last message may forbid.
fn slow_sends(jobs: &[Job]) -> impl Iterator<Item = (Uuid, Uuid)> {
    jobs.iter().filter_map(|job| match &job.write {
        Write::Send(message) if !message.slow_mode.is_zero() => Some((message.channel_id, message.author.id)),
        _ => None,
    })
}

async fn last_sends(connection: &mut Connection<'_>, jobs: &[Job]) -> Result<Vec<LastSend>, sqlx::Error> {
    let (channels, authors) = slow_sends(jobs).unzip();
    LAST_SENDS.fetch(connection, &[Column::Ids(channels), Column::Ids(authors)]).await
}

/// Messages to edit or delete, those sent before with the same nonce, thread roots and reply targets.
async fn referred_messages(
    connection: &mut Connection<'_>,
    jobs: &[Job],
    keys: &[StoredKey],
) -> Result<HashMap<Uuid, Message>, sqlx::Error> {
    let mut ids: Vec<Uuid> = keys.iter().map(|key| key.message_id).collect();
    for job in jobs {
        match &job.write {
            Write::Send(message) => {
                ids.extend(message.thread_id.into_iter().chain(message.reply_to_message_id))
            }
            Write::Edit(edit) => ids.push(edit.message_id),
            Write::Delete(delete) => ids.push(delete.message_id),
        }
    }
    let mut messages = fetch_messages(connection, ids).await?;
    // Answers show what an edited or repeated reply quotes.
    let quoted = messages.values().filter_map(|row| row.reply_to_message_id);
    let quoted: Vec<Uuid> = quoted.filter(|id| !messages.contains_key(id)).collect();
    messages.extend(fetch_messages(connection, quoted).await?);
    Ok(messages)
}

async fn fetch_messages(
    connection: &mut Connection<'_>,
    mut ids: Vec<Uuid>,
) -> Result<HashMap<Uuid, Message>, sqlx::Error> {
    ids.sort_unstable();
    ids.dedup();
    let rows: Vec<Message> = MESSAGES.fetch(connection, &[Column::Ids(ids)]).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

async fn write_sends(connection: &mut Connection<'_>, jobs: &[Job], plan: &Plan) -> Result<(), sqlx::Error> {
    RELEASE_NONCES.execute(connection, &[Column::Ids(plan.released.clone())]).await?;
    if plan.sends.is_empty() {
        return Ok(());
    }
    let sends = || {
        plan.sends.iter().filter_map(|minted| match &jobs[minted.job].write {
            Write::Send(message) => Some((minted, message)),
            _ => None,
        })
    };
    let columns = [
        Column::Ids(sends().map(|(minted, _)| minted.id).collect()),
        Column::Ids(sends().map(|(_, message)| message.channel_id).collect()),
        Column::Numbers(sends().map(|(minted, _)| minted.seq).collect()),
        Column::Numbers(sends().map(|(minted, _)| minted.cseq).collect()),
        Column::Ids(sends().map(|(_, message)| message.author.id).collect()),
        Column::Texts(sends().map(|(_, message)| &*message.author.username).collect()),
        Column::Numbers(sends().map(|(_, message)| i64::from(message.kind as i32)).collect()),
        Column::Numbers(sends().map(|(_, message)| i64::from(message.content_type as i32)).collect()),
        Column::Texts(sends().map(|(_, message)| message.body.as_str()).collect()),
        Column::MaybeIds(sends().map(|(_, message)| message.thread_id).collect()),
        Column::MaybeIds(sends().map(|(_, message)| message.reply_to_message_id).collect()),
        Column::MaybeTexts(sends().map(|(minted, _)| minted.mentions.as_deref()).collect()),
        Column::Numbers(sends().map(|(minted, _)| i64::from(minted.flags)).collect()),
        Column::MaybeTexts(sends().map(|(_, message)| message.nonce.as_deref()).collect()),
        Column::Numbers(sends().map(|(minted, _)| minted.content_hash).collect()),
        Column::Numbers(sends().map(|(minted, _)| minted.created_at).collect()),
    ];
    INSERT_MESSAGES.execute(connection, &columns).await
}

async fn write_mutations(connection: &mut Connection<'_>, plan: &Plan) -> Result<(), sqlx::Error> {
    UNMENTION.execute(connection, &[Column::Ids(plan.unmention.clone())]).await?;
    write_mentions(connection, plan).await?;
    if plan.changes.is_empty() {
        return Ok(());
    }
    let changed = [
        Column::Ids(plan.changed.iter().map(|row| row.id).collect()),
        Column::Texts(plan.changed.iter().map(|row| row.body.as_str()).collect()),
        Column::MaybeTexts(plan.changed.iter().map(|row| row.mentions.as_deref()).collect()),
        Column::Numbers(plan.changed.iter().map(|row| row.version).collect()),
        Column::Numbers(plan.changed.iter().map(|row| row.rev).collect()),
        Column::MaybeNumbers(plan.changed.iter().map(|row| row.edited_at).collect()),
        Column::Numbers(plan.changed.iter().map(|row| i64::from(row.edit_count)).collect()),
        Column::MaybeNumbers(plan.changed.iter().map(|row| row.deleted_at).collect()),
        Column::MaybeIds(plan.changed.iter().map(|row| row.deleted_by).collect()),
    ];
    UPDATE_MESSAGES.execute(connection, &changed).await?;
    write_edits(connection, plan).await?;
    let tombstones = [
        Column::Ids(plan.tombstones.iter().map(|row| row.channel_id).collect()),
        Column::Numbers(plan.tombstones.iter().map(|row| row.seq).collect()),
        Column::Flags(plan.tombstones.iter().map(|row| row.counted).collect()),
        Column::MaybeIds(plan.tombstones.iter().map(|row| row.thread_id).collect()),
    ];
    INSERT_TOMBSTONES.execute(connection, &tombstones).await?;
    let changes = [
        Column::Ids(plan.changes.iter().map(|row| row.channel_id).collect()),
        Column::Numbers(plan.changes.iter().map(|row| row.rev).collect()),
        Column::Numbers(plan.changes.iter().map(|row| row.kind).collect()),
        Column::Ids(plan.changes.iter().map(|row| row.message_id).collect()),
        Column::Numbers(plan.changes.iter().map(|row| row.seq).collect()),
        Column::Ids(plan.changes.iter().map(|row| row.actor_id).collect()),
        Column::Numbers(plan.changes.iter().map(|row| row.at).collect()),
    ];
    INSERT_CHANGES.execute(connection, &changes).await
}

async fn write_mentions(connection: &mut Connection<'_>, plan: &Plan) -> Result<(), sqlx::Error> {
    // A message may mention a hundred users: more rows than a batch has writes.
    for mentions in plan.mentions.chunks(MENTIONS_PER_STATEMENT) {
        let columns = [
            Column::Ids(mentions.iter().map(|row| row.message_id).collect()),
            Column::Numbers(mentions.iter().map(|row| row.kind).collect()),
            Column::Ids(mentions.iter().map(|row| row.target_id).collect()),
            Column::Ids(mentions.iter().map(|row| row.author_id).collect()),
            Column::Ids(mentions.iter().map(|row| row.channel_id).collect()),
            Column::Numbers(mentions.iter().map(|row| row.seq).collect()),
            Column::MaybeIds(mentions.iter().map(|row| row.thread_id).collect()),
            Column::Numbers(mentions.iter().map(|row| row.at).collect()),
        ];
        INSERT_MENTIONS.execute(connection, &columns).await?;
    }
    Ok(())
}

async fn write_edits(connection: &mut Connection<'_>, plan: &Plan) -> Result<(), sqlx::Error> {
    let edits = [
        Column::Ids(plan.edits.iter().map(|row| row.message_id).collect()),
        Column::Numbers(plan.edits.iter().map(|row| row.version).collect()),
        Column::Ids(plan.edits.iter().map(|row| row.channel_id).collect()),
        Column::Ids(plan.edits.iter().map(|row| row.editor_id).collect()),
        Column::Texts(plan.edits.iter().map(|row| row.body.as_str()).collect()),
        Column::MaybeTexts(plan.edits.iter().map(|row| row.mentions.as_deref()).collect()),
        Column::Numbers(plan.edits.iter().map(|row| row.at).collect()),
    ];
    INSERT_EDITS.execute(connection, &edits).await?;
    let oldest = [
        Column::Ids(plan.edits.iter().map(|row| row.message_id).collect()),
        Column::Numbers(plan.edits.iter().map(|row| row.version - EDITS_KEPT).collect()),
    ];
    FORGET_EDITS.execute(connection, &oldest).await
}

async fn write_counters(connection: &mut Connection<'_>, plan: &Plan) -> Result<(), sqlx::Error> {
    let states = [
        Column::Ids(plan.states.iter().map(|state| state.channel_id).collect()),
        Column::Numbers(plan.states.iter().map(|state| state.last_seq).collect()),
        Column::Numbers(plan.states.iter().map(|state| state.last_cseq).collect()),
        Column::Numbers(plan.states.iter().map(|state| state.last_rev).collect()),
        Column::Numbers(plan.states.iter().map(|state| state.last_ms).collect()),
        Column::MaybeIds(plan.states.iter().map(|state| state.last_message_id).collect()),
        Column::MaybeNumbers(plan.states.iter().map(|state| state.last_message_at).collect()),
        Column::Numbers(plan.states.iter().map(|state| state.message_count).collect()),
    ];
    UPDATE_COUNTERS.execute(connection, &states).await
}

/// Earlier texts kept per message.
pub(crate) const EDITS_KEPT: i64 = 50;
const MENTIONS_PER_STATEMENT: usize = 1_024;

const LOCK_POSTGRES: &str = "SELECT channel_id, last_seq, last_cseq, last_rev, last_ms, last_message_id, \
    last_message_at, message_count FROM channel_state WHERE channel_id = ANY($1) ORDER BY channel_id FOR UPDATE";
/// The transaction holds SQLite's only write lock already.
const LOCK_SQLITE: &str = "SELECT channel_id, last_seq, last_cseq, last_rev, last_ms, last_message_id, \
    last_message_at, message_count FROM channel_state \
    WHERE channel_id IN (SELECT unhex(value) FROM json_each($1))";
static ENSURE: RowsSql = RowsSql::new(
    "channel_id",
    "INSERT INTO channel_state (channel_id) SELECT channel_id FROM r WHERE channel_id IS NOT NULL \
     ORDER BY channel_id ON CONFLICT DO NOTHING",
);
static KEYS: RowsSql = RowsSql::new(
    "job, channel_id, author_id, nonce",
    "SELECT r.job, m.id AS message_id, m.content_hash, m.created_at FROM r JOIN message m \
     ON m.channel_id = r.channel_id AND m.author_id = r.author_id AND m.nonce = r.nonce WHERE r.job IS NOT NULL",
);
/// Walks `message_own`, whose condition it repeats.
static LAST_SENDS: RowsSql = RowsSql::new(
    "channel_id, author_id",
    "SELECT m.channel_id, m.author_id, m.created_at AS at FROM r JOIN message m ON m.channel_id = r.channel_id \
     AND m.author_id = r.author_id AND m.flags & 16 = 0 AND m.seq = (SELECT MAX(n.seq) FROM message n \
     WHERE n.channel_id = r.channel_id AND n.author_id = r.author_id AND n.flags & 16 = 0)",
);
static MESSAGES: RowsSql = RowsSql::new(
    "wanted",
    concat!(
        "SELECT ",
        message_columns!(),
        " FROM message WHERE id IN (SELECT wanted FROM r WHERE wanted IS NOT NULL)"
    ),
);
static INSERT_MESSAGES: RowsSql = RowsSql::new(
    "id, channel_id, seq, cseq, author_id, author_username, type, content_type, body, thread_id, \
     reply_to_message_id, mentions, flags, nonce, content_hash, created_at",
    "INSERT INTO message (id, channel_id, seq, cseq, author_id, author_username, type, content_type, body, \
     thread_id, reply_to_message_id, mentions, flags, nonce, content_hash, created_at) \
     SELECT * FROM r WHERE r.id IS NOT NULL",
);
static RELEASE_NONCES: RowsSql =
    RowsSql::new("id", "UPDATE message SET nonce = NULL FROM r WHERE message.id = r.id");
static FIND_CHANGE: RowsSql = RowsSql::new(
    "channel_id, rev, message_id, at",
    "SELECT c.rev FROM r JOIN channel_change c ON c.channel_id = r.channel_id AND c.rev = r.rev \
     AND c.message_id = r.message_id AND c.at = r.at",
);
static UNMENTION: RowsSql = RowsSql::new(
    "id",
    "DELETE FROM message_mention WHERE message_id IN (SELECT id FROM r WHERE id IS NOT NULL)",
);
static INSERT_MENTIONS: RowsSql = RowsSql::new(
    "message_id, kind, target_id, author_id, channel_id, seq, thread_id, created_at",
    "INSERT INTO message_mention (message_id, kind, target_id, author_id, channel_id, seq, thread_id, created_at) \
     SELECT * FROM r WHERE r.message_id IS NOT NULL",
);
static UPDATE_MESSAGES: RowsSql = RowsSql::new(
    "id, body, mentions, version, rev, edited_at, edit_count, deleted_at, deleted_by",
    "UPDATE message SET body = r.body, mentions = r.mentions, version = r.version, rev = r.rev, \
     edited_at = r.edited_at, edit_count = r.edit_count, deleted_at = r.deleted_at, deleted_by = r.deleted_by \
     FROM r WHERE message.id = r.id",
);
static INSERT_EDITS: RowsSql = RowsSql::new(
    "message_id, version, channel_id, editor_id, body, mentions, edited_at",
    "INSERT INTO message_edit (message_id, version, channel_id, editor_id, body, mentions, edited_at) \
     SELECT * FROM r WHERE r.message_id IS NOT NULL",
);
static FORGET_EDITS: RowsSql = RowsSql::new(
    "message_id, version",
    "DELETE FROM message_edit WHERE (message_id, version) IN \
     (SELECT message_id, version FROM r WHERE message_id IS NOT NULL)",
);
static INSERT_TOMBSTONES: RowsSql = RowsSql::new(
    "channel_id, seq, counted, thread_id",
    "INSERT INTO message_tombstone (channel_id, seq, counted, thread_id) \
     SELECT * FROM r WHERE r.channel_id IS NOT NULL",
);
static INSERT_CHANGES: RowsSql = RowsSql::new(
    "channel_id, rev, kind, message_id, seq, actor_id, at",
    "INSERT INTO channel_change (channel_id, rev, kind, message_id, seq, actor_id, at) \
     SELECT * FROM r WHERE r.channel_id IS NOT NULL",
);
static UPDATE_COUNTERS: RowsSql = RowsSql::new(
    "channel_id, last_seq, last_cseq, last_rev, last_ms, last_message_id, last_message_at, message_count",
    "UPDATE channel_state SET last_seq = r.last_seq, last_cseq = r.last_cseq, last_rev = r.last_rev, \
     last_ms = r.last_ms, last_message_id = r.last_message_id, last_message_at = r.last_message_at, \
     message_count = r.message_count FROM r WHERE channel_state.channel_id = r.channel_id",
);
