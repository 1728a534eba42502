//! What sessions need to continue on any node (docs/adr/0066): the sessions themselves, and the journals of nodes, which say
//! what a client has that knows an offset.
//!
//! All times are the database's, because they are compared between nodes.

use std::collections::HashMap;

use sqlx::FromRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::db::{BEGIN_SQLITE, Db, json_ids, on, transaction};
use super::rows::{Column, Connection, RowsSql};
use crate::ImksResult;
use crate::clock::Micros;

/// A session, under a hash of its private id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// The hash of the private id.
    pub key: Vec<u8>,
    /// Whose session it is.
    pub user: Uuid,
    /// The session that its token belongs to, so that it ends with it.
    pub token_session: Option<Uuid>,
    /// How often it was continued.
    pub generation: i64,
    /// The journal of the node that has it.
    pub epoch: i64,
    /// When it began, in that journal.
    pub began: i64,
    /// The greatest number in the user's own stream that it began with.
    pub user_rev: i64,
    /// Its channels, as [`crate::messaging`] writes them.
    pub channels: Vec<u8>,
    /// What it was before it was continued, as [`crate::messaging`] writes it.
    pub former: Option<Vec<u8>>,
}

/// A session that was found.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct FoundSession {
    /// The hash of the private id.
    pub key: Vec<u8>,
    /// Whose session it is.
    pub user_id: Uuid,
    /// How often it was continued.
    pub generation: i64,
    /// The journal of the node that has it.
    pub epoch: i64,
    /// When it began, in that journal.
    pub began: i64,
    /// The greatest number in the user's own stream that it began with.
    pub user_rev: i64,
    /// Its channels.
    pub channels: Vec<u8>,
    /// What it was before it was continued.
    pub former: Option<Vec<u8>>,
    /// How long the client has been away, in microseconds; if its node has ended without a word, since that gave the last
    /// sign of life.
    pub absence: Micros,
}

/// The session of a connected client: its key and its generation.
pub type Claim = (Vec<u8>, i64);

/// A part of a journal.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct StoredPart {
    /// Its number among the parts of the journal.
    pub n: i64,
    /// Up to which number deliveries are in this part or an earlier one.
    pub upto: i64,
    /// The deliveries.
    pub deliveries: Vec<u8>,
}

/// The last delivery of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Last {
    /// The channel.
    pub channel_id: Uuid,
    /// When it began.
    pub began: i64,
    /// When it ended.
    pub ended: i64,
    /// The numbers of the channel after it.
    pub seq: i64,
    /// The numbers of the channel after it.
    pub rev: i64,
}

/// Notes that the node with this journal is alive. Returns whether nothing was known of it.
///
/// # Errors
/// [`crate::ImksError::Database`], as for all of these.
pub async fn renew(db: &Db, epoch: i64) -> ImksResult<bool> {
    let (renew, begin) = (RENEW.of(db), BEGIN.of(db));
    Ok(on!(db, pool => {
        let renewed = sqlx::query(renew).bind(epoch).execute(pool).await?.rows_affected();
        if renewed == 0 {
            sqlx::query(begin).bind(epoch).execute(pool).await?;
        }
        renewed == 0
    }))
}

/// Stores new sessions.
pub async fn put(db: &Db, sessions: &[StoredSession]) -> ImksResult<()> {
    match db {
        Db::Postgres(pool) => {
            let all = |field: fn(&StoredSession) -> i64| sessions.iter().map(field).collect::<Vec<i64>>();
            let blobs =
                |field: fn(&StoredSession) -> &[u8]| sessions.iter().map(field).collect::<Vec<&[u8]>>();
            let query = sqlx::query(PUT_POSTGRES).bind(blobs(|it| &it.key));
            let query = query.bind(sessions.iter().map(|it| it.user).collect::<Vec<_>>());
            let query = query.bind(all(|it| it.generation)).bind(all(|it| it.epoch)).bind(all(|it| it.began));
            let query = query.bind(all(|it| it.user_rev)).bind(blobs(|it| &it.channels));
            query.bind(sessions.iter().map(|it| it.token_session).collect::<Vec<_>>()).execute(pool).await?;
        }
        Db::Sqlite(sqlite) => {
            let mut tx = Box::pin(sqlite.writer.begin_with(BEGIN_SQLITE)).await?;
            for it in sessions {
                let query = sqlx::query(PUT_SQLITE).bind(&it.key).bind(it.user).bind(it.generation);
                let query = query.bind(it.epoch).bind(it.began).bind(it.user_rev).bind(&it.channels);
                query.bind(it.token_session).execute(&mut *tx).await?;
            }
            tx.commit().await?;
        }
    }
    Ok(())
}

