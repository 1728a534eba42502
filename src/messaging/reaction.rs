//! The events `reaction:add` and `reaction:remove`.

use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::ctx::Ctx;
use super::push::Push;
use super::rates::RateLimit;
use super::registry::{Registry, Request};
use super::turn::Turn;
use crate::ImksResult;
use crate::auth::Permission;
use crate::models::append::ChangeEvent;
use crate::models::emoji::Emoji;
use crate::models::message_reaction::ReactionUpdate;
use crate::models::message_reaction::{AddReaction, Reacted, RemoveReaction};
use crate::models::message_reaction_total::DISTINCT_MAX;
use crate::rate_limit::Rate;

const ADD: Request<Add, Reacted> = Request::new("reaction:add");
const REMOVE: Request<Remove, Reacted> = Request::new("reaction:remove");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&Push::<ChangeEvent<ReactionUpdate>>::new("reaction:updated"));
    events.advertise("reactions_distinct", DISTINCT_MAX);
    let limit = events.rate_limit("reaction:user", RATE);
    let limit_of_remove = limit.clone();
    events.on_write(ADD, move |ctx, turn, request| add(ctx, turn, request, limit.clone()));
    events.on_write(REMOVE, move |ctx, turn, request| remove(ctx, turn, request, limit_of_remove.clone()));
}

/// The payload of `reaction:add`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Add {
    channel_id: Uuid,
    message_id: Uuid,
    emoji: Emoji,
}

async fn add(ctx: Ctx, turn: Turn, request: Add, limit: RateLimit<Uuid>) -> ImksResult<Reacted> {
    limit.take(ctx.user())?;
    let Add { channel_id, message_id, emoji } = request;
    let channel = ctx.writable(channel_id, Permission::AddReactions).await?;
    channel.submit(turn, AddReaction { message_id, emoji })?.await
}

/// The payload of `reaction:remove`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Remove {
    channel_id: Uuid,
    message_id: Uuid,
    emoji: Emoji,
    /// The user whose reaction to remove; the caller if absent.
    #[serde(default)]
    user_id: Option<Uuid>,
}

async fn remove(ctx: Ctx, turn: Turn, request: Remove, limit: RateLimit<Uuid>) -> ImksResult<Reacted> {
    limit.take(ctx.user())?;
    let Remove { channel_id, message_id, emoji, user_id } = request;
    let of_others = user_id.is_some_and(|user| user != ctx.user());
    let removal = RemoveReaction { message_id, emoji, user_id };
    let receipt = match of_others {
        true => ctx.moderated(channel_id).await?.submit(turn, removal)?,
        false => ctx.writable(channel_id, Permission::AddReactions).await?.submit(turn, removal)?,
    };
    receipt.await
}

/// The rate at which one user may add and remove reactions.
const RATE: Rate = Rate::new(5, 10);
