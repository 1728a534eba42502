//! Incoming webhooks, custom emoji, and the import of many things at once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{Done, InWorkspace, Name, OfChannel, Text, workspace};
use crate::directory::{CustomEmoji, Directory, Imported, NewWebhook, Seed, Webhook};
use crate::error::ImksResult;

/// An incoming webhook to make.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateWebhook {
    /// The channel, by name or id: `team`, or `acme/team` in another workspace.
    channel: Name,
    /// The name that its messages show, up to 64 characters.
    name: Name,
    /// The address of a picture.
    avatar: Option<Text>,
}

/// An incoming webhook.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfWebhook {
    /// The id.
    id: Name,
}

/// A custom emoji to make.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateEmoji {
    /// The workspace, by name or id; without it `main`.
    workspace: Option<Name>,
    /// What stands between the colons.
    name: Name,
    /// The address of the picture.
    picture: Text,
}

/// A custom emoji.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfEmoji {
    /// The workspace, by name or id; without it `main`.
    workspace: Option<Name>,
    /// What stands between the colons.
    name: Name,
}

/// The incoming webhooks of a channel.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Webhooks {
    webhooks: Vec<Webhook>,
}

/// The custom emoji of a workspace.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Emoji {
    emoji: Vec<CustomEmoji>,
}

/// `ListWebhooks`.
pub(super) async fn webhooks(directory: Directory, request: OfChannel) -> ImksResult<Webhooks> {
    Ok(Webhooks { webhooks: directory.webhooks(request.channel.as_str()).await? })
}

/// `CreateWebhook`.
pub(super) async fn create_webhook(directory: Directory, request: CreateWebhook) -> ImksResult<NewWebhook> {
    let avatar = request.avatar.as_ref().map_or("", Text::as_str);
    directory.create_webhook(request.channel.as_str(), request.name.as_str(), avatar).await
}

/// `DeleteWebhook`.
pub(super) async fn delete_webhook(directory: Directory, request: OfWebhook) -> ImksResult<Done> {
    directory.remove_webhook(request.id.as_str()).await?;
    Ok(Done {})
}

/// `ListEmoji`.
pub(super) async fn emoji(directory: Directory, request: InWorkspace) -> ImksResult<Emoji> {
    Ok(Emoji { emoji: directory.emoji(workspace(request.workspace.as_ref())).await? })
}

/// `CreateEmoji`.
pub(super) async fn create_emoji(directory: Directory, request: CreateEmoji) -> ImksResult<CustomEmoji> {
    let workspace = workspace(request.workspace.as_ref());
    directory.create_emoji(workspace, request.name.as_str(), request.picture.as_str()).await
}

/// `DeleteEmoji`.
pub(super) async fn delete_emoji(directory: Directory, request: OfEmoji) -> ImksResult<Done> {
    directory.remove_emoji(workspace(request.workspace.as_ref()), request.name.as_str()).await?;
    Ok(Done {})
}

/// `Import`.
pub(super) async fn import(directory: Directory, seed: Seed) -> ImksResult<Imported> {
    Box::pin(directory.import(seed)).await
}
