//! The calls that act on users, connections, caches and channels.

use super::Ctx;
use super::input::{id, optional_id};
use crate::directory::ChannelChange;
use crate::messaging::orders::{Filter, Order, Subject};
use crate::models::channel_policy::ChannelPolicy;
use crate::models::revocation::RevocationRow;
use crate::pb::control::{
    DisconnectAllRequest, DisconnectAllResponse, InvalidatePermissionsRequest, InvalidatePermissionsResponse,
    KickUserRequest, KickUserResponse, NotifyKeyRotationRequest, NotifyKeyRotationResponse,
    RevokeSessionRequest, RevokeSessionResponse, SetChannelPolicyRequest, SetChannelPolicyResponse,
};
use crate::{ImksError, ImksResult, clock, error};

/// `InvalidatePermissions`. Permissions are cached by user and channel, so a workspace or a role alone means all.
pub(super) async fn invalidate(
    ctx: Ctx,
    request: InvalidatePermissionsRequest,
) -> ImksResult<InvalidatePermissionsResponse> {
    let user = optional_id("user_id", &request.user_id)?;
    let channel = optional_id("channel_id", &request.channel_id)?;
    optional_id("workspace_id", &request.workspace_id)?;
    optional_id("role_id", &request.role_id)?;
    tracing::debug!(?user, ?channel, version = request.version, "permissions changed");
    ctx.backend().order(Order::Invalidate { user, channel }).await?.everywhere()?;
    Ok(InvalidatePermissionsResponse {})
}

/// `SetChannelPolicy`. With the embedded directory it changes the channel there; with another core it is stored
/// beside what that core says.
pub(super) async fn set_policy(
    ctx: Ctx,
    request: SetChannelPolicyRequest,
) -> ImksResult<SetChannelPolicyResponse> {
    let channel_id = id("channel_id", &request.channel_id)?;
    if request.slow_mode_s.is_some_and(|seconds| seconds > SLOW_MODE_S_MAX) {
        return Err(ImksError::invalid("slow_mode_s", format!("must be at most {SLOW_MODE_S_MAX}")));
    }
    if request.retention_days.is_some_and(|days| days > RETENTION_DAYS_MAX) {
        return Err(ImksError::invalid("retention_days", format!("must be at most {RETENTION_DAYS_MAX}")));
    }
    let SetChannelPolicyRequest { slow_mode_s, read_only, archived, retention_days, .. } = request;
    let channel = ctx.backend().channel_now(channel_id).await?;
    if let Some(directory) = ctx.directory() {
        let change =
            ChannelChange { archived, read_only, slow_mode_s, retention_days, ..ChannelChange::default() };
        directory.set_channel(&channel_id.to_string(), change).await?;
        return Ok(SetChannelPolicyResponse {});
    }
    let policy = ChannelPolicy {
        channel_id,
        core_version: channel.version,
        slow_mode_s: slow_mode_s.map(Into::into),
        read_only,
        archived,
        retention_days: retention_days.map(Into::into),
    };
    policy.store(ctx.db()).await?;
    // A node that does not answer reads it within seconds.
    ctx.backend().order(Order::Policies).await?;
    Ok(SetChannelPolicyResponse {})
}

/// `KickUser`. With the embedded directory a kick from a channel also ends the membership; another core has ended
/// it before it calls.
pub(super) async fn kick(ctx: Ctx, request: KickUserRequest) -> ImksResult<KickUserResponse> {
    let (user, message) = (id("user_id", &request.user_id)?, reason(request.reason)?);
    let channel = optional_id("channel_id", &request.channel_id)?;
    ctx.backend().user(user).await?;
    if let Some(channel) = channel {
        let channel = ctx.backend().channel_now(channel).await?;
        if ctx.directory().is_some() && channel.kind.is_direct() {
            return Err(ImksError::FailedPrecondition(error::Precondition::DirectConversation));
        }
    }
    let done = ctx.backend().order(Order::Kick { user, channel, message }).await?;
    if let (Some(directory), Some(channel)) = (ctx.directory(), channel) {
        match directory.remove_member(&channel.to_string(), &user.to_string()).await {
            // A repeat finds the membership ended.
            Ok(()) | Err(ImksError::UnknownName { what: "member", .. }) => {}
            Err(error) => return Err(error),
        }
        // What was asked between the two is forgotten, so that the kick holds when this call returns.
        ctx.backend().order(Order::Leave { user, channel }).await?;
    }
    Ok(KickUserResponse { sockets: done.everywhere()? })
}

