//! The task that follows changes of access: a user who loses access to a channel leaves its room at once.

use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::mention;
use super::parts::{Messaging, timed};
use super::push::{Push, user_room};
use super::remembered;
use super::session::Session;
use crate::auth::{AccessChange, ChannelInfo, Membership, Permission, Revocation};
use crate::models::message_read_state::baseline;
use crate::socket::{Namespace, Socket};

/// Sent to a socket that has joined the room of a channel because its user became a member.
const JOINED: Push<Joined<'_>> = Push::new("channel:joined");
/// Sent to a socket that has left the room of a channel because its user may no longer see it.
const LEFT: Push<Left<'_>> = Push::new("channel:left");

/// Sent to a room when the core has changed the channel.
const UPDATED: Push<Updated<'_>> = Push::new("channel:updated");
/// Sent to a connection whose token was revoked, before it is closed.
pub(super) const REVOKED: Push<Revoked<'_>> = Push::new("auth:revoked");

#[derive(Debug, Default, Serialize)]
pub(super) struct Revoked<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Joined<'a> {
    channel_id: Uuid,
    name: &'a str,
}

/// The payload of `channel:updated`: the channel as it is now.
#[derive(Debug, Serialize)]
struct Updated<'a> {
    channel_id: Uuid,
    name: &'a str,
    kind: &'static str,
    archived: bool,
    read_only: bool,
    slow_mode_s: u32,
}

impl<'a> From<&'a ChannelInfo> for Updated<'a> {
    fn from(channel: &'a ChannelInfo) -> Self {
        let ChannelInfo { id, name, kind, archived, read_only, slow_mode_s, .. } = channel;
        let (archived, read_only, slow_mode_s) = (*archived, *read_only, *slow_mode_s);
        Self { channel_id: *id, name, kind: kind.as_str(), archived, read_only, slow_mode_s }
    }
}

#[derive(Debug, Serialize)]
struct Left<'a> {
    channel_id: Uuid,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// Follows memberships, permissions and revoked tokens until `stop`.
pub async fn follow(messaging: Messaging, namespace: Namespace, stop: CancellationToken) {
    // Apart from each other: a withdrawn token does not wait until the core has answered about every room.
    let changes = Box::pin(follow_changes(&messaging, &namespace));
    let both = async { tokio::join!(changes, follow_revoked(&messaging, &namespace)) };
    stop.run_until_cancelled(both).await;
}

