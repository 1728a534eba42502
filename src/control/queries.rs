//! The calls that ask about users: presence, unread messages, connections.

use super::Ctx;
use super::input::{id, ids, optional_id};
use crate::ImksResult;
use crate::messaging::backend::{Connected, Unread};
use crate::pb::control::{
    GetPresenceRequest, GetPresenceResponse, GetSessionsRequest, GetSessionsResponse, GetUnreadCountsRequest,
    GetUnreadCountsResponse, Presence, Session, UnreadCount,
};

/// `GetPresence`.
pub(super) async fn presence(ctx: Ctx, request: GetPresenceRequest) -> ImksResult<GetPresenceResponse> {
    let users = ids("user_ids", &request.user_ids, IDS_MAX)?;
    let presences = ctx.backend().presences(&users).into_iter().map(|(user, status, active)| Presence {
        user_id: user.to_string(),
        status: status.to_owned(),
        last_active_us: active.unwrap_or_default(),
    });
    Ok(GetPresenceResponse { presences: presences.collect() })
}

/// `GetUnreadCounts`.
pub(super) async fn unread(ctx: Ctx, request: GetUnreadCountsRequest) -> ImksResult<GetUnreadCountsResponse> {
    let channels = ids("channel_ids", &request.channel_ids, IDS_MAX)?;
    let counts = ctx.backend().unread(id("user_id", &request.user_id)?, channels).await?;
    Ok(GetUnreadCountsResponse { counts: counts.into_iter().map(count).collect() })
}

fn count(Unread { head, state }: Unread) -> UnreadCount {
    UnreadCount {
        channel_id: head.channel_id.to_string(),
        last_seq: head.last_seq,
        read_seq: state.map_or(head.last_seq, |state| state.read_seq),
        unread: state.map_or(0, |state| state.unread_count),
        mentions: state.map_or(0, |state| state.mention_count),
    }
}

/// `GetSessions`.
pub(super) async fn sessions(ctx: Ctx, request: GetSessionsRequest) -> ImksResult<GetSessionsResponse> {
    let user = optional_id("user_id", &request.user_id)?;
    let channel = optional_id("channel_id", &request.channel_id)?;
    let connected = ctx.backend().connected(user, channel, SESSIONS_MAX).await?;
    Ok(GetSessionsResponse { sessions: connected.into_iter().map(session).collect() })
}

fn session(connected: Connected) -> Session {
    let (client_name, client_version) = match connected.client {
        Some(client) => (client.name.into(), client.version.unwrap_or_default().into()),
        None => (String::new(), String::new()),
    };
    Session {
        user_id: connected.user_id.to_string(),
        username: connected.username.map(|name| name.to_string()).unwrap_or_default(),
        session_id: connected.session_id.map(|id| id.to_string()).unwrap_or_default(),
        socket_id: connected.socket_id,
        node: connected.node,
        transport: connected.transport,
        peer: connected.peer,
        client_name,
        client_version,
        connected_us: connected.connected_at,
        rtt_us: connected.rtt_us.unwrap_or_default(),
    }
}

/// The most users, or channels, that one call asks about.
const IDS_MAX: usize = 500;
/// The most connections in one answer.
const SESSIONS_MAX: usize = 10_000;
