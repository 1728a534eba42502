//! The events `channel:subscribe` and `channel:unsubscribe`, which join and leave the room of a channel.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ctx::Ctx;
use super::input::BoundedList;
use super::registry::{Registry, Request};
use crate::ImksResult;
use crate::envelope::{ErrorBody, RequestId};
use crate::models::channel_state::ChannelHead;
use crate::socket::Socket;

const SUBSCRIBE: Request<Channels, Answers> = Request::new("channel:subscribe");
const UNSUBSCRIBE: Request<Channels, Answers> = Request::new("channel:unsubscribe");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.on_socket(SUBSCRIBE, subscribe);
    events.on_socket(UNSUBSCRIBE, unsubscribe);
}

/// The payload of both events.
#[derive(Debug, Deserialize)]
struct Channels {
    channel_ids: BoundedList<Uuid, CHANNELS_MAX>,
}

/// The answer to both events: one entry per channel, in the order of the request.
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
    error: Option<ErrorBody>,
}

async fn subscribe(ctx: Ctx, socket: Socket, request: Channels) -> ImksResult<Answers> {
    let ids = request.channel_ids.0;
    ctx.warm(&ids).await;
    let mut channels = Vec::with_capacity(ids.len());
    for id in ids {
        channels.push(Answer::new(id, enter(&ctx, &socket, id).await.map(Some)));
    }
    Ok(Answers { channels })
}

/// Joins the room before the numbers are read, so that later messages arrive as events.
async fn enter(ctx: &Ctx, socket: &Socket, id: Uuid) -> ImksResult<ChannelHead> {
    let channel = ctx.visible(id).await?;
    ctx.session().subscribe(id);
    socket.join(&id.to_string());
    channel.head().await
}

async fn unsubscribe(ctx: Ctx, socket: Socket, request: Channels) -> ImksResult<Answers> {
    let leave = |id: Uuid| {
        let room = id.to_string();
        if socket.is_in(&room) {
            ctx.session().unsubscribe(id);
            ctx.typing().left(&socket, Some(id));
        }
        socket.leave(&room);
        Answer::new(id, Ok(None))
    };
    Ok(Answers { channels: request.channel_ids.0.into_iter().map(leave).collect() })
}

impl Answer {
    fn new(channel_id: Uuid, outcome: ImksResult<Option<ChannelHead>>) -> Self {
        let (head, error) = match outcome {
            Ok(head) => (head, None),
            Err(error) => (None, Some(ErrorBody::new(&error, &RequestId::next()))),
        };
        Self {
            channel_id,
            ok: error.is_none(),
            last_seq: head.map(|head| head.last_seq),
            rev: head.map(|head| head.last_rev),
            error,
        }
    }
}

/// The most channels in one event.
const CHANNELS_MAX: usize = 100;
