//! Messages that are sent later. A node that takes one gets a lease; the message is stored as sent in the
//! transaction that appends it, so that it is sent once, however many nodes try and whatever ends in between.

use schemars::JsonSchema;
use serde::ser::Error;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, detached, on, transaction};
use super::message::stored_enum;
use super::message_attachment_use;
use super::message_draft::CLEAR_ONE;
use super::rows::Connection;
use super::text::Nonce;
use super::user_rev::{NEXT_USER_REV, after_user_rev};
use crate::clock::{self, Micros, Timestamp};
use crate::error::{Code, Precondition};
use crate::{ImksError, ImksResult};

stored_enum! {
    /// The state of a scheduled message.
    pub enum ScheduledState {
        #[default]
        Pending = 0,
        Dispatching = 1,
        Sent = 2,
        Failed = 3,
        Cancelled = 4,
    }
}

/// A message to send later.
#[derive(Debug, Clone)]
pub struct NewScheduled {
    /// The author.
    pub author_id: Uuid,
    /// The channel.
    pub channel_id: Uuid,
    /// The author's own id of the request. Repeated, it returns the first scheduled message.
    pub nonce: Option<Nonce>,
    /// The payload of `message:send` as JSON.
    pub payload: String,
    /// The files of the message, which are kept until it is sent.
    pub attachments: Vec<Uuid>,
    /// When to send it.
    pub send_at: Micros,
    /// The thread whose draft is cleared in the same transaction, `Some(None)` for the channel itself.
    pub clears_draft: Option<Option<Uuid>>,
}

/// A scheduled message, as the devices of its author see it: the payload of `schedule:updated`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[allow(missing_docs, reason = "the wire contract in docs/protocol.md explains each field")]
pub struct Scheduled {
    pub id: Uuid,
    pub channel_id: Uuid,
    pub send_at: Timestamp,
    pub state: ScheduledState,
    /// The payload of `message:send` as JSON.
    #[serde(rename = "message", serialize_with = "as_json")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub payload: String,
    pub error: Option<String>,
    pub message_id: Option<Uuid>,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub user_rev: i64,
}

fn as_json<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str::<&RawValue>(text).map_err(S::Error::custom)?.serialize(serializer)
}

/// Stores a message to send later. Returns it, and whether it is new.
///
/// # Errors
/// [`ImksError::NonceConflict`] when the nonce was used for another one, [`ImksError::LimitReached`] when
/// [`SCHEDULED_MAX`] of the author wait to be sent, those of an attachment that cannot be sent, and
/// [`ImksError::Database`].
pub async fn create(db: &Db, new: NewScheduled) -> ImksResult<(Scheduled, bool)> {
    let db = db.clone();
    detached(async move { create_in_task(&db, &new, clock::now_micros()).await }).await
}

async fn create_in_task(db: &Db, new: &NewScheduled, now: Micros) -> ImksResult<(Scheduled, bool)> {
    let (author, nonce) = (new.author_id, new.nonce.as_ref().map(Nonce::as_str));
    Ok(transaction!(db, tx => {
        let user_rev: i64 = sqlx::query_scalar(NEXT_USER_REV).bind(author).fetch_one(&mut *tx).await?;
        let same: Option<Row> = sqlx::query_as(BY_NONCE).bind(author).bind(nonce).fetch_optional(&mut *tx).await?;
        if let Some(row) = same {
            // Leaving without a commit takes back the number.
            return row.repeated(new).map(|scheduled| (scheduled, false));
        }
        let waiting: i64 = sqlx::query_scalar(COUNT).bind(author).fetch_one(&mut *tx).await?;
        if waiting >= SCHEDULED_MAX {
            return Err(ImksError::LimitReached("scheduled"));
        }
        let row: Row = sqlx::query_as(INSERT)
            .bind(clock::new_id()).bind(author).bind(new.channel_id).bind(nonce).bind(&new.payload)
            .bind(new.send_at).bind(user_rev).bind(now)
            .fetch_one(&mut *tx).await?;
        let whose = (author, new.channel_id);
        message_attachment_use::keep(&mut Connection::from(&mut *tx), row.id, whose, &new.attachments, now).await?;
        if let Some(thread) = new.clears_draft {
            sqlx::query(CLEAR_ONE)
                .bind(author).bind(new.channel_id).bind(thread.unwrap_or_default()).bind(user_rev).bind(now)
                .execute(&mut *tx).await?;
        }
        (row.into(), true)
    }))
}

