//! Who loses a right loses it at once: rooms follow the core's changes.

use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::parts::{Messaging, timed};
use super::push::{Push, user_room};
use super::session::Session;
use crate::auth::{AccessChange, Permission, Revocation};
use crate::models::message_read_state::baseline;
use crate::socket::{Namespace, Socket};

/// The user is a member now; this socket is in the channel's room.
const JOINED: Push<Joined<'_>> = Push::new("channel:joined");
/// The user is no member any more; all sockets have left the channel's room.
const LEFT: Push<Left> = Push::new("channel:left");

/// The token of the connection was withdrawn; the connection ends.
const REVOKED: Push<Revoked> = Push::new("auth:revoked");

#[derive(Debug, Serialize)]
struct Revoked {}

#[derive(Debug, Serialize)]
struct Joined<'a> {
    channel_id: Uuid,
    name: &'a str,
}

#[derive(Debug, Serialize)]
struct Left {
    channel_id: Uuid,
    reason: &'static str,
}

/// Follows memberships, permissions and withdrawn tokens until `stop`.
pub async fn follow(messaging: Messaging, namespace: Namespace, stop: CancellationToken) {
    let mut changes = messaging.permissions().changes();
    let mut revoked = messaging.authenticator().revoked();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            change = changes.recv() => match change {
                Ok(change) => apply(&messaging, &namespace, change).await,
                // What was missed is unknown: every room is checked.
                Err(RecvError::Lagged(_)) => check(&messaging, namespace.sockets(), None).await,
                Err(RecvError::Closed) => return,
            },
            revocation = revoked.recv() => match revocation {
                Ok(revocation) => withdraw(&messaging, &namespace, &revocation),
                Err(RecvError::Lagged(_)) => withdraw_all(&messaging, &namespace),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

/// A new member has read everything there is, and nothing of what comes.
async fn start_reading(messaging: &Messaging, user: Uuid, channel: Uuid) {
    if let Err(error) = timed("baseline", baseline(messaging.db(), user, &[channel])).await {
        // The user's next connect makes up for it.
        tracing::warn!(%error, "read position of a new member was not set");
    }
}

async fn apply(messaging: &Messaging, namespace: &Namespace, change: AccessChange) {
    match change {
        AccessChange::Joined(membership) => {
            let (user, channel_id) = (membership.user_id, membership.channel_id);
            start_reading(messaging, user, channel_id).await;
            let sockets = namespace.sockets_in(&user_room(user));
            // Most changes are about people who are not here.
            if sockets.is_empty() || !may_view(messaging, user, channel_id).await {
                return;
            }
            let room = channel_id.to_string();
            let wants = |socket: &&Socket| {
                let left =
                    socket.data::<Session>().is_some_and(|session| session.has_unsubscribed(channel_id));
                !left && !socket.is_in(&room)
            };
            for socket in sockets.iter().filter(wants) {
                socket.join(&room);
                JOINED.to_socket(socket, &Joined { channel_id, name: &membership.name });
            }
        }
        AccessChange::Left { user_id, channel_id } => {
            leave(&namespace.sockets_in(&user_room(user_id)), channel_id, "removed");
        }
        AccessChange::ChannelRemoved(channel_id) => {
            leave(&namespace.sockets_in(&channel_id.to_string()), channel_id, "channel_removed");
        }
        AccessChange::Permissions { user_id, channel_id } => {
            let sockets = match (user_id, channel_id) {
                (Some(user), _) => namespace.sockets_in(&user_room(user)),
                (None, Some(channel)) => namespace.sockets_in(&channel.to_string()),
                (None, None) => namespace.sockets(),
            };
            check(messaging, sockets, channel_id).await;
        }
        AccessChange::Channel(_) => {}
    }
}

fn leave(sockets: &[Socket], channel_id: Uuid, reason: &'static str) {
    let room = channel_id.to_string();
    for socket in sockets.iter().filter(|socket| socket.is_in(&room)) {
        socket.leave(&room);
        LEFT.to_socket(socket, &Left { channel_id, reason });
    }
}

/// Makes sockets leave the rooms they may not be in: of one channel, or all of theirs.
async fn check(messaging: &Messaging, sockets: Vec<Socket>, channel: Option<Uuid>) {
    let checks = stream::iter(sockets);
    checks.for_each_concurrent(CHECKS_AT_ONCE, |socket| check_socket(messaging, socket, channel)).await;
}

async fn check_socket(messaging: &Messaging, socket: Socket, channel: Option<Uuid>) {
    let Some(session) = socket.data::<Session>() else { return };
    let user = session.identity().user_id;
    let channels: Vec<Uuid> = match channel {
        Some(channel) => vec![channel],
        None => socket.rooms().iter().filter_map(|room| Uuid::parse_str(room).ok()).collect(),
    };
    // One call for many channels; what it did not bring is asked for one by one.
    if channels.len() > 1 && messaging.permissions().warm(user, &channels).await.is_err() {
        tracing::debug!("permissions not fetched in advance");
    }
    for channel in channels {
        if !may_view(messaging, user, channel).await {
            leave(std::slice::from_ref(&socket), channel, why_lost(messaging, user, channel).await);
        }
    }
}

/// Why somebody may not see a channel any more. The end of a membership changes permissions too, and that news may
/// come first, so the core is asked which of the two it was.
async fn why_lost(messaging: &Messaging, user: Uuid, channel: Uuid) -> &'static str {
    match messaging.permissions().is_member(user, channel).await {
        Ok(false) => "removed",
        Ok(true) | Err(_) => "forbidden",
    }
}

/// Without an answer from the core everything stays as it is: outages are not removals.
async fn may_view(messaging: &Messaging, user: Uuid, channel: Uuid) -> bool {
    match messaging.permissions().require(user, channel, Permission::ViewChannel).await {
        Ok(_) => true,
        Err(error) => error.is_retryable(),
    }
}

fn withdraw(messaging: &Messaging, namespace: &Namespace, revocation: &Revocation) {
    let sockets = match revocation.user_id {
        Some(user) => namespace.sockets_in(&user_room(user)),
        None => namespace.sockets(),
    };
    disconnect_revoked(messaging, sockets);
}

fn withdraw_all(messaging: &Messaging, namespace: &Namespace) {
    disconnect_revoked(messaging, namespace.sockets());
}

fn disconnect_revoked(messaging: &Messaging, sockets: Vec<Socket>) {
    for socket in sockets {
        let Some(session) = socket.data::<Session>() else { continue };
        if messaging.authenticator().is_revoked(&session.latest()) {
            REVOKED.to_socket(&socket, &Revoked {});
            socket.disconnect(true);
        }
    }
}

/// Sockets that are checked at the same time, when permissions of many have changed.
const CHECKS_AT_ONCE: usize = 32;
