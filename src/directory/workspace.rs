//! The workspaces of the directory. Each channel that is not a direct conversation belongs to one.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::Directory;
use super::change::{Change, record};
use super::shown;
use super::user::{CHANGES_AT_ONCE, LIST_MAX, checked_name, unknown};
use crate::clock::{Micros, Timestamp, now_micros};
use crate::error::{ImksError, ImksResult, Precondition};
use crate::models::db::{Db, on, transaction};

/// A workspace of the directory.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, JsonSchema)]
pub struct Workspace {
    /// The id of the workspace.
    pub id: Uuid,
    /// The name, which is unique.
    pub name: String,
    /// When the workspace was created.
    #[serde(serialize_with = "shown::time")]
    #[schemars(with = "Timestamp")]
    pub created_at: Micros,
}

impl Directory {
    /// Creates a workspace without channels and members.
    ///
    /// # Errors
    /// `InvalidInput` if the name is not allowed; `Conflict` if it is taken; `Database`.
    pub async fn create_workspace(&self, name: &str) -> ImksResult<Workspace> {
        let name = checked_name("workspace", name)?;
        let workspace = Workspace { id: Uuid::now_v7(), name, created_at: now_micros() };
        let (db, row) = (self.db().clone(), workspace.clone());
        let done = self.settled(async move {
            Ok(on!(&db, pool => {
                sqlx::query(INSERT).bind(row.id).bind(row.name).bind(row.created_at).execute(pool).await?.rows_affected()
            }))
        });
        match done.await? {
            1 => Ok(workspace),
            _ => Err(ImksError::Conflict { what: "workspace", name: workspace.name }),
        }
    }

    /// Returns the workspace with this name or id.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn workspace(&self, name: &str) -> ImksResult<Workspace> {
        self.workspace_if_any(name).await?.ok_or_else(|| unknown("workspace", name))
    }

    /// Returns the workspace with this name or id, if there is one.
    ///
    /// # Errors
    /// `Database`.
    pub async fn workspace_if_any(&self, name: &str) -> ImksResult<Option<Workspace>> {
        let id = Uuid::parse_str(name).unwrap_or_default();
        Ok(on!(read self.db(), pool => {
            sqlx::query_as(FIND).bind(name).bind(id).fetch_optional(pool).await?
        }))
    }

    /// Returns all workspaces, ordered by name, at most 10,000.
    ///
    /// # Errors
    /// `Database`.
    pub async fn workspaces(&self) -> ImksResult<Vec<Workspace>> {
        Ok(on!(read self.db(), pool => sqlx::query_as(ALL).bind(LIST_MAX).fetch_all(pool).await?))
    }

    /// Gives a workspace another name.
    ///
    /// # Errors
    /// `UnknownName`; `InvalidInput` if the name is not allowed; `Conflict` if it is taken; `Database`.
    pub async fn rename_workspace(&self, name: &str, to: &str) -> ImksResult<Workspace> {
        let workspace = self.workspace(name).await?;
        let name = checked_name("workspace", to)?;
        let (db, id, new) = (self.db().clone(), workspace.id, name.clone());
        let done = self.settled(async move {
            Ok(on!(&db, pool => sqlx::query(RENAME).bind(id).bind(new).execute(pool).await?.rows_affected()))
        });
        match done.await? {
            1 => Ok(Workspace { name, ..workspace }),
            _ => Err(ImksError::Conflict { what: "workspace", name }),
        }
    }

    /// Removes a workspace with its members, roles and bans.
    ///
    /// # Errors
    /// `UnknownName`; `FailedPrecondition` if it has channels, or is the first one; `Database`.
    pub async fn remove_workspace(&self, name: &str) -> ImksResult<()> {
        let workspace = self.workspace(name).await?.id;
        if workspace == MAIN {
            return Err(ImksError::FailedPrecondition(Precondition::FirstWorkspace));
        }
        let db = self.db().clone();
        self.settled(async move { remove(&db, workspace, now_micros()).await }).await
    }
}

async fn remove(db: &Db, workspace: Uuid, now: Micros) -> ImksResult<()> {
    transaction!(db, tx => {
        // Nothing but the row of the workspace says that it exists, so whoever adds to it locks that row.
        sqlx::query(DELETE).bind(workspace).execute(&mut *tx).await?;
        let channels: i64 = sqlx::query_scalar(CHANNELS).bind(workspace).fetch_one(&mut *tx).await?;
        if channels > 0 {
            Err(ImksError::FailedPrecondition(Precondition::WorkspaceInUse))?;
        }
        let members: Vec<Uuid> = sqlx::query_scalar(DELETE_MEMBERS).bind(workspace).fetch_all(&mut *tx).await?;
        for sql in DELETE_REST {
            sqlx::query(sql).bind(workspace).execute(&mut *tx).await?;
        }
        let changes: Vec<Change> =
            members.into_iter().map(|user| Change::permissions(Some(user), None)).collect();
        for changes in changes.chunks(CHANGES_AT_ONCE) {
            record!(tx, now, changes);
        }
    });
    Ok(())
}

/// The id of the workspace that exists from the start, as text, for commands that name no workspace.
pub const FIRST_WORKSPACE: &str = "00000000-0000-7000-8000-000000000010";
/// The workspace that exists from the start; names without a workspace are in it.
pub(super) const MAIN: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0010);
/// Locks the row of a workspace until the transaction ends, and tells whether it exists.
pub(super) const LOCK: &str = "UPDATE directory_workspace SET name = name WHERE id = $1";
pub(super) const INSERT: &str =
    "INSERT INTO directory_workspace (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const FIND: &str = "SELECT id, name, created_at FROM directory_workspace WHERE name = $1 OR id = $2";
const ALL: &str = "SELECT id, name, created_at FROM directory_workspace ORDER BY name LIMIT $1";
const RENAME: &str = "UPDATE directory_workspace SET name = $2 WHERE id = $1 AND NOT EXISTS \
     (SELECT 1 FROM directory_workspace WHERE name = $2 AND id <> $1)";
const DELETE: &str = "DELETE FROM directory_workspace WHERE id = $1";
const CHANNELS: &str = "SELECT COUNT(*) FROM directory_channel WHERE workspace_id = $1";
const DELETE_MEMBERS: &str =
    "DELETE FROM directory_workspace_member WHERE workspace_id = $1 RETURNING user_id";
const DELETE_REST: [&str; 4] = [
    "DELETE FROM directory_member_role WHERE place_id = $1",
    "DELETE FROM directory_ban WHERE place_id = $1",
    "DELETE FROM directory_role WHERE workspace_id = $1",
    "DELETE FROM directory_emoji WHERE workspace_id = $1",
];
