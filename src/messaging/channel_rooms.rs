//! The two rooms of a channel: one for those who see everything of it, one for those who only get digests. A socket that
//! follows a channel is in one of them, the one that its view asks for.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use super::session::Session;
use super::view::View;
use crate::socket::{Namespace, Socket};

/// Returns the room of those who see everything of a channel: its bare id.
pub(super) fn whole_room(channel: Uuid) -> String {
    channel.to_string()
}

/// Returns the room of those who get digests of a channel.
pub(super) fn digest_room(channel: Uuid) -> String {
    format!("{DIGEST_PREFIX}{channel}")
}

/// Returns the rooms of everybody who follows a channel.
pub(super) fn all(channel: Uuid) -> [String; 2] {
    [whole_room(channel), digest_room(channel)]
}

/// Makes a socket follow a channel. Returns whether it did not before.
pub(super) fn join(socket: &Socket, session: &Session, channel: Uuid) -> bool {
    // Held meanwhile, so that the view does not change, and nobody removes the socket, between the two rooms.
    let view = session.view();
    !place(socket, &view, channel)
}

/// Makes a socket follow a channel no more. Returns whether it did.
pub(super) fn leave(socket: &Socket, channel: Uuid) -> bool {
    let session = socket.data::<Session>();
    let _view = session.as_ref().map(|session| session.view());
    let follows = is_in(socket, channel);
    socket.leave(&whole_room(channel));
    socket.leave(&digest_room(channel));
    follows
}

/// Moves a socket to other rooms of the channels that it follows, because its client looks at these channels only.
pub(super) fn look_at(socket: &Socket, session: &Session, channels: HashSet<Uuid>) {
    let mut view = session.view();
    let before = std::mem::replace(&mut *view, View::Only(channels));
    for channel in followed(socket) {
        if before.shows(channel) != view.shows(channel) {
            place(socket, &view, channel);
        }
    }
}

/// Puts a socket into the room that a view asks for. It is in both for a moment, and never in none, so that it hears of
/// everything. Returns whether it was in one of them before.
fn place(socket: &Socket, view: &View, channel: Uuid) -> bool {
    let (whole, digest) = (whole_room(channel), digest_room(channel));
    let (to, from) = if view.shows(channel) { (whole, digest) } else { (digest, whole) };
    let follows = socket.is_in(&to) || socket.is_in(&from);
    socket.join(&to);
    socket.leave(&from);
    follows
}

/// Whether a socket of this node follows a channel.
pub(super) fn is_followed(namespace: &Namespace, channel: Uuid) -> bool {
    namespace.has_room(&whole_room(channel)) || namespace.has_room(&digest_room(channel))
}

/// Whether a socket follows a channel.
pub(super) fn is_in(socket: &Socket, channel: Uuid) -> bool {
    socket.is_in(&whole_room(channel)) || socket.is_in(&digest_room(channel))
}

/// Returns the channels that a socket follows.
pub(super) fn followed(socket: &Socket) -> HashSet<Uuid> {
    let rooms = socket.rooms();
    let ids = rooms.iter().map(|room| room.strip_prefix(DIGEST_PREFIX).unwrap_or(room));
    ids.filter_map(|id| Uuid::parse_str(id).ok()).collect()
}

/// Returns the sockets of this node that follow a channel.
pub(super) fn sockets(namespace: &Namespace, channel: Uuid) -> Vec<Socket> {
    let (mut whole, digest) =
        (namespace.sockets_in(&whole_room(channel)), namespace.sockets_in(&digest_room(channel)));
    if digest.is_empty() {
        return whole;
    }
    // One that moves between the rooms is in both.
    let all = whole.drain(..).chain(digest).map(|socket| (socket.id().to_owned(), socket));
    all.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// What the names of the rooms for digests start with.
const DIGEST_PREFIX: &str = "activity:";
