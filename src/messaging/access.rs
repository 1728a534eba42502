//! The task that follows changes of access: a user who loses access to a channel leaves its room at once.

use futures_util::{StreamExt, stream};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::channel_rooms;
use super::mention;
use super::parts::Messaging;
use super::push::{Push, user_room};
use super::remembered;
use super::session::Session;
use super::timed::timed;
use super::workspaces;
use crate::auth::{AccessChange, ChannelInfo, Membership, Permission, Revocation};
use crate::models::channel_state::heads;
use crate::models::message_read_state::baseline;
use crate::socket::{Namespace, Socket};

/// Sent to a socket that has joined the room of a channel because its user became a member.
pub(super) const JOINED: Push<Joined<'_>> = Push::new("channel:joined");
/// Sent to a socket that has left the room of a channel because its user may no longer see it.
pub(super) const LEFT: Push<Left<'_>> = Push::new("channel:left");

/// Sent to a room when the core has changed the channel.
pub(super) const UPDATED: Push<Updated<'_>> = Push::new("channel:updated");
/// Sent to a connection whose token was revoked, before it is closed.
pub(super) const REVOKED: Push<Revoked<'_>> = Push::new("auth:revoked");

#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct Revoked<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Joined<'a> {
    channel_id: Uuid,
    name: &'a str,
}

/// The payload of `channel:updated`: the channel as it is now.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Updated<'a> {
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

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Left<'a> {
    channel_id: Uuid,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

impl Left<'_> {
    /// Creates the payload without words of anybody.
    pub(super) fn new(channel_id: Uuid, reason: &'static str) -> Self {
        Self { channel_id, reason, message: None }
    }
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
            Ok(revocation) => {
                withdraw(messaging, namespace, &revocation);
                messaging.resume().end_revoked(&revocation).await;
            }
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
            leave(messaging, &namespace.sockets_in(&user_room(user_id)), channel_id, (REMOVED, None));
            workspaces::review(messaging, namespace, user_id).await;
        }
        AccessChange::ChannelRemoved(channel_id) => {
            messaging.channels().forget(channel_id);
            let sockets = channel_rooms::sockets(namespace, channel_id);
            leave(messaging, &sockets, channel_id, (CHANNEL_REMOVED, None));
            workspaces::review_all(messaging, namespace, &sockets).await;
        }
        AccessChange::Permissions { user_id, channel_id } => {
            if (user_id, channel_id) == (None, None) {
                messaging.channels().forget_all();
            }
            let sockets = match (user_id, channel_id) {
                (Some(user), _) => namespace.sockets_in(&user_room(user)),
                (None, Some(channel)) => channel_rooms::sockets(namespace, channel),
                (None, None) => namespace.sockets(),
            };
            check(messaging, sockets, channel_id).await;
        }
        AccessChange::Channel(channel) => {
            messaging.channels().forget(channel.id);
            remembered::core_has_changed(messaging, namespace, channel.id, channel.version).await;
            // Every node hears of it by itself.
            let channel = messaging.permissions().limited(channel);
            tell_how_it_is(namespace, &channel);
        }
    }
}

/// Looks once more at what a socket may do when it is one of the sockets of its namespace: a change that concerned
/// everybody did not find it before.
pub(super) async fn arrived(messaging: Messaging, socket: Socket) {
    disconnect_revoked(&messaging, vec![socket.clone()]);
    check_socket(&messaging, socket, None).await;
}

