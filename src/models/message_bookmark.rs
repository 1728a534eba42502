//! Bookmarks: messages that a user has saved, with a note and a time to be reminded.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::db::{Db, detached, on, transaction};
use super::text::ShortText;
use super::user_rev::{NEXT_USER_REV, after_user_rev, numbered};
use crate::clock::{self, Micros, Timestamp};
use crate::{ImksError, ImksResult};

/// The note of a bookmark.
pub type Note = ShortText<1, NOTE_CHARS_MAX>;

/// The fields of a bookmark to change; `None` keeps a field, `Some(None)` removes its value.
#[derive(Debug, Clone, Default)]
pub struct BookmarkChange {
    /// The note.
    pub note: Option<Option<Note>>,
    /// When to be reminded.
    pub remind_at: Option<Option<Micros>>,
}

/// A bookmark, as the devices of its user see it: the payload of `bookmark:updated`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Bookmark {
    /// The message.
    pub message_id: Uuid,
    /// The channel of the message.
    pub channel_id: Uuid,
    /// What the user noted.
    pub note: Option<String>,
    /// When the user will be reminded.
    pub remind_at: Option<Timestamp>,
    /// When the user was last reminded.
    pub reminded_at: Option<Timestamp>,
    /// When the message was saved.
    pub created_at: Timestamp,
    /// Whether the bookmark was removed.
    pub removed: bool,
    /// The number of this change in the user's stream.
    pub user_rev: i64,
}

/// Saves a message, or changes its bookmark. Returns the bookmark, and whether that changed anything.
///
/// # Errors
/// [`ImksError::NotFound`] when the channel has no such message, [`ImksError::MessageDeleted`],
/// [`ImksError::LimitReached`] when the user has [`BOOKMARKS_MAX`] bookmarks, and [`ImksError::Database`].
pub async fn add(
    db: &Db,
    user: Uuid,
    channel: Uuid,
    message: Uuid,
    change: BookmarkChange,
) -> ImksResult<(Bookmark, bool)> {
    let found: Option<Option<Micros>> = on!(read db, pool => {
        sqlx::query_scalar(MESSAGE).bind(message).bind(channel).fetch_optional(pool).await?
    });
    if found.ok_or(ImksError::NotFound("message"))?.is_some() {
        return Err(ImksError::MessageDeleted);
    }
    let edit = Edit { user, channel, message, change, creates: true };
    let db = db.clone();
    detached(async move { edit.apply(&db).await }).await
}

/// Changes a bookmark. Returns it, and whether that changed anything.
///
/// # Errors
/// [`ImksError::NotFound`] when there is no such bookmark, and [`ImksError::Database`].
pub async fn update(
    db: &Db,
    user: Uuid,
    channel: Uuid,
    message: Uuid,
    change: BookmarkChange,
) -> ImksResult<(Bookmark, bool)> {
    let edit = Edit { user, channel, message, change, creates: false };
    let db = db.clone();
    detached(async move { edit.apply(&db).await }).await
}

/// Removes a bookmark. Returns what is left of it, or `None` if there was no such bookmark.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn remove(db: &Db, user: Uuid, message: Uuid) -> ImksResult<Option<Bookmark>> {
    let (db, now) = (db.clone(), clock::now_micros());
    let row = detached(async move {
        let row: Option<Row> = numbered!(&db, user, user_rev => {
            sqlx::query_as(REMOVE).bind(user).bind(message).bind(user_rev).bind(now)
        });
        Ok(row)
    });
    Ok(row.await?.map(Bookmark::from))
}

/// Returns up to `limit` bookmarks with a `user_rev` below `before`, the last changed first.
///
/// # Errors
/// [`ImksError::Database`].
pub async fn list(db: &Db, user: Uuid, before: i64, limit: i64) -> ImksResult<Vec<Bookmark>> {
    let rows: Vec<Row> = on!(read db, pool => {
        sqlx::query_as(LIST).bind(user).bind(before).bind(limit).fetch_all(pool).await?
    });
    Ok(rows.into_iter().map(Bookmark::from).collect())
}

