//! The events of drafts: `draft:set`, `draft:clear`, `draft:list`, and `draft:updated` for the other devices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::budget::{AnswerSize, COPIES, Reservation};
use super::ctx::Ctx;
use super::page::next_page;
use super::push::Push;
use super::rates::RateLimit;
use super::registry::{Large, Registry, Request};
use super::timed::timed;
use crate::clock::Timestamp;
use crate::models::message_draft::{self, DRAFTS_MAX, Draft, DraftBody, NewDraft};
use crate::models::text::BODY_BYTES_MAX;
use crate::rate_limit::Rate;
use crate::{ImksError, ImksResult};

/// Sent to the devices of the user when a draft was set or cleared.
pub(super) const UPDATED: Push<Draft> = Push::new("draft:updated");

const SET: Request<Set, Stored> = Request::new("draft:set");
const CLEAR: Request<Clear, Stored> = Request::new("draft:clear");
const LIST: Request<List, Drafts> = Request::new("draft:list");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&UPDATED);
    events.advertise("drafts", DRAFTS_MAX);
    let limit = events.rate_limit("draft:user", RATE);
    let limit_of_clear = limit.clone();
    events.on(SET, move |ctx, request| set(ctx, request, limit.clone())).put("/drafts/{channel_id}");
    events
        .on(CLEAR, move |ctx, request| clear(ctx, request, limit_of_clear.clone()))
        .delete("/drafts/{channel_id}");
    events.on_read(LIST, list).get("/drafts");
}

/// The payload of `draft:set`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Set {
    channel_id: Uuid,
    #[serde(default)]
    thread_id: Option<Uuid>,
    body: DraftBody,
    #[serde(default)]
    reply_to_message_id: Option<Uuid>,
    #[serde(default)]
    base_version: Option<i64>,
}

/// The answer to `draft:set` and `draft:clear`.
#[derive(Debug, Serialize, JsonSchema)]
struct Stored {
    version: i64,
    updated_at: Timestamp,
    user_rev: i64,
}

async fn set(ctx: Ctx, request: Set, limit: RateLimit<Uuid>) -> ImksResult<Stored> {
    limit.take(ctx.user())?;
    if request.body.as_str().len() > BODY_BYTES_MAX {
        return Err(ImksError::invalid("body", format!("is longer than {BODY_BYTES_MAX} bytes")));
    }
    let channel = ctx.visible(request.channel_id).await?;
    let Set { channel_id, thread_id, body, reply_to_message_id, base_version } = request;
    let draft = NewDraft { channel_id, thread_id, body, reply_to_message_id, base_version };
    let stored = timed("draft_set", message_draft::set(channel.db(), ctx.user(), draft)).await?;
    Ok(tell(&ctx, &stored))
}

/// The payload of `draft:clear`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Clear {
    channel_id: Uuid,
    #[serde(default)]
    thread_id: Option<Uuid>,
}

/// Needs no permission: what one wrote oneself can be thrown away after leaving the channel.
async fn clear(ctx: Ctx, request: Clear, limit: RateLimit<Uuid>) -> ImksResult<Stored> {
    limit.take(ctx.user())?;
    let draft = NewDraft {
        channel_id: request.channel_id,
        thread_id: request.thread_id,
        body: DraftBody::default(),
        reply_to_message_id: None,
        base_version: None,
    };
    let own = ctx.own();
    let stored = timed("draft_set", message_draft::set(own.db(), own.user(), draft)).await?;
    Ok(tell(&ctx, &stored))
}

/// Tells the user's devices about a draft that has changed, and returns the answer.
fn tell(ctx: &Ctx, (draft, changed): &(Draft, bool)) -> Stored {
    if *changed {
        ctx.tell_user(&UPDATED, draft);
    }
    Stored { version: draft.version, updated_at: draft.updated_at, user_rev: draft.user_rev }
}

/// Tells the user's devices that a sent message has cleared its draft.
pub(super) async fn tell_cleared(ctx: &Ctx, channel: Uuid, thread: Option<Uuid>) {
    let own = ctx.own();
    match timed("draft_get", message_draft::get(own.db(), own.user(), channel, thread)).await {
        Ok(Some(draft)) if draft.cleared => ctx.tell_user(&UPDATED, &draft),
        Ok(_) => {}
        // The message is sent and its draft is cleared: the devices learn of it by `sync`.
        Err(error) => tracing::debug!(%error, "cleared draft not told"),
    }
}

/// The payload of `draft:list`.
#[derive(Debug, Deserialize, JsonSchema)]
struct List {
    #[serde(default)]
    before: Option<i64>,
}

impl Large for List {
    fn answer_size(&self) -> AnswerSize {
        AnswerSize::up_to(PAGE_LIMIT * BODY_BYTES_MAX * COPIES)
    }
}

/// The answer to `draft:list`: drafts, the last changed first.
#[derive(Debug, Serialize, JsonSchema)]
struct Drafts {
    drafts: Vec<Draft>,
    /// The `before` of the next page; null after the last one.
    next: Option<i64>,
}

async fn list(ctx: Ctx, _room: Reservation, request: List) -> ImksResult<Drafts> {
    let (own, before) = (ctx.own(), request.before.unwrap_or(i64::MAX));
    let limit = i64::try_from(PAGE_LIMIT).unwrap_or(1);
    let drafts = timed("draft_list", message_draft::list(own.db(), own.user(), before, limit)).await?;
    let next = next_page(&drafts, PAGE_LIMIT, |draft| draft.user_rev);
    Ok(Drafts { drafts, next })
}

/// The drafts in one page of `draft:list`.
const PAGE_LIMIT: usize = 20;
/// The rate at which one user may set and clear drafts.
const RATE: Rate = Rate::new(5, 20);
