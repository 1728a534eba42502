//! The removal of old rows of the feed, in steps.

use crate::ImksResult;
use crate::clock::Micros;
use crate::models::db::{Db, detached, on, transaction};

/// Removes the oldest rows from before `before`, at most [`STEP`]. Returns whether more may remain.
pub(super) async fn sweep(db: &Db, before: Micros) -> ImksResult<bool> {
    let upto: Option<i64> = on!(read db, pool => {
        sqlx::query_scalar(OLD).bind(before).bind(STEP).fetch_one(pool).await?
    });
    let Some(upto) = upto else { return Ok(false) };
    let db = db.clone();
    detached(async move {
        let removed = transaction!(&db, tx => {
            sqlx::query(SWEPT).bind(upto).execute(&mut *tx).await?;
            sqlx::query(FORGET).bind(upto).execute(&mut *tx).await?.rows_affected()
        });
        Ok(removed >= STEP.unsigned_abs())
    })
    .await
}

/// Returns the number up to which rows were removed.
pub(super) async fn swept(db: &Db) -> ImksResult<i64> {
    Ok(on!(read db, pool => sqlx::query_scalar("SELECT swept FROM feed_state").fetch_one(pool).await?))
}

/// The most rows that one step removes.
const STEP: i64 = 1_000;
const OLD: &str =
    "SELECT MAX(id) FROM (SELECT id, at FROM feed_batch ORDER BY id LIMIT $2) AS oldest WHERE at < $1";
const SWEPT: &str = "UPDATE feed_state SET swept = $1 WHERE swept < $1";
const FORGET: &str = "DELETE FROM feed_batch WHERE id <= $1";
