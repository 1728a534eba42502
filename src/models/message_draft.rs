//! Drafts: what a user has begun to write, one text for each channel and thread, on all their devices.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::append::records::Record;
use super::append::{LockedChannel, Mutation, References};
use super::db::{Db, detached, on, transaction};
use super::message_send::{NewMessage, Sent};
use super::rows::{Column, RowsSql};
use super::text::{BODY_CHARS_MAX, ShortText};
use super::user_rev::{NEXT_USER_REV, Need, TakenRev, after_user_rev};
use crate::clock::{self, Micros, Timestamp};
use crate::{ImksError, ImksResult};

/// The text of a draft, which may be empty.
pub type DraftBody = ShortText<0, BODY_CHARS_MAX>;

/// A draft to store.
#[derive(Debug, Clone)]
pub struct NewDraft {
    /// The channel.
    pub channel_id: Uuid,
    /// The thread; `None` for the channel itself.
    pub thread_id: Option<Uuid>,
    /// The text.
    pub body: DraftBody,
    /// The message that it will quote.
    pub reply_to_message_id: Option<Uuid>,
    /// The version that must be stored (0 for no draft), or the draft is refused.
    pub base_version: Option<i64>,
}

/// A draft, as the devices of its user see it: the payload of `draft:updated`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Draft {
    /// The channel.
    pub channel_id: Uuid,
    /// The thread; `None` for the channel itself.
    pub thread_id: Option<Uuid>,
    /// The text; empty if the draft is cleared.
    pub body: String,
    /// The message that it will quote.
    pub reply_to_message_id: Option<Uuid>,
    /// The number of times that the draft was set or cleared.
    pub version: i64,
    /// When it was set or cleared.
    pub updated_at: Timestamp,
    /// Whether there is no draft any more.
    pub cleared: bool,
    /// The number of this change in the user's stream.
    pub user_rev: i64,
}

/// Stores a draft. Returns it, and whether that changed anything. An empty text that quotes nothing clears the
/// draft.
///
/// # Errors
/// [`ImksError::VersionMismatch`] when another version is stored than the caller expects,
/// [`ImksError::LimitReached`] when the user has [`DRAFTS_MAX`] drafts, and [`ImksError::Database`].
pub async fn set(db: &Db, user: Uuid, draft: NewDraft) -> ImksResult<(Draft, bool)> {
    let db = db.clone();
    detached(async move { set_in_task(&db, user, &draft).await }).await
}

/// Returns a draft, if one was ever set.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn get(db: &Db, user: Uuid, channel: Uuid, thread: Option<Uuid>) -> ImksResult<Option<Draft>> {
    let row: Option<Row> = on!(read db, pool => {
        let query = sqlx::query_as(FIND).bind(user).bind(channel).bind(thread.unwrap_or_default());
        query.fetch_optional(pool).await?
    });
    Ok(row.map(Draft::from))
}

/// Returns up to `limit` drafts with a `user_rev` below `before`, the last changed first.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn list(db: &Db, user: Uuid, before: i64, limit: i64) -> ImksResult<Vec<Draft>> {
    let rows: Vec<Row> = on!(read db, pool => {
        sqlx::query_as(LIST).bind(user).bind(before).bind(limit).fetch_all(pool).await?
    });
    Ok(rows.into_iter().map(Draft::from).collect())
}

/// Returns about `limit` drafts that were set or cleared after `since`, in the order of the changes.
pub(super) async fn changed(db: &Db, user: Uuid, since: i64, limit: i64) -> ImksResult<Vec<Draft>> {
    let rows: Vec<Row> = on!(read db, pool => {
        sqlx::query_as(CHANGED).bind(user).bind(since).bind(limit).fetch_all(pool).await?
    });
    Ok(rows.into_iter().map(Draft::from).collect())
}

