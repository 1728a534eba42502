//! `channel:subscribe` and `channel:unsubscribe`: entering and leaving the room of a channel.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ctx::Ctx;
use super::input::Few;
use super::registry::Registry;
use crate::ImksResult;
use crate::auth::Permission;
use crate::error::Code;

/// The events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.on("channel:subscribe", subscribe);
    events.on("channel:unsubscribe", unsubscribe);
}

/// Payload of both events.
#[derive(Debug, Deserialize)]
struct Channels {
    channel_ids: Few<Uuid, CHANNELS_MAX>,
}

/// Answer to both events: one entry per channel, in the order asked for.
#[derive(Debug, Serialize)]
struct Answers {
    channels: Vec<Answer>,
}

#[derive(Debug, Serialize)]
struct Answer {
    channel_id: Uuid,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seq: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rev: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Refusal>,
}

#[derive(Debug, Serialize)]
struct Refusal {
    code: Code,
    retryable: bool,
}

async fn subscribe(ctx: Ctx, request: Channels) -> ImksResult<Answers> {
    let ids = request.channel_ids.0;
    // What stays unknown is asked for one by one below.
    if let Err(error) = ctx.messaging().permissions().warm(ctx.user(), &ids).await {
        tracing::debug!(%error, "permissions not fetched in advance");
    }
    let mut channels = Vec::with_capacity(ids.len());
    for id in ids {
        channels.push(enter(&ctx, id).await);
    }
    Ok(Answers { channels })
}

/// First the room, then the numbers: what comes after the numbers arrives as an event.
async fn enter(ctx: &Ctx, id: Uuid) -> Answer {
    let entered = async {
        let channel = ctx.channel(id, Permission::ViewChannel).await?;
        ctx.session().come_back(id);
        ctx.socket().join(&id.to_string());
        channel.head().await
    };
    match entered.await {
        Ok(head) => Answer {
            channel_id: id,
            ok: true,
            last_seq: Some(head.last_seq),
            rev: Some(head.last_rev),
            error: None,
        },
        Err(error) => {
            let refusal = Refusal { code: error.code(), retryable: error.is_retryable() };
            Answer { channel_id: id, ok: false, last_seq: None, rev: None, error: Some(refusal) }
        }
    }
}

async fn unsubscribe(ctx: Ctx, request: Channels) -> ImksResult<Answers> {
    let leave = |id: Uuid| {
        let room = id.to_string();
        if ctx.socket().is_in(&room) {
            ctx.session().leave(id);
        }
        ctx.socket().leave(&room);
        Answer { channel_id: id, ok: true, last_seq: None, rev: None, error: None }
    };
    Ok(Answers { channels: request.channel_ids.0.into_iter().map(leave).collect() })
}

/// Channels in one event.
const CHANNELS_MAX: usize = 100;
