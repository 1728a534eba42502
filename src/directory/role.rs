//! Roles: named sets of permissions. Four of them exist in every workspace; a workspace may have further ones.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::Directory;
use super::change::{Change, record};
use super::permission::VIEW_CHANNEL;
use super::shown;
use super::user::{checked_name, unknown};
use crate::clock::{Micros, now_micros};
use crate::error::{ImksError, ImksResult, Precondition};
use crate::models::db::{Db, on, transaction};

/// A role of the directory.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, JsonSchema)]
pub struct Role {
    /// The id of the role.
    pub id: Uuid,
    /// The name, which is unique in its workspace.
    pub name: String,
    /// The workspace of the role. One that every workspace has belongs to none.
    pub workspace_id: Option<Uuid>,
    /// The permissions: a bit set of core/v1/permission.proto, and their names in JSON.
    #[serde(rename = "permissions", serialize_with = "shown::permissions")]
    #[schemars(schema_with = "shown::permission_list")]
    pub bits: i64,
}

/// The roles that every workspace has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Member => "member",
            Self::Moderator => "moderator",
            Self::Owner => "owner",
        }
    }
}

/// A change of a role. `None` leaves a property as it is.
#[derive(Debug, Clone, Default)]
pub struct RoleChange {
    /// The new name.
    pub name: Option<String>,
    /// The new permissions.
    pub bits: Option<u64>,
}

impl Directory {
    /// Creates a role of a workspace.
    ///
    /// # Errors
    /// `UnknownName`; `InvalidInput` if the name is not allowed; `Conflict` if it is taken; `LimitReached`;
    /// `Database`.
    pub async fn create_role(&self, workspace: &str, name: &str, bits: u64) -> ImksResult<Role> {
        let workspace = self.workspace(workspace).await?.id;
        let name = checked_name("role", name)?;
        if self.roles_of(workspace).await?.len() >= ROLES_MAX {
            return Err(ImksError::LimitReached("roles_per_workspace"));
        }
        let row = Role { id: Uuid::now_v7(), name, workspace_id: Some(workspace), bits: bits.cast_signed() };
        let (db, role) = (self.db().clone(), row.clone());
        if self.settled(async move { insert(&db, role).await }).await? {
            return Ok(row);
        }
        Err(ImksError::Conflict { what: "role", name: row.name })
    }