/// Finds sessions by their keys. Those are missing of which nothing is known, or nothing of the node that has them.
pub async fn find(db: &Db, keys: &[&[u8]]) -> ImksResult<Vec<FoundSession>> {
    by_keys(db, &FIND, keys).await
}

async fn by_keys<T>(db: &Db, sql: &Sql, keys: &[&[u8]]) -> ImksResult<Vec<T>>
where
    T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
{
    Ok(match db {
        Db::Postgres(pool) => sqlx::query_as(sql.postgres).bind(keys).fetch_all(pool).await?,
        Db::Sqlite(sqlite) => {
            let hex = |key: &&[u8]| key.iter().map(|byte| format!("{byte:02x}")).collect();
            let keys: Vec<String> = keys.iter().map(hex).collect();
            let query = sqlx::query_as(sql.sqlite).bind(serde_json::to_string(&keys)?);
            query.fetch_all(&sqlite.reader).await?
        }
    })
}

/// Continues sessions: each takes the place of what was found, as the next generation. Until [`came_back`], its client
/// counts as away. Returns for each whether that was done; if not, somebody else was faster.
pub async fn take(db: &Db, sessions: &[StoredSession]) -> ImksResult<Vec<bool>> {
    let mut taken = vec![false; sessions.len()];
    match db {
        Db::Postgres(pool) => {
            let all = |field: fn(&StoredSession) -> i64| sessions.iter().map(field).collect::<Vec<i64>>();
            let blobs =
                |field: fn(&StoredSession) -> &[u8]| sessions.iter().map(field).collect::<Vec<&[u8]>>();
            let query = sqlx::query_scalar(TAKE_POSTGRES).bind(blobs(|it| &it.key));
            let query =
                query.bind(all(|it| it.generation - 1)).bind(all(|it| it.epoch)).bind(all(|it| it.began));
            let query = query.bind(all(|it| it.user_rev)).bind(blobs(|it| &it.channels));
            let query = query.bind(sessions.iter().map(|it| it.token_session).collect::<Vec<_>>());
            let query = query.bind(sessions.iter().map(|it| it.former.as_deref()).collect::<Vec<_>>());
            for place in query.fetch_all(pool).await? {
                let place: i64 = place;
                // Places of arrays begin with 1.
                let taken = usize::try_from(place - 1).ok().and_then(|place| taken.get_mut(place));
                taken.into_iter().for_each(|taken| *taken = true);
            }
        }
        Db::Sqlite(sqlite) => {
            let mut tx = Box::pin(sqlite.writer.begin_with(BEGIN_SQLITE)).await?;
            for (it, taken) in sessions.iter().zip(&mut taken) {
                let query = sqlx::query(TAKE_SQLITE).bind(&it.key).bind(it.generation - 1).bind(it.epoch);
                let query = query.bind(it.began).bind(it.user_rev).bind(&it.channels).bind(it.token_session);
                *taken = query.bind(&it.former).execute(&mut *tx).await?.rows_affected() > 0;
            }
            tx.commit().await?;
        }
    }
    Ok(taken)
}

/// Notes that the clients of sessions are connected.
pub async fn came_back(db: &Db, claims: &[Claim]) -> ImksResult<()> {
    for_each(db, &CAME_BACK, claims).await
}

/// Notes that the clients of sessions have left, and may come back.
pub async fn went_away(db: &Db, claims: &[Claim]) -> ImksResult<()> {
    for_each(db, &WENT_AWAY, claims).await
}