/// Returns the scheduled message that an earlier request with the same nonce has created.
///
/// # Errors
/// [`ImksError::NonceConflict`] when the nonce was used for another one, and [`ImksError::Database`].
pub async fn first(db: &Db, new: &NewScheduled) -> ImksResult<Option<Scheduled>> {
    let Some(nonce) = &new.nonce else { return Ok(None) };
    let same: Option<Row> = on!(read db, pool => {
        sqlx::query_as(BY_NONCE).bind(new.author_id).bind(nonce.as_str()).fetch_optional(pool).await?
    });
    same.map(|row| row.repeated(new)).transpose()
}

/// Returns a scheduled message of `author`.
///
/// # Errors
/// [`ImksError::NotFound`], [`ImksError::Database`].
pub async fn get(db: &Db, author: Uuid, id: Uuid) -> ImksResult<Scheduled> {
    let row: Option<Row> = on!(read db, pool => {
        sqlx::query_as(FIND).bind(author).bind(id).fetch_optional(pool).await?
    });
    row.map(Scheduled::from).ok_or(ImksError::NotFound(WHAT))
}

/// Returns up to `limit` scheduled messages with a `user_rev` below `before`, in this state if there is one, the
/// last changed first.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn list(
    db: &Db,
    author: Uuid,
    state: Option<ScheduledState>,
    before: i64,
    limit: i64,
) -> ImksResult<Vec<Scheduled>> {
    let state = state.map(|state| state as i32);
    let rows: Vec<Row> = on!(read db, pool => {
        sqlx::query_as(LIST).bind(author).bind(before).bind(state).bind(limit).fetch_all(pool).await?
    });
    Ok(rows.into_iter().map(Scheduled::from).collect())
}

/// Returns about `limit` scheduled messages that changed after `since`, in the order of the changes.
pub(super) async fn changed(db: &Db, author: Uuid, since: i64, limit: i64) -> ImksResult<Vec<Scheduled>> {
    let rows: Vec<Row> = on!(read db, pool => {
        sqlx::query_as(CHANGED).bind(author).bind(since).bind(limit).fetch_all(pool).await?
    });
    Ok(rows.into_iter().map(Scheduled::from).collect())
}

/// A change of a scheduled message by its author.
#[derive(Debug, Clone)]
pub enum ScheduledChange {
    /// It is sent at another time, or with another payload.
    Replace {
        /// When to send it.
        send_at: Micros,
        /// The payload of `message:send` as JSON.
        payload: String,
        /// The files of the message.
        attachments: Vec<Uuid>,
    },
    /// It is not sent at all.
    Cancel,
}

impl ScheduledChange {
    /// Returns the files that are kept from now on.
    fn attachments(&self) -> &[Uuid] {
        match self {
            Self::Replace { attachments, .. } => attachments,
            Self::Cancel => &[],
        }
    }
}

/// Changes a scheduled message that is not being sent yet. Returns it, and whether that changed anything.
///
/// # Errors
/// [`ImksError::NotFound`], [`ImksError::VersionMismatch`] when another version is stored than `expected`,
/// [`ImksError::FailedPrecondition`] when it is being sent or settled, and [`ImksError::Database`].
pub async fn change(
    db: &Db,
    author: Uuid,
    id: Uuid,
    expected: Option<i64>,
    change: ScheduledChange,
) -> ImksResult<(Scheduled, bool)> {
    let db = db.clone();
    detached(async move { change_in_task(&db, author, id, expected, &change).await }).await
}

