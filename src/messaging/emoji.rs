//! The events of custom emoji, which the core keeps: `emoji:list` and `emoji:get`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::budget::{AnswerSize, Reservation};
use super::ctx::Ctx;
use super::registry::{Large, Registry, Request};
use crate::auth::CustomEmoji;
use crate::{ImksError, ImksResult};

const LIST: Request<List, Listed> = Request::new("emoji:list");
const GET: Request<Get, Got> = Request::new("emoji:get");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.on_read(LIST, list).get("/channels/{channel_id}/emoji");
    events.on(GET, get);
}

/// The payload of `emoji:list`.
#[derive(Debug, Deserialize, JsonSchema)]
struct List {
    /// A channel of the workspace.
    channel_id: Uuid,
    /// The etag of the last answer.
    #[serde(default)]
    etag: String,
}

impl Large for List {
    fn answer_size(&self) -> AnswerSize {
        AnswerSize::up_to(LIST_BYTES_MAX)
    }
}

/// The answer to `emoji:list`.
#[derive(Debug, Serialize, JsonSchema)]
struct Listed {
    etag: String,
    /// Whether nothing changed since the etag of the request; then there are no emoji in the answer.
    not_modified: bool,
    emoji: Vec<CustomEmoji>,
}

async fn list(ctx: Ctx, _room: Reservation, request: List) -> ImksResult<Listed> {
    let workspace = workspace(&ctx, request.channel_id).await?;
    if request.etag.len() > ETAG_BYTES_MAX {
        return Err(ImksError::invalid("etag", format!("is longer than {ETAG_BYTES_MAX} bytes")));
    }
    let Some(workspace) = workspace else {
        return Ok(Listed { etag: String::new(), not_modified: false, emoji: Vec::new() });
    };
    Ok(match ctx.core().emoji_of(workspace, &request.etag).await? {
        Some((emoji, etag)) => Listed { etag, not_modified: false, emoji },
        None => Listed { etag: request.etag, not_modified: true, emoji: Vec::new() },
    })
}

/// The payload of `emoji:get`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Get {
    /// A channel of the workspace.
    channel_id: Uuid,
    emoji_id: Uuid,
}

/// The answer to `emoji:get`.
#[derive(Debug, Serialize, JsonSchema)]
struct Got {
    emoji: CustomEmoji,
}

async fn get(ctx: Ctx, request: Get) -> ImksResult<Got> {
    let workspace = workspace(&ctx, request.channel_id).await?;
    let emoji = ctx.core().emoji(request.emoji_id).await?;
    let emoji = emoji.filter(|emoji| Some(emoji.workspace_id) == workspace);
    emoji.map(|emoji| Got { emoji }).ok_or(ImksError::NotFound("emoji"))
}

/// Returns the workspace of a channel that the caller may see, if it belongs to one.
async fn workspace(ctx: &Ctx, channel: Uuid) -> ImksResult<Option<Uuid>> {
    ctx.visible(channel).await?;
    Ok(ctx.messaging().channels().get(ctx.core(), channel).await?.workspace_id)
}

/// The memory of the largest list, in bytes.
const LIST_BYTES_MAX: usize = 1 << 20;
/// The longest etag, in bytes.
const ETAG_BYTES_MAX: usize = 128;
