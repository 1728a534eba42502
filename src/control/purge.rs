//! The calls that delete for good (docs/adr/0045).

use uuid::Uuid;

use super::Ctx;
use super::input::id;
use crate::models::purge::{Purge, PurgeKind};
use crate::pb::control::purge_user_request::Mode;
use crate::pb::control::{PurgeChannelRequest, PurgeChannelResponse, PurgeUserRequest, PurgeUserResponse};
use crate::{ImksError, ImksResult};

/// `PurgeChannel`.
pub(super) async fn channel(ctx: Ctx, request: PurgeChannelRequest) -> ImksResult<PurgeChannelResponse> {
    let channel = id("channel_id", &request.channel_id)?;
    if request.before_us < 0 {
        return Err(ImksError::invalid("before_us", "must be 0 or more"));
    }
    let purge = order(&ctx, PurgeKind::Channel, channel, request.before_us).await?;
    Ok(PurgeChannelResponse { purged: purge.purged, remaining: !purge.is_finished() })
}

/// `PurgeUser`.
pub(super) async fn user(ctx: Ctx, request: PurgeUserRequest) -> ImksResult<PurgeUserResponse> {
    let kind = match request.mode() {
        Mode::Anonymise => PurgeKind::Name,
        Mode::Erase => PurgeKind::User,
        Mode::Unspecified => return Err(ImksError::invalid("mode", "must be anonymise or erase")),
    };
    let purge = order(&ctx, kind, id("user_id", &request.user_id)?, 0).await?;
    Ok(PurgeUserResponse { purged: purge.purged, remaining: !purge.is_finished() })
}

async fn order(ctx: &Ctx, kind: PurgeKind, target: Uuid, before: i64) -> ImksResult<Purge> {
    let caller = ctx.caller();
    tracing::info!(?kind, %target, before, caller = %caller.name, "a purge was ordered");
    ctx.backend().purge(kind, target, before, &caller.name).await
}
