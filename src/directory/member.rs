//! The members of workspaces and channels, and their roles there.

use std::collections::{BTreeSet, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::change::{Change, record};
use super::place::{Place, not_a_channel};
use super::role::MEMBER;
use super::user::{CHANGES_AT_ONCE, LIST_MAX, unknown};
use super::{Directory, NewChannel, RoleName, User, shown};
use crate::clock::{Micros, Timestamp, now_micros};
use crate::error::{ImksError, ImksResult, Precondition};
use crate::models::db::{Db, on, transaction};
use crate::pb::v1::membership::NotifyLevel as Level;

/// The membership of a user in a channel.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, JsonSchema)]
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
    #[serde(serialize_with = "shown::time")]
    #[schemars(with = "Timestamp")]
    pub joined_at: Micros,
    /// The number of the channel's last message when the user joined, if it was known.
    pub joined_seq: Option<i64>,
    /// What the member is notified of: the number of the level in core/v1/member.proto, and its name in JSON.
    #[serde(serialize_with = "shown::notify_level")]
    #[schemars(schema_with = "shown::notify_levels")]
    pub notify_level: i64,
    /// The time until which the channel is muted for the member; 0, and `null` in JSON, if it is not muted.
    #[serde(serialize_with = "shown::time_or_none")]
    #[schemars(with = "Option<Timestamp>")]
    pub muted_until: Micros,
    /// The workspace of the channel.
    #[serde(skip)]
    pub workspace_id: Option<Uuid>,
    /// The roles of the member in the channel and in its workspace.
    #[sqlx(skip)]
    pub roles: Vec<HeldRole>,
}

/// The membership of a user in a workspace.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, JsonSchema)]
pub struct WorkspaceMember {
    /// The id of the workspace.
    pub workspace_id: Uuid,
    /// The id of the user.
    pub user_id: Uuid,
    /// The name of the user.
    pub username: String,
    /// When the user joined.
    #[serde(serialize_with = "shown::time")]
    #[schemars(with = "Timestamp")]
    pub joined_at: Micros,
    /// The roles of the member in the workspace.
    #[sqlx(skip)]
    pub roles: Vec<HeldRole>,
}

/// A role that a member has in a place.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, JsonSchema)]
pub struct HeldRole {
    /// The id of the role.
    pub id: Uuid,
    /// The name of the role.
    pub name: String,
    /// The channel or workspace in which the member has it.
    pub place_id: Uuid,
    /// The user who has it.
    #[serde(skip)]
    pub user_id: Uuid,
}

/// The messages that a member is notified of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum NotifyLevel {
    /// Every message.
    All,
    /// Messages that mention the member.
    Mentions,
    /// No messages.
    None,
}

impl NotifyLevel {
    fn number(self) -> i64 {
        i64::from(i32::from(match self {
            Self::All => Level::All,
            Self::Mentions => Level::Mentions,
            Self::None => Level::None,
        }))
    }
}

impl Directory {
    /// Adds a user to a channel with one of the roles that every workspace has, or changes the roles of a member
    /// to it. Returns whether anything changed.
    ///
    /// # Errors
    /// The errors of [`Directory::set_member`].
    pub async fn add_member(&self, channel: &str, username: &str, role: RoleName) -> ImksResult<bool> {
        self.set_member(channel, username, &[role.as_str().to_owned()]).await
    }

    /// Makes a user a member of a place with exactly these roles there. Without roles, a new member is `member`,
    /// and the roles of a member stay. Returns whether anything changed.
    ///
    /// # Errors
    /// `UnknownName`; `InvalidInput` for an unknown role; `FailedPrecondition` if the user is banned, if the place is a
    /// direct conversation, or if one of the two belongs to the first page; `Database`.
    pub async fn set_member(&self, place: &str, username: &str, roles: &[String]) -> ImksResult<bool> {
        let user = self.user_by_name(username).await?.id;
        let place = self.place(place).await?;
        let roles = match (roles, place.workspace) {
            (_, None) => return Err(ImksError::FailedPrecondition(Precondition::DirectConversation)),
            ([], _) => None,
            (names, Some(workspace)) => Some(self.role_ids(workspace, names).await?),
        };
        let db = self.db().clone();
        self.settled(async move { enter(&db, place, user, roles, now_micros()).await }).await
    }