async fn change_in_task(
    db: &Db,
    author: Uuid,
    id: Uuid,
    expected: Option<i64>,
    change: &ScheduledChange,
) -> ImksResult<(Scheduled, bool)> {
    let now = clock::now_micros();
    Ok(transaction!(db, tx => {
        let user_rev: i64 = sqlx::query_scalar(NEXT_USER_REV).bind(author).fetch_one(&mut *tx).await?;
        let stored: Option<Row> = sqlx::query_as(FIND).bind(author).bind(id).fetch_optional(&mut *tx).await?;
        let stored = stored.ok_or(ImksError::NotFound(WHAT))?;
        if stored.says(change) {
            // Leaving without a commit takes back the number.
            return Ok((stored.into(), false));
        }
        if expected.is_some_and(|expected| expected != stored.version) {
            return Err(ImksError::VersionMismatch { current: stored.version });
        }
        let query = match change {
            ScheduledChange::Replace { send_at, payload, .. } => {
                sqlx::query_as(REPLACE).bind(id).bind(user_rev).bind(now).bind(*send_at).bind(payload)
            }
            ScheduledChange::Cancel => sqlx::query_as(CANCEL).bind(id).bind(user_rev).bind(now),
        };
        // Changes nothing if a node has taken it meanwhile.
        let row: Option<Row> = query.fetch_optional(&mut *tx).await?;
        let row = row.ok_or(ImksError::FailedPrecondition(Precondition::NotPending))?;
        let files = change.attachments();
        message_attachment_use::keep(&mut Connection::from(&mut *tx), id, (author, row.channel_id), files, now).await?;
        (row.into(), true)
    }))
}

/// A scheduled message that this node has to send before its lease ends.
#[derive(Debug, Clone, FromRow)]
#[allow(missing_docs, reason = "named as the columns")]
pub struct DueMessage {
    pub id: Uuid,
    pub user_id: Uuid,
    pub payload: String,
    pub send_at: Micros,
    /// The number of the lease.
    pub attempts: i64,
}

/// Takes leases of up to [`DUE_AT_ONCE`] messages that are due at `now`, or whose lease has ended.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn take_due(db: &Db, now: Micros) -> ImksResult<Vec<DueMessage>> {
    let sql = match db {
        Db::Postgres(_) => TAKE_POSTGRES,
        Db::Sqlite(_) => TAKE_SQLITE,
    };
    Ok(on!(db, pool => {
        sqlx::query_as(sql).bind(now).bind(DUE_AT_ONCE).bind(now + LEASE).fetch_all(pool).await?
    }))
}

/// Gives a lease back, so that sending is tried again at `at`. Does nothing if the lease has passed to another node.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn retry(db: &Db, due: &DueMessage, at: Micros) -> ImksResult<()> {
    on!(db, pool => {
        sqlx::query(RETRY).bind(due.id).bind(due.attempts).bind(at).execute(pool).await?;
    });
    Ok(())
}

/// Stores that a message cannot be sent. Returns it, or `None` if the lease has passed to another node.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn fail(db: &Db, due: &DueMessage, code: Code) -> ImksResult<Option<Scheduled>> {
    let (db, due, now) = (db.clone(), due.clone(), clock::now_micros());
    detached(async move {
        Ok(transaction!(&db, tx => {
            let user_rev: i64 = sqlx::query_scalar(NEXT_USER_REV).bind(due.user_id).fetch_one(&mut *tx).await?;
            let query = sqlx::query_as(FAIL).bind(due.id).bind(user_rev).bind(now);
            let row: Option<Row> = query.bind(due.attempts).bind(code.as_str()).fetch_optional(&mut *tx).await?;
            // Leaving without a commit takes back the number.
            let Some(row) = row else { return Ok(None) };
            message_attachment_use::let_go(&mut Connection::from(&mut *tx), due.id).await?;
            Some(row.into())
        }))
    })
    .await
}

#[derive(Debug, FromRow)]
struct Row {
    id: Uuid,
    channel_id: Uuid,
    payload: String,
    send_at: Micros,
    state: i32,
    error: Option<String>,
    message_id: Option<Uuid>,
    version: i64,
    user_rev: i64,
    created_at: Micros,
    updated_at: Micros,
}

impl Row {
    /// Returns the answer to a repeated request. One that was changed since may differ from it.
    fn repeated(self, new: &NewScheduled) -> ImksResult<Scheduled> {
        // The end of a message takes a version too.
        let is_settled = self.state >= ScheduledState::Sent as i32;
        let was_changed = self.version > 1 + i64::from(is_settled);
        let is_same = self.channel_id == new.channel_id
            && (was_changed || self.payload == new.payload && self.send_at == new.send_at);
        if is_same { Ok(self.into()) } else { Err(ImksError::NonceConflict) }
    }

    /// Whether the row already says what `change` says, so that a repeated request changes nothing.
    fn says(&self, change: &ScheduledChange) -> bool {
        match change {
            ScheduledChange::Cancel => self.state == ScheduledState::Cancelled as i32,
            ScheduledChange::Replace { send_at, payload, .. } => {
                let is_pending = self.state == ScheduledState::Pending as i32;
                is_pending && self.send_at == *send_at && self.payload == *payload
            }
        }
    }
}