async fn follow_changes(messaging: &Messaging, namespace: &Namespace) {
    let mut changes = messaging.permissions().changes();
    loop {
        match changes.recv().await {
            Ok(change) => apply(messaging, namespace, change).await,
            // The missed changes are unknown, so every room is checked.
            Err(RecvError::Lagged(_)) => {
                messaging.channels().forget_all();
                check(messaging, namespace.sockets(), None).await;
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn follow_revoked(messaging: &Messaging, namespace: &Namespace) {
    let mut revoked = messaging.tokens().revoked();
    loop {
        match revoked.recv().await {
            Ok(revocation) => withdraw(messaging, namespace, &revocation),
            Err(RecvError::Lagged(_)) => withdraw_all(messaging, namespace),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Marks everything in the channel as read for a new member, so that only later messages are unread.
async fn start_reading(messaging: &Messaging, membership: &Membership) {
    let channels = [(membership.channel_id, membership.joined_seq)];
    if let Err(error) = timed("baseline", baseline(messaging.db(), membership.user_id, &channels)).await {
        // The user's next connect sets it.
        tracing::warn!(%error, "read position of a new member was not set");
    }
}

async fn apply(messaging: &Messaging, namespace: &Namespace, change: AccessChange) {
    match change {
        AccessChange::Joined(membership) => {
            start_reading(messaging, &membership).await;
            join(messaging, namespace, &membership).await;
        }
        AccessChange::Left { user_id, channel_id } => {
            leave(messaging, &namespace.sockets_in(&user_room(user_id)), channel_id, ("removed", None));
        }
        AccessChange::ChannelRemoved(channel_id) => {
            messaging.channels().forget(channel_id);
            let sockets = namespace.sockets_in(&channel_id.to_string());
            leave(messaging, &sockets, channel_id, ("channel_removed", None));
        }
        AccessChange::Permissions { user_id, channel_id } => {
            if (user_id, channel_id) == (None, None) {
                messaging.channels().forget_all();
            }
            let sockets = match (user_id, channel_id) {
                (Some(user), _) => namespace.sockets_in(&user_room(user)),
                (None, Some(channel)) => namespace.sockets_in(&channel.to_string()),
                (None, None) => namespace.sockets(),
            };
            check(messaging, sockets, channel_id).await;
        }
        AccessChange::Channel(channel) => {
            messaging.channels().forget(channel.id);
            remembered::core_has_changed(messaging, namespace, channel.id, channel.version).await;
            // Every node hears of it by itself.
            let channel = messaging.permissions().limited(channel);
            UPDATED.to_local_room(namespace, &channel.id.to_string(), &Updated::from(&channel));
        }
    }
}

/// Lets the sockets of a member join the room. Returns how many joined.
pub(super) async fn join(messaging: &Messaging, namespace: &Namespace, membership: &Membership) -> u32 {
    let (user, channel_id) = (membership.user_id, membership.channel_id);
    let sockets = namespace.sockets_in(&user_room(user));
    // Most changes concern users without a socket on this node.
    if sockets.is_empty() || !may_view(messaging, user, channel_id).await {
        return 0;
    }
    let room = channel_id.to_string();
    let wants = |socket: &&Socket| {
        let left = socket.data::<Session>().is_some_and(|session| session.has_unsubscribed(channel_id));
        !left && !socket.is_in(&room)
    };
    for (socket, session) in sockets.iter().filter_map(|it| Some((it, it.data::<Session>()?))) {
        mention::note_settings(socket, &session, membership);
    }
    let mut joined = 0;
    for socket in sockets.iter().filter(wants) {
        socket.join(&room);
        JOINED.to_socket(socket, &Joined { channel_id, name: &membership.name });
        joined += 1;
    }
    joined
}

/// Makes the sockets of a user leave the room of a channel, those of absent clients included. Returns how many were
/// in it.
pub(super) fn remove(
    messaging: &Messaging,
    namespace: &Namespace,
    (user, channel): (Uuid, Uuid),
    reason: &'static str,
    message: Option<&str>,
) -> u32 {
    let user = user_room(user);
    let left = leave(messaging, &namespace.sockets_in(&user), channel, (reason, message));
    if let Err(error) = namespace.to(&user).local().sockets_leave(&channel.to_string()) {
        tracing::warn!(%error, "absent clients may still be in a room");
    }
    left
}

/// Tells the sockets of this node in the room of a channel how it is now.
pub(super) async fn tell_of_channel(messaging: &Messaging, namespace: &Namespace, channel: Uuid) {
    let room = channel.to_string();
    if namespace.sockets_in(&room).is_empty() {
        return;
    }
    match messaging.channels().get(messaging.core(), channel).await {
        Ok(channel) => {
            let channel = messaging.permissions().limited(channel);
            UPDATED.to_local_room(namespace, &room, &Updated::from(&channel));
        }
        Err(error) => tracing::debug!(%error, "the members of a channel were not told that it has changed"),
    }
}

/// Makes sockets leave the room of a channel, with a reason and the words of whoever decided it. Returns how many
/// were in it.
fn leave(
    messaging: &Messaging,
    sockets: &[Socket],
    channel_id: Uuid,
    (reason, message): (&'static str, Option<&str>),
) -> u32 {
    let room = channel_id.to_string();
    let mut left = 0;
    for socket in sockets.iter().filter(|socket| socket.is_in(&room)) {
        socket.leave(&room);
        messaging.typing().left(socket, Some(channel_id));
        LEFT.to_socket(socket, &Left { channel_id, reason, message });
        left += 1;
    }
    left
}

/// Makes each socket leave the rooms that it may no longer be in: the room of `channel`, or any of its rooms.
async fn check(messaging: &Messaging, sockets: Vec<Socket>, channel: Option<Uuid>) {
    let checks = stream::iter(sockets);
    checks.for_each_concurrent(CHECKS_AT_ONCE, |socket| check_socket(messaging, socket, channel)).await;
}

pub(super) async fn check_socket(messaging: &Messaging, socket: Socket, channel: Option<Uuid>) {
    let Some(session) = socket.data::<Session>() else { return };
    let user = session.identity().user_id;
    let channels: Vec<Uuid> = match channel {
        Some(channel) => vec![channel],
        None => socket.rooms().iter().filter_map(|room| Uuid::parse_str(room).ok()).collect(),
    };
    // One call for many channels; permissions that it did not return are requested one by one.
    if channels.len() > 1 && messaging.permissions().warm(user, &channels).await.is_err() {
        tracing::debug!("permissions not fetched in advance");
    }
    for channel in channels {
        if !may_view(messaging, user, channel).await {
            let reason = why_lost(messaging, user, channel).await;
            leave(messaging, std::slice::from_ref(&socket), channel, (reason, None));
        }
    }
}

/// Returns why a user may no longer see a channel. The end of a membership also changes permissions, and that
/// change may arrive first, so the core is asked which of the two it was.
async fn why_lost(messaging: &Messaging, user: Uuid, channel: Uuid) -> &'static str {
    match messaging.permissions().is_member(user, channel).await {
        Ok(false) => "removed",
        Ok(true) | Err(_) => "forbidden",
    }
}

/// Whether the user may stay in the room. True while the core does not answer: an outage is not a removal.
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
    let is_revoked = |socket: &Socket| {
        let session = socket.data::<Session>();
        session.is_some_and(|session| messaging.tokens().is_revoked(&session.latest()))
    };
    disconnect(&sockets.into_iter().filter(is_revoked).collect::<Vec<_>>(), None);
}

/// Disconnects sockets whose tokens are withdrawn.
pub(super) fn disconnect(sockets: &[Socket], message: Option<&str>) {
    for socket in sockets {
        REVOKED.to_socket(socket, &Revoked { message });
        socket.disconnect(true);
    }
}

/// The number of sockets that are checked concurrently.
const CHECKS_AT_ONCE: usize = 32;
