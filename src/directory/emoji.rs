//! Custom emoji: pictures that messages and reactions of a workspace name as `:name:`.

use std::fmt::Write;

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::service::id;
use super::status::failed;
use super::user::unknown;
use super::webhook::checked_picture;
use super::{Directory, shown};
use crate::clock::{Micros, Timestamp, now_micros};
use crate::error::{ImksError, ImksResult};
use crate::models::db::on;
use crate::pb::v1;
use crate::secret::sha256;

/// A custom emoji.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, JsonSchema)]
#[schemars(rename = "DirectoryEmoji")]
pub struct CustomEmoji {
    /// The id.
    pub id: Uuid,
    /// The workspace that it belongs to.
    pub workspace_id: Uuid,
    /// What stands between the colons; unique in the workspace.
    pub name: String,
    /// The address of the picture.
    pub image_url: String,
    /// When it was made.
    #[serde(serialize_with = "shown::time")]
    #[schemars(with = "Timestamp")]
    pub created_at: Micros,
}

impl Directory {
    /// Adds a custom emoji to a workspace.
    ///
    /// # Errors
    /// `UnknownName`; `InvalidInput` if the name or the picture is not allowed; `Conflict` if the name is taken;
    /// `LimitReached` if the workspace has 1,000; `Database`.
    pub async fn create_emoji(
        &self,
        workspace: &str,
        name: &str,
        image_url: &str,
    ) -> ImksResult<CustomEmoji> {
        let workspace_id = self.workspace(workspace).await?.id;
        let (name, image_url) = (checked_name(name)?, checked_picture("picture", image_url)?);
        if image_url.is_empty() {
            return Err(ImksError::invalid("picture", "is missing"));
        }
        if self.emoji_of(workspace_id).await?.len() >= EMOJI_MAX {
            return Err(ImksError::LimitReached("emoji"));
        }
        let emoji =
            CustomEmoji { id: Uuid::now_v7(), workspace_id, name, image_url, created_at: now_micros() };
        let (db, row) = (self.db().clone(), emoji.clone());
        let done = self.settled(async move {
            Ok(on!(&db, pool => {
                sqlx::query(INSERT)
                    .bind(row.id).bind(row.workspace_id).bind(row.name).bind(row.image_url).bind(row.created_at)
                    .execute(pool).await?.rows_affected()
            }))
        });
        match done.await? {
            1 => Ok(emoji),
            _ => Err(ImksError::Conflict { what: "emoji", name: emoji.name }),
        }
    }

    /// Returns the custom emoji of a workspace, ordered by name.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn emoji(&self, workspace: &str) -> ImksResult<Vec<CustomEmoji>> {
        let workspace = self.workspace(workspace).await?.id;
        self.emoji_of(workspace).await
    }

    /// Removes a custom emoji. Messages and reactions keep its name.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn remove_emoji(&self, workspace: &str, name: &str) -> ImksResult<()> {
        let workspace = self.workspace(workspace).await?.id;
        let (db, gone) = (self.db().clone(), name.to_owned());
        let removed = self.settled(async move {
            Ok(on!(&db, pool => sqlx::query(DELETE).bind(workspace).bind(gone).execute(pool).await?.rows_affected()))
        });
        if removed.await? == 1 { Ok(()) } else { Err(unknown("emoji", name)) }
    }

    async fn emoji_of(&self, workspace: Uuid) -> ImksResult<Vec<CustomEmoji>> {
        Ok(on!(read self.db(), pool => {
            sqlx::query_as(OF_WORKSPACE).bind(workspace).fetch_all(pool).await?
        }))
    }

    async fn emoji_by_id(&self, id: Uuid) -> ImksResult<Option<CustomEmoji>> {
        Ok(on!(read self.db(), pool => sqlx::query_as(BY_ID).bind(id).fetch_optional(pool).await?))
    }
}

#[tonic::async_trait]
impl v1::emoji_service_server::EmojiService for Directory {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let emoji = self.emoji_by_id(id(&request.into_inner().emoji_id)?).await.map_err(failed)?;
        Ok(Response::new(v1::GetResponse { emoji: emoji.map(Into::into) }))
    }

    async fn list_workspace(
        &self,
        request: Request<v1::ListWorkspaceRequest>,
    ) -> Result<Response<v1::ListWorkspaceResponse>, Status> {
        let request = request.into_inner();
        let emoji = self.emoji_of(id(&request.workspace_id)?).await.map_err(failed)?;
        let etag = etag(&emoji).map_err(failed)?;
        if etag == request.etag {
            let answer = v1::ListWorkspaceResponse { etag, not_modified: true, ..Default::default() };
            return Ok(Response::new(answer));
        }
        let emoji = emoji.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListWorkspaceResponse { emoji, etag, not_modified: false }))
    }
}

impl From<CustomEmoji> for v1::Emoji {
    fn from(emoji: CustomEmoji) -> Self {
        Self {
            id: emoji.id.to_string(),
            workspace_id: emoji.workspace_id.to_string(),
            name: emoji.name,
            image_url: emoji.image_url,
        }
    }
}

/// Returns a text that changes with the list. What an emoji shows never changes: it is removed and added again.
fn etag(emoji: &[CustomEmoji]) -> ImksResult<String> {
    let ids: Vec<u8> = emoji.iter().flat_map(|emoji| *emoji.id.as_bytes()).collect();
    let mut text = String::new();
    for byte in &sha256(&ids)?[..ETAG_BYTES] {
        // Writing into a text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

fn checked_name(name: &str) -> ImksResult<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
        let rule = format!("must have 1 to {NAME_BYTES_MAX} letters, digits, `_`, `+` or `-` of ASCII");
        return Err(ImksError::invalid("name", rule));
    }
    Ok(name.to_owned())
}

/// The most custom emoji of one workspace.
const EMOJI_MAX: usize = 1_000;
/// The longest name, in bytes: with its colons, as long as the emoji of a reaction may be.
const NAME_BYTES_MAX: usize = 62;
const ETAG_BYTES: usize = 8;
const INSERT: &str = "INSERT INTO directory_emoji (id, workspace_id, name, image_url, created_at) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
const OF_WORKSPACE: &str = "SELECT id, workspace_id, name, image_url, created_at FROM directory_emoji \
     WHERE workspace_id = $1 ORDER BY name";
const BY_ID: &str = "SELECT id, workspace_id, name, image_url, created_at FROM directory_emoji WHERE id = $1";
const DELETE: &str = "DELETE FROM directory_emoji WHERE workspace_id = $1 AND name = $2";