    /// Lets a user join a channel by themselves, as `member`. Returns whether they were not in it before.
    ///
    /// # Errors
    /// `UnknownName`, also for a channel that the user cannot see, as who is banned from it; `FailedPrecondition` for
    /// a ban that begins meanwhile; `Database`.
    pub async fn join(&self, channel: &str, username: &str) -> ImksResult<bool> {
        let (user, found) = (self.user_by_name(username).await?.id, self.channel_by_name(channel).await?);
        if self.effective(user, &[found.id]).await?.iter().all(|effective| effective.bits == 0) {
            return Err(unknown("channel", channel));
        }
        let (db, place) = (self.db().clone(), Place::from(&found));
        self.settled(async move { enter(&db, place, user, None, now_micros()).await }).await
    }

    /// Removes a member from a channel, or from a workspace and all of its channels. The member's rights end on
    /// every node that follows the directory.
    ///
    /// # Errors
    /// `UnknownName` if there is no such membership; `FailedPrecondition` for a direct conversation; `Database`.
    pub async fn remove_member(&self, place: &str, username: &str) -> ImksResult<()> {
        let user = self.user_by_name(username).await?.id;
        let place = self.place(place).await?;
        if place.workspace.is_none() {
            return Err(ImksError::FailedPrecondition(Precondition::DirectConversation));
        }
        let db = self.db().clone();
        let left = self.settled(async move { leave(&db, place, user, now_micros()).await }).await?;
        if left { Ok(()) } else { Err(unknown("member", username)) }
    }

    /// Sets which messages of a channel a member is notified of, and until when the channel is muted (0: not).
    /// `None` leaves a setting as it is.
    ///
    /// # Errors
    /// `UnknownName` if there is no such membership; `Database`.
    pub async fn set_notifications(
        &self,
        channel: &str,
        username: &str,
        notify: Option<NotifyLevel>,
        muted_until: Option<Micros>,
    ) -> ImksResult<()> {
        let user = self.user_by_name(username).await?.id;
        let channel = self.place(channel).await?.channel.ok_or_else(|| not_a_channel(channel))?;
        let (db, notify) = (self.db().clone(), notify.map(NotifyLevel::number));
        let done = self.settled(async move {
            Ok(transaction!(&db, tx => {
                let done = sqlx::query(SET).bind(channel).bind(user).bind(notify).bind(muted_until)
                    .execute(&mut *tx).await?.rows_affected() == 1;
                if done {
                    record!(tx, now_micros(), &[Change::joined(user, channel)]);
                }
                done
            }))
        });
        if done.await? { Ok(()) } else { Err(unknown("member", username)) }
    }

