//! What back ends learn about users: their connections, presence and unread messages; and the purges that they order.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::backend::Backend;
use super::channel_rooms;
use super::presence_board::Presence;
use super::purge;
use super::push::user_room;
use super::session::{Client, Session};
use super::timed::timed;
use crate::ImksResult;
use crate::clock::Micros;
use crate::models::channel_state::{self, ChannelHead};
use crate::models::message_read_state::{self, ReadState};
use crate::models::purge::{Purge, PurgeKind};
use crate::socket::{NamespaceBuilder, RemoteSocket, Socket};

/// What the nodes of a cluster tell each other about a socket.
#[derive(Debug, Serialize, Deserialize)]
struct Described {
    user_id: Uuid,
    session_id: Option<Uuid>,
    transport: String,
    client: Option<Client>,
    /// Nodes of an older version do not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rtt_us: Option<i64>,
    /// Nodes of an older version do not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    username: Option<Arc<str>>,
}

/// Makes the sockets of a namespace describe themselves to other nodes.
pub(super) fn describe(builder: &mut NamespaceBuilder) {
    builder.describe(DESCRIBED, |socket: &Socket| {
        let session = socket.data::<Session>()?;
        Some(Described {
            user_id: session.identity().user_id,
            session_id: session.identity().session_id,
            transport: socket.transport().name().to_owned(),
            client: session.client().cloned(),
            rtt_us: socket.rtt().and_then(|rtt| i64::try_from(rtt.as_micros()).ok()),
            username: Some(Arc::clone(&session.identity().username)),
        })
    });
}

/// A connection of a user, on any node.
#[derive(Debug)]
pub struct Connected {
    /// The user.
    pub user_id: Uuid,
    /// The name that the user signed in with, if the node tells it.
    pub username: Option<Arc<str>>,
    /// The session that the token belongs to.
    pub session_id: Option<Uuid>,
    /// The public id of the socket.
    pub socket_id: String,
    /// The node that it is connected to.
    pub node: String,
    /// The transport that it uses now.
    pub transport: String,
    /// The address and port of the client.
    pub peer: String,
    /// The program that the client says it is.
    pub client: Option<Client>,
    /// When it connected.
    pub connected_at: Micros,
    /// The last time from a ping to its pong in microseconds, if one has come.
    pub rtt_us: Option<i64>,
}

impl Connected {
    fn of(socket: &RemoteSocket) -> Option<Self> {
        let described: Described = serde_json::from_value(socket.data().get(DESCRIBED)?.clone()).ok()?;
        Some(Self {
            user_id: described.user_id,
            username: described.username,
            session_id: described.session_id,
            socket_id: socket.id().to_owned(),
            node: socket.node().to_string(),
            transport: described.transport,
            peer: socket.handshake().address.clone(),
            client: described.client,
            connected_at: socket.handshake().issued,
            rtt_us: described.rtt_us,
        })
    }
}

/// The unread messages of a user in a channel.
#[derive(Debug)]
pub struct Unread {
    /// The numbers of the channel.
    pub head: ChannelHead,
    /// The read position and the counts; `None` if the user has never had one, so that nothing is unread.
    pub state: Option<ReadState>,
}

impl Backend {
    /// Returns up to `limit` connections of a user, or of everybody, on all nodes that answer in time; with a channel only
    /// those that are subscribed to it.
    ///
    /// # Errors
    /// Those of [`Broadcast::fetch_sockets`](crate::socket::Broadcast::fetch_sockets).
    pub async fn connected(
        &self,
        user: Option<Uuid>,
        channel: Option<Uuid>,
        limit: usize,
    ) -> ImksResult<Vec<Connected>> {
        let (namespace, user, channel) =
            (self.namespace(), user.map(user_room), channel.map(channel_rooms::all));
        // Those of the user that are in the channel are looked for among those of the user.
        let rooms = user.iter().chain(channel.iter().flatten().filter(|_| user.is_none()));
        let wanted = rooms.fold(namespace.everybody(), |wanted, room| wanted.to(room));
        let is_in = |rooms: &[String; 2], socket: &RemoteSocket| {
            rooms.iter().any(|room| socket.rooms().contains(room))
        };
        let is_meant = |socket: &&RemoteSocket| channel.as_ref().is_none_or(|rooms| is_in(rooms, socket));
        let mut here = wanted.sockets();
        here.retain(|socket| {
            channel.as_ref().is_none_or(|rooms| rooms.iter().any(|room| socket.is_in(room)))
        });
        // A node with more than enough connections describes no others than those that it returns.
        if here.len() >= limit || namespace.cluster().others().is_empty() {
            let described = here.iter().filter_map(|socket| Connected::of(&RemoteSocket::of(socket)));
            return Ok(described.take(limit).collect());
        }
        let fetched = wanted.fetch_sockets().await?;
        if !fetched.silent.is_empty() {
            tracing::warn!(silent = ?fetched.silent, "nodes did not tell their connections in time");
        }
        Ok(fetched.sockets.iter().filter(is_meant).filter_map(Connected::of).take(limit).collect())
    }

    /// Returns what others see of these users: their status, and when a device was last active.
    pub fn presences(&self, users: &[Uuid]) -> Vec<(Uuid, &'static str, Option<Micros>)> {
        let seen = |Presence { user_id, status, last_active_at, .. }| {
            (user_id, status.name(), last_active_at.map(|at| at.0))
        };
        self.messaging().presence().shown(users).into_iter().map(seen).collect()
    }

    /// Returns the unread messages of a user in channels, or in all channels that the core lists.
    ///
    /// # Errors
    /// [`crate::ImksError::Database`]; [`crate::ImksError::Unavailable`] or [`crate::ImksError::Timeout`] when the
    /// core does not answer.
    pub async fn unread(&self, user: Uuid, channels: Vec<Uuid>) -> ImksResult<Vec<Unread>> {
        let channels = match channels.is_empty() {
            true => {
                let memberships = self.messaging().core().list_user_channels(user).await?;
                memberships.into_iter().map(|membership| membership.channel_id).collect()
            }
            false => channels,
        };
        let (db, mut found) = (self.messaging().db(), Vec::with_capacity(channels.len()));
        for some in channels.chunks(CHANNELS_PER_QUERY) {
            let states = timed("unread", message_read_state::unread(db, user, some)).await?;
            let states: HashMap<Uuid, ReadState> = states.into_iter().map(|it| (it.channel_id, it)).collect();
            let heads = timed("heads", channel_state::heads(db, some)).await?;
            found.extend(heads.into_iter().map(|head| {
                let state = states.get(&head.channel_id).copied();
                Unread { head, state }
            }));
        }
        Ok(found)
    }

    /// Orders a purge in the name of a caller, with a reason, and waits for a moment until it is done.
    ///
    /// # Errors
    /// Those of [`Purge::order`].
    pub async fn purge(
        &self,
        id: Uuid,
        what: (PurgeKind, Uuid),
        before: Micros,
        asked: (&str, &str),
    ) -> ImksResult<Purge> {
        purge::order(self.messaging(), id, what, before, asked).await
    }
}

/// The name of the description in the data of a socket.
const DESCRIBED: &str = "session";
const CHANNELS_PER_QUERY: usize = 500;
