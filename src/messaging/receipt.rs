//! Read receipts: `read:updated` for everybody in a small channel, and the event `read:receipts`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ctx::Ctx;
use super::page::next_page;
use super::push::Push;
use super::registry::{Registry, Request};
use super::small_channels::MEMBERS_MAX;
use super::timed::timed;
use crate::ImksResult;
use crate::models::message_receipt;

/// Sent to the other members of a small channel when one of them has read further.
const UPDATED: Push<Receipt> = Push::new("read:updated");

const RECEIPTS: Request<Receipts, Page> = Request::new("read:receipts");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&UPDATED);
    events.advertise("receipt_members", MEMBERS_MAX);
    events.on(RECEIPTS, receipts).get("/channels/{channel_id}/receipts");
}

/// The payload of `read:updated` for the members of a channel.
#[derive(Debug, Serialize, JsonSchema)]
struct Receipt {
    channel_id: Uuid,
    user_id: Uuid,
    read_seq: i64,
}

/// Tells the other members of a small channel how far the caller has read.
pub(super) async fn tell(ctx: &Ctx, channel_id: Uuid, read_seq: i64) {
    match ctx.is_small(channel_id).await {
        Ok(true) => {
            let receipt = Receipt { channel_id, user_id: ctx.user(), read_seq };
            UPDATED.to_others_in_room(ctx.namespace(), &channel_id.to_string(), ctx.user(), &receipt);
        }
        Ok(false) => {}
        // The position is stored: the receipt is missing until the next one.
        Err(error) => tracing::debug!(%error, "read receipt not told"),
    }
}

/// The payload of `read:receipts`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Receipts {
    channel_id: Uuid,
    seq: i64,
    #[serde(default)]
    after: Option<Uuid>,
}

/// The answer to `read:receipts`: users by id.
#[derive(Debug, Serialize, JsonSchema)]
struct Page {
    user_ids: Vec<Uuid>,
    /// The `after` of the next page; null after the last one.
    next: Option<Uuid>,
}

async fn receipts(ctx: Ctx, request: Receipts) -> ImksResult<Page> {
    let channel = ctx.readable(request.channel_id).await?;
    let (after, limit) = (request.after.unwrap_or_default(), i64::try_from(PAGE_LIMIT).unwrap_or(1));
    let readers = message_receipt::readers(channel.db(), channel.id(), request.seq, after, limit);
    let user_ids = timed("receipts", readers).await?;
    let next = next_page(&user_ids, PAGE_LIMIT, |user| *user);
    Ok(Page { user_ids, next })
}

/// The users in one page of `read:receipts`.
const PAGE_LIMIT: usize = 100;
