//! Explicit acknowledgements: whoever reads a message that asks for it says so, once and for good (docs/adr/0051).

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::append::records::{Lookup, Record, Write};
use super::append::{LockedChannel, Mutation, References};
use super::channel_change::ChangeKind;
use super::db::{Db, on};
use super::message::MessageDetail;
use super::message_row::Message;
use super::rows::{Column, RowsSql};
use crate::clock::{Micros, Timestamp};
use crate::error::Precondition;
use crate::{ImksError, ImksResult};

/// A message to acknowledge.
#[derive(Debug, Clone, Copy)]
pub struct AckMessage {
    /// The message.
    pub message_id: Uuid,
}

/// The answer to `message:ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Acked {
    /// The message.
    pub message_id: Uuid,
    /// When the caller acknowledged it.
    pub acked_at: Timestamp,
    /// How many users have acknowledged it.
    pub ack_count: i64,
    /// The number of the message's last change.
    pub rev: i64,
}

impl Mutation for AckMessage {
    type Done = Acked;

    fn refers(&self, references: &mut References<'_>) {
        references.message(self.message_id);
        let user = references.scope().actor.id;
        references.rows::<Ack>((self.message_id, user));
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Acked> {
        let (message_id, user_id) = (self.message_id, channel.scope().actor.id);
        let row = channel.message(message_id)?;
        let (channel_id, rev, count) = (row.channel_id, row.rev, asked(row, user_id)?);
        if let Some(Ack { acked_at, .. }) = stored(channel, (message_id, user_id))? {
            return Ok(Acked { message_id, acked_at: Timestamp(acked_at), ack_count: count, rev });
        }
        let (acked_at, ack_count) = (channel.now(), count + 1);
        let change = |row: &mut Message| row.acks = Some(ack_count);
        let rev = channel.change_together(message_id, ChangeKind::Ack, change)?.rev;
        channel.insert(Ack { message_id, user_id, acked_at });
        let together = channel.writes::<Ack>().filter(|((message, _), _)| *message == message_id);
        let user_ids = together.map(|((_, user), _)| *user).collect();
        channel.tell_change("ack:updated", rev, AckUpdate { channel_id, message_id, ack_count, user_ids })?;
        Ok(Acked { message_id, acked_at: Timestamp(acked_at), ack_count, rev })
    }
}

/// Returns how many have acknowledged a message that asks this user for it.
fn asked(row: &Message, user: Uuid) -> ImksResult<i64> {
    if row.deleted_at.is_some() {
        return Err(ImksError::MessageDeleted);
    }
    let count = row.acks.ok_or(ImksError::FailedPrecondition(Precondition::AckNotRequested))?;
    match row.author_id == user {
        true => Err(ImksError::FailedPrecondition(Precondition::OwnMessage)),
        false => Ok(count),
    }
}

/// Returns the acknowledgement that was made before, in this batch or earlier.
fn stored(channel: &mut LockedChannel<'_>, key: (Uuid, Uuid)) -> ImksResult<Option<Ack>> {
    match channel.write_of::<Ack>(&key) {
        Some(Write::Stored(ack)) => Ok(Some(*ack)),
        Some(Write::Removed) => Ok(None),
        None => Ok(channel.rows::<Ack>(&key)?.first().copied()),
    }
}

/// The payload of `ack:updated` without its `rev`, which every change has (docs/protocol.md).
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AckUpdate {
    channel_id: Uuid,
    message_id: Uuid,
    /// How many users have acknowledged it.
    ack_count: i64,
    /// Those who did with this change.
    user_ids: Vec<Uuid>,
}

/// A message that asks for acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requested {
    /// The author, who is not asked.
    pub author_id: Uuid,
    /// How many users have acknowledged it.
    pub count: i64,
}

/// Returns what is known of a message of this channel that asks for acknowledgements.
///
/// # Errors
/// [`ImksError::NotFound`], [`ImksError::MessageDeleted`], [`ImksError::FailedPrecondition`] for a message that asks for
/// none, and [`ImksError::Database`].
pub async fn requested(db: &Db, channel: Uuid, message: Uuid) -> ImksResult<Requested> {
    let found: Option<(Uuid, Option<i64>, Option<Micros>)> = on!(read db, pool => {
        sqlx::query_as(REQUESTED).bind(message).bind(channel).fetch_optional(pool).await?
    });
    match found.ok_or(ImksError::NotFound("message"))? {
        (_, _, Some(_)) => Err(ImksError::MessageDeleted),
        (_, None, None) => Err(ImksError::FailedPrecondition(Precondition::AckNotRequested)),
        (author_id, Some(count), None) => Ok(Requested { author_id, count }),
    }
}

