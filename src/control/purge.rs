//! The calls that delete for good (docs/adr/0045).

use uuid::Uuid;

use super::Ctx;
use super::input::{id, request_id};
use crate::clock;
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
    let what = (PurgeKind::Channel, channel);
    let purge = order(&ctx, &request.request_id, what, request.before_us).await?;
    Ok(PurgeChannelResponse { purged: purge.purged, remaining: !purge.is_finished() })
}

/// `PurgeUser`.
pub(super) async fn user(ctx: Ctx, request: PurgeUserRequest) -> ImksResult<PurgeUserResponse> {
    let kind = match request.mode() {
        Mode::Anonymise => PurgeKind::Name,
        Mode::Erase => PurgeKind::User,
        Mode::Unspecified => return Err(ImksError::invalid("mode", "must be anonymise or erase")),
    };
    let what = (kind, id("user_id", &request.user_id)?);
    let purge = order(&ctx, &request.request_id, what, 0).await?;
    Ok(PurgeUserResponse { purged: purge.purged, remaining: !purge.is_finished() })
}

/// Orders a purge. A repeat of the request says how far it has come, and deletes nothing that was written since.
async fn order(ctx: &Ctx, request: &str, what: (PurgeKind, Uuid), before: i64) -> ImksResult<Purge> {
    let caller = ctx.caller();
    let id = match request_id(request)? {
        Some(request) => Uuid::new_v5(&caller.id, request.as_str().as_bytes()),
        None => clock::new_id(),
    };
    tracing::info!(kind = ?what.0, target = %what.1, before, caller = %caller.name, "a purge was ordered");
    ctx.backend().purge(id, what, before, &caller.name).await
}