/// Returns about `limit` bookmarks that changed after `since`, in the order of the changes.
pub(super) async fn changed(db: &Db, user: Uuid, since: i64, limit: i64) -> ImksResult<Vec<Bookmark>> {
    let rows: Vec<Row> = on!(read db, pool => {
        sqlx::query_as(CHANGED).bind(user).bind(since).bind(limit).fetch_all(pool).await?
    });
    Ok(rows.into_iter().map(Bookmark::from).collect())
}

/// Takes up to [`REMINDERS_AT_ONCE`] reminders that are due at `now`, and returns their users and bookmarks.
/// However many nodes ask, each reminder is returned once.
///
/// # Errors
/// [`ImksError::Database`]; reminders that were taken before it stay taken, and reach the devices by `sync`.
pub async fn take_due(db: &Db, now: Micros) -> ImksResult<Vec<(Uuid, Bookmark)>> {
    let due: Vec<(Uuid, Uuid)> = on!(read db, pool => {
        sqlx::query_as(DUE).bind(now).bind(REMINDERS_AT_ONCE).fetch_all(pool).await?
    });
    let mut taken = Vec::with_capacity(due.len());
    for (user, message) in due {
        let db = db.clone();
        let one = detached(async move { take_one(&db, user, message, now).await }).await?;
        taken.extend(one.map(|row| (user, Bookmark::from(row))));
    }
    Ok(taken)
}

async fn take_one(db: &Db, user: Uuid, message: Uuid, now: Micros) -> ImksResult<Option<Row>> {
    // Nothing is left to do if another node was faster.
    Ok(numbered!(db, user, user_rev => {
        sqlx::query_as(REMIND).bind(user).bind(message).bind(user_rev).bind(now)
    }))
}

/// A change of one bookmark.
struct Edit {
    user: Uuid,
    channel: Uuid,
    message: Uuid,
    change: BookmarkChange,
    /// Whether a missing bookmark is created.
    creates: bool,
}

impl Edit {
    async fn apply(&self, db: &Db) -> ImksResult<(Bookmark, bool)> {
        let now = clock::now_micros();
        Ok(transaction!(db, tx => {
            let user_rev: i64 = sqlx::query_scalar(NEXT_USER_REV).bind(self.user).fetch_one(&mut *tx).await?;
            let query = sqlx::query_as(FIND).bind(self.user).bind(self.message).bind(self.channel);
            let stored: Option<Row> = query.fetch_optional(&mut *tx).await?;
            let stored = stored.filter(|row| row.deleted_at.is_none());
            if stored.is_none() {
                if !self.creates {
                    return Err(ImksError::NotFound("bookmark"));
                }
                let bookmarks: i64 = sqlx::query_scalar(COUNT).bind(self.user).fetch_one(&mut *tx).await?;
                if bookmarks >= BOOKMARKS_MAX {
                    return Err(ImksError::LimitReached("bookmarks"));
                }
            }
            let row = self.next(stored.as_ref(), user_rev, now);
            if let Some(stored) = stored.filter(|stored| stored.says(&row)) {
                // Leaving without a commit takes back the number.
                return Ok((stored.into(), false));
            }
            sqlx::query(STORE)
                .bind(self.user).bind(row.message_id).bind(row.channel_id).bind(&row.note).bind(row.remind_at)
                .bind(row.reminded_at).bind(row.user_rev).bind(row.created_at)
                .execute(&mut *tx).await?;
            (row.into(), true)
        }))
    }

