//! The events `pin:add`, `pin:remove` and `pin:list`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::budget::{AnswerSize, Reservation};
use super::ctx::Ctx;
use super::push::Push;
use super::rates::RateLimit;
use super::registry::{Large, Registry, Request};
use super::timed::timed;
use super::turn::Turn;
use crate::ImksResult;
use crate::auth::Permission;
use crate::models::append::ChangeEvent;
use crate::models::message::MessageDetail;
use crate::models::message_pin::PinUpdate;
use crate::models::message_pin::{self, AddPin, PINS_MAX, Pin, Pinned, RemovePin};
use crate::rate_limit::Rate;

const ADD: Request<Target, Pinned> = Request::new("pin:add");
const REMOVE: Request<Target, Pinned> = Request::new("pin:remove");
const LIST: Request<List, Pins> = Request::new("pin:list");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&Push::<ChangeEvent<PinUpdate>>::new("pin:updated"));
    events.advertise("pins", PINS_MAX);
    let limit = events.rate_limit("pin:user", RATE);
    let limit_of_remove = limit.clone();
    events.on_write(ADD, move |ctx, turn, request| add(ctx, turn, request, limit.clone()));
    events.on_write(REMOVE, move |ctx, turn, request| remove(ctx, turn, request, limit_of_remove.clone()));
    events.on_read(LIST, list).get("/channels/{channel_id}/pins");
}

/// The payload of `pin:add` and `pin:remove`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Target {
    channel_id: Uuid,
    message_id: Uuid,
}

async fn add(ctx: Ctx, turn: Turn, request: Target, limit: RateLimit<Uuid>) -> ImksResult<Pinned> {
    limit.take(ctx.user())?;
    let channel = ctx.writable(request.channel_id, Permission::PinMessages).await?;
    channel.submit(turn, AddPin { message_id: request.message_id })?.await
}

async fn remove(ctx: Ctx, turn: Turn, request: Target, limit: RateLimit<Uuid>) -> ImksResult<Pinned> {
    limit.take(ctx.user())?;
    let channel = ctx.writable(request.channel_id, Permission::PinMessages).await?;
    channel.submit(turn, RemovePin { message_id: request.message_id })?.await
}

/// The payload of `pin:list`.
#[derive(Debug, Deserialize, JsonSchema)]
struct List {
    channel_id: Uuid,
}

impl Large for List {
    fn answer_size(&self) -> AnswerSize {
        AnswerSize::of_messages(PINS_MAX)
    }
}

/// The answer to `pin:list`.
#[derive(Debug, Serialize, JsonSchema)]
struct Pins {
    /// The pins, the newest first.
    pins: Vec<Pin>,
    /// The pinned messages, the oldest message first.
    messages: Vec<MessageDetail>,
    /// Whether some messages did not fit, so that the client has to request them with `message:get`.
    more: bool,
}

async fn list(ctx: Ctx, room: Reservation, request: List) -> ImksResult<Pins> {
    let channel = ctx.readable(request.channel_id).await?;
    let pins = timed("pins", message_pin::list(channel.db(), channel.id())).await?;
    let ids: Vec<Uuid> = pins.iter().map(|pin| pin.message_id).collect();
    let (messages, more) = channel.messages(&room, &ids).await?;
    Ok(Pins { pins, messages, more })
}

/// The rate at which one user may pin and unpin messages.
const RATE: Rate = Rate::new(2, 10);
