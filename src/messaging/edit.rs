//! `message:edit` and `message:delete`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::channel::Scope;
use super::ctx::Ctx;
use super::input::MessageBody;
use super::message::{check_mentions, require_mentions, shared};
use super::registry::Registry;
use super::turn::Turn;
use crate::auth::Permission;
use crate::clock::Timestamp;
use crate::models::append::{DeleteMessage, EditMessage, Outcome, Receipt, Write};
use crate::models::message::{Mentions, MessageDetail};
use crate::{ImksError, ImksResult};

/// The events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.on_write("message:edit", edit);
    events.on_write("message:delete", delete);
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

async fn edit(ctx: Ctx, turn: Turn, request: Edit) -> ImksResult<Edited> {
    check_mentions(request.mentions.as_ref())?;
    ctx.count_send(request.channel_id)?;
    let channel = ctx.writable(request.channel_id, Permission::SendMessages).await?;
    if let Some(mentions) = &request.mentions {
        require_mentions(&ctx, request.channel_id, mentions).await?;
    }
    let receipt = channel.submit(turn, |scope| request.into_write(scope))?;
    match receipt.await? {
        Outcome::Edited { message, rev, .. } => Ok(Edited { message, rev }),
        Outcome::Sent { .. } | Outcome::Deleted { .. } => {
            Err(ImksError::Internal("an edit became something else"))
        }
    }
}

impl Edit {
    fn into_write(self, scope: Scope) -> Write {
        Write::Edit(EditMessage {
            channel_id: scope.channel_id,
            message_id: self.message_id,
            editor_id: scope.actor.id,
            required_author: scope.required_author,
            body: self.body.into_string(),
            mentions: self.mentions,
            expected_version: self.expected_version,
        })
    }
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

async fn delete(ctx: Ctx, turn: Turn, request: Delete) -> ImksResult<Deleted> {
    ctx.count_send(request.channel_id)?;
    let receipt = submit_delete(&ctx, turn, request).await?;
    let outcome = match receipt.await {
        // Not the author: then the core is asked, each time, whether they may delete what others wrote.
        Err(ImksError::Forbidden(_) | ImksError::NotAuthor) => {
            let turn = ctx.next_turn().await;
            let channel = ctx.moderated(request.channel_id).await?;
            channel.submit(turn, |scope| request.into_write(scope))?.await?
        }
        outcome => outcome?,
    };
    let Outcome::Deleted { deletion, .. } = outcome else {
        return Err(ImksError::Internal("a deletion became something else"));
    };
    Ok(Deleted { message_id: deletion.id, rev: deletion.rev, deleted_at: deletion.deleted_at })
}

async fn submit_delete(ctx: &Ctx, turn: Turn, request: Delete) -> ImksResult<Receipt> {
    match ctx.writable(request.channel_id, Permission::SendMessages).await {
        Ok(channel) => channel.submit(turn, |scope| request.into_write(scope)),
        // Moderators of a channel in which they do not write.
        Err(ImksError::Forbidden(_)) => {
            let channel = ctx.moderated(request.channel_id).await?;
            channel.submit(turn, |scope| request.into_write(scope))
        }
        Err(error) => Err(error),
    }
}

impl Delete {
    fn into_write(self, scope: Scope) -> Write {
        Write::Delete(DeleteMessage {
            channel_id: scope.channel_id,
            message_id: self.message_id,
            actor_id: scope.actor.id,
            required_author: scope.required_author,
        })
    }
}
