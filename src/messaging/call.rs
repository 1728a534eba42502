//! The event `call:signal`, which passes the signals of a call (WebRTC: offers, answers, candidates) between the members
//! of a channel. Nothing of it is stored, and sound and pictures take another way.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::channel_rooms;
use super::ctx::Ctx;
use super::push::Push;
use super::rates::RateLimit;
use super::registry::{Registry, Request};
use crate::auth::Permission;
use crate::models::message::AuthorInfo;
use crate::rate_limit::Rate;
use crate::socket::Socket;
use crate::{ImksError, ImksResult};

const SIGNAL: Request<Signal, Passed> = Request::new("call:signal");
/// Sent to those whom a signal is for.
const INCOMING: Push<Incoming<'_>> = Push::new("call:incoming");

/// Registers the events of this feature.
pub(super) fn register(events: &mut Registry<'_>) {
    events.sends(&INCOMING);
    events.advertise("call_data_bytes", DATA_BYTES_MAX);
    let to_one = events.rate_limit("call:user", RATE);
    let to_all = events.rate_limit("call:channel", RATE_TO_ALL);
    events.on_socket(SIGNAL, move |ctx, socket, request| {
        signal(ctx, socket, request, to_one.clone(), to_all.clone())
    });
}

/// The payload of `call:signal`.
#[derive(Debug, Deserialize, JsonSchema)]
struct Signal {
    channel_id: Uuid,
    /// The member whom it is for; all others in the channel if absent.
    #[serde(default)]
    to: Option<Uuid>,
    /// Whatever the clients of a call tell each other.
    data: Value,
}

/// The answer to `call:signal`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SignalPassed")]
struct Passed {}

/// The payload of `call:incoming`.
#[derive(Debug, Serialize, JsonSchema)]
struct Incoming<'a> {
    channel_id: Uuid,
    from: &'a AuthorInfo,
    to: Option<Uuid>,
    data: &'a Value,
}

/// Passes a signal on. Who gets it is decided now: by the member's devices, or by who is connected and in the channel.
async fn signal(
    ctx: Ctx,
    socket: Socket,
    request: Signal,
    to_one: RateLimit<Uuid>,
    to_all: RateLimit<Uuid>,
) -> ImksResult<Passed> {
    let Signal { channel_id, to, data } = request;
    to_one.take(ctx.user())?;
    check(&data)?;
    ctx.writable(channel_id, Permission::SendMessages).await?;
    let identity = ctx.identity();
    let from = AuthorInfo { id: identity.user_id, username: identity.username.as_ref().into() };
    let incoming = Incoming { channel_id, from: &from, to, data: &data };
    match to {
        Some(to) if !ctx.may_see(to, channel_id).await? => return Err(ImksError::NotFound("member")),
        Some(to) => INCOMING.to_devices_but(&socket, to, &incoming),
        None => {
            to_all.take(ctx.user())?;
            if !ctx.is_small(channel_id).await? {
                return Err(ImksError::LimitReached("receipt_members"));
            }
            INCOMING.to_rooms_but(&socket, &channel_rooms::all(channel_id), &incoming);
        }
    }
    Ok(Passed {})
}

/// Checks that a signal is small, and that every node and client reads it as it was sent.
fn check(data: &Value) -> ImksResult<()> {
    let bytes = serde_json::to_string(data)?.len();
    if bytes > DATA_BYTES_MAX {
        return Err(ImksError::invalid("data", format!("is longer than {DATA_BYTES_MAX} bytes")));
    }
    match is_plain(data, DEPTH_MAX) {
        true => Ok(()),
        false => {
            let reason = format!("must be nested at most {DEPTH_MAX} deep, without \"_placeholder\": true");
            Err(ImksError::invalid("data", reason))
        }
    }
}

/// Whether a value is nested at most `depth` deep, without an object that Socket.IO reads as an attachment.
fn is_plain(value: &Value, depth: usize) -> bool {
    let inner = |value: &Value| depth > 0 && is_plain(value, depth - 1);
    match value {
        Value::Array(values) => values.iter().all(inner),
        Value::Object(fields) => {
            fields.get("_placeholder") != Some(&Value::Bool(true)) && fields.values().all(inner)
        }
        _ => true,
    }
}

/// The largest signal, in bytes of its JSON text: the description of a session with many tracks.
const DATA_BYTES_MAX: usize = 16 << 10;
/// The deepest nesting of a signal.
const DEPTH_MAX: usize = 32;
/// The rate at which one user may send signals. Candidates come in bursts; a burst of the largest signals still fits into
/// what may wait for one client.
const RATE: Rate = Rate::new(20, 50);
/// The rate at which one user may send signals to everybody in a channel.
const RATE_TO_ALL: Rate = Rate::new(1, 5);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_signal_is_small_flat_and_no_attachment() {
        let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        assert!(check(&json!({ "type": "offer", "sdp": "v=0\r\n" })).is_ok());
        assert!(check(&nested(DEPTH_MAX)).is_ok() && check(&nested(DEPTH_MAX + 1)).is_err());
        assert!(check(&json!([{ "_placeholder": true, "num": 0 }])).is_err());
        assert!(check(&json!("x".repeat(DATA_BYTES_MAX))).is_err());
    }
}
