//! Legal holds: channels and users of whom nothing may be removed for good, whoever wants it (docs/adr/0052). A hold on a
//! user also keeps whole what is in the channels where they wrote or read.

use sqlx::FromRow;
use uuid::Uuid;

use super::append::records::Lookup;
use super::db::{Db, detached, on, transaction};
use super::message_mention::mention_self;
use super::rows::{Column, RowsSql};
use crate::clock::{self, Micros};
use crate::error::Precondition;
use crate::{ImksError, ImksResult};

/// What a hold is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum HoldKind {
    /// A channel.
    Channel = 0,
    /// A user.
    User = 1,
}

/// A hold, or one that was released.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
#[allow(missing_docs, reason = "named as the columns")]
pub struct LegalHold {
    pub id: Uuid,
    kind: i32,
    pub target_id: Uuid,
    pub reason: String,
    pub set_by: String,
    pub set_at: Micros,
    pub released_by: Option<String>,
    pub released_at: Option<Micros>,
}

impl LegalHold {
    /// Returns what the hold is on.
    pub fn kind(&self) -> HoldKind {
        if self.kind == HoldKind::User as i32 { HoldKind::User } else { HoldKind::Channel }
    }
}

/// Checks the reason of a hold or of a purge: why somebody wanted it, for those who ask later.
///
/// # Errors
/// [`ImksError::InvalidInput`] for one that is too long.
pub fn check_reason(reason: &str) -> ImksResult<()> {
    match reason.chars().count() <= REASON_CHARS_MAX && !reason.chars().any(char::is_control) {
        true => Ok(()),
        false => {
            let rule = format!("must have at most {REASON_CHARS_MAX} characters, and no control characters");
            Err(ImksError::invalid("reason", rule))
        }
    }
}

/// Sets a hold. It is in force when this returns: nothing is removed any more. A target that has one keeps it.
///
/// # Errors
/// [`ImksError::LimitReached`] if [`HOLDS_MAX`] others are set, [`ImksError::InvalidInput`] for a reason that is too
/// long, and [`ImksError::Database`].
pub async fn set(db: &Db, (kind, target): (HoldKind, Uuid), reason: &str, by: &str) -> ImksResult<LegalHold> {
    check_reason(reason)?;
    let (db, reason, by) = (db.clone(), reason.to_owned(), by.to_owned());
    detached(async move { set_in_task(&db, (kind, target), &reason, &by).await }).await
}

async fn set_in_task(
    db: &Db,
    (kind, target): (HoldKind, Uuid),
    reason: &str,
    by: &str,
) -> ImksResult<LegalHold> {
    let lock = match db {
        Db::Postgres(_) => LOCK_ALONE_POSTGRES,
        Db::Sqlite(_) => LOCK_SQLITE,
    };
    Ok(transaction!(db, tx => {
        // Waits for the step of whoever is removing something now.
        sqlx::query(lock).execute(&mut *tx).await?;
        let others: i64 = sqlx::query_scalar(OTHERS).bind(target).fetch_one(&mut *tx).await?;
        if others >= HOLDS_MAX {
            return Err(ImksError::LimitReached("legal_holds"));
        }
        let insert = sqlx::query(INSERT).bind(clock::new_id()).bind(kind as i32).bind(target);
        insert.bind(reason).bind(by).bind(clock::now_micros()).execute(&mut *tx).await?;
        sqlx::query_as(OF_TARGET).bind(target).fetch_one(&mut *tx).await?
    }))
}

/// Releases a hold. Returns whether there was one.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn release(db: &Db, target: Uuid, by: &str) -> ImksResult<bool> {
    let released = on!(db, pool => {
        let query = sqlx::query(RELEASE).bind(target).bind(by).bind(clock::now_micros());
        query.execute(pool).await?.rows_affected()
    });
    Ok(released > 0)
}

/// Returns up to `limit` holds whose id comes after `after`, in the order in which they were set; with `released` also
/// those that were released.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn list(db: &Db, after: Uuid, limit: i64, released: bool) -> ImksResult<Vec<LegalHold>> {
    Ok(on!(read db, pool => {
        sqlx::query_as(LIST).bind(after).bind(limit).bind(released).fetch_all(pool).await?
    }))
}

/// Checks that no hold forbids what is to be removed. `sql` counts those that do: [`ON_CHANNEL`] or [`ON_USER`].
///
/// # Errors
/// [`ImksError::FailedPrecondition`] if one does, and [`ImksError::Database`].
pub(super) async fn refuse(db: &Db, sql: &'static str, target: Uuid) -> ImksResult<()> {
    none(on!(read db, pool => sqlx::query_scalar(sql).bind(target).fetch_one(pool).await?))
}

/// Checks that there are no holds.
///
/// # Errors
/// [`ImksError::FailedPrecondition`] if there are.
pub(super) fn none(holds: i64) -> ImksResult<()> {
    if holds == 0 { Ok(()) } else { Err(ImksError::FailedPrecondition(Precondition::OnHold)) }
}

/// The longest reason of a hold or a purge, in characters.
pub const REASON_CHARS_MAX: usize = 500;
/// The most holds at a time. Every step that removes something asks whether one of them concerns it.
pub const HOLDS_MAX: i64 = 1_000;