/// `RevokeSession`. It is stored, so a node that misses the order, or starts later, knows it too.
pub(super) async fn revoke(ctx: Ctx, request: RevokeSessionRequest) -> ImksResult<RevokeSessionResponse> {
    let session = optional_id("session_id", &request.session_id)?;
    let user = optional_id("user_id", &request.user_id)?;
    let message = reason(request.reason)?;
    let subject = match (session, user) {
        (Some(session), None) => Subject::Session(session),
        (None, Some(user)) => Subject::User(ctx.backend().user(user).await?.id),
        _ => return Err(ImksError::invalid("session_id", "or user_id: one of them is needed")),
    };
    let void_until = ctx.backend().void_until(subject);
    let (subject_id, is_session) = match subject {
        Subject::User(user) => (user, false),
        Subject::Session(session) => (session, true),
    };
    let row = RevocationRow { subject_id, is_session, void_until, at: clock::now_micros() };
    row.store(ctx.db()).await?;
    // A node that does not answer reads it within seconds. This is before the directory ends the session, because
    // only the order knows the reason.
    ctx.backend().order(Order::Revoke { subject, void_until, message }).await?;
    if let Some(directory) = ctx.directory() {
        match subject {
            Subject::User(user) => directory.revoke_user(&user.to_string()).await?,
            Subject::Session(session) => directory.revoke_session(&session.to_string()).await?,
        }
    }
    Ok(RevokeSessionResponse {})
}

/// `DisconnectAll`.
pub(super) async fn disconnect(ctx: Ctx, request: DisconnectAllRequest) -> ImksResult<DisconnectAllResponse> {
    let text = |text: String| (!text.is_empty()).then_some(text);
    let filter = Filter {
        user: optional_id("user_id", &request.user_id)?,
        channel: optional_id("channel_id", &request.channel_id)?,
        node: text(request.node),
        client_name: text(request.client_name),
    };
    if filter.is_empty() != request.everybody {
        let rule = "must be true without user_id, channel_id, node and client_name, and only then";
        return Err(ImksError::invalid("everybody", rule));
    }
    let message = reason(request.reason)?;
    let done = ctx.backend().order(Order::Disconnect { filter, message }).await?;
    Ok(DisconnectAllResponse { sockets: done.everywhere()? })
}

/// `NotifyKeyRotation`.
pub(super) async fn keys_changed(
    ctx: Ctx,
    _: NotifyKeyRotationRequest,
) -> ImksResult<NotifyKeyRotationResponse> {
    ctx.backend().order(Order::Keys).await?.everywhere()?;
    Ok(NotifyKeyRotationResponse {})
}

/// Returns the reason that users are told, if there is one.
fn reason(text: String) -> ImksResult<Option<String>> {
    if text.chars().count() > REASON_CHARS_MAX || text.chars().any(char::is_control) {
        let rule = format!("must have at most {REASON_CHARS_MAX} characters, and no control characters");
        return Err(ImksError::invalid("reason", rule));
    }
    Ok((!text.trim().is_empty()).then_some(text))
}

/// The longest reason that a user is told, in characters.
const REASON_CHARS_MAX: usize = 256;
/// The longest slow mode, in seconds.
const SLOW_MODE_S_MAX: u32 = 21_600;
/// The longest time that messages are kept, in days, if it is limited.
const RETENTION_DAYS_MAX: u32 = 36_500;
