//! A row of the feed: for each channel of a transaction, the numbers that it added.

use uuid::Uuid;

use crate::ImksResult;
use crate::clock::Micros;
use crate::models::db::{Db, on};
use crate::models::rows::Connection;

/// The messages and changes that a transaction added to a channel: those after the first number, up to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub channel_id: Uuid,
    pub seq: (i64, i64),
    pub rev: (i64, i64),
}

impl Range {
    /// Returns the number of messages.
    pub(crate) fn messages(&self) -> i64 {
        self.seq.1 - self.seq.0
    }

    /// Returns the number of events.
    pub(crate) fn events(&self) -> i64 {
        self.messages() + (self.rev.1 - self.rev.0)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.channel_id.as_bytes());
        for number in [self.seq.0, self.rev.0, self.seq.1, self.rev.1] {
            out.extend_from_slice(&number.to_be_bytes());
        }
    }

    fn decode(bytes: &[u8; BYTES]) -> Self {
        let [seq, rev, last_seq, last_rev] = [16, 24, 32, 40].map(|at| number(bytes, at));
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[..16]);
        Self { channel_id: Uuid::from_bytes(id), seq: (seq, last_seq), rev: (rev, last_rev) }
    }

    /// Decodes all ranges of a row.
    pub(crate) fn decode_all(bytes: &[u8]) -> Vec<Self> {
        bytes.as_chunks::<BYTES>().0.iter().map(Self::decode).collect()
    }
}

fn number(bytes: &[u8; BYTES], at: usize) -> i64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    i64::from_be_bytes(number)
}

/// Writes the row of a transaction, as its last statement: the fewer statements follow, the shorter others wait for a
/// number that has been given out.
pub(crate) async fn record(
    connection: &mut Connection<'_>,
    at: Micros,
    ranges: &[Range],
) -> Result<(), sqlx::Error> {
    if ranges.is_empty() {
        return Ok(());
    }
    let mut bytes = Vec::with_capacity(ranges.len() * BYTES);
    ranges.iter().for_each(|range| range.encode(&mut bytes));
    match connection {
        Connection::Postgres(connection) => {
            sqlx::query(RECORD).bind(at).bind(bytes).execute(&mut **connection).await.map(drop)
        }
        Connection::Sqlite(connection) => {
            sqlx::query(RECORD).bind(at).bind(bytes).execute(&mut **connection).await.map(drop)
        }
    }
}

/// Returns when the first transaction from a number on was committed, if there is one.
pub(crate) async fn first_at(db: &Db, batch: i64) -> ImksResult<Option<Micros>> {
    Ok(on!(read db, pool => sqlx::query_scalar(FIRST_AT).bind(batch).fetch_optional(pool).await?))
}

const FIRST_AT: &str = "SELECT at FROM feed_batch WHERE id >= $1 ORDER BY id LIMIT 1";
const RECORD: &str = "INSERT INTO feed_batch (at, ranges) VALUES ($1, $2)";
/// The size of an encoded range.
const BYTES: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_it_was_written() {
        let range = Range { channel_id: Uuid::from_u128(7), seq: (3, 9), rev: (i64::MAX - 1, i64::MAX) };
        let other = Range { channel_id: Uuid::from_u128(8), seq: (0, 1), rev: (0, 0) };
        let mut bytes = Vec::new();
        range.encode(&mut bytes);
        other.encode(&mut bytes);
        assert_eq!((bytes.len(), Range::decode_all(&bytes)), (2 * BYTES, vec![range, other]));
        assert_eq!((range.messages(), range.events(), other.events()), (6, 7, 1));
    }
}
