//! The pinned messages of a channel.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::append::records::{Lookup, Record, Removable, Write};
use super::append::{LockedChannel, Mutation, References};
use super::channel_change::ChangeKind;
use super::db::{Db, on};
use super::rows::{Column, RowsSql};
use crate::clock::{Micros, Timestamp};
use crate::{ImksError, ImksResult};

/// A message to pin.
#[derive(Debug, Clone, Copy)]
pub struct AddPin {
    /// The message.
    pub message_id: Uuid,
}

/// A message to unpin.
#[derive(Debug, Clone, Copy)]
pub struct RemovePin {
    /// The message.
    pub message_id: Uuid,
}

/// Whether a message is pinned: the answer to `pin:add` and `pin:remove`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Pinned {
    /// The message.
    pub message_id: Uuid,
    /// Whether it is pinned.
    pub pinned: bool,
    /// The number of the message's last change.
    pub rev: i64,
    /// The number of pinned messages in the channel.
    pub pin_count: usize,
}

impl Mutation for AddPin {
    type Done = Pinned;

    fn refers(&self, references: &mut References<'_>) {
        refer(references, self.message_id);
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Pinned> {
        let (row, pins) = (channel.message(self.message_id)?.clone(), pinned(channel)?);
        if row.deleted_at.is_some() {
            return Err(ImksError::MessageDeleted);
        }
        let done = |rev, pin_count| Pinned { message_id: row.id, pinned: true, rev, pin_count };
        if row.pinned_at.is_some() {
            return Ok(done(row.rev, pins));
        }
        if pins >= PINS_MAX {
            return Err(ImksError::LimitReached("pins"));
        }
        let at = channel.now();
        let rev = channel.change(row.id, ChangeKind::Pin, |row| row.pinned_at = Some(at))?.rev;
        let pinned_by = channel.scope().actor.id;
        let (channel_id, message_id) = (row.channel_id, row.id);
        channel.insert(PinRow { channel_id, message_id, pinned_by, pinned_at: at });
        tell(channel, done(rev, pins + 1))
    }
}

impl Mutation for RemovePin {
    type Done = Pinned;

    fn refers(&self, references: &mut References<'_>) {
        refer(references, self.message_id);
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Pinned> {
        let (row, pins) = (channel.message(self.message_id)?.clone(), pinned(channel)?);
        let done = |rev, pin_count| Pinned { message_id: row.id, pinned: false, rev, pin_count };
        if row.pinned_at.is_none() || row.deleted_at.is_some() {
            return Ok(done(row.rev, pins));
        }
        let rev = channel.change(row.id, ChangeKind::Pin, |row| row.pinned_at = None)?.rev;
        channel.remove::<PinRow>((row.channel_id, row.id));
        tell(channel, done(rev, pins.saturating_sub(1)))
    }
}

fn refer(references: &mut References<'_>, message: Uuid) {
    references.message(message);
    let channel = references.scope().channel_id;
    references.rows::<LivePin>(channel);
}

/// Returns the number of pinned messages in the channel that are not deleted.
fn pinned(channel: &mut LockedChannel<'_>) -> ImksResult<usize> {
    let channel_id = channel.scope().channel_id;
    let stored: Vec<Uuid> = channel.rows::<LivePin>(&channel_id)?.iter().map(|pin| pin.message_id).collect();
    // The batch may have deleted one, or unpinned it.
    let is_live = |message: &Uuid| channel.message(*message).map_or(true, |row| row.deleted_at.is_none());
    let untouched = |message: &Uuid| channel.write_of::<PinRow>(&(channel_id, *message)).is_none();
    let stored = stored.iter().filter(|message| is_live(message) && untouched(message)).count();
    let ours = channel.writes::<PinRow>().filter(|((of, message), write)| {
        *of == channel_id && matches!(write, Write::Stored(_)) && is_live(message)
    });
    Ok(stored + ours.count())
}

/// The payload of `pin:updated` without its `rev`, which every change has (docs/protocol.md).
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PinUpdate {
    channel_id: Uuid,
    message_id: Uuid,
    pinned: bool,
    pin_count: usize,
}

fn tell(channel: &mut LockedChannel<'_>, done: Pinned) -> ImksResult<Pinned> {
    let Pinned { message_id, pinned, rev, pin_count } = done;
    let channel_id = channel.scope().channel_id;
    channel.tell_change("pin:updated", rev, PinUpdate { channel_id, message_id, pinned, pin_count })?;
    Ok(done)
}

/// A pin, as the list of a channel's pins shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Pin {
    /// The message.
    pub message_id: Uuid,
    /// The user who pinned it.
    pub pinned_by: Uuid,
    /// When it was pinned.
    pub pinned_at: Timestamp,
}

/// Returns the pins of a channel, the newest first.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn list(db: &Db, channel: Uuid) -> ImksResult<Vec<Pin>> {
    let rows: Vec<PinRow> = on!(read db, pool => sqlx::query_as(LIST).bind(channel).fetch_all(pool).await?);
    let pin = |row: PinRow| Pin {
        message_id: row.message_id,
        pinned_by: row.pinned_by,
        pinned_at: Timestamp(row.pinned_at),
    };
    Ok(rows.into_iter().map(pin).collect())
}

