//! The calls that delete for good, and the list of what they deleted (docs/adr/0045).

use uuid::Uuid;

use super::Ctx;
use super::holds::page;
use super::input::{id, optional_id, request_id};
use crate::clock;
use crate::models::purge::{Purge, PurgeKind};
use crate::pb::control::purge_record::Kind;
use crate::pb::control::purge_user_request::Mode;
use crate::pb::control::{
    ListPurgesRequest, ListPurgesResponse, PurgeChannelRequest, PurgeChannelResponse, PurgeRecord,
    PurgeUserRequest, PurgeUserResponse,
};
use crate::{ImksError, ImksResult};

/// `PurgeChannel`.
pub(super) async fn channel(ctx: Ctx, request: PurgeChannelRequest) -> ImksResult<PurgeChannelResponse> {
    let channel = id("channel_id", &request.channel_id)?;
    if request.before_us < 0 {
        return Err(ImksError::invalid("before_us", "must be 0 or more"));
    }
    let what = (PurgeKind::Channel, channel);
    let purge = order(&ctx, (&request.request_id, &request.reason), what, request.before_us).await?;
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
    let purge = order(&ctx, (&request.request_id, &request.reason), what, 0).await?;
    Ok(PurgeUserResponse { purged: purge.purged, remaining: !purge.is_finished() })
}

/// `ListPurges`.
pub(super) async fn list(ctx: Ctx, request: ListPurgesRequest) -> ImksResult<ListPurgesResponse> {
    let before = optional_id("before", &request.before)?;
    let purges = Purge::list(ctx.db(), before, page(request.limit)?).await?;
    Ok(ListPurgesResponse { purges: purges.into_iter().map(shown).collect() })
}

fn shown(purge: Purge) -> PurgeRecord {
    let (kind, target) = purge.what();
    let target = target.to_string();
    let (kind, channel_id, user_id) = match kind {
        PurgeKind::Channel => (Kind::Channel, target, String::new()),
        PurgeKind::User => (Kind::Erase, String::new(), target),
        PurgeKind::Name => (Kind::Anonymise, String::new(), target),
    };
    PurgeRecord {
        id: purge.id().to_string(),
        kind: kind.into(),
        channel_id,
        user_id,
        requested_us: purge.requested_at,
        finished_us: purge.finished_at.unwrap_or_default(),
        purged: purge.purged,
        reason: purge.reason,
        requested_by: purge.requested_by,
    }
}

/// Orders a purge. A repeat of the request says how far it has come, and deletes nothing that was written since.
async fn order(
    ctx: &Ctx,
    (request, reason): (&str, &str),
    what: (PurgeKind, Uuid),
    before: i64,
) -> ImksResult<Purge> {
    let caller = ctx.caller();
    let id = match request_id(request)? {
        Some(request) => Uuid::new_v5(&caller.id, request.as_str().as_bytes()),
        None => clock::new_id(),
    };
    tracing::info!(kind = ?what.0, target = %what.1, before, caller = &*caller.name, "a purge was ordered");
    ctx.backend().purge(id, what, before, (&caller.name, reason)).await
}
