//! Acquaintances: users who share a channel. Only they may see each other's presence, and only while they do.

use std::collections::HashSet;
use std::future::ready;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::parts::Messaging;
use super::presence_board::{ROOM_PREFIX, room_of};
use super::push::user_room;
use super::session::Session;
use crate::auth::{AccessChange, CoreClient};
use crate::socket::{Namespace, Socket};
use crate::{ImksError, ImksResult};

/// Returns those among `others` who share a channel with `user`, and `user`.
///
/// # Errors
/// [`ImksError::Unavailable`] or [`ImksError::Timeout`] when the core does not answer.
pub(super) async fn among(core: &CoreClient, user: Uuid, others: Vec<Uuid>) -> ImksResult<Vec<Uuid>> {
    let mine = channels(core, user).await?;
    let known =
        stream::iter(others).map(|other| shares(core, user, &mine, other)).buffered(QUESTIONS_AT_ONCE);
    known.try_filter_map(|other| ready(Ok(other))).try_collect().await
}

async fn shares(
    core: &CoreClient,
    user: Uuid,
    mine: &HashSet<Uuid>,
    other: Uuid,
) -> ImksResult<Option<Uuid>> {
    let known = other == user || !channels(core, other).await?.is_disjoint(mine);
    Ok(known.then_some(other))
}

/// Returns the channels of a user; none for one who does not exist.
async fn channels(core: &CoreClient, user: Uuid) -> ImksResult<HashSet<Uuid>> {
    match core.list_user_channels(user).await {
        Ok(memberships) => Ok(memberships.into_iter().map(|membership| membership.channel_id).collect()),
        Err(ImksError::NotFound(_)) => Ok(HashSet::new()),
        Err(error) => Err(error),
    }
}

/// Ends what sockets see of a user's presence when the last channel that both share is gone, until `stop`.
pub(super) async fn follow(messaging: Messaging, namespace: Namespace, stop: CancellationToken) {
    let mut changes = messaging.permissions().changes();
    let core = messaging.core();
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => return,
            change = changes.recv() => change,
        };
        match change {
            Ok(AccessChange::Left { user_id, .. }) => forget_user(core, &namespace, user_id).await,
            // Everybody who was in the channel, or any channel, is concerned; after a reset, anybody may have left.
            Ok(
                AccessChange::ChannelRemoved(_)
                | AccessChange::Permissions { user_id: None, channel_id: None },
            )
            | Err(RecvError::Lagged(_)) => {
                // What else was told until now is found as well.
                changes = messaging.permissions().changes();
                forget_strangers(core, namespace.sockets()).await;
            }
            Ok(_) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Checks what the sockets of a user watch, and who watches the user.
async fn forget_user(core: &CoreClient, namespace: &Namespace, user: Uuid) {
    forget_strangers(core, namespace.sockets_in(&user_room(user))).await;
    forget_strangers(core, namespace.sockets_in(&room_of(user))).await;
}

async fn forget_strangers(core: &CoreClient, sockets: Vec<Socket>) {
    let checks = stream::iter(sockets);
    checks.for_each_concurrent(QUESTIONS_AT_ONCE, |socket| leave_strangers(core, socket)).await;
}

/// Makes a socket leave the rooms of users whom its own user shares no channel with. It stays while the core does
/// not answer: an outage is not a removal.
pub(super) async fn leave_strangers(core: &CoreClient, socket: Socket) {
    let Some(session) = socket.data::<Session>() else { return };
    let watched = watched_by(&socket);
    if watched.is_empty() {
        return;
    }
    let known: HashSet<Uuid> = match among(core, session.identity().user_id, watched.clone()).await {
        Ok(known) => known.into_iter().collect(),
        Err(error) => return tracing::warn!(%error, "watched presences were not checked"),
    };
    watched.iter().filter(|user| !known.contains(user)).for_each(|user| socket.leave(&room_of(*user)));
}

/// Returns the users whose presence a socket watches.
pub(super) fn watched_by(socket: &Socket) -> Vec<Uuid> {
    let user = |room: &Arc<str>| room.strip_prefix(ROOM_PREFIX)?.parse().ok();
    socket.rooms().iter().filter_map(user).collect()
}

/// The number of questions to the core that are asked at once.
const QUESTIONS_AT_ONCE: usize = 8;
