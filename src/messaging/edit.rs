//! `message:edit` and `message:delete`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ctx::Ctx;
use super::input::MessageBody;
use super::message::{check_mentions, require_mentions, shared};
use super::registry::Registry;
use crate::auth::Permission;
use crate::clock::Timestamp;
use crate::models::append::{DeleteMessage, EditMessage, Outcome, Receipt, Write};
use crate::models::message::{Mentions, MessageDetail};
use crate::{ImksError, ImksResult};

/// The events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.on("message:edit", edit);
    events.on("message:delete", delete);
}

/// Payload of `message:edit`.
#[derive(Debug, Deserialize)]
struct Edit {
    channel_id: Uuid,
    message_id: Uuid,
    body: MessageBody,
    #[serde(default)]
    expected_version: Option<i64>,
    #[serde(default)]
    mentions: Option<Mentions>,
}

/// Answer to `message:edit`.
#[derive(Debug, Serialize)]
struct Edited {
    #[serde(serialize_with = "shared")]
    message: Arc<MessageDetail>,
    rev: i64,
}

async fn edit(ctx: Ctx, request: Edit) -> ImksResult<Edited> {
    let receipt = submit_edit(&ctx, request).await?;
    match receipt.await? {
        Outcome::Edited { message, rev, .. } => Ok(Edited { message, rev }),
        Outcome::Sent { .. } | Outcome::Deleted { .. } => {
            Err(ImksError::Internal("an edit became something else"))
        }
    }
}

async fn submit_edit(ctx: &Ctx, request: Edit) -> ImksResult<Receipt> {
    let _turn = ctx.turn().await;
    check_mentions(request.mentions.as_ref())?;
    ctx.count_send(request.channel_id)?;
    let channel = ctx.channel(request.channel_id, Permission::SendMessages).await?;
    if let Some(mentions) = &request.mentions {
        require_mentions(ctx, request.channel_id, mentions).await?;
    }
    channel.submit(Write::Edit(EditMessage {
        channel_id: request.channel_id,
        message_id: request.message_id,
        editor_id: ctx.user(),
        required_author: Some(ctx.user()),
        body: request.body.into_string(),
        mentions: request.mentions,
        expected_version: request.expected_version,
    }))
}

/// Payload of `message:delete`.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Delete {
    channel_id: Uuid,
    message_id: Uuid,
}

/// Answer to `message:delete`.
#[derive(Debug, Serialize)]
struct Deleted {
    message_id: Uuid,
    rev: i64,
    deleted_at: Timestamp,
}

async fn delete(ctx: Ctx, request: Delete) -> ImksResult<Deleted> {
    let receipt = submit_delete(&ctx, request).await?;
    let outcome = match receipt.await {
        // Not the author: then the core is asked, each time, whether they may delete what others wrote.
        Err(ImksError::Forbidden(_)) => {
            let channel = ctx.channel(request.channel_id, Permission::ManageMessages).await?;
            channel.submit(request.write(ctx.user(), None))?.await?
        }
        outcome => outcome?,
    };
    let Outcome::Deleted { deletion, .. } = outcome else {
        return Err(ImksError::Internal("a deletion became something else"));
    };
    Ok(Deleted { message_id: deletion.id, rev: deletion.rev, deleted_at: deletion.deleted_at })
}

async fn submit_delete(ctx: &Ctx, request: Delete) -> ImksResult<Receipt> {
    let _turn = ctx.turn().await;
    ctx.count_send(request.channel_id)?;
    match ctx.channel(request.channel_id, Permission::SendMessages).await {
        Ok(channel) => channel.submit(request.write(ctx.user(), Some(ctx.user()))),
        // Moderators of a channel in which they do not write.
        Err(ImksError::Forbidden(_)) => {
            let channel = ctx.channel(request.channel_id, Permission::ManageMessages).await?;
            channel.submit(request.write(ctx.user(), None))
        }
        Err(error) => Err(error),
    }
}

impl Delete {
    fn write(self, actor_id: Uuid, required_author: Option<Uuid>) -> Write {
        let Self { channel_id, message_id } = self;
        Write::Delete(DeleteMessage { channel_id, message_id, actor_id, required_author })
    }
}