    /// Returns the members of a channel, at most 10,000.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn members(&self, channel: &str) -> ImksResult<Vec<Member>> {
        let channel = self.channel_by_name(channel).await?.id;
        self.members_page(channel, Uuid::nil(), LIST_MAX).await
    }

    /// Returns the members of a workspace, at most 10,000.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn workspace_members(&self, workspace: &str) -> ImksResult<Vec<WorkspaceMember>> {
        let workspace = self.workspace(workspace).await?.id;
        let mut members: Vec<WorkspaceMember> = on!(read self.db(), pool => {
            sqlx::query_as(OF_WORKSPACE).bind(workspace).bind(LIST_MAX).fetch_all(pool).await?
        });
        let users = members.iter().map(|member| member.user_id).collect();
        let mut held = self.held_roles(&users, &BTreeSet::from([workspace])).await?;
        for member in &mut members {
            member.roles = held.remove(&(member.user_id, workspace)).unwrap_or_default();
        }
        Ok(members)
    }

    /// Returns the user as a member of the channel `general`, and creates both if they are missing. For
    /// development.
    ///
    /// # Errors
    /// `InvalidInput` if the name is not allowed; `FailedPrecondition` if it is that of a visitor of the first page;
    /// `Database`.
    pub async fn ensure_development(&self, username: &str) -> ImksResult<User> {
        let user = self.ensure_user(username).await?;
        let general = NewChannel { name: GENERAL.into(), ..NewChannel::default() };
        let channel = self.ensure_channel(general).await?;
        if self.member(user.id, channel.id).await?.is_none() {
            self.add_member(GENERAL, username, RoleName::default()).await?;
        }
        Ok(user)
    }

    pub(super) async fn member(&self, user: Uuid, channel: Uuid) -> ImksResult<Option<Member>> {
        let members = on!(read self.db(), pool => {
            sqlx::query_as(ONE).bind(user).bind(channel).fetch_all(pool).await?
        });
        Ok(self.with_roles(members).await?.pop())
    }

    /// Returns memberships of a user in channels with ids above `after`, ordered by channel id.
    pub(super) async fn memberships_page(
        &self,
        user: Uuid,
        after: Uuid,
        limit: i64,
    ) -> ImksResult<Vec<Member>> {
        let members = on!(read self.db(), pool => {
            sqlx::query_as(OF_USER).bind(user).bind(after).bind(limit).fetch_all(pool).await?
        });
        self.with_roles(members).await
    }

    /// Returns members of a channel with user ids above `after`, ordered by user id.
    pub(super) async fn members_page(
        &self,
        channel: Uuid,
        after: Uuid,
        limit: i64,
    ) -> ImksResult<Vec<Member>> {
        let members = on!(read self.db(), pool => {
            sqlx::query_as(OF_CHANNEL).bind(channel).bind(after).bind(limit).fetch_all(pool).await?
        });
        self.with_roles(members).await
    }

    /// Returns the users above `after` who are members of a channel and have one of the roles there or in its
    /// workspace, ordered by id.
    pub(super) async fn members_with_roles(
        &self,
        channel: Uuid,
        roles: &[Uuid],
        after: Uuid,
        limit: i64,
    ) -> ImksResult<Vec<Uuid>> {
        if roles.is_empty() {
            return Ok(Vec::new());
        }
        Ok(on!(read self.db(), pool => {
            let mut query = QueryBuilder::new(WITH_ROLES);
            query.push_bind(channel).push(" AND m.user_id > ").push_bind(after).push(HAVE_ONE_OF);
            let mut list = query.separated(", ");
            roles.iter().for_each(|id| { list.push_bind(*id); });
            query.push(")) ORDER BY m.user_id LIMIT ").push_bind(limit);
            query.build_query_scalar().fetch_all(pool).await?
        }))
    }

    async fn with_roles(&self, mut members: Vec<Member>) -> ImksResult<Vec<Member>> {
        let users = members.iter().map(|member| member.user_id).collect();
        let places = members
            .iter()
            .flat_map(|member| [Some(member.channel_id), member.workspace_id])
            .flatten()
            .collect();
        let held = self.held_roles(&users, &places).await?;
        for member in &mut members {
            let places = [Some(member.channel_id), member.workspace_id].into_iter().flatten();
            let roles = places.filter_map(|place| held.get(&(member.user_id, place)));
            member.roles = roles.flatten().cloned().collect();
        }
        Ok(members)
    }

    async fn held_roles(
        &self,
        users: &BTreeSet<Uuid>,
        places: &BTreeSet<Uuid>,
    ) -> ImksResult<HashMap<(Uuid, Uuid), Vec<HeldRole>>> {
        let mut held: HashMap<(Uuid, Uuid), Vec<HeldRole>> = HashMap::new();
        if users.is_empty() {
            return Ok(held);
        }
        let rows: Vec<HeldRole> = on!(read self.db(), pool => {
            let mut query = QueryBuilder::new(HELD);
            let mut list = query.separated(", ");
            users.iter().for_each(|id| { list.push_bind(*id); });
            query.push(") AND m.place_id IN (");
            let mut list = query.separated(", ");
            places.iter().for_each(|id| { list.push_bind(*id); });
            query.push(") ORDER BY r.name");
            query.build_query_as().fetch_all(pool).await?
        });
        for role in rows {
            held.entry((role.user_id, role.place_id)).or_default().push(role);
        }
        Ok(held)
    }
}

