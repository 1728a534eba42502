//! The call that sends an event of the back end's own to clients.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::Ctx;
use super::input::id;
use super::messages::named;
use crate::messaging::workspace_room;
use crate::models::message::AuthorInfo;
use crate::pb::control::{BroadcastRequest, BroadcastResponse, Target, target};
use crate::socket::Namespace;
use crate::socket::parser::RawArgs;
use crate::{ImksError, ImksResult};

/// `Broadcast`. The event is not stored: who is not connected never gets it.
pub(super) async fn broadcast(ctx: Ctx, request: BroadcastRequest) -> ImksResult<BroadcastResponse> {
    check_name(&request.event)?;
    let arguments = arguments(&ctx, &request)?;
    let room = room(request.target.as_ref())?;
    let namespace: &Namespace = ctx.backend().namespace();
    let mut to = match &room {
        Some(room) => namespace.to(room),
        None => namespace.everybody(),
    };
    if request.ephemeral {
        to = to.volatile();
    }
    to.emit_args(&request.event, &RawArgs { json: &arguments, attachments: &[] })?;
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

/// Returns the arguments of the event: the payload, and who it is from if the back end says so.
fn arguments<'a>(ctx: &Ctx, request: &'a BroadcastRequest) -> ImksResult<Cow<'a, str>> {
    let json = payload(&request.payload_json)?;
    let Some(sender) = &request.sender else { return Ok(json.into()) };
    let (AuthorInfo { id, username }, kind) = named(ctx.caller(), sender, ["sender.id", "sender.name"])?;
    let sender = json!({ "sender": { "id": id, "username": username, "type": kind } });
    Ok(format!("{json},{sender}").into())
}

/// Returns the payload, which is checked to be JSON that every node takes from another one: neither nested too deep nor
/// with what stands for an attachment there.
fn payload(json: &str) -> ImksResult<&str> {
    if json.len() > PAYLOAD_BYTES_MAX {
        return Err(ImksError::invalid("payload", format!("is longer than {PAYLOAD_BYTES_MAX} bytes")));
    }
    let json = if json.is_empty() { "null" } else { json };
    let value: Value = serde_json::from_str(json)
        .map_err(|_| ImksError::invalid("payload", "must be JSON, nested at most 127 deep"))?;
    if has_placeholder(&value) {
        return Err(ImksError::invalid("payload", "must not have an object with \"_placeholder\": true"));
    }
    Ok(json.trim())
}

/// Whether a value has an object that Socket.IO reads as an attachment.
fn has_placeholder(value: &Value) -> bool {
    match value {
        Value::Array(values) => values.iter().any(has_placeholder),
        Value::Object(fields) => {
            fields.get("_placeholder") == Some(&Value::Bool(true)) || fields.values().any(has_placeholder)
        }
        _ => false,
    }
}

/// Returns the room of a target; `None` for everybody.
fn room(target: Option<&Target>) -> ImksResult<Option<String>> {
    match target.and_then(|target| target.to.as_ref()) {
        Some(target::To::UserId(user)) => Ok(Some(format!("user:{}", id("target.user_id", user)?))),
        Some(target::To::ChannelId(channel)) => Ok(Some(id("target.channel_id", channel)?.to_string())),
        Some(target::To::WorkspaceId(workspace)) => {
            Ok(Some(workspace_room(id("target.workspace_id", workspace)?)))
        }
        Some(target::To::All(true)) => Ok(None),
        Some(target::To::All(false)) => Err(ImksError::invalid("target.all", "must be true")),
        None => {
            let rule = "must have exactly one of user_id, channel_id, workspace_id, all";
            Err(ImksError::invalid("target", rule))
        }
    }
}

/// What the names of a back end's own events start with.
const PREFIX: &str = "app:";
/// The longest name of an event, in bytes.
const EVENT_BYTES_MAX: usize = 128;
/// The largest argument of an event, in bytes of its JSON text.
const PAYLOAD_BYTES_MAX: usize = 64 << 10;