/// Removes sessions that nobody may continue.
pub async fn end(db: &Db, claims: &[Claim]) -> ImksResult<()> {
    for_each(db, &END, claims).await
}

async fn for_each(db: &Db, sql: &Sql, claims: &[Claim]) -> ImksResult<()> {
    match db {
        _ if claims.is_empty() => {}
        Db::Postgres(pool) => {
            let (keys, generations): (Vec<&[u8]>, Vec<i64>) =
                claims.iter().map(|(key, generation)| (&key[..], *generation)).unzip();
            sqlx::query(sql.postgres).bind(keys).bind(generations).execute(pool).await?;
        }
        Db::Sqlite(sqlite) => {
            let mut tx = Box::pin(sqlite.writer.begin_with(BEGIN_SQLITE)).await?;
            for (key, generation) in claims {
                sqlx::query(sql.sqlite).bind(key).bind(generation).execute(&mut *tx).await?;
            }
            tx.commit().await?;
        }
    }
    Ok(())
}

/// Removes all sessions of a user.
pub async fn end_all_of(db: &Db, user: Uuid) -> ImksResult<()> {
    on!(db, pool => sqlx::query(END_ALL_OF).bind(user).execute(pool).await.map(drop))?;
    Ok(())
}

/// Removes the sessions that began with a token of this session.
pub async fn end_with_token(db: &Db, token_session: Uuid) -> ImksResult<()> {
    on!(db, pool => sqlx::query(END_WITH_TOKEN).bind(token_session).execute(pool).await.map(drop))?;
    Ok(())
}

/// Returns the channels of sessions, by what they are known by.
pub async fn channels(db: &Db, keys: &[&[u8]]) -> ImksResult<HashMap<Claim, Vec<u8>>> {
    let stored: Vec<(Vec<u8>, i64, Vec<u8>)> = by_keys(db, &CHANNELS, keys).await?;
    Ok(stored.into_iter().map(|(key, generation, channels)| ((key, generation), channels)).collect())
}

/// Replaces the channels of sessions, but of those that somebody else has continued.
pub async fn set_channels(db: &Db, changes: &[(Claim, Vec<u8>)]) -> ImksResult<()> {
    match db {
        _ if changes.is_empty() => {}
        Db::Postgres(pool) => {
            let keys: Vec<&[u8]> = changes.iter().map(|((key, _), _)| &key[..]).collect();
            let generations: Vec<i64> = changes.iter().map(|((_, generation), _)| *generation).collect();
            let channels: Vec<&[u8]> = changes.iter().map(|(_, channels)| &channels[..]).collect();
            let query = sqlx::query(SET_CHANNELS.postgres).bind(keys).bind(generations).bind(channels);
            query.execute(pool).await?;
        }
        Db::Sqlite(sqlite) => {
            let mut tx = Box::pin(sqlite.writer.begin_with(BEGIN_SQLITE)).await?;
            for ((key, generation), channels) in changes {
                let query = sqlx::query(SET_CHANNELS.sqlite).bind(key).bind(generation).bind(channels);
                query.execute(&mut *tx).await?;
            }
            tx.commit().await?;
        }
    }
    Ok(())
}

/// Stores a part of a journal. One that was stored already stays as it is.
pub async fn add_part(db: &Db, epoch: i64, part: &StoredPart) -> ImksResult<()> {
    let sql = ADD_PART.of(db);
    on!(db, pool => {
        let query = sqlx::query(sql).bind(epoch).bind(part.n).bind(part.upto).bind(&part.deliveries);
        query.execute(pool).await.map(drop)
    })?;
    Ok(())
}

/// Returns up to which number the deliveries of a journal are known by the last ones only. `None` if the journal is gone.
pub async fn folded(db: &Db, epoch: i64) -> ImksResult<Option<i64>> {
    Ok(on!(read db, pool => sqlx::query_scalar(FOLDED).bind(epoch).fetch_optional(pool).await?))
}