    fn next(&self, stored: Option<&Row>, user_rev: i64, now: Micros) -> Row {
        let note = self.change.note.as_ref().map(|note| note.as_ref().map(|note| note.as_str().to_owned()));
        Row {
            message_id: self.message,
            channel_id: self.channel,
            note: note.unwrap_or_else(|| stored.and_then(|row| row.note.clone())),
            remind_at: self.change.remind_at.unwrap_or_else(|| stored.and_then(|row| row.remind_at)),
            reminded_at: stored.and_then(|row| row.reminded_at),
            user_rev,
            created_at: stored.map_or(now, |row| row.created_at),
            deleted_at: None,
        }
    }
}

#[derive(Debug, FromRow)]
struct Row {
    message_id: Uuid,
    channel_id: Uuid,
    note: Option<String>,
    remind_at: Option<Micros>,
    reminded_at: Option<Micros>,
    user_rev: i64,
    created_at: Micros,
    deleted_at: Option<Micros>,
}

impl Row {
    /// Whether this bookmark says what `other` says.
    fn says(&self, other: &Self) -> bool {
        self.note == other.note && self.remind_at == other.remind_at
    }
}

impl From<Row> for Bookmark {
    fn from(row: Row) -> Self {
        Self {
            message_id: row.message_id,
            channel_id: row.channel_id,
            note: row.note,
            remind_at: row.remind_at.map(Timestamp),
            reminded_at: row.reminded_at.map(Timestamp),
            created_at: Timestamp(row.created_at),
            removed: row.deleted_at.is_some(),
            user_rev: row.user_rev,
        }
    }
}

/// The most bookmarks of one user.
pub const BOOKMARKS_MAX: i64 = 1_000;
/// The longest note of a bookmark, in Unicode scalar values.
pub const NOTE_CHARS_MAX: usize = 500;
/// The reminders that one call of [`take_due`] takes.
pub const REMINDERS_AT_ONCE: i64 = 100;

macro_rules! bookmark_columns {
    () => {
        "message_id, channel_id, note, remind_at, reminded_at, user_rev, created_at, deleted_at"
    };
}
const MESSAGE: &str = "SELECT deleted_at FROM message WHERE id = $1 AND channel_id = $2";
const FIND: &str = concat!(
    "SELECT ",
    bookmark_columns!(),
    " FROM message_bookmark WHERE user_id = $1 AND message_id = $2 AND channel_id = $3"
);
const LIST: &str = concat!(
    "SELECT ",
    bookmark_columns!(),
    " FROM message_bookmark WHERE user_id = $1 AND user_rev < $2 AND deleted_at IS NULL \
     ORDER BY user_rev DESC LIMIT $3"
);
const CHANGED: &str =
    concat!("SELECT ", bookmark_columns!(), " FROM message_bookmark t", after_user_rev!("message_bookmark"));
const COUNT: &str = "SELECT COUNT(*) FROM message_bookmark WHERE user_id = $1 AND deleted_at IS NULL";
const STORE: &str = "INSERT INTO message_bookmark \
    (user_id, message_id, channel_id, note, remind_at, reminded_at, user_rev, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
    ON CONFLICT (user_id, message_id) DO UPDATE SET note = excluded.note, remind_at = excluded.remind_at, \
      reminded_at = excluded.reminded_at, user_rev = excluded.user_rev, created_at = excluded.created_at, \
      deleted_at = NULL";
const REMOVE: &str = concat!(
    "UPDATE message_bookmark SET note = NULL, remind_at = NULL, reminded_at = NULL, user_rev = $3, \
     deleted_at = $4 WHERE user_id = $1 AND message_id = $2 AND deleted_at IS NULL RETURNING ",
    bookmark_columns!()
);
const DUE: &str = "SELECT user_id, message_id FROM message_bookmark \
    WHERE remind_at IS NOT NULL AND remind_at <= $1 ORDER BY remind_at LIMIT $2";
const REMIND: &str = concat!(
    "UPDATE message_bookmark SET remind_at = NULL, reminded_at = $4, user_rev = $3 \
     WHERE user_id = $1 AND message_id = $2 AND remind_at <= $4 RETURNING ",
    bookmark_columns!()
);
