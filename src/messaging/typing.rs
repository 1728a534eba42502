//! The events `typing:start`, `typing:stop` and `typing`. A user who types holds a lease on this node, which ends
//! by itself, by sending, by leaving the channel, or by disconnecting.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::ctx::Ctx;
use super::rates::RateLimit;
use super::registry::{Registry, Request};
use super::typists::TYPING;
use super::typists::{LEASE_MS, Started, tell_except};
use crate::ImksResult;
use crate::auth::Permission;
use crate::models::message::AuthorInfo;
use crate::rate_limit::Rate;
use crate::socket::Socket;

const START: Request<Typed, Shown> = Request::new("typing:start");
const STOP: Request<Typed, Stopped> = Request::new("typing:stop");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&TYPING);
    events.advertise("typing_lease_ms", LEASE_MS);
    events.advertise("typing_refresh_ms", REFRESH_MS);
    let limit = events.rate_limit("typing:user", RATE);
    let limit_of_stop = limit.clone();
    events.on_socket(START, move |ctx, socket, request| start(ctx, socket, request, limit.clone()));
    events.on_socket(STOP, move |ctx, socket, request| stop(ctx, socket, request, limit_of_stop.clone()));
}

/// The payload of `typing:start` and `typing:stop`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Typed {
    channel_id: Uuid,
    #[serde(default)]
    thread_id: Option<Uuid>,
}

/// The answer to `typing:start`.
#[derive(Debug, Serialize, JsonSchema)]
struct Shown {
    /// How long others see it without a further `typing:start`; 0 if they do not see it.
    expires_in_ms: u64,
}

/// The answer to `typing:stop`.
#[derive(Debug, Serialize, JsonSchema)]
struct Stopped {}

async fn start(ctx: Ctx, socket: Socket, request: Typed, limit: RateLimit<Uuid>) -> ImksResult<Shown> {
    limit.take(ctx.user())?;
    let Typed { channel_id, thread_id } = request;
    let permission = if thread_id.is_some() { Permission::SendInThreads } else { Permission::SendMessages };
    ctx.writable(channel_id, permission).await?;
    let room = ctx.namespace().rooms().get(&channel_id.to_string());
    // A socket that disconnected while its permission was checked would leave its lease behind.
    if room.is_some_and(|room| room.len() > AUDIENCE_MAX) || !socket.is_connected() {
        return Ok(Shown { expires_in_ms: 0 });
    }
    let (place, identity) = ((channel_id, thread_id), ctx.identity());
    let user = AuthorInfo { id: identity.user_id, username: identity.username.as_ref().into() };
    let started = ctx.typing().start(place, &user, socket.id(), Instant::now());
    if started == Started::Tell {
        tell_except(&socket, place, &user, true);
    }
    Ok(Shown { expires_in_ms: if started == Started::Full { 0 } else { LEASE_MS } })
}

/// Needs no permission: it ends only what the caller has started.
async fn stop(ctx: Ctx, socket: Socket, request: Typed, limit: RateLimit<Uuid>) -> ImksResult<Stopped> {
    limit.take(ctx.user())?;
    let place = (request.channel_id, request.thread_id);
    if let Some(user) = ctx.typing().stop(place, ctx.user()) {
        tell_except(&socket, place, &user, false);
    }
    Ok(Stopped {})
}

/// How often a client repeats `typing:start`, in milliseconds.
const REFRESH_MS: u64 = 4_000;
/// The most sockets of this node in a channel in which typing is shown.
const AUDIENCE_MAX: usize = 1_000;
/// The rate at which one user may start and stop typing.
const RATE: Rate = Rate::new(2, 10);
