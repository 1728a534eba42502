//! The members of channels and their roles.

use sqlx::FromRow;
use uuid::Uuid;

use super::change::{Kind, record};
use super::user::{LIST_MAX, unknown};
use super::{Directory, NewChannel, User};
use crate::clock::{Micros, now_micros};
use crate::error::ImksResult;
use crate::models::db::{Db, on, transaction};

/// The membership of a user in a channel, with the role and channel state that decide about permissions.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Member {
    /// The id of the channel.
    pub channel_id: Uuid,
    /// The id of the user.
    pub user_id: Uuid,
    /// The name of the channel.
    pub channel_name: String,
    /// The name of the user.
    pub username: String,
    /// When the user joined.
    pub joined_at: Micros,
    /// The number of the level in core/v1/member.proto.
    pub notify_level: i64,
    /// The time until which the channel is muted for the member; 0 if it is not muted.
    pub muted_until: Micros,
    /// The id of the member's role.
    pub role_id: Uuid,
    /// The name of the role.
    pub role: String,
    /// The permissions of the role, as a bit set.
    pub bits: i64,
    /// Whether the channel is archived.
    pub archived: bool,
    /// Whether only owners may write in the channel.
    pub read_only: bool,
    /// The minimum number of seconds between two messages of one user in the channel; 0 means no minimum.
    pub slow_mode_s: i64,
    /// The version of the channel.
    pub version: i64,
}

/// The roles of the directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RoleName {
    /// Reads.
    Guest,
    /// Reads and writes.
    #[default]
    Member,
    /// Also changes what others wrote.
    Moderator,
    /// Also changes the channel.
    Owner,
}

impl RoleName {
    /// Returns the name in the table of roles.
    fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Member => "member",
            Self::Moderator => "moderator",
            Self::Owner => "owner",
        }
    }
}

impl Directory {
    /// Adds `username` to `channel`, or changes the role of a member. Returns whether anything changed.
    ///
    /// # Errors
    /// `UnknownName` if the user or the channel does not exist; `Database`.
    pub async fn add_member(&self, channel: &str, username: &str, role: RoleName) -> ImksResult<bool> {
        let user = self.user_id(username).await?;
        let channel = self.channel_id(channel).await?;
        let role: Uuid = on!(read self.db(), pool => {
            sqlx::query_scalar(ROLE).bind(role.as_str()).fetch_one(pool).await?
        });
        if self.member(user, channel).await?.is_some_and(|member| member.role_id == role) {
            return Ok(false);
        }
        let db = self.db().clone();
        self.settled(async move { join(&db, channel, user, role, now_micros()).await }).await?;
        Ok(true)
    }

    /// Removes a member from a channel. The member's rights end on every node that follows the directory.
    ///
    /// # Errors
    /// `UnknownName` if there is no such membership; `Database`.
    pub async fn remove_member(&self, channel: &str, username: &str) -> ImksResult<()> {
        let user = self.user_id(username).await?;
        let channel = self.channel_id(channel).await?;
        let db = self.db().clone();
        let left = self.settled(async move { leave(&db, channel, user, now_micros()).await }).await?;
        if left { Ok(()) } else { Err(unknown("member", username)) }
    }