/// Returns the parts of a journal after the one with the number `after`, in their order, at most [`PARTS_AT_ONCE`].
pub async fn parts(db: &Db, epoch: i64, after: i64) -> ImksResult<Vec<StoredPart>> {
    Ok(on!(read db, pool => {
        sqlx::query_as(PARTS).bind(epoch).bind(after).bind(PARTS_AT_ONCE).fetch_all(pool).await?
    }))
}

/// Returns the last deliveries of these channels in a journal, of those that are known by them only.
pub async fn lasts(db: &Db, epoch: i64, channels: &[Uuid]) -> ImksResult<Vec<Last>> {
    Ok(match db {
        Db::Postgres(pool) => {
            sqlx::query_as(LASTS_POSTGRES).bind(epoch).bind(channels).fetch_all(pool).await?
        }
        Db::Sqlite(sqlite) => {
            let query = sqlx::query_as(LASTS_SQLITE).bind(epoch).bind(json_ids(channels));
            query.fetch_all(&sqlite.reader).await?
        }
    })
}

/// Returns the first parts of a journal that are older than `age`, or that together are larger than what is left when the
/// newest `bytes` stay; at most [`PARTS_AT_ONCE`].
pub async fn old_parts(db: &Db, epoch: i64, age: Micros, bytes: i64) -> ImksResult<Vec<StoredPart>> {
    let sql = OLD_PARTS.of(db);
    Ok(on!(read db, pool => {
        sqlx::query_as(sql).bind(epoch).bind(age).bind(bytes).bind(PARTS_AT_ONCE).fetch_all(pool).await?
    }))
}

/// Replaces the parts of a journal up to the number `n` by the last delivery of each channel in them. They were complete up to
/// the number `upto`.
pub async fn fold(db: &Db, epoch: i64, (n, upto): (i64, i64), lasts: &[Last]) -> ImksResult<()> {
    let columns = [
        Column::of(lasts, |last| last.channel_id),
        Column::of(lasts, |_| epoch),
        Column::of(lasts, |last| last.began),
        Column::of(lasts, |last| last.ended),
        Column::of(lasts, |last| last.seq),
        Column::of(lasts, |last| last.rev),
    ];
    transaction!(db, tx => {
        if !lasts.is_empty() {
            FOLD.execute(&mut Connection::from(&mut *tx), &columns).await?;
        }
        sqlx::query(FORGET_PARTS).bind(epoch).bind(n).execute(&mut *tx).await?;
        sqlx::query(FOLDED_TO).bind(epoch).bind(upto).execute(&mut *tx).await?;
    });
    Ok(())
}

/// Removes the sessions of clients that have been away for longer than `window`, those beyond the newest `sessions_max` of
/// clients that are away, and everything of nodes that have given no sign of life for twice as long.
pub async fn sweep(db: &Db, window: Micros, sessions_max: i64) -> ImksResult<()> {
    let gone: Vec<i64> = {
        let sql = GONE.of(db);
        on!(read db, pool => sqlx::query_scalar(sql).bind(2 * window).fetch_all(pool).await?)
    };
    let (late, many) = (LATE.of(db), MANY);
    on!(db, pool => {
        sqlx::query(late).bind(window).execute(pool).await?;
        sqlx::query(many).bind(sessions_max).execute(pool).await?;
    });
    for epoch in gone {
        transaction!(db, tx => {
            for sql in GONE_WITH_IT {
                sqlx::query(sql).bind(epoch).execute(&mut *tx).await?;
            }
        });
    }
    Ok(())
}

/// A statement in which the databases differ.
struct Sql {
    postgres: &'static str,
    sqlite: &'static str,
}

impl Sql {
    fn of(&self, db: &Db) -> &'static str {
        match db {
            Db::Postgres(_) => self.postgres,
            Db::Sqlite(_) => self.sqlite,
        }
    }
}

/// A statement with the time of the database, in microseconds, between its parts.
macro_rules! with_now {
    ($($before:literal, $after:literal),+) => {
        Sql {
            postgres: concat!(
                $($before, "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT", $after),+
            ),
            sqlite: concat!($($before, "CAST(unixepoch('subsec') * 1000000 AS INTEGER)", $after),+),
        }
    };
}

