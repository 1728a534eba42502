//! The newest message that each author sent in each channel in person (docs/adr/0029). It is the author's read
//! position, and slow mode counts from it. Written with each message, in the same transaction. Who wrote only through
//! programs has a row of zeros.

use sqlx::FromRow;
use uuid::Uuid;

use super::append::records::{Lookup, Record};
use super::rows::{Column, RowsSql};
use crate::clock::Micros;

/// A row of `message_author`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub(crate) struct LastSend {
    pub author_id: Uuid,
    pub channel_id: Uuid,
    /// The number of the message.
    #[sqlx(rename = "last_seq")]
    pub seq: i64,
    /// The number of messages that count as unread, up to and including this one.
    #[sqlx(rename = "last_cseq")]
    pub cseq: i64,
    /// When the message was written.
    #[sqlx(rename = "last_at")]
    pub at: Micros,
}

impl Record for LastSend {
    /// The author and channel.
    type Key = (Uuid, Uuid);

    fn key(&self) -> Self::Key {
        (self.author_id, self.channel_id)
    }

    fn insert() -> &'static RowsSql {
        &UPSERT
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::of(rows, |row| row.author_id),
            Column::of(rows, |row| row.channel_id),
            Column::of(rows, |row| row.seq),
            Column::of(rows, |row| row.cseq),
            Column::of(rows, |row| row.at),
        ]
    }
}

impl Lookup for LastSend {
    /// The author and channel.
    type Key = (Uuid, Uuid);

    fn key(&self) -> <Self as Lookup>::Key {
        (self.author_id, self.channel_id)
    }

    fn select() -> &'static RowsSql {
        &SELECT
    }

    fn key_columns(keys: &[<Self as Lookup>::Key]) -> Vec<Column<'_>> {
        vec![Column::of(keys, |(author, _)| *author), Column::of(keys, |(_, channel)| *channel)]
    }
}

/// That somebody wrote in a channel, if only through a program: what they wrote is found by it. Says nothing about what
/// they have read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wrote {
    pub author_id: Uuid,
    pub channel_id: Uuid,
}

impl Record for Wrote {
    /// The author and channel.
    type Key = (Uuid, Uuid);

    fn key(&self) -> Self::Key {
        (self.author_id, self.channel_id)
    }

    fn insert() -> &'static RowsSql {
        &INSERT_WROTE
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![Column::of(rows, |row| row.author_id), Column::of(rows, |row| row.channel_id)]
    }
}

static UPSERT: RowsSql = RowsSql::new(
    "author_id, channel_id, last_seq, last_cseq, last_at",
    "INSERT INTO message_author (author_id, channel_id, last_seq, last_cseq, last_at) \
     SELECT * FROM r WHERE r.author_id IS NOT NULL \
     ON CONFLICT (author_id, channel_id) DO UPDATE \
     SET last_seq = excluded.last_seq, last_cseq = excluded.last_cseq, last_at = excluded.last_at",
);
static SELECT: RowsSql = RowsSql::new(
    "author_id, channel_id",
    "SELECT a.author_id, a.channel_id, a.last_seq, a.last_cseq, a.last_at FROM r JOIN message_author a \
     ON a.author_id = r.author_id AND a.channel_id = r.channel_id",
);
static INSERT_WROTE: RowsSql = RowsSql::new(
    "author_id, channel_id",
    "INSERT INTO message_author (author_id, channel_id, last_seq, last_cseq, last_at) \
     SELECT r.author_id, r.channel_id, 0, 0, 0 FROM r WHERE r.author_id IS NOT NULL \
     ON CONFLICT (author_id, channel_id) DO NOTHING",
);
