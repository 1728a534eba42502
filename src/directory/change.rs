//! The log of changes. Each row is written in the transaction of its change, and rows are numbered in commit
//! order.

use sqlx::FromRow;
use uuid::Uuid;

use super::Directory;
use crate::clock::Micros;
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
    Permissions = 6,
}

/// A change that is to be added to the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) kind: Kind,
    pub(super) user: Option<Uuid>,
    pub(super) channel: Option<Uuid>,
    pub(super) session: Option<Uuid>,
}

impl Change {
    /// A membership that was created, or whose roles, settings or permissions changed.
    pub(super) fn joined(user: Uuid, channel: Uuid) -> Self {
        Self { kind: Kind::Joined, user: Some(user), channel: Some(channel), session: None }
    }

    pub(super) fn left(user: Uuid, channel: Uuid) -> Self {
        Self { kind: Kind::Left, user: Some(user), channel: Some(channel), session: None }
    }

    /// A channel that was created, changed or removed.
    pub(super) fn channel(channel: Uuid) -> Self {
        Self { kind: Kind::Channel, user: None, channel: Some(channel), session: None }
    }

    pub(super) fn user(user: Uuid) -> Self {
        Self { kind: Kind::User, user: Some(user), channel: None, session: None }
    }

    pub(super) fn revoked_user(user: Uuid) -> Self {
        Self { kind: Kind::Revoked, user: Some(user), channel: None, session: None }
    }

    pub(super) fn revoked_session(session: Uuid) -> Self {
        Self { kind: Kind::Revoked, user: None, channel: None, session: Some(session) }
    }

    /// Permissions that may have changed: of one user, in one channel, or all of the other where one is missing.
    pub(super) fn permissions(user: Option<Uuid>, channel: Option<Uuid>) -> Self {
        Self { kind: Kind::Permissions, user, channel, session: None }
    }
}

impl ChangeRow {
    pub(super) fn is(&self, kind: Kind) -> bool {
        self.kind == kind as i64
    }
}

/// Adds changes in the transaction `tx`. Must come after the transaction's other statements: every transaction
/// then locks the counter last, so that two changes cannot deadlock.
macro_rules! record {
    ($tx:expr, $now:expr, $changes:expr) => {{
        let changes: &[$crate::directory::change::Change] = $changes;
        if !changes.is_empty() {
            let count = i64::try_from(changes.len()).unwrap_or(i64::MAX);
            let last: i64 = sqlx::query_scalar($crate::directory::change::ADVANCE)
                .bind(count)
                .fetch_one(&mut *$tx)
                .await?;
            let mut insert = sqlx::QueryBuilder::new($crate::directory::change::INSERT);
            insert.push_values(changes.iter().zip(last - count + 1..), |mut row, (change, seq)| {
                row.push_bind(seq)
                    .push_bind(change.kind as i64)
                    .push_bind(change.user)
                    .push_bind(change.channel)
                    .push_bind(change.session)
                    .push_bind::<i64>($now);
            });
            insert.build().execute(&mut *$tx).await?;
        }
    }};
}
pub(super) use record;

impl Directory {
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

/// Returns the number of the last change.
pub(super) async fn head(db: &Db) -> ImksResult<i64> {
    Ok(on!(read db, pool => sqlx::query_scalar(HEAD).fetch_one(pool).await?))
}

pub(super) const ADVANCE: &str =
    "UPDATE directory_counter SET value = value + $1 WHERE id = 1 RETURNING value";
pub(super) const INSERT: &str =
    "INSERT INTO directory_change (seq, kind, user_id, channel_id, session_id, changed_at) ";
const AFTER: &str = "SELECT seq, kind, user_id, channel_id, session_id, changed_at FROM directory_change \
     WHERE seq > $1 ORDER BY seq LIMIT $2";
const HEAD: &str = "SELECT value FROM directory_counter WHERE id = 1";
const OLDEST: &str = "SELECT MIN(seq) FROM directory_change";
/// The number of changes that are read at once.
const BATCH: i64 = 500;