/// Locks out those who set holds, until the end of the transaction.
pub(super) const LOCK_SHARED_POSTGRES: &str = "SELECT id FROM legal_hold_lock WHERE id = 1 FOR SHARE";
const LOCK_ALONE_POSTGRES: &str = "SELECT id FROM legal_hold_lock WHERE id = 1 FOR UPDATE";
/// A transaction on SQLite is alone anyway.
pub(super) const LOCK_SQLITE: &str = "SELECT id FROM legal_hold_lock WHERE id = 1";
const OTHERS: &str = "SELECT COUNT(*) FROM legal_hold WHERE released_at IS NULL AND target_id <> $1";
const INSERT: &str = "INSERT INTO legal_hold (id, kind, target_id, reason, set_by, set_at) \
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, kind, target_id, reason, set_by, set_at, released_by, released_at FROM legal_hold ",
            $rest
        )
    };
}
const OF_TARGET: &str = select!("WHERE target_id = $1 AND released_at IS NULL");
const LIST: &str = select!("WHERE id > $1 AND ($3 OR released_at IS NULL) ORDER BY id LIMIT $2");
const RELEASE: &str = "UPDATE legal_hold SET released_by = $2, released_at = $3 \
    WHERE target_id = $1 AND released_at IS NULL";

/// The condition that no hold concerns what somebody wrote in a channel: the columns of both.
macro_rules! not_held {
    ($channel:literal, $author:literal) => {
        concat!(
            "NOT EXISTS (SELECT 1 FROM legal_hold h WHERE h.released_at IS NULL AND (h.target_id IN (",
            $channel,
            ", ",
            $author,
            ") OR EXISTS (SELECT 1 FROM message_author a WHERE a.author_id = h.target_id AND a.channel_id = ",
            $channel,
            ") OR EXISTS (SELECT 1 FROM message_read_state p WHERE p.user_id = h.target_id AND p.channel_id = ",
            $channel,
            ")))"
        )
    };
}
pub(super) use not_held;

/// A hold on the channel, or on somebody who wrote or reads there.
pub(super) const ON_CHANNEL: &str = "SELECT COUNT(*) FROM legal_hold h WHERE h.released_at IS NULL AND (h.target_id = $1 \
    OR EXISTS (SELECT 1 FROM message_author a WHERE a.author_id = h.target_id AND a.channel_id = $1) \
    OR EXISTS (SELECT 1 FROM message_read_state p WHERE p.user_id = h.target_id AND p.channel_id = $1))";
/// A query with the condition that a hold concerns a user, between two other parts: it is on them, or on a channel where
/// they wrote or read, or where a program wrote in their name.
macro_rules! holds_user {
    ($before:literal, $user:literal, $after:literal) => {
        concat!(
            $before,
            "h.released_at IS NULL AND (h.target_id = ",
            $user,
            " OR EXISTS (SELECT 1 FROM message_author a WHERE a.author_id = ",
            $user,
            " AND a.channel_id = h.target_id) \
             OR EXISTS (SELECT 1 FROM message_read_state p WHERE p.user_id = ",
            $user,
            " AND p.channel_id = h.target_id) \
             OR EXISTS (SELECT 1 FROM message_mention o WHERE o.target_id = ",
            $user,
            " AND o.channel_id = h.target_id AND o.kind = ",
            mention_self!(),
            "))",
            $after
        )
    };
}
/// A hold on the user, or on a channel where they wrote or read.
pub(super) const ON_USER: &str = holds_user!("SELECT COUNT(*) FROM legal_hold h WHERE ", "$1", "");

/// A hold that concerns a user, or a channel itself. A batch finds it after it has locked out those who set holds.
#[derive(Debug, FromRow)]
pub(super) struct Held {
    user_id: Uuid,
    channel_id: Uuid,
}

impl Lookup for Held {
    /// The user and the channel.
    type Key = (Uuid, Uuid);

    fn key(&self) -> Self::Key {
        (self.user_id, self.channel_id)
    }

    fn lock_postgres() -> Option<&'static str> {
        Some(LOCK_SHARED_POSTGRES)
    }

    fn select() -> &'static RowsSql {
        &HELD
    }

    fn key_columns(keys: &[Self::Key]) -> Vec<Column<'_>> {
        vec![Column::of(keys, |(user, _)| user), Column::of(keys, |(_, channel)| channel)]
    }
}

static HELD: RowsSql = RowsSql::new(
    "user_id, channel_id",
    holds_user!(
        "SELECT r.user_id, r.channel_id FROM r WHERE r.user_id IS NOT NULL \
         AND EXISTS (SELECT 1 FROM legal_hold h WHERE h.target_id = r.channel_id AND h.released_at IS NULL \
           OR ",
        "r.user_id",
        ")"
    ),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        assert!(check_reason("").is_ok() && check_reason(&"x".repeat(REASON_CHARS_MAX)).is_ok());
        assert!(check_reason("two\nlines").is_err());
        assert!(check_reason(&"x".repeat(REASON_CHARS_MAX + 1)).is_err());
    }
}
