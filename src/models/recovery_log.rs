//! The recovery log that nodes share, in PostgreSQL.
//!
//! The row of a bucket is locked while positions are given out, so they are committed in their order and without holes.
//! All times are the database's, because they are compared between nodes.

use std::sync::Arc;

use bytes::Bytes;
use sqlx::FromRow;

use super::db::{Config, Db, PostgresPool};
use crate::bus::BoxFuture;
use crate::error::{ImksError, ImksResult};
use crate::node::NodeId;
use crate::socket::recovery_log::{Batch, Expected, Found, Keep, RecoveryLog, SessionKey, Tail, Written};

/// Opens the recovery log of a cluster in the PostgreSQL database at `url`. Its tables, `recovery_…`, are created where
/// they are missing. Clusters with different prefixes do not see each other.
///
/// # Errors
/// [`ImksError::Config`] for another kind of database, [`ImksError::DatabaseOpen`] and [`ImksError::Database`] for one that
/// does not answer.
pub async fn postgres(url: &str, prefix: &str) -> ImksResult<Arc<dyn RecoveryLog>> {
    let config = Config { url: Some(url.into()), max_connections: CONNECTIONS, ..Config::default() };
    let Db::Postgres(pool) = Db::connect(&config).await? else {
        return Err(ImksError::Config(
            "a recovery log that nodes share needs a database of PostgreSQL".into(),
        ));
    };
    let mut lease = pool.lease().await?;
    let work = Box::pin(async {
        let mut tx = sqlx::Connection::begin(lease.connection()?).await?;
        // Of nodes that start at once, one creates the tables.
        sqlx::query(LOCK_TABLES).execute(&mut *tx).await?;
        // To alter a table waits for everybody who reads it, such as a backup, and everybody else for that.
        let are_there: bool = sqlx::query_scalar(ARE_TABLES_THERE).fetch_one(&mut *tx).await?;
        if !are_there {
            sqlx::raw_sql(TABLES).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok::<_, ImksError>(())
    });
    let created = pool.transacted(work).await;
    lease.settle(created)?;
    Ok(Arc::new(PostgresLog { pool, prefix: prefix.into() }))
}

/// The server's database as the recovery log.
struct PostgresLog {
    pool: PostgresPool,
    prefix: Box<str>,
}

/// The head of a bucket after a batch, and the stored sessions.
#[derive(FromRow)]
struct Head {
    epoch: i64,
    last: i64,
    stored: Vec<Vec<u8>>,
}

/// An entry with the head of its bucket; without an entry if there is none.
#[derive(FromRow)]
struct TailRow {
    epoch: i64,
    last: i64,
    position: Option<i64>,
    entry: Option<Vec<u8>>,
}

#[derive(FromRow)]
struct SessionRow {
    epoch: i64,
    last: i64,
    node: String,
    generation: i64,
    version: i64,
    connected: bool,
    away_micros: i64,
    taken_micros: Option<i64>,
    lease: Option<i64>,
    record: Vec<u8>,
}

impl PostgresLog {
    fn bucket(&self, bucket: &str) -> String {
        format!("{}:{bucket}", self.prefix)
    }

    async fn write_batch(&self, bucket: &str, batch: &Batch) -> ImksResult<Written> {
        let bucket = self.bucket(bucket);
        let before = match batch.again {
            true => self.first_position_of(&bucket, batch).await?,
            false => None,
        };
        // What is there already is not written again.
        let entries: Vec<&[u8]> = match before {
            Some(_) => Vec::new(),
            None => batch.entries.iter().map(|entry| &**entry).collect(),
        };
        let head = self.store(&bucket, batch, &entries).await?;
        let stored: std::collections::HashSet<Vec<u8>> = head.stored.into_iter().collect();
        let is_taken = |key: &SessionKey| head.epoch as u64 == batch.epoch && !stored.contains(&key.0[..]);
        let taken = batch.sessions.iter().map(|session| session.key).filter(is_taken).collect();
        let first = before.unwrap_or(Some(head.last - to_i64(entries.len() as u64) + 1));
        let positions =
            first.map_or_else(Vec::new, |first| (to_u64(first)..).take(batch.entries.len()).collect());
        Ok(Written { epoch: head.epoch as u64, positions, taken })
    }

    /// Returns the position of the first entry of a batch, if the batch was written, and `Some(None)` if all its entries have
    /// been removed since. If an attempt is still under way, the next one fails, because numbers are unique. No lock is held
    /// from one query to the next: a node can stop in between.
    async fn first_position_of(&self, bucket: &str, batch: &Batch) -> ImksResult<Option<Option<i64>>> {
        let query = sqlx::query_scalar(FIRST_POSITION_OF).bind(bucket).bind(batch.node.to_string());
        let query = query.bind(to_i64(batch.number)).bind(to_i64(batch.serial));
        Ok(query.fetch_optional(&self.pool).await?)
    }

    async fn store(&self, bucket: &str, batch: &Batch, entries: &[&[u8]]) -> ImksResult<Head> {
        let sessions = &batch.sessions;
        let bytes: Vec<i32> =
            entries.iter().map(|entry| i32::try_from(entry.len()).unwrap_or(i32::MAX)).collect();
        let head = sqlx::query_as(WRITE)
            .bind(bucket)
            .bind(random_epoch()?)
            .bind(batch.node.to_string())
            .bind(to_i64(batch.number))
            .bind(entries)
            .bind(bytes)
            .bind(sessions.iter().map(|session| &session.key.0[..]).collect::<Vec<_>>())
            .bind(sessions.iter().map(|session| to_i64(session.generation)).collect::<Vec<_>>())
            .bind(sessions.iter().map(|session| session.away_millis.map(micros)).collect::<Vec<_>>())
            .bind(sessions.iter().map(|session| &*session.record).collect::<Vec<&[u8]>>())
            .bind(batch.ended.iter().map(|(key, _)| &key.0[..]).collect::<Vec<_>>())
            .bind(batch.ended.iter().map(|(_, generation)| to_i64(*generation)).collect::<Vec<_>>())
            .bind(batch.lease.map(to_i64))
            .bind(to_i64(batch.serial))
            .bind(batch.epoch as i64)
            .bind(sessions.iter().map(|session| to_i64(session.version)).collect::<Vec<_>>())
            .bind(batch.again)
            .fetch_one(&self.pool)
            .await?;
        Ok(head)
    }

    async fn read_after(&self, bucket: &str, after: u64) -> ImksResult<Tail> {
        let bucket = self.bucket(bucket);
        let query = || {
            sqlx::query_as(READ).bind(&bucket).bind(to_i64(after)).bind(ROWS_PER_READ).bind(BYTES_PER_READ)
        };
        let mut rows: Vec<TailRow> = query().fetch_all(&self.pool).await?;
        if rows.is_empty() {
            sqlx::query(CREATE).bind(&bucket).bind(random_epoch()?).execute(&self.pool).await?;
            rows = query().fetch_all(&self.pool).await?;
        }
        let mut tail = Tail::default();
        for TailRow { epoch, last, position, entry } in rows {
            (tail.epoch, tail.last) = (epoch as u64, to_u64(last));
            let (Some(position), Some(entry)) = (position, entry) else { continue };
            if tail.entries.is_empty() {
                tail.first = to_u64(position);
            }
            tail.entries.push(Bytes::from(entry));
        }
        Ok(tail)
    }

    async fn find_session(&self, bucket: &str, key: SessionKey) -> ImksResult<Option<Found>> {
        let query = sqlx::query_as(FIND).bind(self.bucket(bucket)).bind(&key.0[..]);
        let Some(row): Option<SessionRow> = query.fetch_optional(&self.pool).await? else { return Ok(None) };
        let node = NodeId::parse(&row.node).ok_or(ImksError::Internal("stored node id"))?;
        let millis = |micros: i64| to_u64(micros) / 1_000;
        Ok(Some(Found {
            epoch: row.epoch as u64,
            last: to_u64(row.last),
            node,
            generation: to_u64(row.generation),
            version: to_u64(row.version),
            connected: row.connected,
            away_millis: millis(row.away_micros),
            taken_millis: row.taken_micros.map(millis),
            lease: row.lease.map(to_u64),
            record: row.record.into(),
        }))
    }
}

impl RecoveryLog for PostgresLog {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn write<'a>(&'a self, bucket: &'a str, batch: &'a Batch) -> BoxFuture<'a, ImksResult<Written>> {
        Box::pin(self.write_batch(bucket, batch))
    }

    fn read<'a>(&'a self, bucket: &'a str, after: u64) -> BoxFuture<'a, ImksResult<Tail>> {
        Box::pin(self.read_after(bucket, after))
    }

    fn find<'a>(&'a self, bucket: &'a str, key: SessionKey) -> BoxFuture<'a, ImksResult<Option<Found>>> {
        Box::pin(self.find_session(bucket, key))
    }

    fn take<'a>(
        &'a self,
        bucket: &'a str,
        key: SessionKey,
        expected: Expected,
        node: NodeId,
    ) -> BoxFuture<'a, ImksResult<bool>> {
        Box::pin(async move {
            let query = sqlx::query(TAKE).bind(self.bucket(bucket)).bind(key.0.to_vec());
            let query = query.bind(to_i64(expected.generation)).bind(node.to_string());
            let taken = query.bind(expected.version.map(to_i64)).execute(&self.pool).await?;
            Ok(taken.rows_affected() == 1)
        })
    }

    fn trim<'a>(&'a self, bucket: &'a str, keep: Keep) -> BoxFuture<'a, ImksResult<()>> {
        Box::pin(async move {
            let bucket = self.bucket(bucket);
            let entries = sqlx::query(TRIM_ENTRIES).bind(&bucket).bind(micros(keep.millis));
            entries.bind(to_i64(keep.entries)).bind(to_i64(keep.bytes)).execute(&self.pool).await?;
            let sessions = sqlx::query(TRIM_SESSIONS).bind(&bucket).bind(micros(keep.millis));
            sessions.bind(to_i64(keep.sessions)).execute(&self.pool).await?;
            let leases = sqlx::query(TRIM_LEASES).bind(&bucket);
            leases.bind(micros(keep.millis.saturating_add(WRITER_MILLIS))).execute(&self.pool).await?;
            Ok(())
        })
    }
}

