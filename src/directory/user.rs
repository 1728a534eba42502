//! The users of the directory.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::change::{Change, record};
use super::{Directory, shown};
use crate::clock::{Micros, Timestamp, now_micros};
use crate::error::{ImksError, ImksResult};
use crate::models::db::{Db, on, transaction};

/// A user of the directory.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, JsonSchema)]
pub struct User {
    /// The id of the user.
    pub id: Uuid,
    /// The name, which is unique among users that are not deleted.
    pub username: String,
    /// Whether the user is a program.
    pub bot: bool,
    /// When the account was created.
    #[serde(serialize_with = "shown::time")]
    #[schemars(with = "Timestamp")]
    pub created_at: Micros,
    /// When the account was closed, if it was.
    #[serde(serialize_with = "shown::optional_time")]
    #[schemars(with = "Option<Timestamp>")]
    pub deleted_at: Option<Micros>,
}

impl Directory {
    /// Creates a user.
    ///
    /// # Errors
    /// `InvalidInput` if the name is not allowed; `Conflict` if it is taken; `Database`.
    pub async fn create_user(&self, username: &str, bot: bool) -> ImksResult<User> {
        self.create(Uuid::now_v7(), username, bot).await
    }

    /// Creates a user with an id that is free.
    pub(super) async fn create(&self, id: Uuid, username: &str, bot: bool) -> ImksResult<User> {
        let name = checked_name("username", username)?;
        let user = User { id, username: name, bot, created_at: now_micros(), deleted_at: None };
        let (db, row) = (self.db().clone(), user.clone());
        self.settled(async move { insert(&db, row).await }).await?;
        Ok(user)
    }

    /// Returns the user with this name or id, unless the account is closed.
    ///
    /// # Errors
    /// `Database`.
    pub async fn user(&self, name: &str) -> ImksResult<Option<User>> {
        if let Ok(id) = Uuid::parse_str(name)
            && let Some(user) = self.users_by_id(&[id]).await?.pop()
        {
            return Ok(Some(user).filter(|user| user.deleted_at.is_none()));
        }
        Ok(on!(read self.db(), pool => {
            sqlx::query_as(BY_NAME).bind(name).fetch_optional(pool).await?
        }))
    }

    /// Returns the user with this name or id, unless the account is closed.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn user_by_name(&self, name: &str) -> ImksResult<User> {
        self.user(name).await?.ok_or_else(|| unknown("user", name))
    }

    /// Gives a user another name. Tokens that were issued before keep the old one until they expire.
    ///
    /// # Errors
    /// `UnknownName`; `InvalidInput` if the name is not allowed; `Conflict` if it is taken; `Database`.
    pub async fn rename_user(&self, name: &str, to: &str) -> ImksResult<User> {
        let user = self.user_by_name(name).await?;
        let username = checked_name("username", to)?;
        if user.username == username || self.rename(user.id, username.clone()).await? {
            return Ok(User { username, ..user });
        }
        Err(ImksError::Conflict { what: "user", name: username })
    }

    /// Gives a user another name, unless it is taken.
    pub(super) async fn rename(&self, user: Uuid, name: String) -> ImksResult<bool> {
        let db = self.db().clone();
        self.settled(async move {
            Ok(transaction!(&db, tx => {
                let done = sqlx::query(RENAME).bind(user).bind(name).execute(&mut *tx).await?.rows_affected() == 1;
                if done {
                    record!(tx, now_micros(), &[Change::user(user)]);
                }
                done
            }))
        })
        .await
    }

    /// Checks the name of a user.
    ///
    /// # Errors
    /// `InvalidInput` if the name is not allowed.
    pub fn check_username(name: &str) -> ImksResult<()> {
        checked_name("username", name).map(drop)
    }

    /// Returns the user with this name, and creates it if it is missing.
    ///
    /// # Errors
    /// The errors of [`Directory::create_user`].
    pub async fn ensure_user(&self, username: &str) -> ImksResult<User> {
        if let Some(user) = self.user(username).await? {
            return Ok(user);
        }
        match self.create_user(username, false).await {
            // Another process may have created the user meanwhile.
            Err(error) => self.user(username).await?.ok_or(error),
            made => made,
        }
    }

    /// Returns all users that are not deleted, ordered by name, at most [`LIST_MAX`].
    ///
    /// # Errors
    /// `Database`.
    pub async fn users(&self) -> ImksResult<Vec<User>> {
        Ok(on!(read self.db(), pool => sqlx::query_as(ALL).bind(LIST_MAX).fetch_all(pool).await?))
    }

    /// Closes an account, revokes its tokens and ends its memberships. The name can then be used again.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn remove_user(&self, username: &str) -> ImksResult<()> {
        let user = self.user_by_name(username).await?;
        let db = self.db().clone();
        self.settled(async move { remove(&db, user.id).await }).await
    }

    /// Revokes all current tokens of a user without closing the account.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn revoke_user(&self, username: &str) -> ImksResult<()> {
        let user = self.user_by_name(username).await?;
        let db = self.db().clone();
        self.settled(async move { revoke(&db, user.id).await }).await
    }

    pub(super) async fn users_by_id(&self, ids: &[Uuid]) -> ImksResult<Vec<User>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        Ok(on!(read self.db(), pool => {
            let mut query = QueryBuilder::new(BY_IDS);
            let mut list = query.separated(", ");
            ids.iter().for_each(|id| { list.push_bind(*id); });
            query.push(")");
            query.build_query_as().fetch_all(pool).await?
        }))
    }
}

