//! The calls of back ends that change something, so that a repeated call changes nothing and gets the first answer.

use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, on};
use crate::ImksResult;
use crate::clock::Micros;

/// The identity of a call: who made it, and the id that the caller gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// The caller.
    pub caller: Uuid,
    /// The id of the call.
    pub request_id: String,
}

/// The right to carry out a call, until it ends or is taken for lost.
#[derive(Debug)]
pub struct Claim {
    key: RequestKey,
    /// When the call began, which no other claim on it did.
    at: Micros,
}

/// What is known when a call arrives.
#[derive(Debug)]
pub enum Begun {
    /// It is to be carried out.
    First(Claim),
    /// Another one with the same id came before, so it must not run.
    Repeat(Earlier),
}

/// A call with the same id that came before.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Earlier {
    /// The hash of its content.
    pub hash: Vec<u8>,
    /// Its answer; `None` while it runs.
    pub answer: Option<Vec<u8>>,
}

impl RequestKey {
    /// Records that the call begins, unless one with the same id came before. A call that began [`RUNNING_MAX`] ago and
    /// has no answer was lost with its node, and may run again.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn begin(&self, db: &Db, hash: &[u8], now: Micros) -> ImksResult<Begun> {
        let began = on!(db, pool => {
            let query = sqlx::query(BEGIN).bind(self.caller).bind(&self.request_id).bind(hash).bind(now);
            query.bind(now - RUNNING_MAX).bind(now - LIFETIME).execute(pool).await?.rows_affected()
        });
        if began == 1 {
            return Ok(Begun::First(Claim { key: self.clone(), at: now }));
        }
        let earlier: Option<Earlier> = on!(db, pool => {
            sqlx::query_as(EARLIER).bind(self.caller).bind(&self.request_id).fetch_optional(pool).await?
        });
        // It may have failed in between, which leaves no row: for the caller it is the same as one that still runs.
        Ok(Begun::Repeat(earlier.unwrap_or_else(|| Earlier { hash: hash.to_vec(), answer: None })))
    }
}

impl Claim {
    /// Stores the answer of the call, unless it was taken for lost and another one runs in its place.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn end(&self, db: &Db, answer: &[u8]) -> ImksResult<()> {
        on!(db, pool => {
            let query = sqlx::query(END).bind(self.key.caller).bind(&self.key.request_id).bind(answer);
            query.bind(self.at).execute(pool).await?;
        });
        Ok(())
    }

    /// Forgets a call that changed nothing, so that it can be repeated.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`].
    pub async fn forget(&self, db: &Db) -> ImksResult<()> {
        on!(db, pool => {
            let query = sqlx::query(FORGET).bind(self.key.caller).bind(&self.key.request_id);
            query.bind(self.at).execute(pool).await?;
        });
        Ok(())
    }
}

/// Removes up to [`SWEEP_STEP`] calls that are older than a day at `now`. Returns how many it removed.
///
/// # Errors
/// [`crate::ImksError::Database`].
pub async fn sweep(db: &Db, now: Micros) -> ImksResult<u64> {
    Ok(on!(db, pool => {
        sqlx::query(SWEEP).bind(now - LIFETIME).bind(SWEEP_STEP).execute(pool).await?.rows_affected()
    }))
}

/// Takes the place of a call that is too old, or was lost.
const BEGIN: &str = "INSERT INTO control_request (caller_id, request_id, hash, at) VALUES ($1, $2, $3, $4) \
    ON CONFLICT (caller_id, request_id) DO UPDATE SET hash = excluded.hash, answer = NULL, at = excluded.at \
    WHERE control_request.at < $6 \
      OR (control_request.answer IS NULL AND control_request.at < $5 AND control_request.hash = excluded.hash)";
const EARLIER: &str = "SELECT hash, answer FROM control_request WHERE caller_id = $1 AND request_id = $2";
const END: &str = "UPDATE control_request SET answer = $3 \
    WHERE caller_id = $1 AND request_id = $2 AND at = $4";
const FORGET: &str = "DELETE FROM control_request \
    WHERE caller_id = $1 AND request_id = $2 AND at = $3 AND answer IS NULL";
const SWEEP: &str = "DELETE FROM control_request WHERE (caller_id, request_id) IN \
    (SELECT caller_id, request_id FROM control_request WHERE at < $1 ORDER BY at LIMIT $2)";
/// How long an answer is kept, as docs/server-api.md promises.
const LIFETIME: Micros = 24 * 3_600 * 1_000_000;
/// How long a call may run: longer than any request may take.
const RUNNING_MAX: Micros = 120 * 1_000_000;
/// The most rows that one sweep removes.
pub const SWEEP_STEP: i64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::db::Config;

    #[tokio::test]
    async fn a_call_that_was_taken_for_lost_does_not_end_the_one_in_its_place() {
        let config = Config { url: Some(String::from("sqlite::memory:").into()), ..Config::default() };
        let db = Db::connect(&config).await.unwrap();
        db.migrate().await.unwrap();
        let key = RequestKey { caller: Uuid::nil(), request_id: "one".into() };
        let begin = async |now: Micros| key.begin(&db, b"hash", now).await.unwrap();
        let Begun::First(lost) = begin(0).await else { panic!("there was none before") };
        assert!(matches!(begin(RUNNING_MAX).await, Begun::Repeat(Earlier { answer: None, .. })));
        let Begun::First(second) = begin(RUNNING_MAX + 1).await else { panic!("it was lost") };
        lost.forget(&db).await.unwrap();
        lost.end(&db, b"late").await.unwrap();
        assert!(matches!(begin(RUNNING_MAX + 2).await, Begun::Repeat(Earlier { answer: None, .. })));
        second.end(&db, b"right").await.unwrap();
        lost.end(&db, b"late").await.unwrap();
        let Begun::Repeat(earlier) = begin(RUNNING_MAX + 3).await else { panic!("it has ended") };
        assert_eq!(earlier.answer.as_deref(), Some(b"right".as_slice()));
    }
}