async fn set_in_task(db: &Db, user: Uuid, draft: &NewDraft) -> ImksResult<(Draft, bool)> {
    let (now, thread) = (clock::now_micros(), draft.thread_id.unwrap_or_default());
    let clears = draft.body.as_str().is_empty() && draft.reply_to_message_id.is_none();
    Ok(transaction!(db, tx => {
        let user_rev: i64 = sqlx::query_scalar(NEXT_USER_REV).bind(user).fetch_one(&mut *tx).await?;
        let stored: Option<Row> =
            sqlx::query_as(FIND).bind(user).bind(draft.channel_id).bind(thread).fetch_optional(&mut *tx).await?;
        let stored = stored.unwrap_or_else(|| Row::none(draft.channel_id, thread));
        if stored.holds(draft, clears) {
            // Leaving without a commit takes back the number.
            return Ok((stored.into(), false));
        }
        stored.check_version(draft.base_version)?;
        if stored.deleted_at.is_some() {
            let drafts: i64 = sqlx::query_scalar(COUNT).bind(user).fetch_one(&mut *tx).await?;
            if drafts >= DRAFTS_MAX {
                return Err(ImksError::LimitReached("drafts"));
            }
        }
        let row = stored.next(draft, clears, user_rev, now);
        sqlx::query(STORE)
            .bind(user).bind(row.channel_id).bind(row.thread_key).bind(&row.body).bind(row.reply_to_message_id)
            .bind(row.version).bind(row.user_rev).bind(row.updated_at).bind(row.deleted_at)
            .execute(&mut *tx).await?;
        (row.into(), true)
    }))
}

#[derive(Debug, FromRow)]
struct Row {
    channel_id: Uuid,
    /// The thread; nil for the channel itself, because a key cannot be null.
    thread_key: Uuid,
    body: String,
    reply_to_message_id: Option<Uuid>,
    version: i64,
    user_rev: i64,
    updated_at: Micros,
    deleted_at: Option<Micros>,
}

impl Row {
    /// Creates the row of a draft that was never set.
    fn none(channel_id: Uuid, thread_key: Uuid) -> Self {
        Self {
            channel_id,
            thread_key,
            body: String::new(),
            reply_to_message_id: None,
            version: 0,
            user_rev: 0,
            updated_at: 0,
            deleted_at: Some(0),
        }
    }

    /// Whether the row already says what `draft` says, so that a repeated request changes nothing.
    fn holds(&self, draft: &NewDraft, clears: bool) -> bool {
        match self.deleted_at {
            Some(_) => clears,
            None => self.body == draft.body.as_str() && self.reply_to_message_id == draft.reply_to_message_id,
        }
    }

    fn check_version(&self, base: Option<i64>) -> ImksResult<()> {
        match base {
            // Over a cleared draft there is nothing to lose.
            Some(0) if self.deleted_at.is_some() => Ok(()),
            Some(base) if base != self.version => Err(ImksError::VersionMismatch { current: self.version }),
            _ => Ok(()),
        }
    }

    fn next(self, draft: &NewDraft, clears: bool, user_rev: i64, now: Micros) -> Self {
        Self {
            body: draft.body.as_str().into(),
            reply_to_message_id: draft.reply_to_message_id,
            version: self.version + 1,
            user_rev,
            updated_at: now,
            deleted_at: clears.then_some(now),
            ..self
        }
    }
}

impl From<Row> for Draft {
    fn from(row: Row) -> Self {
        Self {
            channel_id: row.channel_id,
            thread_id: Some(row.thread_key).filter(|thread| !thread.is_nil()),
            body: row.body,
            reply_to_message_id: row.reply_to_message_id,
            version: row.version,
            updated_at: Timestamp(row.updated_at),
            cleared: row.deleted_at.is_some(),
            user_rev: row.user_rev,
        }
    }
}

/// A message to send, whose draft is cleared in the same transaction.
#[derive(Debug, Clone)]
pub struct SendDraft(pub NewMessage);

impl Mutation for SendDraft {
    type Done = Sent;

    fn refers(&self, references: &mut References<'_>) {
        self.0.refers(references);
    }