/// A user who has acknowledged a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AckedBy {
    /// The user.
    pub user_id: Uuid,
    /// When they did.
    pub acked_at: Timestamp,
}

/// Returns users who have acknowledged a message, by id, up to `limit` after `after`.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn list(db: &Db, message: Uuid, after: Uuid, limit: i64) -> ImksResult<Vec<AckedBy>> {
    let rows: Vec<Ack> = on!(read db, pool => {
        sqlx::query_as(LIST).bind(message).bind(after).bind(limit).fetch_all(pool).await?
    });
    let by = |row: Ack| AckedBy { user_id: row.user_id, acked_at: Timestamp(row.acked_at) };
    Ok(rows.into_iter().map(by).collect())
}

/// Returns those of these users who have acknowledged a message.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn among(db: &Db, message: Uuid, users: &[Uuid]) -> ImksResult<HashSet<Uuid>> {
    let columns = [Column::of(users, |_| message), Column::of(users, |user| *user)];
    let rows: Vec<Ack> = FIND.read(db, &columns).await?;
    Ok(rows.into_iter().map(|row| row.user_id).collect())
}

/// Marks the messages that the reader has acknowledged.
///
/// # Errors
/// [`ImksError::Database`].
pub(crate) async fn mark_own(db: &Db, reader: Uuid, messages: &mut [MessageDetail]) -> ImksResult<()> {
    let acked: Vec<Uuid> =
        messages.iter().filter(|message| message.ack_count > 0).map(|message| message.id).collect();
    if acked.is_empty() {
        return Ok(());
    }
    let columns = [Column::of(&acked, |id| *id), Column::of(&acked, |_| reader)];
    let own: Vec<Ack> = FIND.read(db, &columns).await?;
    let own: HashSet<Uuid> = own.into_iter().map(|row| row.message_id).collect();
    for message in messages.iter_mut().filter(|message| own.contains(&message.id)) {
        message.acked = Some(true);
    }
    Ok(())
}

/// A row of `message_ack`.
#[derive(Debug, Clone, Copy, FromRow)]
struct Ack {
    message_id: Uuid,
    user_id: Uuid,
    acked_at: Micros,
}

impl Record for Ack {
    /// The message and user.
    type Key = (Uuid, Uuid);

    fn key(&self) -> Self::Key {
        (self.message_id, self.user_id)
    }

    fn insert() -> &'static RowsSql {
        &INSERT
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::of(rows, |row| row.message_id),
            Column::of(rows, |row| row.user_id),
            Column::of(rows, |row| row.acked_at),
        ]
    }
}

impl Lookup for Ack {
    /// The message and user.
    type Key = (Uuid, Uuid);

    fn key(&self) -> <Self as Lookup>::Key {
        Record::key(self)
    }

    fn select() -> &'static RowsSql {
        &FIND
    }

    fn key_columns(keys: &[<Self as Lookup>::Key]) -> Vec<Column<'_>> {
        vec![Column::of(keys, |key| key.0), Column::of(keys, |key| key.1)]
    }
}

const REQUESTED: &str = "SELECT author_id, acks, deleted_at FROM message WHERE id = $1 AND channel_id = $2";
const LIST: &str = "SELECT message_id, user_id, acked_at FROM message_ack \
    WHERE message_id = $1 AND user_id > $2 ORDER BY user_id LIMIT $3";
static FIND: RowsSql = RowsSql::new(
    "message_id, user_id",
    "SELECT a.message_id, a.user_id, a.acked_at FROM r JOIN message_ack a \
     ON a.message_id = r.message_id AND a.user_id = r.user_id",
);
static INSERT: RowsSql = RowsSql::new(
    "message_id, user_id, acked_at",
    "INSERT INTO message_ack (message_id, user_id, acked_at) SELECT * FROM r WHERE r.message_id IS NOT NULL",
);