async fn insert(db: &Db, user: User) -> ImksResult<()> {
    let done = on!(db, pool => {
        sqlx::query(INSERT)
            .bind(user.id).bind(&user.username).bind(user.bot).bind(user.created_at)
            .execute(pool).await?.rows_affected()
    });
    if done == 1 { Ok(()) } else { Err(ImksError::Conflict { what: "user", name: user.username }) }
}

/// Locks a user in the transaction `tx`, and evaluates to the time after that: whoever began a session of the user
/// meanwhile signed its token before.
macro_rules! locked {
    ($tx:expr, $user:expr) => {{
        sqlx::query(LOCK_USER).bind($user).execute(&mut *$tx).await?;
        now_micros()
    }};
}

async fn remove(db: &Db, user: Uuid) -> ImksResult<()> {
    transaction!(db, tx => {
        let now = locked!(tx, user);
        sqlx::query(DELETE).bind(user).bind(now).execute(&mut *tx).await?;
        let channels: Vec<Uuid> = sqlx::query_scalar(LEAVE_ALL).bind(user).fetch_all(&mut *tx).await?;
        for sql in DELETE_REST.iter().chain(&END_SESSIONS) {
            sqlx::query(*sql).bind(user).execute(&mut *tx).await?;
        }
        sqlx::query(REVOKE).bind(user).bind(false).bind(now).execute(&mut *tx).await?;
        let mut changes = vec![Change::revoked_user(user), Change::user(user)];
        changes.extend(channels.into_iter().map(|channel| Change::left(user, channel)));
        for changes in changes.chunks(CHANGES_AT_ONCE) {
            record!(tx, now, changes);
        }
    });
    Ok(())
}

async fn revoke(db: &Db, user: Uuid) -> ImksResult<()> {
    transaction!(db, tx => {
        let now = locked!(tx, user);
        for sql in END_SESSIONS {
            sqlx::query(sql).bind(user).execute(&mut *tx).await?;
        }
        sqlx::query(REVOKE).bind(user).bind(false).bind(now).execute(&mut *tx).await?;
        record!(tx, now, &[Change::revoked_user(user)]);
    });
    Ok(())
}

/// Returns the error for a name that does not exist.
pub(super) fn unknown(what: &'static str, name: &str) -> ImksError {
    ImksError::UnknownName { what, name: name.to_owned() }
}

/// Returns the name of a user or channel if it is allowed: 1 to 64 letters, digits, `-`, `_` and `.`.
pub(super) fn checked_name(field: &'static str, name: &str) -> ImksResult<String> {
    let allowed = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || !name.chars().all(allowed) {
        let shown: String = name.chars().take(NAME_CHARS_MAX).collect();
        let rule = format!("{shown:?} is not 1 to 64 letters, digits, hyphens, underscores or dots");
        return Err(ImksError::invalid(field, rule));
    }
    Ok(name.to_owned())
}

pub(super) const INSERT: &str = "INSERT INTO directory_user (id, username, bot, created_at) VALUES ($1, $2, $3, $4) \
     ON CONFLICT DO NOTHING";
pub(super) const BY_NAME: &str = "SELECT id, username, bot, created_at, deleted_at FROM directory_user \
     WHERE username = $1 AND deleted_at IS NULL";
const BY_IDS: &str = "SELECT id, username, bot, created_at, deleted_at FROM directory_user WHERE id IN (";
const ALL: &str = "SELECT id, username, bot, created_at, deleted_at FROM directory_user \
     WHERE deleted_at IS NULL ORDER BY username LIMIT $1";
const DELETE: &str = "UPDATE directory_user SET deleted_at = $2 WHERE id = $1";
const LEAVE_ALL: &str = "DELETE FROM directory_member WHERE user_id = $1 RETURNING channel_id";
pub(super) const REVOKE: &str = "INSERT INTO directory_revocation (subject_id, is_session, revoked_at) VALUES ($1, $2, $3) \
     ON CONFLICT (subject_id) DO UPDATE SET revoked_at = excluded.revoked_at";
const RENAME: &str = "UPDATE directory_user SET username = $2 WHERE id = $1 AND NOT EXISTS \
     (SELECT 1 FROM directory_user WHERE username = $2 AND deleted_at IS NULL)";
const DELETE_REST: [&str; 4] = [
    "DELETE FROM directory_workspace_member WHERE user_id = $1",
    "DELETE FROM directory_member_role WHERE user_id = $1",
    "DELETE FROM directory_override WHERE subject_id = $1",
    "DELETE FROM directory_ban WHERE user_id = $1",
];
/// Locks the row of a user until the transaction ends, and tells whether the account is open.
pub(super) const LOCK_USER: &str = "UPDATE directory_user SET bot = bot WHERE id = $1 AND deleted_at IS NULL";
/// Ends the sessions of a user: no refresh token is good any more.
const END_SESSIONS: [&str; 2] = [
    "DELETE FROM directory_refresh_token WHERE session_id IN \
     (SELECT id FROM directory_session WHERE user_id = $1)",
    "DELETE FROM directory_session WHERE user_id = $1",
];
/// The number of changes that are added to the log with one statement.
pub(super) const CHANGES_AT_ONCE: usize = 500;
/// The length of the longest name of a user or channel, in characters.
pub(super) const NAME_CHARS_MAX: usize = 64;
/// The largest number of rows in a list for the command line.
pub(super) const LIST_MAX: i64 = 10_000;
