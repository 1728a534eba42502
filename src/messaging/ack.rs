//! Explicit acknowledgements: the events `message:ack` and `message:acks`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::channel::{Channel, Read};
use super::ctx::Ctx;
use super::page::{PageSize, next_page};
use super::push::Push;
use super::rates::RateLimit;
use super::registry::{Registry, Request, Status};
use super::timed::timed;
use super::turn::Turn;
use crate::auth::Permission;
use crate::clock::Timestamp;
use crate::error::Code;
use crate::models::append::ChangeEvent;
use crate::models::message_ack::{self, AckMessage, AckUpdate, Acked, AckedBy, Requested};
use crate::rate_limit::Rate;
use crate::{ImksError, ImksResult};

const ACK: Request<Target, Acked> = Request::new("message:ack");
const ACKS: Request<List, Page> = Request::new("message:acks");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&Push::<ChangeEvent<AckUpdate>>::new("ack:updated"));
    let limit = events.rate_limit("ack:user", RATE);
    events
        .on_write(ACK, move |ctx, turn, request| ack(ctx, turn, request, limit.clone()))
        .post("/channels/{channel_id}/messages/{message_id}/ack", Status::Ok);
    events.on(ACKS, list).get("/channels/{channel_id}/messages/{message_id}/acks");
}

/// The payload of `message:ack`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Target {
    channel_id: Uuid,
    message_id: Uuid,
}

/// Needs no permission to write: who may only read in a channel is asked too. An archived channel takes nothing.
async fn ack(ctx: Ctx, turn: Turn, request: Target, limit: RateLimit<Uuid>) -> ImksResult<Acked> {
    limit.take(ctx.user())?;
    let channel = ctx.writable(request.channel_id, Permission::ReadHistory).await?;
    channel.submit(turn, AckMessage { message_id: request.message_id })?.await
}

/// Which users a list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "AckState")]
enum State {
    /// Those who have acknowledged the message.
    #[default]
    Acked,
    /// The other members of the channel, without the author.
    Missing,
}

/// The payload of `message:acks`.
#[derive(Debug, Deserialize, JsonSchema)]
struct List {
    channel_id: Uuid,
    message_id: Uuid,
    #[serde(default)]
    state: State,
    /// The `next` of the page before.
    #[serde(default)]
    #[schemars(length(max = CURSOR_BYTES_MAX))]
    cursor: Option<String>,
    #[serde(default)]
    limit: PageSize,
}

/// The answer to `message:acks`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Acks")]
struct Page {
    /// How many users have acknowledged the message.
    ack_count: i64,
    users: Vec<Shown>,
    /// The `cursor` of the next page; null after the last one.
    next: Option<String>,
}

/// A user who is asked to acknowledge a message.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AckedBy")]
struct Shown {
    user_id: Uuid,
    /// Null for a user who has not.
    acked_at: Option<Timestamp>,
}

async fn list(ctx: Ctx, request: List) -> ImksResult<Page> {
    let channel = ctx.readable(request.channel_id).await?;
    let requested = message_ack::requested(channel.db(), channel.id(), request.message_id);
    let requested = timed("acks_requested", requested).await?;
    let (users, next) = match request.state {
        State::Acked => acked(&channel, &request).await?,
        State::Missing => missing(&ctx, &channel, &request, requested).await?,
    };
    Ok(Page { ack_count: requested.count, users, next })
}

async fn acked(channel: &Channel<Read>, request: &List) -> ImksResult<(Vec<Shown>, Option<String>)> {
    let after = match &request.cursor {
        None => Uuid::nil(),
        Some(cursor) => cursor.parse().map_err(|_| unknown_cursor())?,
    };
    let page = message_ack::list(channel.db(), request.message_id, after, i64::from(request.limit.get()));
    let users = timed("acks", page).await?;
    let next = next_page(&users, request.limit.rows(), |by| by.user_id.to_string());
    let shown = |AckedBy { user_id, acked_at }| Shown { user_id, acked_at: Some(acked_at) };
    Ok((users.into_iter().map(shown).collect(), next))
}

/// Returns a page of the core's list of members, without those who have acknowledged the message. It may be empty although
/// others follow.
async fn missing(
    ctx: &Ctx,
    channel: &Channel<Read>,
    request: &List,
    requested: Requested,
) -> ImksResult<(Vec<Shown>, Option<String>)> {
    let cursor = request.cursor.clone().unwrap_or_default();
    if cursor.len() > CURSOR_BYTES_MAX {
        return Err(unknown_cursor());
    }
    let page = ctx.core().channel_members(channel.id(), request.limit.get(), cursor).await;
    let (mut members, next) = match page {
        // Only the core knows which cursors are its own.
        Err(error) if error.code() == Code::InvalidInput => return Err(unknown_cursor()),
        page => page?,
    };
    let have = timed("acks_among", message_ack::among(channel.db(), request.message_id, &members)).await?;
    members.retain(|user| *user != requested.author_id && !have.contains(user));
    let shown = |user_id| Shown { user_id, acked_at: None };
    Ok((members.into_iter().map(shown).collect(), next))
}

fn unknown_cursor() -> ImksError {
    ImksError::invalid("cursor", "is not from a page of this list")
}

/// The longest cursor, in bytes.
const CURSOR_BYTES_MAX: usize = 512;
/// The rate at which one user may acknowledge messages.
const RATE: Rate = Rate::new(5, 20);
