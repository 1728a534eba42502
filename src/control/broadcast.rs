//! The call that sends an event of the back end's own to clients.

use serde_json::value::RawValue;

use super::Ctx;
use super::input::id;
use crate::pb::control::{BroadcastRequest, BroadcastResponse, Target, target};
use crate::socket::Namespace;
use crate::socket::parser::RawArgs;
use crate::{ImksError, ImksResult};

/// `Broadcast`. The event is not stored: who is not connected never gets it.
pub(super) async fn broadcast(ctx: Ctx, request: BroadcastRequest) -> ImksResult<BroadcastResponse> {
    check_name(&request.event)?;
    let json = payload(&request.payload_json)?;
    let room = room(request.target.as_ref())?;
    let namespace: &Namespace = ctx.backend().namespace();
    let mut to = match &room {
        Some(room) => namespace.to(room),
        None => namespace.everybody(),
    };
    if request.ephemeral {
        to = to.volatile();
    }
    to.emit_args(&request.event, &RawArgs { json, attachments: &[] })?;
    Ok(BroadcastResponse {})
}

fn check_name(event: &str) -> ImksResult<()> {
    let is_own = event.strip_prefix(PREFIX).is_some_and(|rest| !rest.is_empty());
    if !is_own || event.len() > EVENT_BYTES_MAX || event.chars().any(char::is_control) {
        let reason = format!("must start with {PREFIX} and have at most {EVENT_BYTES_MAX} bytes");
        return Err(ImksError::invalid("event", reason));
    }
    Ok(())
}

/// Returns the one argument of the event.
fn payload(json: &str) -> ImksResult<&str> {
    if json.len() > PAYLOAD_BYTES_MAX {
        return Err(ImksError::invalid("payload", format!("is longer than {PAYLOAD_BYTES_MAX} bytes")));
    }
    let json = if json.is_empty() { "null" } else { json };
    let read = serde_json::from_str::<&RawValue>(json);
    read.map(RawValue::get).map_err(|_| ImksError::invalid("payload", "must be JSON"))
}

/// Returns the room of a target; `None` for everybody.
fn room(target: Option<&Target>) -> ImksResult<Option<String>> {
    match target.and_then(|target| target.to.as_ref()) {
        Some(target::To::UserId(user)) => Ok(Some(format!("user:{}", id("target.user_id", user)?))),
        Some(target::To::ChannelId(channel)) => Ok(Some(id("target.channel_id", channel)?.to_string())),
        Some(target::To::All(true)) => Ok(None),
        Some(target::To::All(false)) | None => {
            Err(ImksError::invalid("target", "must be a user, a channel, or all"))
        }
    }
}

/// What the names of a back end's own events start with.
const PREFIX: &str = "app:";
/// The longest name of an event, in bytes.
const EVENT_BYTES_MAX: usize = 128;
/// The largest argument of an event, in bytes of its JSON text.
const PAYLOAD_BYTES_MAX: usize = 64 << 10;