fn random_epoch() -> ImksResult<i64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    Ok(i64::from_be_bytes(bytes))
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn micros(millis: u64) -> i64 {
    to_i64(millis.saturating_mul(1_000))
}

macro_rules! now {
    () => {
        "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT"
    };
}

const TABLES: &str = concat!(
    include_str!("../../migrate/postgres/0202_recovery.sql"),
    include_str!("../../migrate/postgres/0203_recovery_version.sql")
);
// The column that the last of these adds.
const ARE_TABLES_THERE: &str = "SELECT EXISTS (SELECT 1 FROM pg_attribute
    WHERE attrelid = to_regclass('recovery_lease') AND attname = 'epoch' AND NOT attisdropped)";
const LOCK_TABLES: &str = "SELECT pg_advisory_xact_lock(hashtext('imks recovery'))";
// One statement is one round trip, and everything or nothing. The row of the node comes first: nothing is written by an
// attempt that a later batch has overtaken.
const WRITE: &str = concat!(
    "WITH writer AS (
        INSERT INTO recovery_lease AS held (bucket, node, position, seen_at, serial, epoch)
        VALUES ($1, $3, COALESCE($13::BIGINT, 0), ",
    now!(),
    ", $14, $15)
        ON CONFLICT (bucket, node) DO UPDATE SET seen_at = EXCLUDED.seen_at, serial = EXCLUDED.serial,
            epoch = EXCLUDED.epoch, position = CASE WHEN $13 IS NULL AND held.epoch = EXCLUDED.epoch
                THEN held.position ELSE EXCLUDED.position END
        WHERE held.serial < EXCLUDED.serial OR ($17::BOOLEAN AND held.serial = EXCLUDED.serial)
        RETURNING serial
    ), head AS (
        INSERT INTO recovery_bucket (bucket, epoch, last) SELECT $1, $2, CARDINALITY($5::BYTEA[]) FROM writer
        ON CONFLICT (bucket) DO UPDATE SET last = recovery_bucket.last + CARDINALITY($5::BYTEA[])
        RETURNING epoch, last
    ), entries AS (
        INSERT INTO recovery_entry (bucket, position, node, number, bytes, entry, written_at)
        SELECT $1, head.last - CARDINALITY($5) + e.n, $3, $4 + e.n - 1, e.bytes, e.entry, ",
    now!(),
    " FROM head, UNNEST($5, $6::INTEGER[]) WITH ORDINALITY AS e(entry, bytes, n)
    ), given AS (
        SELECT s.*, ",
    now!(),
    " AS at
        FROM head, UNNEST($7::BYTEA[], $8::BIGINT[], $9::BIGINT[], $10::BYTEA[], $16::BIGINT[])
            AS s(key, generation, away, record, version)
        WHERE head.epoch = $15
    ), saved AS (
        INSERT INTO recovery_session AS held (bucket, key, generation, node, record, saved_at, away_at, version)
        SELECT $1, sha256(key), generation, $3, record, at, at - away, version FROM given ORDER BY key
        ON CONFLICT (bucket, key) DO UPDATE SET node = EXCLUDED.node, record = EXCLUDED.record,
            saved_at = EXCLUDED.saved_at, away_at = EXCLUDED.away_at, version = EXCLUDED.version
        WHERE held.generation = EXCLUDED.generation
        RETURNING held.key
    ), ended AS (
        DELETE FROM recovery_session s USING head, UNNEST($11::BYTEA[], $12::BIGINT[]) AS e(key, generation)
        WHERE head.epoch = $15 AND s.bucket = $1 AND s.key = sha256(e.key) AND s.generation = e.generation
    )
    SELECT epoch, last, ARRAY(SELECT given.key FROM given JOIN saved ON saved.key = sha256(given.key)) AS stored FROM head"
);
// Those at the beginning may have been removed already.
const FIRST_POSITION_OF: &str = "SELECT (
        SELECT position - (number - $3) FROM recovery_entry
        WHERE bucket = l.bucket AND node = l.node AND number >= $3 ORDER BY number LIMIT 1
    ) FROM recovery_lease l WHERE l.bucket = $1 AND l.node = $2 AND l.serial = $4";
