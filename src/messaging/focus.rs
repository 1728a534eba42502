//! The event `channel:focus`: a client says which channels it looks at, and gets digests of all others
//! (`channel:activity`).

use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::activity::ACTIVITY;
use super::channel_rooms;
use super::ctx::Ctx;
use super::input::ListUpTo;
use super::registry::{Registry, Request};
use super::subscription::{Answers, answers};
use crate::ImksResult;
use crate::socket::Socket;

const FOCUS: Request<InView, Answers> = Request::new("channel:focus");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&ACTIVITY);
    events.advertise("focused_channels", FOCUSED_MAX);
    events.on_socket(FOCUS, focus);
}

/// The payload of `channel:focus`: the channels in view, possibly none.
#[derive(Debug, Deserialize, JsonSchema)]
struct InView {
    channel_ids: ListUpTo<Uuid, FOCUSED_MAX>,
}

/// Moves the socket between the rooms of its channels, then enters those in view that it did not follow. Rooms come
/// before numbers: what is committed after the numbers of the answer arrives as an event.
async fn focus(ctx: Ctx, socket: Socket, request: InView) -> ImksResult<Answers> {
    let ids = request.channel_ids.0;
    ctx.messaging().activity().begin();
    // What it gets of other channels has no numbers that an offset could stand for.
    ctx.messaging().resume().give_up(&socket);
    // Before anything that waits: of two requests, the one that was sent last decides.
    channel_rooms::look_at(&socket, ctx.session(), ids.iter().copied().collect());
    Ok(answers(&ctx, &socket, ids).await)
}

/// The most channels that a client looks at.
pub(super) const FOCUSED_MAX: usize = 50;