const RENEW: Sql = with_now!("UPDATE resume_node SET alive_at = ", " WHERE epoch = $1");
const BEGIN: Sql = with_now!("INSERT INTO resume_node (epoch, folded, alive_at) VALUES ($1, 0, ", ")");
const PUT_POSTGRES: &str = "INSERT INTO resume_session (key, user_id, generation, epoch, began, user_rev, channels, \
    token_session) SELECT * FROM UNNEST($1::BYTEA[], $2::UUID[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[], \
    $7::BYTEA[], $8::UUID[]) \
    ON CONFLICT (key) DO NOTHING";
const PUT_SQLITE: &str = "INSERT INTO resume_session (key, user_id, generation, epoch, began, user_rev, channels, \
    token_session) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (key) DO NOTHING";
macro_rules! find {
    ($now:literal, $keys:literal) => {
        concat!(
            "SELECT s.key, s.user_id, s.generation, s.epoch, s.began, s.user_rev, s.channels, s.former, ",
            $now,
            " - COALESCE(s.away_at, n.alive_at) AS absence \
             FROM resume_session s JOIN resume_node n ON n.epoch = s.epoch WHERE s.key ",
            $keys
        )
    };
}
const FIND: Sql = Sql {
    postgres: find!("(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT", "= ANY($1)"),
    sqlite: find!(
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
        "IN (SELECT unhex(value) FROM json_each($1))"
    ),
};
/// The rows of claims are locked in the order of their keys, so that statements of several nodes never wait for each other.
macro_rules! claimed {
    ($change:literal) => {
        concat!(
            "WITH locked AS (SELECT s.key FROM resume_session s \
             JOIN UNNEST($1::BYTEA[], $2::BIGINT[]) AS r(key, generation) \
             ON s.key = r.key AND s.generation = r.generation ORDER BY s.key FOR UPDATE OF s) ",
            $change,
            " WHERE key IN (SELECT key FROM locked)"
        )
    };
}
/// Of two claims to one session, the database takes one: it says which by its place among all.
const TAKE_POSTGRES: &str = "WITH r AS (SELECT * FROM UNNEST($1::BYTEA[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], \
       $5::BIGINT[], $6::BYTEA[], $7::UUID[], $8::BYTEA[]) WITH ORDINALITY \
       AS r(key, generation, epoch, began, user_rev, channels, token_session, former, place)), \
     locked AS (SELECT s.key FROM resume_session s JOIN r ON s.key = r.key AND s.generation = r.generation \
       ORDER BY s.key FOR UPDATE OF s) \
     UPDATE resume_session s SET generation = s.generation + 1, epoch = r.epoch, began = r.began, \
       user_rev = r.user_rev, channels = r.channels, token_session = r.token_session, former = r.former, \
       away_at = (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT \
     FROM r WHERE s.key = r.key AND s.generation = r.generation AND s.key IN (SELECT key FROM locked) \
     RETURNING r.place";
const TAKE_SQLITE: &str = "UPDATE resume_session SET generation = generation + 1, epoch = $3, began = $4, \
    user_rev = $5, channels = $6, token_session = $7, former = $8, away_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER) \
    WHERE key = $1 AND generation = $2";
