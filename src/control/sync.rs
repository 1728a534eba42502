//! The call that tells who joined and who left channels.

use uuid::Uuid;

use super::Ctx;
use super::input::id;
use super::messages::failure;
use crate::messaging::backend::Backend;
use crate::messaging::orders::Order;
use crate::models::membership_version::MembershipVersion;
use crate::pb::control::sync_membership_request::Change;
use crate::pb::control::{SyncMembershipRequest, SyncMembershipResponse};
use crate::{ImksError, ImksResult, clock};

/// `SyncMembership`: one change.
pub(super) async fn membership(ctx: Ctx, request: SyncMembershipRequest) -> SyncMembershipResponse {
    match apply(&ctx, &request).await {
        Ok(applied) => SyncMembershipResponse { applied, failure: None },
        Err(error) => SyncMembershipResponse { applied: false, failure: Some(failure(&error)) },
    }
}

/// Carries out a change, unless a newer one is known. If a newer one is told meanwhile, perhaps on another node, it
/// is carried out again at the end, so that the newest is the last.
async fn apply(ctx: &Ctx, request: &SyncMembershipRequest) -> ImksResult<bool> {
    let change = read(request)?;
    if change.version == 0 {
        return follow(ctx, change).await.map(|()| true);
    }
    if change.store(ctx.db(), clock::now_micros()).await?.is_some() {
        return Ok(false);
    }
    let mut latest = change;
    follow(ctx, latest).await?;
    while let Some(newer) = latest.newer(ctx.db()).await? {
        latest = newer;
        follow(ctx, latest).await?;
    }
    Ok(true)
}

fn read(request: &SyncMembershipRequest) -> ImksResult<MembershipVersion> {
    let is_member = match request.change() {
        Change::Joined => true,
        Change::Left => false,
        Change::Unspecified => return Err(ImksError::invalid("change", "must be joined or left")),
    };
    if request.version < 0 {
        return Err(ImksError::invalid("version", "must not be negative"));
    }
    Ok(MembershipVersion {
        user_id: id("user_id", &request.user_id)?,
        channel_id: id("channel_id", &request.channel_id)?,
        version: request.version,
        is_member,
    })
}

/// Makes the embedded directory and all sockets follow a change.
async fn follow(ctx: &Ctx, change: MembershipVersion) -> ImksResult<()> {
    let MembershipVersion { user_id: user, channel_id: channel, is_member, .. } = change;
    if let Some(directory) = ctx.directory() {
        let (place, name) = (channel.to_string(), user.to_string());
        // The directory also has members of workspaces, under the ids of those.
        directory.channel_by_name(&place).await?;
        match is_member {
            true => drop(directory.set_member(&place, &name, &[]).await?),
            false => match directory.remove_member(&place, &name).await {
                Ok(()) | Err(ImksError::UnknownName { what: "member", .. }) => {}
                Err(error) => return Err(error),
            },
        }
    }
    if !is_member {
        return ctx.backend().order(Order::Leave { user, channel }).await?.everywhere().map(drop);
    }
    let_in(ctx.backend(), user, channel).await
}

/// Lets the sockets of a member into the room of a channel, on all nodes. For a new member everything so far counts as
/// read.
pub(super) async fn let_in(backend: &Backend, user: Uuid, channel: Uuid) -> ImksResult<()> {
    let membership = backend.membership(user, channel).await?;
    backend.start_reading(&membership.ok_or(ImksError::NotFound("membership"))?).await?;
    backend.order(Order::Join { user, channel }).await?.everywhere().map(drop)
}