impl From<Row> for Scheduled {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            channel_id: row.channel_id,
            send_at: Timestamp(row.send_at),
            state: ScheduledState::from_stored(row.state),
            payload: row.payload,
            error: row.error,
            message_id: row.message_id,
            version: row.version,
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
            user_rev: row.user_rev,
        }
    }
}

/// The most messages of one user that wait to be sent.
pub const SCHEDULED_MAX: i64 = 100;
/// The messages that one call of [`take_due`] takes.
pub const DUE_AT_ONCE: i64 = 100;
/// How long a node may try to send a message before another one may, in microseconds.
pub const LEASE: Micros = 30 * 1_000_000;
const WHAT: &str = "scheduled message";

/// The columns of [`Row`], for `concat!`.
macro_rules! scheduled_columns {
    () => {
        "id, channel_id, payload, send_at, state, error, message_id, version, user_rev, created_at, updated_at"
    };
}

/// A statement that changes a row ($1) as `user_rev` $2 at $3, if the condition holds.
macro_rules! changing {
    ($set:literal, $condition:literal) => {
        concat!(
            "UPDATE message_scheduled SET version = version + 1, user_rev = $2, updated_at = $3, ",
            $set,
            " WHERE id = $1 AND ",
            $condition,
            " RETURNING ",
            scheduled_columns!()
        )
    };
}

/// A statement that takes leases until $3 of up to $2 rows that are due at $1.
macro_rules! taking {
    ($lock:literal) => {
        concat!(
            "UPDATE message_scheduled SET state = 1, due_at = $3, attempts = attempts + 1 WHERE id IN \
             (SELECT id FROM message_scheduled WHERE due_at <= $1 ORDER BY due_at LIMIT $2",
            $lock,
            ") RETURNING id, user_id, payload, send_at, attempts"
        )
    };
}

const INSERT: &str = concat!(
    "INSERT INTO message_scheduled (id, user_id, channel_id, nonce, payload, send_at, due_at, user_rev, \
     created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8, $8) RETURNING ",
    scheduled_columns!()
);
const BY_NONCE: &str = concat!(
    "SELECT ",
    scheduled_columns!(),
    " FROM message_scheduled WHERE user_id = $1 AND nonce IS NOT NULL AND nonce = $2"
);
const COUNT: &str = "SELECT COUNT(*) FROM message_scheduled WHERE user_id = $1 AND due_at IS NOT NULL";
const FIND: &str =
    concat!("SELECT ", scheduled_columns!(), " FROM message_scheduled WHERE user_id = $1 AND id = $2");
const LIST: &str = concat!(
    "SELECT ",
    scheduled_columns!(),
    " FROM message_scheduled WHERE user_id = $1 AND user_rev < $2 AND state = COALESCE($3, state) \
     ORDER BY user_rev DESC LIMIT $4"
);
const CHANGED: &str = concat!(
    "SELECT ",
    scheduled_columns!(),
    " FROM message_scheduled t",
    after_user_rev!("message_scheduled")
);
const REPLACE: &str = changing!("send_at = $4, due_at = $4, payload = $5", "state = 0");
const CANCEL: &str = changing!("state = 4, due_at = NULL, settled_at = $3", "state = 0");
const FAIL: &str =
    changing!("state = 3, due_at = NULL, settled_at = $3, error = $5", "state = 1 AND attempts = $4");
const TAKE_POSTGRES: &str = taking!(" FOR UPDATE SKIP LOCKED");
/// Needs no row locks: a statement that writes holds SQLite's only write lock.
const TAKE_SQLITE: &str = taking!("");
const RETRY: &str =
    "UPDATE message_scheduled SET state = 0, due_at = $3 WHERE id = $1 AND state = 1 AND attempts = $2";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn states_read_back_as_what_they_were_and_have_the_names_of_the_protocol() {
        for state in ScheduledState::ALL {
            assert_eq!(ScheduledState::from_stored(*state as i32), *state);
        }
        let names = json!(["pending", "dispatching", "sent", "failed", "cancelled"]);
        assert_eq!(json!(ScheduledState::ALL), names);
    }
}