    /// Returns the members of a channel, at most 10,000.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn members(&self, channel: &str) -> ImksResult<Vec<Member>> {
        let channel = self.channel_id(channel).await?;
        self.members_page(channel, Uuid::nil(), LIST_MAX).await
    }

    /// Returns the user as a member of the channel `general`, and creates both if they are missing. For
    /// development.
    ///
    /// # Errors
    /// `InvalidInput` if the name is not allowed; `Database`.
    pub async fn ensure_development(&self, username: &str) -> ImksResult<User> {
        let user = self.ensure_user(username).await?;
        let general = NewChannel { name: GENERAL.into(), ..NewChannel::default() };
        let channel = self.ensure_channel(general).await?;
        if self.member(user.id, channel.id).await?.is_none() {
            self.add_member(GENERAL, username, RoleName::default()).await?;
        }
        Ok(user)
    }

    async fn user_id(&self, username: &str) -> ImksResult<Uuid> {
        Ok(self.user(username).await?.ok_or_else(|| unknown("user", username))?.id)
    }

    async fn channel_id(&self, name: &str) -> ImksResult<Uuid> {
        Ok(self.channel_named(name).await?.ok_or_else(|| unknown("channel", name))?.id)
    }

    pub(super) async fn member(&self, user: Uuid, channel: Uuid) -> ImksResult<Option<Member>> {
        Ok(on!(read self.db(), pool => {
            sqlx::query_as(ONE).bind(user).bind(channel).fetch_optional(pool).await?
        }))
    }

    /// Returns memberships of a user in channels with ids above `after`, ordered by channel id.
    pub(super) async fn memberships_page(
        &self,
        user: Uuid,
        after: Uuid,
        limit: i64,
    ) -> ImksResult<Vec<Member>> {
        Ok(on!(read self.db(), pool => {
            sqlx::query_as(OF_USER).bind(user).bind(after).bind(limit).fetch_all(pool).await?
        }))
    }

    /// Returns members of a channel with user ids above `after`, ordered by user id.
    pub(super) async fn members_page(
        &self,
        channel: Uuid,
        after: Uuid,
        limit: i64,
    ) -> ImksResult<Vec<Member>> {
        Ok(on!(read self.db(), pool => {
            sqlx::query_as(OF_CHANNEL).bind(channel).bind(after).bind(limit).fetch_all(pool).await?
        }))
    }
}

async fn join(db: &Db, channel: Uuid, user: Uuid, role: Uuid, now: Micros) -> ImksResult<()> {
    transaction!(db, tx => {
        sqlx::query(JOIN).bind(channel).bind(user).bind(role).bind(now).execute(&mut *tx).await?;
        record!(tx, Kind::Joined, user: Some(user), channel: Some(channel), session: None, at: now);
    });
    Ok(())
}

async fn leave(db: &Db, channel: Uuid, user: Uuid, now: Micros) -> ImksResult<bool> {
    Ok(transaction!(db, tx => {
        let left = sqlx::query(LEAVE).bind(channel).bind(user).execute(&mut *tx).await?.rows_affected() == 1;
        if left {
            record!(tx, Kind::Left, user: Some(user), channel: Some(channel), session: None, at: now);
        }
        left
    }))
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT m.channel_id, m.user_id, c.name AS channel_name, u.username, m.joined_at, m.notify_level, ",
            "m.muted_until, m.role_id, r.name AS role, r.bits, c.archived, c.read_only, c.slow_mode_s, c.version ",
            "FROM directory_member m JOIN directory_channel c ON c.id = m.channel_id ",
            "JOIN directory_user u ON u.id = m.user_id AND u.deleted_at IS NULL ",
            "JOIN directory_role r ON r.id = m.role_id ",
            $rest
        )
    };
}

/// The name of the channel that users of development tokens are members of.
pub(super) const GENERAL: &str = "general";
const ONE: &str = select!("WHERE m.user_id = $1 AND m.channel_id = $2");
const OF_USER: &str = select!("WHERE m.user_id = $1 AND m.channel_id > $2 ORDER BY m.channel_id LIMIT $3");
const OF_CHANNEL: &str = select!("WHERE m.channel_id = $1 AND m.user_id > $2 ORDER BY m.user_id LIMIT $3");
pub(super) const ROLE: &str = "SELECT id FROM directory_role WHERE name = $1";
pub(super) const JOIN: &str = "INSERT INTO directory_member (channel_id, user_id, role_id, joined_at) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (channel_id, user_id) DO UPDATE SET role_id = excluded.role_id";
const LEAVE: &str = "DELETE FROM directory_member WHERE channel_id = $1 AND user_id = $2";