/// A row of `message_pin`.
#[derive(Debug, FromRow)]
struct PinRow {
    channel_id: Uuid,
    message_id: Uuid,
    pinned_by: Uuid,
    pinned_at: Micros,
}

impl Record for PinRow {
    /// The channel and message.
    type Key = (Uuid, Uuid);

    fn key(&self) -> Self::Key {
        (self.channel_id, self.message_id)
    }

    fn insert() -> &'static RowsSql {
        &INSERT
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::of(rows, |row| row.channel_id),
            Column::of(rows, |row| row.message_id),
            Column::of(rows, |row| row.pinned_by),
            Column::of(rows, |row| row.pinned_at),
        ]
    }
}

impl Removable for PinRow {
    fn delete() -> &'static RowsSql {
        &DELETE
    }

    fn key_columns(keys: &[Self::Key]) -> Vec<Column<'_>> {
        vec![Column::of(keys, |key| key.0), Column::of(keys, |key| key.1)]
    }
}

/// A pinned message that is not deleted.
#[derive(Debug, FromRow)]
struct LivePin {
    channel_id: Uuid,
    message_id: Uuid,
}

impl Lookup for LivePin {
    /// The channel.
    type Key = Uuid;

    fn key(&self) -> Uuid {
        self.channel_id
    }

    fn select() -> &'static RowsSql {
        &LIVE
    }

    fn key_columns(channels: &[Uuid]) -> Vec<Column<'_>> {
        vec![Column::of(channels, |channel| *channel)]
    }
}

/// The most pinned messages of one channel.
pub const PINS_MAX: usize = 100;
const LIST: &str = "SELECT p.channel_id, p.message_id, p.pinned_by, p.pinned_at FROM message_pin p \
    JOIN message m ON m.id = p.message_id AND m.deleted_at IS NULL WHERE p.channel_id = $1 \
    ORDER BY p.pinned_at DESC, p.message_id DESC";
static LIVE: RowsSql = RowsSql::new(
    "channel_id",
    "SELECT p.channel_id, p.message_id FROM r JOIN message_pin p ON p.channel_id = r.channel_id \
     JOIN message m ON m.id = p.message_id WHERE r.channel_id IS NOT NULL AND m.deleted_at IS NULL",
);
static INSERT: RowsSql = RowsSql::new(
    "channel_id, message_id, pinned_by, pinned_at",
    "INSERT INTO message_pin (channel_id, message_id, pinned_by, pinned_at) \
     SELECT * FROM r WHERE r.channel_id IS NOT NULL",
);
static DELETE: RowsSql = RowsSql::new(
    "channel_id, message_id",
    "DELETE FROM message_pin WHERE (channel_id, message_id) IN \
     (SELECT channel_id, message_id FROM r WHERE channel_id IS NOT NULL)",
);