const CREATE: &str =
    "INSERT INTO recovery_bucket (bucket, epoch, last) VALUES ($1, $2, 0) ON CONFLICT (bucket) DO NOTHING";
const READ: &str = "SELECT b.epoch, b.last, e.position, e.entry FROM recovery_bucket b LEFT JOIN LATERAL (
        SELECT position, entry FROM (
            SELECT position, entry, bytes, SUM(bytes) OVER (ORDER BY position) AS read FROM (
                SELECT position, entry, bytes FROM recovery_entry
                WHERE bucket = b.bucket AND position > $2 ORDER BY position LIMIT $3
            ) few
        ) counted WHERE read - bytes < $4
    ) e ON TRUE WHERE b.bucket = $1 ORDER BY e.position";
const FIND: &str = concat!(
    "SELECT b.epoch, b.last, s.node, s.generation, s.version, s.away_at IS NULL AS connected, s.record, l.position AS lease,
        ",
    now!(),
    " - COALESCE(s.away_at, GREATEST(s.saved_at, l.seen_at)) AS away_micros,
        ",
    now!(),
    " - s.taken_at AS taken_micros
    FROM recovery_session s JOIN recovery_bucket b ON b.bucket = s.bucket
        LEFT JOIN recovery_lease l ON l.bucket = s.bucket AND l.node = s.node AND l.epoch = b.epoch
    WHERE s.bucket = $1 AND s.key = sha256($2)"
);
// Until it is stored again, the session is as its owner left it.
const TAKE: &str = concat!(
    "UPDATE recovery_session s SET generation = generation + 1, node = $4, taken_at = ",
    now!(),
    ", away_at = COALESCE(away_at, ",
    now!(),
    ") WHERE bucket = $1 AND key = sha256($2) AND generation = $3 AND ($5::BIGINT IS NULL OR version = $5)"
);
const TRIM_ENTRIES: &str = concat!(
    "DELETE FROM recovery_entry WHERE bucket = $1 AND position <= (
        SELECT MAX(position) FROM (
            SELECT position, written_at, SUM(bytes) OVER newer AS kept, COUNT(*) OVER newer AS entries
            FROM recovery_entry WHERE bucket = $1 WINDOW newer AS (ORDER BY position DESC)
        ) counted WHERE entries > $3 OR kept > $4 OR written_at < ",
    now!(),
    " - $2)"
);
const TRIM_SESSIONS: &str = concat!(
    "DELETE FROM recovery_session WHERE bucket = $1 AND key IN (
        SELECT key FROM (
            SELECT s.key, s.away_at, COALESCE(s.away_at, GREATEST(s.saved_at, l.seen_at)) AS seen_at,
                ROW_NUMBER() OVER (ORDER BY s.away_at DESC NULLS LAST) AS rank
            FROM recovery_session s LEFT JOIN recovery_lease l ON l.bucket = s.bucket AND l.node = s.node
            WHERE s.bucket = $1
        ) known WHERE seen_at < ",
    now!(),
    " - $2 OR (away_at IS NOT NULL AND rank > $3))"
);
const TRIM_LEASES: &str =
    concat!("DELETE FROM recovery_lease WHERE bucket = $1 AND seen_at < ", now!(), " - $2");

/// The connections of a node: one writes, the others read and find sessions.
const CONNECTIONS: u32 = 4;
/// How much longer than its entries the row of a node is kept: without it a batch that is written again would be there twice.
const WRITER_MILLIS: u64 = 3_600_000;
/// The entries that are read with one query.
const ROWS_PER_READ: i64 = 512;
/// The size after which a query reads no further entry, in bytes.
const BYTES_PER_READ: i64 = 8 << 20;
