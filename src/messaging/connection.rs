//! The events `auth:refresh` and `ping`, which concern the connection itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::access;
use super::access::REVOKED;
use super::connect::Auth;
use super::ctx::Ctx;
use super::expiry::{EXPIRED, EXPIRING, Expiry};
use super::farewell::{ENDED, SHUTDOWN};
use super::greeting::{CHANNELS, READY};
use super::outcome::ERROR;
use super::registry::{Registry, Request};
use crate::clock::{self, Timestamp};
use crate::socket::Socket;
use crate::{ImksError, ImksResult};

const REFRESH: Request<Refresh, Refreshed> = Request::new("auth:refresh");
const PING: Request<Ping, Pong> = Request::new("ping");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>, expiry: &Expiry) {
    events.credentials::<Auth>();
    events.sends(&READY);
    events.sends(&CHANNELS);
    events.sends(&EXPIRING);
    events.sends(&EXPIRED);
    events.sends(&REVOKED);
    events.sends(&ENDED);
    events.sends(&SHUTDOWN);
    events.sends(&ERROR);
    events.advertise("max_payload", events.config().max_payload);
    let expiry = expiry.clone();
    events.on_socket(REFRESH, move |ctx, socket, request| refresh(expiry.clone(), ctx, socket, request));
    events.on(PING, ping);
}

/// The payload of `auth:refresh`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Refresh {
    token: String,
}

/// The answer to `auth:refresh`.
#[derive(Debug, Serialize, JsonSchema)]
struct Refreshed {
    token_expires_at: Timestamp,
}

/// Replaces the token with a new one of the same user. The core verifies it, because it extends a session.
async fn refresh(expiry: Expiry, ctx: Ctx, socket: Socket, request: Refresh) -> ImksResult<Refreshed> {
    let token = ctx.session().token().renewed(&request.token);
    let identity = ctx.tokens().verify_remote(token.presented()).await?;
    if identity.user_id != ctx.user() {
        return Err(ImksError::Auth("The token belongs to somebody else"));
    }
    let token_expires_at = Timestamp(identity.expires_at);
    ctx.session().renew(identity.clone(), token);
    expiry.renewed(&socket, ctx.session());
    // A revocation that came between the core's verdict and now looked at the token of before.
    if ctx.tokens().is_revoked(&identity) {
        access::disconnect(&[socket], None);
        return Err(ImksError::TokenRevoked);
    }
    Ok(Refreshed { token_expires_at })
}

/// The payload of `ping`; `t` is echoed unchanged.
#[derive(Debug, Deserialize, JsonSchema)]
struct Ping {
    #[serde(default)]
    t: Option<Box<RawValue>>,
}

/// The answer to `ping`.
#[derive(Debug, Serialize, JsonSchema)]
struct Pong {
    t: Option<Box<RawValue>>,
    server_time: Timestamp,
}

async fn ping(_: Ctx, request: Ping) -> ImksResult<Pong> {
    Ok(Pong { t: request.t, server_time: Timestamp(clock::now_micros()) })
}
