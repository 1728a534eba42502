//! The users of the directory.

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::Directory;
use super::change::{Kind, record};
use crate::clock::{Micros, now_micros};
use crate::error::{ImksError, ImksResult};
use crate::models::db::{Db, on, transaction};

/// A user of the directory.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct User {
    /// The id of the user.
    pub id: Uuid,
    /// The name, which is unique among users that are not deleted.
    pub username: String,
    /// Whether the user is a program.
    pub bot: bool,
    /// When the account was created.
    pub created_at: Micros,
    /// When the account was closed; `None` if it is open.
    pub deleted_at: Option<Micros>,
}

impl Directory {
    /// Creates a user.
    ///
    /// # Errors
    /// `InvalidInput` if the name is not allowed; `Conflict` if it is taken; `Database`.
    pub async fn create_user(&self, username: &str, bot: bool) -> ImksResult<User> {
        let name = checked_name("username", username)?;
        let user =
            User { id: Uuid::now_v7(), username: name, bot, created_at: now_micros(), deleted_at: None };
        let (db, row) = (self.db().clone(), user.clone());
        self.settled(async move { insert(&db, row).await }).await?;
        Ok(user)
    }

    /// Returns the user with this name, unless the account is closed.
    ///
    /// # Errors
    /// `Database`.
    pub async fn user(&self, username: &str) -> ImksResult<Option<User>> {
        Ok(on!(read self.db(), pool => {
            sqlx::query_as(BY_NAME).bind(username).fetch_optional(pool).await?
        }))
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
        let user = self.user(username).await?.ok_or_else(|| unknown("user", username))?;
        let db = self.db().clone();
        self.settled(async move { remove(&db, user.id, now_micros()).await }).await
    }

    /// Revokes all current tokens of a user without closing the account.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn revoke_user(&self, username: &str) -> ImksResult<()> {
        let user = self.user(username).await?.ok_or_else(|| unknown("user", username))?;
        let db = self.db().clone();
        self.settled(async move { revoke(&db, user.id, false, now_micros()).await }).await
    }

    /// Revokes all tokens of a session.
    ///
    /// # Errors
    /// `Database`.
    #[cfg(feature = "testing")]
    pub async fn revoke_session(&self, session: Uuid) -> ImksResult<()> {
        let db = self.db().clone();
        self.settled(async move { revoke(&db, session, true, now_micros()).await }).await
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

async fn remove(db: &Db, user: Uuid, now: Micros) -> ImksResult<()> {
    transaction!(db, tx => {
        sqlx::query(DELETE).bind(user).bind(now).execute(&mut *tx).await?;
        let channels: Vec<Uuid> = sqlx::query_scalar(LEAVE_ALL).bind(user).fetch_all(&mut *tx).await?;
        sqlx::query(REVOKE).bind(user).bind(false).bind(now).execute(&mut *tx).await?;
        record!(tx, Kind::Revoked, user: Some(user), channel: None, session: None, at: now);
        record!(tx, Kind::User, user: Some(user), channel: None, session: None, at: now);
        for channel in channels {
            record!(tx, Kind::Left, user: Some(user), channel: Some(channel), session: None, at: now);
        }
    });
    Ok(())
}

async fn revoke(db: &Db, subject: Uuid, is_session: bool, now: Micros) -> ImksResult<()> {
    let (user, session) = if is_session { (None, Some(subject)) } else { (Some(subject), None) };
    transaction!(db, tx => {
        sqlx::query(REVOKE).bind(subject).bind(is_session).bind(now).execute(&mut *tx).await?;
        record!(tx, Kind::Revoked, user: user, channel: None, session: session, at: now);
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
const BY_NAME: &str = "SELECT id, username, bot, created_at, deleted_at FROM directory_user \
     WHERE username = $1 AND deleted_at IS NULL";
const BY_IDS: &str = "SELECT id, username, bot, created_at, deleted_at FROM directory_user WHERE id IN (";
const ALL: &str = "SELECT id, username, bot, created_at, deleted_at FROM directory_user \
     WHERE deleted_at IS NULL ORDER BY username LIMIT $1";
const DELETE: &str = "UPDATE directory_user SET deleted_at = $2 WHERE id = $1";
const LEAVE_ALL: &str = "DELETE FROM directory_member WHERE user_id = $1 RETURNING channel_id";
const REVOKE: &str = "INSERT INTO directory_revocation (subject_id, is_session, revoked_at) VALUES ($1, $2, $3) \
     ON CONFLICT (subject_id) DO UPDATE SET revoked_at = excluded.revoked_at";
/// The length of the longest name of a user or channel, in characters.
pub(super) const NAME_CHARS_MAX: usize = 64;
/// The largest number of rows in a list for the command line.
pub(super) const LIST_MAX: i64 = 10_000;
