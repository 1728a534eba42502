//! The events `message:edit`, `message:edits`, `message:delete` and `message:delete_bulk`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::budget::{AnswerSize, COPIES, Reservation};
use super::ctx::Ctx;
use super::input::BoundedList;
use super::message::{check_attachments, mentioned, require_mentions};
use super::preview;
use super::push::Push;
use super::registry::{Large, Registry, Request};
use super::timed::timed;
use super::turn::Turn;
use crate::auth::Permission;
use crate::clock::Timestamp;
use crate::models::append::ChangeEvent;
use crate::models::append::Receipt;
use crate::models::message::MessageDetail;
use crate::models::message_delete::{DeleteMessage, DeleteMessages, Deletion, Deletions};
use crate::models::message_edit::MessageUpdate;
use crate::models::message_edit::{self, EditMessage, MessageEdit, TEXTS_KEPT};
use crate::models::text::{BODY_BYTES_MAX, E2EE_BYTES_MAX, Mentions, MessageBody};
use crate::{ImksError, ImksResult};

const EDIT: Request<Edit, EditAnswer> = Request::new("message:edit");
const EDITS: Request<Edits, EditsAnswer> = Request::new("message:edits");
const DELETE: Request<Delete, DeleteAnswer> = Request::new("message:delete");

const DELETE_BULK: Request<DeleteBulk, Deletions> = Request::new("message:delete_bulk");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&Push::<ChangeEvent<MessageUpdate>>::new("message:updated"));
    events.sends(&Push::<ChangeEvent<Deletion>>::new("message:deleted"));
    let window = events.config().edit_window;
    if let Some(window) = window {
        events.advertise("edit_window_ms", u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
    }
    events
        .on_write(EDIT, move |ctx, turn, request| edit(ctx, turn, request, window))
        .patch("/channels/{channel_id}/messages/{message_id}");
    events.on_read(EDITS, edits).get("/channels/{channel_id}/messages/{message_id}/edits");
    events.on_write(DELETE, delete).delete("/channels/{channel_id}/messages/{message_id}");
    events.on_write(DELETE_BULK, delete_bulk);
}

/// The payload of `message:edit`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Edit {
    channel_id: Uuid,
    message_id: Uuid,
    #[schemars(length(min = 1, max = E2EE_BYTES_MAX))]
    body: String,
    #[serde(default)]
    expected_version: Option<i64>,
    #[serde(default)]
    mentions: Option<Mentions>,
    /// All files that the message has from now on.
    #[serde(default)]
    attachments: Option<Vec<Uuid>>,
}

/// The answer to `message:edit`.
#[derive(Debug, Serialize, JsonSchema)]
struct EditAnswer {
    message: Arc<MessageDetail>,
    rev: i64,
}

async fn edit(ctx: Ctx, turn: Turn, mut request: Edit, window: Option<Duration>) -> ImksResult<EditAnswer> {
    let body = MessageBody::either(std::mem::take(&mut request.body))?;
    check_attachments(request.attachments.as_deref().unwrap_or_default())?;
    ctx.count_send(request.channel_id)?;
    let channel = ctx.writable(request.channel_id, Permission::SendMessages).await?;
    if let Some(mentions) = &request.mentions {
        require_mentions(&ctx, request.channel_id, mentions).await?;
    }
    let Edit { message_id, expected_version, mentions, attachments, .. } = request;
    let mentioned = mentioned(&ctx, channel.id(), mentions.as_ref()).await?;
    let may_attach = attachments.is_some() && may_attach(&ctx, channel.id()).await?;
    let edit = EditMessage {
        message_id,
        body,
        mentions,
        mentioned,
        attachments,
        may_attach,
        expected_version,
        window,
    };
    let message = channel.submit(turn, edit)?.await?;
    preview::request(&ctx, &message);
    Ok(EditAnswer { rev: message.rev, message })
}

/// Whether the caller may add files. To remove some needs no permission but that to edit.
async fn may_attach(ctx: &Ctx, channel: Uuid) -> ImksResult<bool> {
    match ctx.require(channel, Permission::AttachFiles).await {
        Ok(_) => Ok(true),
        Err(ImksError::Forbidden(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The payload of `message:edits`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Edits {
    channel_id: Uuid,
    message_id: Uuid,
}

impl Large for Edits {
    fn answer_size(&self) -> AnswerSize {
        AnswerSize::up_to(usize::try_from(TEXTS_KEPT).unwrap_or(1) * BODY_BYTES_MAX * COPIES)
    }
}

/// The answer to `message:edits`: the earlier texts, newest first.
#[derive(Debug, Serialize, JsonSchema)]
struct EditsAnswer {
    edits: Vec<MessageEdit>,
}

/// The author sees the earlier texts. For those of others the core is asked each time.
async fn edits(ctx: Ctx, _room: Reservation, request: Edits) -> ImksResult<EditsAnswer> {
    let channel = ctx.readable(request.channel_id).await?;
    let message = request.message_id;
    if message_edit::author(channel.db(), channel.id(), message).await? != ctx.user() {
        ctx.moderated(channel.id()).await?;
    }
    let edits = timed("edits", message_edit::edits(channel.db(), channel.id(), message)).await?;
    Ok(EditsAnswer { edits })
}

/// The payload of `message:delete`.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
struct Delete {
    channel_id: Uuid,
    message_id: Uuid,
}

/// The answer to `message:delete`.
#[derive(Debug, Serialize, JsonSchema)]
struct DeleteAnswer {
    message_id: Uuid,
    rev: i64,
    deleted_at: Timestamp,
}

async fn delete(ctx: Ctx, turn: Turn, request: Delete) -> ImksResult<DeleteAnswer> {
    ctx.count_send(request.channel_id)?;
    let deletion = DeleteMessage { message_id: request.message_id };
    let receipt = submit_delete(&ctx, turn, request.channel_id, deletion).await?;
    let deletion = match receipt.await {
        // The core is asked each time whether the user may delete the messages of others.
        Err(ImksError::NotAuthor) => {
            let channel = ctx.moderated(request.channel_id).await?;
            channel.submit(ctx.next_turn().await, deletion)?.await?
        }
        deletion => deletion?,
    };
    Ok(DeleteAnswer { message_id: deletion.id, rev: deletion.rev, deleted_at: deletion.deleted_at })
}

/// The payload of `message:delete_bulk`.
#[derive(Debug, Deserialize, JsonSchema)]
struct DeleteBulk {
    channel_id: Uuid,
    message_ids: BoundedList<Uuid, DELETED_AT_ONCE_MAX>,
}

async fn delete_bulk(ctx: Ctx, turn: Turn, request: DeleteBulk) -> ImksResult<Deletions> {
    ctx.count_send(request.channel_id)?;
    let channel = ctx.moderated(request.channel_id).await?;
    let mut seen = HashSet::new();
    let message_ids = request.message_ids.0.into_iter().filter(|id| seen.insert(*id)).collect();
    channel.submit(turn, DeleteMessages { message_ids })?.await
}

/// The most messages in one `message:delete_bulk`.
const DELETED_AT_ONCE_MAX: usize = 100;

async fn submit_delete(
    ctx: &Ctx,
    turn: Turn,
    channel: Uuid,
    deletion: DeleteMessage,
) -> ImksResult<Receipt<Arc<Deletion>>> {
    match ctx.writable(channel, Permission::SendMessages).await {
        Ok(channel) => channel.submit(turn, deletion),
        // A moderator may lack the permission to write in the channel.
        Err(ImksError::Forbidden(_)) => ctx.moderated(channel).await?.submit(turn, deletion),
        Err(error) => Err(error),
    }
}