const CAME_BACK: Sql = Sql {
    postgres: claimed!("UPDATE resume_session SET away_at = NULL"),
    sqlite: "UPDATE resume_session SET away_at = NULL WHERE key = $1 AND generation = $2",
};
const WENT_AWAY: Sql = Sql {
    postgres: claimed!(
        "UPDATE resume_session SET away_at = (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT"
    ),
    sqlite: "UPDATE resume_session SET away_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER) \
        WHERE key = $1 AND generation = $2",
};
const END: Sql = Sql {
    postgres: claimed!("DELETE FROM resume_session"),
    sqlite: "DELETE FROM resume_session WHERE key = $1 AND generation = $2",
};
const END_ALL_OF: &str = "DELETE FROM resume_session WHERE user_id = $1";
const END_WITH_TOKEN: &str = "DELETE FROM resume_session WHERE token_session = $1";
const CHANNELS: Sql = Sql {
    postgres: "SELECT key, generation, channels FROM resume_session WHERE key = ANY($1)",
    sqlite: "SELECT key, generation, channels FROM resume_session \
        WHERE key IN (SELECT unhex(value) FROM json_each($1))",
};
const SET_CHANNELS: Sql = Sql {
    postgres: "WITH r AS (SELECT * FROM UNNEST($1::BYTEA[], $2::BIGINT[], $3::BYTEA[]) AS r(key, generation, channels)), \
         locked AS (SELECT s.key FROM resume_session s JOIN r ON s.key = r.key AND s.generation = r.generation \
           ORDER BY s.key FOR UPDATE OF s) \
         UPDATE resume_session s SET channels = r.channels \
         FROM r WHERE s.key = r.key AND s.generation = r.generation AND s.key IN (SELECT key FROM locked)",
    sqlite: "UPDATE resume_session SET channels = $3 WHERE key = $1 AND generation = $2",
};
const ADD_PART: Sql = with_now!(
    "INSERT INTO resume_part (epoch, n, upto, deliveries, written_at) VALUES ($1, $2, $3, $4, ",
    ") ON CONFLICT (epoch, n) DO NOTHING"
);
const FOLDED: &str = "SELECT folded FROM resume_node WHERE epoch = $1";
const PARTS: &str =
    "SELECT n, upto, deliveries FROM resume_part WHERE epoch = $1 AND n > $2 ORDER BY n LIMIT $3";
const LASTS_POSTGRES: &str = "SELECT channel_id, began, ended, seq, rev FROM resume_last \
    WHERE epoch = $1 AND channel_id = ANY($2)";
const LASTS_SQLITE: &str = "SELECT channel_id, began, ended, seq, rev FROM resume_last \
    WHERE epoch = $1 AND channel_id IN (SELECT unhex(value) FROM json_each($2))";
const OLD_PARTS: Sql = with_now!(
    "SELECT n, upto, deliveries FROM (SELECT n, upto, deliveries, written_at, \
       SUM(LENGTH(deliveries)) OVER (ORDER BY n DESC) AS bytes FROM resume_part WHERE epoch = $1) AS part \
     WHERE written_at < ",
    " - $2 OR bytes > $3 ORDER BY n LIMIT $4"
);
static FOLD: RowsSql = RowsSql::new(
    "channel_id, epoch, began, ended, seq, rev",
    "INSERT INTO resume_last (channel_id, epoch, began, ended, seq, rev) \
     SELECT * FROM r WHERE r.channel_id IS NOT NULL \
     ON CONFLICT (epoch, channel_id) DO UPDATE SET began = EXCLUDED.began, ended = EXCLUDED.ended, \
     seq = EXCLUDED.seq, rev = EXCLUDED.rev",
);
const FORGET_PARTS: &str = "DELETE FROM resume_part WHERE epoch = $1 AND n <= $2";
const FOLDED_TO: &str = "UPDATE resume_node SET folded = $2 WHERE epoch = $1";
const LATE: Sql = with_now!("DELETE FROM resume_session WHERE away_at < ", " - $1");
const MANY: &str = "DELETE FROM resume_session WHERE key IN (SELECT key FROM resume_session \
    WHERE away_at IS NOT NULL ORDER BY away_at DESC LIMIT 10000 OFFSET $1)";
const GONE: Sql = with_now!("SELECT epoch FROM resume_node WHERE alive_at < ", " - $1");
const GONE_WITH_IT: [&str; 4] = [
    "DELETE FROM resume_session WHERE epoch = $1",
    "DELETE FROM resume_part WHERE epoch = $1",
    "DELETE FROM resume_last WHERE epoch = $1",
    "DELETE FROM resume_node WHERE epoch = $1",
];
/// The most parts of a journal that one query returns.
pub const PARTS_AT_ONCE: i64 = 500;
