//! Incoming webhooks: secret addresses under which programs post into a channel. Only a hash of the secret is stored.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::session::{hash, secret};
use super::status::failed;
use super::user::{LIST_MAX, unknown};
use super::{Directory, shown};
use crate::clock::{Micros, Timestamp, now_micros};
use crate::error::{ImksError, ImksResult};
use crate::models::db::on;
use crate::pb::v1;

/// An incoming webhook.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, JsonSchema)]
pub struct Webhook {
    /// The id, which is the author of its messages.
    pub id: Uuid,
    /// The channel that it posts into.
    pub channel_id: Uuid,
    /// The name that its messages show.
    pub name: String,
    /// The address of a picture; empty if there is none.
    pub avatar: String,
    /// When it was made.
    #[serde(serialize_with = "shown::time")]
    #[schemars(with = "Timestamp")]
    pub created_at: Micros,
}

/// An incoming webhook that was made, with the path of its address. The path is secret, and only known now.
#[derive(Clone, Serialize, JsonSchema)]
pub struct NewWebhook {
    /// The webhook.
    #[serde(flatten)]
    pub webhook: Webhook,
    /// The path under which programs post.
    pub path: String,
}

impl Directory {
    /// Makes an incoming webhook of a channel.
    ///
    /// # Errors
    /// `UnknownName`; `InvalidInput` if the name or the picture is not allowed; `Database`.
    pub async fn create_webhook(&self, channel: &str, name: &str, avatar: &str) -> ImksResult<NewWebhook> {
        let channel_id = self.channel_by_name(channel).await?.id;
        let (name, avatar) = (checked_name(name)?, checked_picture("avatar", avatar)?);
        let webhook = Webhook { id: Uuid::now_v7(), channel_id, name, avatar, created_at: now_micros() };
        let (secret, hash) = secret(PREFIX)?;
        let (db, row) = (self.db().clone(), webhook.clone());
        self.settled(async move {
            on!(&db, pool => {
                sqlx::query(INSERT)
                    .bind(row.id).bind(row.channel_id).bind(row.name).bind(row.avatar).bind(hash).bind(row.created_at)
                    .execute(pool).await.map(drop)?
            });
            Ok(())
        })
        .await?;
        Ok(NewWebhook { webhook, path: format!("{PATH}{secret}") })
    }

    /// Returns the incoming webhooks of a channel, ordered by name, at most 10,000.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn webhooks(&self, channel: &str) -> ImksResult<Vec<Webhook>> {
        let channel = self.channel_by_name(channel).await?.id;
        Ok(on!(read self.db(), pool => {
            sqlx::query_as(OF_CHANNEL).bind(channel).bind(LIST_MAX).fetch_all(pool).await?
        }))
    }

    /// Removes an incoming webhook: its address stands for nothing from then on.
    ///
    /// # Errors
    /// `UnknownName`; `Database`.
    pub async fn remove_webhook(&self, webhook: &str) -> ImksResult<()> {
        let id = Uuid::parse_str(webhook).map_err(|_| unknown("webhook", webhook))?;
        let db = self.db().clone();
        let removed = self.settled(async move {
            Ok(on!(&db, pool => sqlx::query(DELETE).bind(id).execute(pool).await?.rows_affected()))
        });
        if removed.await? == 1 { Ok(()) } else { Err(unknown("webhook", webhook)) }
    }

    async fn webhook(&self, token: &str) -> ImksResult<Option<Webhook>> {
        let hash = hash(token)?;
        Ok(on!(read self.db(), pool => {
            sqlx::query_as(BY_HASH).bind(hash).fetch_optional(pool).await?
        }))
    }
}

#[tonic::async_trait]
impl v1::webhook_service_server::WebhookService for Directory {
    async fn resolve(
        &self,
        request: Request<v1::ResolveRequest>,
    ) -> Result<Response<v1::ResolveResponse>, Status> {
        let webhook = self.webhook(&request.into_inner().token).await.map_err(failed)?;
        Ok(Response::new(v1::ResolveResponse { webhook: webhook.map(Into::into) }))
    }
}

impl From<Webhook> for v1::Webhook {
    fn from(webhook: Webhook) -> Self {
        Self {
            id: webhook.id.to_string(),
            channel_id: webhook.channel_id.to_string(),
            name: webhook.name,
            avatar: webhook.avatar,
            enabled: true,
        }
    }
}

fn checked_name(name: &str) -> ImksResult<String> {
    if name.trim().is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(ImksError::invalid("name", format!("must have 1 to {NAME_CHARS_MAX} characters")));
    }
    Ok(name.to_owned())
}

/// Returns the address of a picture, or an empty text, if it is allowed in this field of a request.
pub(super) fn checked_picture(field: &'static str, url: &str) -> ImksResult<String> {
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    let is_clean = !url.chars().any(|c| c.is_control() || c.is_whitespace());
    if url.is_empty() || is_web && is_clean && url.len() <= URL_BYTES_MAX {
        return Ok(url.to_owned());
    }
    let rule = format!("must be an address of at most {URL_BYTES_MAX} bytes that starts with https://");
    Err(ImksError::invalid(field, rule))
}

/// The start of the secret part of an address, by which people and scanners for leaked secrets know it.
const PREFIX: &str = "imks_webhook_";
/// What is in front of the secret part.
const PATH: &str = "/api/v1/webhooks/";
/// The longest name, in characters.
const NAME_CHARS_MAX: usize = 64;
/// The longest address of a picture, in bytes.
const URL_BYTES_MAX: usize = 2_048;
const INSERT: &str = "INSERT INTO directory_webhook (id, channel_id, name, avatar, hash, created_at) \
     VALUES ($1, $2, $3, $4, $5, $6)";
const OF_CHANNEL: &str = "SELECT id, channel_id, name, avatar, created_at FROM directory_webhook \
     WHERE channel_id = $1 ORDER BY name, id LIMIT $2";
const BY_HASH: &str =
    "SELECT id, channel_id, name, avatar, created_at FROM directory_webhook WHERE hash = $1";
const DELETE: &str = "DELETE FROM directory_webhook WHERE id = $1";