    fn decide(&self, channel: &mut LockedChannel<'_>) -> ImksResult<Sent> {
        let sent = self.0.decide(channel)?;
        if !sent.duplicate {
            let (user_id, channel_id) = (channel.scope().actor.id, channel.scope().channel_id);
            let key = (user_id, channel_id, self.0.thread_id.unwrap_or_default());
            // The order matters: the first locks the user's stream and takes the number that the second stores.
            let need = Need::ClearDraft { channel_id, thread_key: key.2 };
            channel.insert(TakenRev { user: user_id, need });
            channel.insert(ClearedDraft { key, at: channel.now() });
        }
        Ok(sent)
    }
}

/// The user, channel and thread of a draft.
type Key = (Uuid, Uuid, Uuid);

/// A draft that a sent message clears.
#[derive(Debug)]
struct ClearedDraft {
    key: Key,
    at: Micros,
}

impl Record for ClearedDraft {
    type Key = Key;

    fn key(&self) -> Key {
        self.key
    }

    fn insert() -> &'static RowsSql {
        &CLEAR
    }

    fn columns<'a>(rows: &[&'a Self]) -> Vec<Column<'a>> {
        vec![
            Column::of(rows, |row| row.key.0),
            Column::of(rows, |row| row.key.1),
            Column::of(rows, |row| row.key.2),
            Column::of(rows, |row| row.at),
        ]
    }
}

/// The most drafts of one user.
pub const DRAFTS_MAX: i64 = 500;

macro_rules! draft_columns {
    () => {
        "t.channel_id, t.thread_key, t.body, t.reply_to_message_id, t.version, t.user_rev, t.updated_at, \
         t.deleted_at"
    };
}
const FIND: &str = concat!(
    "SELECT ",
    draft_columns!(),
    " FROM message_draft t WHERE t.user_id = $1 AND t.channel_id = $2 AND t.thread_key = $3"
);
const LIST: &str = concat!(
    "SELECT ",
    draft_columns!(),
    " FROM message_draft t WHERE t.user_id = $1 AND t.user_rev < $2 AND t.deleted_at IS NULL \
     ORDER BY t.user_rev DESC LIMIT $3"
);
const CHANGED: &str =
    concat!("SELECT ", draft_columns!(), " FROM message_draft t", after_user_rev!("message_draft"));
const COUNT: &str = "SELECT COUNT(*) FROM message_draft WHERE user_id = $1 AND deleted_at IS NULL";
const STORE: &str = "INSERT INTO message_draft \
    (user_id, channel_id, thread_key, body, reply_to_message_id, version, user_rev, updated_at, deleted_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
    ON CONFLICT (user_id, channel_id, thread_key) DO UPDATE SET body = excluded.body, \
      reply_to_message_id = excluded.reply_to_message_id, version = excluded.version, \
      user_rev = excluded.user_rev, updated_at = excluded.updated_at, deleted_at = excluded.deleted_at";
/// Clears the draft of a user ($1), channel ($2) and thread ($3), if there is one, as `user_rev` $4 at $5.
pub(super) const CLEAR_ONE: &str = "UPDATE message_draft SET body = '', reply_to_message_id = NULL, \
    version = version + 1, user_rev = $4, updated_at = $5, deleted_at = $5 \
    WHERE user_id = $1 AND channel_id = $2 AND thread_key = $3 AND deleted_at IS NULL";
/// Leaves a draft alone that was set after the number was taken.
static CLEAR: RowsSql = RowsSql::new(
    "user_id, channel_id, thread_key, at",
    "UPDATE message_draft SET body = '', reply_to_message_id = NULL, version = version + 1, \
       user_rev = s.last_rev, updated_at = r.at, deleted_at = r.at FROM r, user_state s \
     WHERE message_draft.user_id = r.user_id AND message_draft.channel_id = r.channel_id \
       AND message_draft.thread_key = r.thread_key AND s.user_id = r.user_id \
       AND message_draft.deleted_at IS NULL AND message_draft.user_rev < s.last_rev",
);
