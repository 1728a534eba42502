//! The log of changes. Each row is written in the transaction of its change, and rows are numbered in commit
//! order.

use std::sync::{Arc, Weak};

use sqlx::FromRow;
use tokio::sync::Notify;
use tokio::time::timeout;
use uuid::Uuid;

use super::{Directory, Inner};
use crate::clock::{Micros, now_micros};
use crate::error::ImksResult;
use crate::models::db::{Db, on};

/// One row of the log.
#[derive(Debug, Clone, FromRow)]
pub(super) struct ChangeRow {
    pub(super) seq: i64,
    pub(super) kind: i64,
    pub(super) user_id: Option<Uuid>,
    pub(super) channel_id: Option<Uuid>,
    pub(super) session_id: Option<Uuid>,
    pub(super) changed_at: Micros,
}

/// The kind of a change, which decides the streams that it is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Joined = 1,
    Left = 2,
    Channel = 3,
    Revoked = 4,
    User = 5,
}

impl ChangeRow {
    pub(super) fn is(&self, kind: Kind) -> bool {
        self.kind == kind as i64
    }
}

/// Adds a row in the transaction `tx`. Must come after the transaction's other statements: every transaction
/// then locks the counter last, so that two changes cannot deadlock.
macro_rules! record {
    ($tx:expr, $kind:expr, user: $user:expr, channel: $channel:expr, session: $session:expr, at: $at:expr) => {{
        let seq: i64 = sqlx::query_scalar($crate::directory::change::NEXT).fetch_one(&mut *$tx).await?;
        sqlx::query($crate::directory::change::INSERT)
            .bind(seq)
            .bind($kind as i64)
            .bind::<Option<uuid::Uuid>>($user)
            .bind::<Option<uuid::Uuid>>($channel)
            .bind::<Option<uuid::Uuid>>($session)
            .bind::<i64>($at)
            .execute(&mut *$tx)
            .await?;
    }};
}
pub(super) use record;

impl Directory {
    /// Reads the number of the last change, and starts to follow later ones.
    pub(super) async fn follow_changes(&self) -> ImksResult<()> {
        self.0.head.send_replace(head(self.db()).await?);
        let (inner, changed) = (Arc::downgrade(&self.0), self.0.changed.clone());
        let stop = self.0.stop.clone();
        self.0.tasks.spawn(stop.run_until_cancelled_owned(poll(inner, changed, self.0.config.poll)));
        Ok(())
    }

    /// Returns the changes after `seq`, oldest first, at most [`BATCH`].
    pub(super) async fn changes_after(&self, seq: i64) -> ImksResult<Vec<ChangeRow>> {
        Ok(on!(read self.db(), pool => {
            sqlx::query_as(AFTER).bind(seq).bind(BATCH).fetch_all(pool).await?
        }))
    }

    /// Whether changes after `seq` have been removed, or `seq` is not in the log yet.
    pub(super) async fn is_gone(&self, seq: i64) -> ImksResult<bool> {
        let oldest: Option<i64> =
            on!(read self.db(), pool => sqlx::query_scalar(OLDEST).fetch_one(pool).await?);
        let head = head(self.db()).await?;
        Ok(seq > head || oldest.map_or(seq < head, |oldest| seq + 1 < oldest))
    }
}

async fn poll(inner: Weak<Inner>, changed: Arc<Notify>, pause: std::time::Duration) {
    let mut rounds: u32 = 0;
    loop {
        // A notification and a timeout have the same effect: check for changes now.
        let _ = timeout(pause, changed.notified()).await;
        let Some(inner) = inner.upgrade() else { return };
        match head(&inner.db).await {
            Ok(seq) => {
                inner.head.send_if_modified(|known| std::mem::replace(known, seq) != seq);
            }
            Err(error) => tracing::debug!(%error, "cannot look for changes of the directory"),
        }
        rounds = rounds.wrapping_add(1);
        if rounds % TRIM_EVERY == 1 {
            trim(&inner).await;
        }
    }
}

async fn head(db: &Db) -> ImksResult<i64> {
    Ok(on!(read db, pool => sqlx::query_scalar(HEAD).fetch_one(pool).await?))
}

async fn trim(inner: &Inner) {
    let horizon = i64::try_from(inner.config.change_horizon.as_micros()).unwrap_or(i64::MAX);
    let before = now_micros().saturating_sub(horizon);
    let outcome = on!(&inner.db, pool => sqlx::query(TRIM).bind(before).execute(pool).await.map(drop));
    if let Err(error) = outcome {
        tracing::debug!(%error, "old changes of the directory stay for now");
    }
}

pub(super) const NEXT: &str = "UPDATE directory_counter SET value = value + 1 WHERE id = 1 RETURNING value";
pub(super) const INSERT: &str = "INSERT INTO directory_change (seq, kind, user_id, channel_id, session_id, changed_at) \
     VALUES ($1, $2, $3, $4, $5, $6)";
const AFTER: &str = "SELECT seq, kind, user_id, channel_id, session_id, changed_at FROM directory_change \
     WHERE seq > $1 ORDER BY seq LIMIT $2";
const HEAD: &str = "SELECT value FROM directory_counter WHERE id = 1";
const OLDEST: &str = "SELECT MIN(seq) FROM directory_change";
const TRIM: &str = "DELETE FROM directory_change WHERE changed_at < $1";
/// The number of changes that are read at once.
const BATCH: i64 = 500;
/// The number of polls between two removals of old changes: about ten minutes.
const TRIM_EVERY: u32 = 2_400;