/// Lets the sockets of a member join the room. Returns how many joined.
pub(super) async fn join(messaging: &Messaging, namespace: &Namespace, membership: &Membership) -> u32 {
    let (user, channel_id) = (membership.user_id, membership.channel_id);
    let sockets = namespace.sockets_in(&user_room(user));
    // Most changes concern users without a socket on this node.
    if sockets.is_empty() || !may_enter(messaging, user, channel_id).await {
        return 0;
    }
    // Before it gets events of the channel. What was written earlier it asks for.
    let heads = timed("heads", heads(messaging.db(), &[channel_id])).await;
    let mut joined = 0;
    for (socket, session) in sockets.iter().filter_map(|it| Some((it, it.data::<Session>()?))) {
        mention::note_settings(socket, &session, membership);
        workspaces::join(socket, [membership]);
        if !session.has_unsubscribed(channel_id) && channel_rooms::join(socket, &session, channel_id) {
            match &heads {
                Ok(heads) => messaging.resume().follows(socket, heads.iter()),
                // It would not be known what it misses there.
                Err(_) => messaging.resume().give_up(socket),
            }
            JOINED.to_socket(socket, &Joined { channel_id, name: &membership.name });
            joined += 1;
        }
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
    for room in channel_rooms::all(channel) {
        if let Err(error) = namespace.to(&user).local().sockets_leave(&room) {
            tracing::warn!(%error, "absent clients may still be in a room");
        }
    }
    left
}

/// Tells the sockets of this node in the room of a channel how it is now.
pub(super) async fn tell_of_channel(messaging: &Messaging, namespace: &Namespace, channel: Uuid) {
    if !channel_rooms::is_followed(namespace, channel) {
        return;
    }
    match messaging.channels().get(messaging.core(), channel).await {
        Ok(channel) => {
            let channel = messaging.permissions().limited(channel);
            tell_how_it_is(namespace, &channel);
        }
        Err(error) => tracing::debug!(%error, "the members of a channel were not told that it has changed"),
    }
}

/// Tells everybody who follows a channel on this node, whether they look at it or not.
fn tell_how_it_is(namespace: &Namespace, channel: &ChannelInfo) {
    UPDATED.to_local_rooms(namespace, &channel_rooms::all(channel.id), &Updated::from(channel));
}

/// Makes sockets leave the rooms of a channel, with a reason and the words of whoever decided it. Returns how many
/// were in it.
fn leave(
    messaging: &Messaging,
    sockets: &[Socket],
    channel_id: Uuid,
    (reason, message): (&'static str, Option<&str>),
) -> u32 {
    let mut left = 0;
    for socket in sockets.iter().filter(|socket| channel_rooms::leave(socket, channel_id)) {
        messaging.typing().left(socket, Some(channel_id));
        messaging.resume().leaves(socket, channel_id, false);
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
        None => channel_rooms::followed(&socket).into_iter().collect(),
    };
    // One call for many channels; permissions that it did not return are requested one by one.
    if channels.len() > 1 && messaging.permissions().warm(user, &channels).await.is_err() {
        tracing::debug!("permissions not fetched in advance");
    }
    let mut has_ended = false;
    for channel in channels {
        if may_view(messaging, user, channel).await {
            continue;
        }
        let reason = why_lost(messaging, user, channel).await;
        leave(messaging, std::slice::from_ref(&socket), channel, (reason, None));
        has_ended |= reason != FORBIDDEN;
    }
    // Whoever hears next that the membership or the channel is gone does not find the socket in its room any more.
    if has_ended {
        workspaces::review(messaging, socket.namespace(), user).await;
    }
}

/// Returns why a user may no longer see a channel. The end of a membership, or of the channel, also changes
/// permissions, and that change may arrive first, so the core is asked which of the three it was.
pub(super) async fn why_lost(messaging: &Messaging, user: Uuid, channel: Uuid) -> &'static str {
    match messaging.permissions().is_member(user, channel).await {
        Ok(false) if is_gone(messaging, channel).await => CHANNEL_REMOVED,
        Ok(false) => REMOVED,
        Ok(true) | Err(_) => FORBIDDEN,
    }
}

/// Whether the core says that there is no such channel.
async fn is_gone(messaging: &Messaging, channel: Uuid) -> bool {
    let found = messaging.core().channels(&[channel]).await;
    found.is_ok_and(|found| found.is_empty())
}

/// Whether the user may enter the room. False while the core does not answer: a change of roles comes as a membership
/// too, also one that takes the channel away.
async fn may_enter(messaging: &Messaging, user: Uuid, channel: Uuid) -> bool {
    match messaging.permissions().require(user, channel, Permission::ViewChannel).await {
        Ok(_) => true,
        Err(error) => {
            if error.is_retryable() {
                tracing::warn!(%user, %channel, %error, "a member enters the room with their next subscribe or connect");
            }
            false
        }
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

/// Why a socket has left a room: its user is no member of the channel any more.
const REMOVED: &str = "removed";
/// Why a socket has left a room: the channel is gone.
const CHANNEL_REMOVED: &str = "channel_removed";
/// Why a socket has left a room: its user may not see the channel any more.
const FORBIDDEN: &str = "forbidden";
/// The number of sockets that are checked concurrently.
const CHECKS_AT_ONCE: usize = 32;
