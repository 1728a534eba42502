//! The events `channel:subscribe` and `channel:unsubscribe`, which join and leave the room of a channel.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::access::{JOINED, LEFT, UPDATED};
use super::channel::{Channel, View};
use super::channel_rooms;
use super::ctx::Ctx;
use super::input::BoundedList;
use super::push::Push;
use super::registry::{Registry, Request};
use super::retention::HORIZON;
use crate::envelope::{ErrorBody, RequestId};
use crate::models::channel_state::ChannelHead;
use crate::models::message_sync::{SYNC_REQUIRED, SyncRequired};
use crate::socket::Socket;
use crate::{ImksError, ImksResult};

const SUBSCRIBE: Request<Channels, Answers> = Request::new("channel:subscribe");
const UNSUBSCRIBE: Request<Channels, Answers> = Request::new("channel:unsubscribe");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&JOINED);
    events.sends(&LEFT);
    events.sends(&UPDATED);
    events.sends(&Push::<SyncRequired>::new(SYNC_REQUIRED));
    events.sends(&HORIZON);
    events.on_socket(SUBSCRIBE, subscribe);
    events.on_socket(UNSUBSCRIBE, unsubscribe);
}

/// The payload of both events.
#[derive(Debug, Deserialize, JsonSchema)]
struct Channels {
    channel_ids: BoundedList<Uuid, CHANNELS_MAX>,
}

/// The answer to both events, and to `channel:focus`: one entry per channel, in the order of the request.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Answers {
    channels: Vec<Answer>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SubscribedChannel")]
struct Answer {
    channel_id: Uuid,
    ok: bool,
    #[serde(flatten)]
    numbers: Option<Numbers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody>,
}

/// The numbers of a channel whose room was entered.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChannelNumbers")]
struct Numbers {
    last_seq: i64,
    rev: i64,
    last_message_id: Option<Uuid>,
    horizon_seq: i64,
    horizon_id: Option<Uuid>,
}

impl From<ChannelHead> for Numbers {
    fn from(head: ChannelHead) -> Self {
        let ChannelHead { last_seq, last_rev: rev, last_message_id, horizon_seq, horizon_id, .. } = head;
        Self { last_seq, rev, last_message_id, horizon_seq, horizon_id }
    }
}

async fn subscribe(ctx: Ctx, socket: Socket, request: Channels) -> ImksResult<Answers> {
    let answers = answers(&ctx, &socket, request.channel_ids.0).await;
    ctx.messaging().resume().settled(&socket).await.map(|()| answers)
}

/// Enters the rooms of channels, as far as the caller may see them. Returns their numbers, which are read after that, so
/// that later messages arrive as events.
pub(super) async fn answers(ctx: &Ctx, socket: &Socket, ids: Vec<Uuid>) -> Answers {
    ctx.warm(&ids).await;
    let (mut entered, mut refused) = (Vec::with_capacity(ids.len()), HashMap::new());
    for id in &ids {
        match enter(ctx, socket, *id).await {
            Ok(channel) => entered.push(channel),
            Err(error) => {
                refused.insert(*id, error);
            }
        }
    }
    let heads = Channel::heads(&entered).await;
    let heads =
        heads.map(|heads| heads.into_iter().map(|head| (head.channel_id, head)).collect::<HashMap<_, _>>());
    if let Ok(heads) = &heads {
        ctx.messaging().resume().follows(socket, heads.values());
    }
    let answer = |id: Uuid| match (refused.get(&id), &heads) {
        (Some(error), _) | (None, Err(error)) => Answer::refused(id, error),
        (None, Ok(heads)) => Answer::done(id, heads.get(&id).copied()),
    };
    Answers { channels: ids.into_iter().map(answer).collect() }
}

/// Enters the room of a channel.
async fn enter(ctx: &Ctx, socket: &Socket, id: Uuid) -> ImksResult<Channel<View>> {
    ctx.visible(id).await?;
    ctx.session().subscribe(id);
    let entered = channel_rooms::join(socket, ctx.session(), id);
    // Who was removed since the first look was in no room yet that this could end.
    ctx.visible(id).await.inspect_err(|_| {
        if entered {
            channel_rooms::leave(socket, id);
        }
    })
}

async fn unsubscribe(ctx: Ctx, socket: Socket, request: Channels) -> ImksResult<Answers> {
    let leave = |id: Uuid| {
        if channel_rooms::leave(&socket, id) {
            ctx.session().unsubscribe(id);
            ctx.messaging().resume().leaves(&socket, id, true);
            ctx.typing().left(&socket, Some(id));
        }
        Answer::done(id, None)
    };
    let answers = Answers { channels: request.channel_ids.0.into_iter().map(leave).collect() };
    ctx.messaging().resume().settled(&socket).await.map(|()| answers)
}

impl Answer {
    fn done(channel_id: Uuid, head: Option<ChannelHead>) -> Self {
        Self { channel_id, ok: true, numbers: head.map(Numbers::from), error: None }
    }

    fn refused(channel_id: Uuid, error: &ImksError) -> Self {
        let error = ErrorBody::new(error, &RequestId::next());
        Self { channel_id, ok: false, numbers: None, error: Some(error) }
    }
}

/// The most channels in one event.
const CHANNELS_MAX: usize = 100;