/// Makes a user a member of a place, in the transaction `tx`, and evaluates to whether anything changed. Roles of
/// `None` are those that the member has, or `member` for a new one.
macro_rules! admit {
    ($tx:expr, $place:expr, $user:expr, $roles:expr, $now:expr) => {{
        use $crate::directory::member;
        let (place, user, now): (Place, Uuid, Micros) = ($place, $user, $now);
        if !$crate::directory::visitor::may_enter(user, place.workspace) {
            Err(ImksError::FailedPrecondition(Precondition::Playground))?;
        }
        // Whoever changes what a user is a member of locks the user first, so that a ban and a membership made at
        // the same time do not miss each other.
        if sqlx::query($crate::directory::user::LOCK_USER).bind(user).execute(&mut *$tx).await?.rows_affected() != 1 {
            Err($crate::directory::user::unknown("user", &user.to_string()))?;
        }
        let lock = if place.channel.is_some() { member::LOCK_CHANNEL } else { super::workspace::LOCK };
        if sqlx::query(lock).bind(place.id()).execute(&mut *$tx).await?.rows_affected() != 1 {
            Err($crate::directory::user::unknown("channel", &place.id().to_string()))?;
        }
        let bans: i64 = sqlx::query_scalar(member::BANS)
            .bind(user).bind(place.id()).bind(place.workspace_id()).bind(now)
            .fetch_one(&mut *$tx).await?;
        if bans > 0 {
            Err(ImksError::FailedPrecondition(Precondition::Banned))?;
        }
        let join = if place.channel.is_some() { member::JOIN } else { member::JOIN_WORKSPACE };
        let is_new =
            sqlx::query(join).bind(place.id()).bind(user).bind(now).execute(&mut *$tx).await?.rows_affected() == 1;
        let before: Vec<Uuid> =
            sqlx::query_scalar(member::ROLES).bind(user).bind(place.id()).fetch_all(&mut *$tx).await?;
        let roles: Option<Vec<Uuid>> = $roles;
        let roles = roles.unwrap_or_else(|| if is_new { vec![MEMBER] } else { before.clone() });
        let is_changed = is_new || roles != before;
        if is_changed {
            sqlx::query(member::TAKE_ROLES).bind(user).bind(place.id()).execute(&mut *$tx).await?;
            for role in &roles {
                sqlx::query(member::GIVE_ROLE).bind(user).bind(place.id()).bind(role).execute(&mut *$tx).await?;
            }
        }
        is_changed
    }};
}
pub(super) use admit;

/// Ends what a user is a member of in a place, in the transaction `tx`, and evaluates to the changes.
macro_rules! dismiss {
    ($tx:expr, $place:expr, $user:expr) => {{
        use $crate::directory::member;
        let (place, user): (Place, Uuid) = ($place, $user);
        sqlx::query($crate::directory::user::LOCK_USER).bind(user).execute(&mut *$tx).await?;
        let channels: Vec<Uuid> =
            sqlx::query_scalar(member::LEAVE).bind(user).bind(place.id()).fetch_all(&mut *$tx).await?;
        sqlx::query(member::LEAVE_ROLES).bind(user).bind(place.id()).execute(&mut *$tx).await?;
        let workspaces = sqlx::query(member::LEAVE_WORKSPACE)
            .bind(user)
            .bind(place.id())
            .execute(&mut *$tx)
            .await?
            .rows_affected();
        let mut changes: Vec<Change> =
            channels.into_iter().map(|channel| Change::left(user, channel)).collect();
        if workspaces > 0 {
            changes.push(Change::permissions(Some(user), None));
        }
        changes
    }};
}
pub(super) use dismiss;

async fn enter(db: &Db, place: Place, user: Uuid, roles: Option<Vec<Uuid>>, now: Micros) -> ImksResult<bool> {
    Ok(transaction!(db, tx => {
        let is_changed = admit!(tx, place, user, roles, now);
        let channels: Vec<Uuid> = match place.channel {
            Some(channel) => vec![channel],
            None => sqlx::query_scalar(CHANNELS_IN).bind(user).bind(place.id()).fetch_all(&mut *tx).await?,
        };
        if is_changed {
            let mut changes: Vec<Change> =
                channels.into_iter().map(|channel| Change::joined(user, channel)).collect();
            if place.channel.is_none() {
                changes.push(Change::permissions(Some(user), None));
            }
            for changes in changes.chunks(CHANGES_AT_ONCE) {
                record!(tx, now, changes);
            }
        }
        is_changed
    }))
}

async fn leave(db: &Db, place: Place, user: Uuid, now: Micros) -> ImksResult<bool> {
    Ok(transaction!(db, tx => {
        let changes = dismiss!(tx, place, user);
        for changes in changes.chunks(CHANGES_AT_ONCE) {
            record!(tx, now, changes);
        }
        !changes.is_empty()
    }))
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT m.channel_id, m.user_id, c.name AS channel_name, u.username, m.joined_at, m.joined_seq, ",
            "m.notify_level, m.muted_until, c.workspace_id ",
            "FROM directory_member m JOIN directory_channel c ON c.id = m.channel_id ",
            "JOIN directory_user u ON u.id = m.user_id AND u.deleted_at IS NULL ",
            $rest
        )
    };
}

