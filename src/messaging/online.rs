//! Who of a channel is online, on any node. Each node knows who is in the rooms of a channel there, so all of them are
//! asked when somebody wants to know; what they say is bounded.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use super::channel_rooms;
use super::parts::Messaging;
use super::presence_board::Status;
use super::session::Session;
use crate::ImksResult;
use crate::socket::{Namespace, NamespaceBuilder, ServerEvent, Socket};

/// The server event that asks another node who of a channel is online there.
const ONLINE: &str = "presence:online";

/// What is asked.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) channel_id: Uuid,
    /// Only users with ids after this one.
    pub(super) after: Option<Uuid>,
    /// The most users of one node. There may be more users if there are as many.
    pub(super) limit: usize,
}

/// Registers what other nodes ask.
pub(super) fn listen(builder: &mut NamespaceBuilder, messaging: &Messaging) {
    let messaging = messaging.clone();
    builder.on_server_event(ONLINE, move |mut event: ServerEvent| {
        let answered = event.parse::<(Asked,)>().and_then(|(asked,)| {
            let users = here(&messaging, event.namespace(), asked);
            event.answer(&users)
        });
        if let Err(error) = answered {
            tracing::debug!(%error, "who is online was not answered");
        }
        std::future::ready(())
    });
}

/// Returns the first users by id who are in the channel on any node and not offline: all of them, or at least `limit`.
/// Those of nodes that do not answer in time are left out.
///
/// # Errors
/// [`ImksError::Overloaded`](crate::ImksError::Overloaded) if too many others ask.
pub(super) async fn users(
    messaging: &Messaging,
    namespace: &Namespace,
    asked: Asked,
) -> ImksResult<BTreeSet<Uuid>> {
    let mut users = here(messaging, namespace, asked);
    if namespace.cluster().others().is_empty() {
        return Ok(users);
    }
    let _permit = messaging.lookups().begin().await?;
    let others = namespace.server_side_emit_with_ack(ONLINE, &(asked,), TIMEOUT).await?;
    if !others.silent.is_empty() {
        tracing::debug!(silent = others.silent.len(), "who is online there is not known");
    }
    for (_, answer) in &others.answers {
        users.extend(answer.parse::<(BTreeSet<Uuid>,)>()?.0);
    }
    Ok(users)
}

/// Returns the first users by id who are in the channel on this node and not offline.
fn here(messaging: &Messaging, namespace: &Namespace, asked: Asked) -> BTreeSet<Uuid> {
    let now = Instant::now();
    let recent = messaging.lookups().recent(asked.channel_id, now);
    let users = recent.unwrap_or_else(|| look_up(messaging, namespace, asked.channel_id, now));
    let start = asked.after.map_or(0, |after| users.partition_point(|user| *user <= after));
    users.iter().skip(start).take(asked.limit).copied().collect()
}

/// Looks up who is in the channel on this node and not offline. Returns the users by id.
fn look_up(messaging: &Messaging, namespace: &Namespace, channel: Uuid, now: Instant) -> Arc<[Uuid]> {
    let rooms = channel_rooms::all(channel);
    let sockets: Vec<Socket> = rooms.iter().flat_map(|room| namespace.sockets_in(room)).collect();
    let user_of = |socket: &Socket| Some(socket.data::<Session>()?.identity().user_id);
    let mut users: Vec<Uuid> = sockets.iter().filter_map(user_of).collect();
    users.sort_unstable();
    users.dedup();
    // In pieces, so that others get at the presences meanwhile.
    let shown = users.chunks(USERS_AT_ONCE).flat_map(|some| messaging.presence().shown(some));
    let online = shown.filter(|presence| presence.status != Status::Offline);
    let online: Arc<[Uuid]> = online.map(|presence| presence.user_id).collect();
    messaging.lookups().note(channel, sockets.len(), &online, now);
    online
}

/// How long other nodes may take to say who is online.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The number of users whose presence is read at once.
const USERS_AT_ONCE: usize = 500;
