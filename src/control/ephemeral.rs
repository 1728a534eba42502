//! The call that shows a message to one user, who loses it when the page is loaded again.

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::Ctx;
use super::input::id;
use super::messages::{author, missing, new_message};
use crate::clock::{Timestamp, new_id, now_micros};
use crate::contract::Contract;
use crate::models::message::{AuthorInfo, ContentType, MessageType};
use crate::models::text::Mentions;
use crate::pb::control::{SendEphemeralRequest, SendEphemeralResponse};
use crate::{ImksError, ImksResult};

/// The payload of `message:ephemeral`.
#[derive(Debug, Serialize, JsonSchema)]
struct Ephemeral<'a> {
    id: Uuid,
    channel_id: Uuid,
    author: AuthorInfo,
    body: &'a str,
    created_at: Timestamp,
    #[serde(rename = "type")]
    kind: MessageType,
    content_type: ContentType,
    thread_id: Option<Uuid>,
    reply_to_message_id: Option<Uuid>,
    mentions: &'a Mentions,
    flags: i32,
}

/// Tells programs of the event.
pub(super) fn describe(contract: &mut Contract) {
    contract.push::<Ephemeral<'_>>(EVENT);
}

/// `SendEphemeral`. Nothing is stored: a user who is not connected never sees it.
pub(super) async fn send(ctx: Ctx, request: SendEphemeralRequest) -> ImksResult<SendEphemeralResponse> {
    let user = id("user_id", &request.user_id)?;
    let (author, kind) = author(ctx.caller(), request.identity.as_ref())?;
    let content = request.content.ok_or_else(|| missing("content"))?;
    if content.stream || content.ack_requested {
        let field = if content.stream { "content.stream" } else { "content.ack_requested" };
        return Err(ImksError::invalid(field, "must be false for a message that is not stored"));
    }
    let message = new_message(kind, content, None)?;
    // Only about channels that there are.
    let channel = ctx.backend().channel(id("channel_id", &request.channel_id)?).await?;
    let payload = Ephemeral {
        id: new_id(),
        channel_id: channel.id(),
        author,
        body: message.body.as_str(),
        created_at: Timestamp(now_micros()),
        kind,
        content_type: message.content_type,
        thread_id: message.thread_id,
        reply_to_message_id: message.reply_to_message_id,
        mentions: &message.mentions,
        flags: message.flags,
    };
    ctx.backend().namespace().emit_to_room(&format!("user:{user}"), EVENT, &payload)?;
    Ok(SendEphemeralResponse { message_id: payload.id.to_string() })
}

const EVENT: &str = "message:ephemeral";