    /// Returns the roles that members of a workspace can have, ordered by name.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn roles(&self, workspace: &str) -> ImksResult<Vec<Role>> {
        let workspace = self.workspace(workspace).await?.id;
        self.roles_of(workspace).await
    }

    /// Returns the role of a workspace with this name or id.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn role(&self, workspace: &str, name: &str) -> ImksResult<Role> {
        let workspace = self.workspace(workspace).await?.id;
        self.role_if_any(workspace, name).await?.ok_or_else(|| unknown("role", name))
    }

    /// Changes a role. All members with the role have the new permissions within a second.
    ///
    /// # Errors
    /// `UnknownName`; `InvalidInput`; `Conflict`; `FailedPrecondition` for a role that every workspace has;
    /// `Database`.
    pub async fn set_role(&self, workspace: &str, name: &str, change: RoleChange) -> ImksResult<Role> {
        let old = self.own_role(workspace, name).await?;
        let mut new = old.clone();
        if let Some(name) = change.name {
            new.name = checked_name("role", &name)?;
        }
        if let Some(bits) = change.bits {
            new.bits = bits.cast_signed();
        }
        if new == old {
            return Ok(old);
        }
        let (db, row) = (self.db().clone(), new.clone());
        match self.settled(async move { update(&db, old, row, now_micros()).await }).await? {
            true => Ok(new),
            false => Err(ImksError::Conflict { what: "role", name: new.name }),
        }
    }

    /// Removes a role, and takes it from all members that have it.
    ///
    /// # Errors
    /// `UnknownName`; `FailedPrecondition` for a role that every workspace has; `Database`.
    pub async fn remove_role(&self, workspace: &str, name: &str) -> ImksResult<()> {
        let role = self.own_role(workspace, name).await?;
        let db = self.db().clone();
        self.settled(async move { remove(&db, role, now_micros()).await }).await
    }

    async fn own_role(&self, workspace: &str, name: &str) -> ImksResult<Role> {
        let role = self.role(workspace, name).await?;
        match role.workspace_id {
            Some(_) => Ok(role),
            None => Err(ImksError::FailedPrecondition(Precondition::BuiltInRole)),
        }
    }

    async fn roles_of(&self, workspace: Uuid) -> ImksResult<Vec<Role>> {
        Ok(on!(read self.db(), pool => sqlx::query_as(ALL).bind(workspace).fetch_all(pool).await?))
    }

    async fn role_if_any(&self, workspace: Uuid, name: &str) -> ImksResult<Option<Role>> {
        let id = Uuid::parse_str(name).unwrap_or_default();
        Ok(on!(read self.db(), pool => {
            sqlx::query_as(FIND).bind(workspace).bind(name).bind(id).fetch_optional(pool).await?
        }))
    }

    /// Returns the ids of the roles with these names or ids, in order and each once.
    pub(super) async fn role_ids(&self, workspace: Uuid, names: &[String]) -> ImksResult<Vec<Uuid>> {
        let mut ids = Vec::with_capacity(names.len());
        for name in names {
            let Some(role) = self.role_if_any(workspace, name).await? else {
                let known: Vec<String> =
                    self.roles_of(workspace).await?.into_iter().map(|role| role.name).collect();
                let text = format!("there is no role {name:?}; there are {}", known.join(", "));
                return Err(ImksError::invalid("role", text));
            };
            ids.push(role.id);
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

/// Returns the changes for everybody whose permissions depend on a role. `pairs` are the memberships that the role
/// counts for, needed where it decides who sees a channel.
pub(super) fn affected(holders: &[Uuid], pairs: &[(Uuid, Uuid)]) -> Vec<Change> {
    if holders.len() > AFFECTED_MAX {
        return vec![Change::permissions(None, None)];
    }
    let mut changes: Vec<Change> =
        holders.iter().map(|user| Change::permissions(Some(*user), None)).collect();
    if pairs.len() <= AFFECTED_MAX {
        changes.extend(pairs.iter().map(|(user, channel)| Change::joined(*user, *channel)));
    }
    changes
}

async fn insert(db: &Db, role: Role) -> ImksResult<bool> {
    let workspace = role.workspace_id.unwrap_or_default();
    Ok(transaction!(db, tx => {
        let exists = sqlx::query(super::workspace::LOCK).bind(workspace).execute(&mut *tx).await?.rows_affected();
        let taken: i64 = sqlx::query_scalar(TAKEN).bind(workspace).bind(&role.name).bind(role.id)
            .fetch_one(&mut *tx).await?;
        if exists == 1 && taken == 0 {
            sqlx::query(INSERT)
                .bind(role.id).bind(&role.name).bind(role.bits).bind(workspace)
                .execute(&mut *tx).await?;
        }
        exists == 1 && taken == 0
    }))
}

async fn update(db: &Db, old: Role, new: Role, now: Micros) -> ImksResult<bool> {
    let workspace = new.workspace_id.unwrap_or_default();
    let shows = (old.bits ^ new.bits) & VIEW_CHANNEL.cast_signed() != 0;
    Ok(transaction!(db, tx => {
        sqlx::query(super::workspace::LOCK).bind(workspace).execute(&mut *tx).await?;
        let taken: i64 = sqlx::query_scalar(TAKEN).bind(workspace).bind(&new.name).bind(new.id)
            .fetch_one(&mut *tx).await?;
        if taken == 0 {
            sqlx::query(UPDATE).bind(new.id).bind(&new.name).bind(new.bits).execute(&mut *tx).await?;
            let holders: Vec<Uuid> =
                sqlx::query_scalar(HOLDERS).bind(new.id).bind(AFFECTED_LIMIT).fetch_all(&mut *tx).await?;
            let pairs: Vec<(Uuid, Uuid)> = match shows {
                true => sqlx::query_as(PAIRS).bind(new.id).bind(AFFECTED_LIMIT).fetch_all(&mut *tx).await?,
                false => Vec::new(),
            };
            record!(tx, now, &affected(&holders, &pairs));
        }
        taken == 0
    }))
}

async fn remove(db: &Db, role: Role, now: Micros) -> ImksResult<()> {
    let workspace = role.workspace_id.unwrap_or_default();
    transaction!(db, tx => {
        sqlx::query(super::workspace::LOCK).bind(workspace).execute(&mut *tx).await?;
        let holders: Vec<Uuid> =
            sqlx::query_scalar(HOLDERS).bind(role.id).bind(AFFECTED_LIMIT).fetch_all(&mut *tx).await?;
        let pairs: Vec<(Uuid, Uuid)> =
            sqlx::query_as(PAIRS).bind(role.id).bind(AFFECTED_LIMIT).fetch_all(&mut *tx).await?;
        for sql in DELETE {
            sqlx::query(sql).bind(role.id).execute(&mut *tx).await?;
        }
        record!(tx, now, &affected(&holders, &pairs));
    });
    Ok(())
}

/// The role `member`, which every workspace has.
pub(super) const MEMBER: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0002);
/// The number of roles in a workspace, those that every workspace has included.
const ROLES_MAX: usize = 250;
/// The number of users, and of memberships, that a change of a role or an override names one by one. Beyond it all
/// cached permissions are dropped, and who gained a channel sees it when they connect the next time.
pub(super) const AFFECTED_MAX: usize = 1_000;
/// One more than `AFFECTED_MAX`, to notice that there are more.
pub(super) const AFFECTED_LIMIT: i64 = 1_001;
const INSERT: &str = "INSERT INTO directory_role (id, name, bits, workspace_id) VALUES ($1, $2, $3, $4)";
/// Roles that a login brought with bare permissions are named `bits-…`, and belong to nobody else.
const ALL: &str = "SELECT id, name, bits, workspace_id FROM directory_role \
     WHERE workspace_id = $1 OR (workspace_id IS NULL AND name NOT LIKE 'bits-%') ORDER BY name";
const FIND: &str = "SELECT id, name, bits, workspace_id FROM directory_role \
     WHERE (workspace_id = $1 OR (workspace_id IS NULL AND name NOT LIKE 'bits-%')) AND (name = $2 OR id = $3)";
const TAKEN: &str = "SELECT COUNT(*) FROM directory_role \
     WHERE (workspace_id = $1 OR workspace_id IS NULL) AND name = $2 AND id <> $3";
const UPDATE: &str = "UPDATE directory_role SET name = $2, bits = $3 WHERE id = $1";
const DELETE: [&str; 3] = [
    "DELETE FROM directory_member_role WHERE role_id = $1",
    "DELETE FROM directory_override WHERE subject_id = $1",
    "DELETE FROM directory_role WHERE id = $1",
];
const HOLDERS: &str = "SELECT DISTINCT user_id FROM directory_member_role WHERE role_id = $1 LIMIT $2";
const PAIRS: &str = "SELECT DISTINCT m.user_id, m.channel_id FROM directory_member_role r \
     JOIN directory_member m ON m.user_id = r.user_id JOIN directory_channel c ON c.id = m.channel_id \
     WHERE r.role_id = $1 AND (c.id = r.place_id OR c.workspace_id = r.place_id) LIMIT $2";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_of_too_many_members_drops_everything_instead_of_naming_each() {
        let many = vec![Uuid::nil(); AFFECTED_MAX + 1];
        assert_eq!(affected(&many, &[]).len(), 1);
        assert_eq!(affected(&many[1..], &[(Uuid::nil(), Uuid::nil())]).len(), AFFECTED_MAX + 1);
    }
}
