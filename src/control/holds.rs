//! The calls about legal holds (docs/adr/0052).

use uuid::Uuid;

use super::Ctx;
use super::input::{id, optional_id};
use crate::models::legal_hold::{self, HoldKind};
use crate::pb::control::{
    LegalHold, ListLegalHoldsRequest, ListLegalHoldsResponse, ReleaseLegalHoldRequest,
    ReleaseLegalHoldResponse, SetLegalHoldRequest, SetLegalHoldResponse,
};
use crate::{ImksError, ImksResult};

/// `SetLegalHold`. The target need not exist: what somebody has left outlives the account.
pub(super) async fn set(ctx: Ctx, request: SetLegalHoldRequest) -> ImksResult<SetLegalHoldResponse> {
    let target = target(&request.channel_id, &request.user_id)?;
    let hold = legal_hold::set(ctx.db(), target, &request.reason, &ctx.caller().name).await?;
    tracing::info!(kind = ?target.0, target = %target.1, caller = &*ctx.caller().name, "a legal hold is set");
    Ok(SetLegalHoldResponse { hold: Some(shown(hold)) })
}

/// `ReleaseLegalHold`.
pub(super) async fn release(
    ctx: Ctx,
    request: ReleaseLegalHoldRequest,
) -> ImksResult<ReleaseLegalHoldResponse> {
    let (kind, target) = target(&request.channel_id, &request.user_id)?;
    let released = legal_hold::release(ctx.db(), target, &ctx.caller().name).await?;
    tracing::info!(?kind, %target, released, caller = &*ctx.caller().name, "a legal hold is released");
    Ok(ReleaseLegalHoldResponse { released })
}

/// `ListLegalHolds`.
pub(super) async fn list(ctx: Ctx, request: ListLegalHoldsRequest) -> ImksResult<ListLegalHoldsResponse> {
    let after = optional_id("after", &request.after)?.unwrap_or_default();
    let holds = legal_hold::list(ctx.db(), after, page(request.limit)?, request.released).await?;
    Ok(ListLegalHoldsResponse { holds: holds.into_iter().map(shown).collect() })
}

/// Reads the length of a page.
pub(super) fn page(limit: u32) -> ImksResult<i64> {
    match limit {
        0 => Ok(PAGE_DEFAULT),
        1..=PAGE_MAX => Ok(limit.into()),
        _ => Err(ImksError::invalid("limit", format!("must be at most {PAGE_MAX}"))),
    }
}

fn target(channel: &str, user: &str) -> ImksResult<(HoldKind, Uuid)> {
    match (channel.is_empty(), user.is_empty()) {
        (false, true) => Ok((HoldKind::Channel, id("channel_id", channel)?)),
        (true, false) => Ok((HoldKind::User, id("user_id", user)?)),
        _ => Err(ImksError::invalid("channel_id", "or user_id: one of them is needed")),
    }
}

fn shown(hold: legal_hold::LegalHold) -> LegalHold {
    let target = hold.target_id.to_string();
    let (channel_id, user_id) = match hold.kind() {
        HoldKind::Channel => (target, String::new()),
        HoldKind::User => (String::new(), target),
    };
    LegalHold {
        id: hold.id.to_string(),
        channel_id,
        user_id,
        reason: hold.reason,
        set_by: hold.set_by,
        set_us: hold.set_at,
        released_by: hold.released_by.unwrap_or_default(),
        released_us: hold.released_at.unwrap_or_default(),
    }
}

/// The length of a page if the caller names none.
const PAGE_DEFAULT: i64 = 100;
/// The longest page.
const PAGE_MAX: u32 = 500;