/// The name of the channel that users of development tokens are members of.
pub(super) const GENERAL: &str = "general";
const ONE: &str = select!("WHERE m.user_id = $1 AND m.channel_id = $2");
const OF_USER: &str = select!("WHERE m.user_id = $1 AND m.channel_id > $2 ORDER BY m.channel_id LIMIT $3");
const OF_CHANNEL: &str = select!("WHERE m.channel_id = $1 AND m.user_id > $2 ORDER BY m.user_id LIMIT $3");
const OF_WORKSPACE: &str = "SELECT m.workspace_id, m.user_id, u.username, m.joined_at \
     FROM directory_workspace_member m JOIN directory_user u ON u.id = m.user_id AND u.deleted_at IS NULL \
     WHERE m.workspace_id = $1 ORDER BY u.username LIMIT $2";
const HELD: &str = "SELECT m.role_id AS id, r.name, m.place_id, m.user_id FROM directory_member_role m \
     JOIN directory_role r ON r.id = m.role_id WHERE m.user_id IN (";
const WITH_ROLES: &str = "SELECT m.user_id FROM directory_member m \
     JOIN directory_channel c ON c.id = m.channel_id \
     JOIN directory_user u ON u.id = m.user_id AND u.deleted_at IS NULL WHERE m.channel_id = ";
const HAVE_ONE_OF: &str = " AND EXISTS (SELECT 1 FROM directory_member_role r WHERE r.user_id = m.user_id \
     AND r.place_id IN (c.id, c.workspace_id) AND r.role_id IN (";
const CHANNELS_IN: &str = "SELECT m.channel_id FROM directory_member m \
     JOIN directory_channel c ON c.id = m.channel_id WHERE m.user_id = $1 AND c.workspace_id = $2";
const SET: &str = "UPDATE directory_member SET notify_level = COALESCE($3, notify_level), \
     muted_until = COALESCE($4, muted_until) WHERE channel_id = $1 AND user_id = $2";
/// Locks the row of a channel until the transaction ends, and tells whether it exists.
pub(super) const LOCK_CHANNEL: &str = "UPDATE directory_channel SET name = name WHERE id = $1";
pub(super) const BANS: &str = "SELECT COUNT(*) FROM directory_ban WHERE user_id = $1 AND place_id IN ($2, $3) \
     AND (ends_at IS NULL OR ends_at > $4)";
pub(super) const JOIN: &str = "INSERT INTO directory_member (channel_id, user_id, joined_at, joined_seq) \
     VALUES ($1, $2, $3, (SELECT last_seq FROM channel_state WHERE channel_id = $1)) ON CONFLICT DO NOTHING";
pub(super) const JOIN_WORKSPACE: &str = "INSERT INTO directory_workspace_member (workspace_id, user_id, joined_at) VALUES ($1, $2, $3) \
     ON CONFLICT DO NOTHING";
pub(super) const ROLES: &str =
    "SELECT role_id FROM directory_member_role WHERE user_id = $1 AND place_id = $2 ORDER BY role_id";
pub(super) const TAKE_ROLES: &str = "DELETE FROM directory_member_role WHERE user_id = $1 AND place_id = $2";
pub(super) const GIVE_ROLE: &str =
    "INSERT INTO directory_member_role (user_id, place_id, role_id) VALUES ($1, $2, $3)";
pub(super) const LEAVE: &str = "DELETE FROM directory_member WHERE user_id = $1 AND (channel_id = $2 \
     OR channel_id IN (SELECT id FROM directory_channel WHERE workspace_id = $2)) RETURNING channel_id";
pub(super) const LEAVE_ROLES: &str = "DELETE FROM directory_member_role WHERE user_id = $1 AND (place_id = $2 \
     OR place_id IN (SELECT id FROM directory_channel WHERE workspace_id = $2))";
pub(super) const LEAVE_WORKSPACE: &str =
    "DELETE FROM directory_workspace_member WHERE user_id = $1 AND workspace_id = $2";
