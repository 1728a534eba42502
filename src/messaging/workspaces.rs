//! The rooms of workspaces: a socket is in the room of each workspace in which its user is a member of a channel.

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};
use uuid::Uuid;

use super::parts::Messaging;
use super::push::user_room;
use super::session::Session;
use crate::auth::Membership;
use crate::socket::{Namespace, Socket};

/// Returns the room of everybody who is a member of a channel of the workspace.
pub fn workspace_room(workspace: Uuid) -> String {
    format!("{PREFIX}{workspace}")
}

/// Makes a socket join the rooms of the workspaces that channels of its user belong to.
pub(super) fn join<'a>(socket: &Socket, memberships: impl IntoIterator<Item = &'a Membership>) {
    for workspace in workspaces(memberships) {
        socket.join(&workspace_room(workspace));
    }
}

/// Makes the sockets of a user whose membership in a channel has ended leave the rooms of the workspaces in which they
/// have no other channel. They leave all of them if the core does not answer: until their next connect they hear less,
/// never what is for members only.
pub(super) async fn review(messaging: &Messaging, namespace: &Namespace, user: Uuid) {
    let sockets = namespace.sockets_in(&user_room(user));
    let rooms: BTreeSet<_> =
        sockets.iter().flat_map(Socket::rooms).filter(|room| room.starts_with(PREFIX)).collect();
    if rooms.is_empty() {
        return;
    }
    let memberships = messaging.core().list_user_channels(user).await.unwrap_or_else(|error| {
        tracing::warn!(%user, %error, "a user left the rooms of all workspaces");
        Vec::new()
    });
    let kept: BTreeSet<String> = workspaces(&memberships).into_iter().map(workspace_room).collect();
    for room in rooms.iter().filter(|room| !kept.contains(&***room)) {
        sockets.iter().for_each(|socket| socket.leave(room));
    }
}

/// Does what [`review`] does for the users of all these sockets.
pub(super) async fn review_all(messaging: &Messaging, namespace: &Namespace, sockets: &[Socket]) {
    let user = |socket: &Socket| Some(socket.data::<Session>()?.identity().user_id);
    let users: BTreeSet<Uuid> = sockets.iter().filter_map(user).collect();
    let reviews = stream::iter(users);
    reviews.for_each_concurrent(REVIEWS_AT_ONCE, |user| review(messaging, namespace, user)).await;
}

fn workspaces<'a>(memberships: impl IntoIterator<Item = &'a Membership>) -> BTreeSet<Uuid> {
    memberships.into_iter().filter_map(|membership| membership.workspace_id).collect()
}

/// What the names of these rooms start with.
const PREFIX: &str = "workspace:";
/// The number of users whose channels are asked for concurrently.
const REVIEWS_AT_ONCE: usize = 32;
