//! Orders of back ends about users, sockets and caches, which every node carries out: the node that got the call, and
//! with a server event all others.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::access;
use super::channel_rooms;
use super::farewell::{self, Farewell};
use super::parts::Messaging;
use super::push::user_room;
use super::remembered;
use super::session::Session;
use super::workspaces;
use crate::auth::Revocation;
use crate::clock::{self, Micros};
use crate::socket::{Namespace, NamespaceBuilder, Socket};
use crate::{ImksError, ImksResult};

/// What every node is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Forget cached permissions: those of the user, those in the channel, or all.
    Invalidate {
        /// The only user concerned.
        user: Option<Uuid>,
        /// The only channel concerned.
        channel: Option<Uuid>,
    },
    /// Let the sockets of a new member join the room.
    Join {
        /// The new member.
        user: Uuid,
        /// The channel.
        channel: Uuid,
    },
    /// Let the sockets of a former member leave the room.
    Leave {
        /// The former member.
        user: Uuid,
        /// The channel.
        channel: Uuid,
    },
    /// Take the sockets of a user out of a channel, or disconnect them where no channel is named.
    Kick {
        /// The user.
        user: Uuid,
        /// The only channel concerned.
        channel: Option<Uuid>,
        /// The reason that the user is told.
        message: Option<String>,
    },
    /// Refuse tokens, and end the connections that they opened.
    Revoke {
        /// Whose tokens.
        subject: Subject,
        /// The time up to which tokens that are issued are void.
        void_until: Micros,
        /// The reason that the user is told.
        message: Option<String>,
    },
    /// Close connections whose clients may come back.
    Disconnect {
        /// Which connections.
        filter: Filter,
        /// The reason that the users are told.
        message: Option<String>,
    },
    /// Read the policies of channels again.
    Policies,
    /// Fetch the keys of tokens now.
    Keys,
}

/// Whose tokens are withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Those of a user.
    User(Uuid),
    /// Those of a session.
    Session(Uuid),
}

/// A choice of connections. Each field narrows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The user.
    pub user: Option<Uuid>,
    /// A channel whose room the connection is in.
    pub channel: Option<Uuid>,
    /// The name of the node, as clients see it.
    pub node: Option<String>,
    /// The name of the program, as it says itself.
    pub client_name: Option<String>,
}

/// Registers the handler of the orders of other nodes.
pub(super) fn register(builder: &mut NamespaceBuilder, messaging: &Messaging) {
    let messaging = messaging.clone();
    builder.on_server_event(EVENT, move |mut event| {
        let messaging = messaging.clone();
        async move {
            let namespace = event.namespace().clone();
            let outcome = match event.parse::<(Order,)>() {
                Ok((order,)) => carry_out(&messaging, &namespace, order).await,
                Err(error) => Err(error),
            };
            // A node that could not do it gives no answer, and the caller learns that one is missing.
            match outcome.and_then(|sockets| event.answer(&sockets)) {
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "an order of a back end was not carried out"),
            }
        }
    });
}

/// The sockets that an order concerned, and the nodes that did not confirm it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// The number of sockets on all nodes that confirmed it.
    pub sockets: u32,
    /// The number of nodes that did not.
    pub silent: usize,
}

impl Done {
    /// Returns the number of sockets if all nodes have confirmed the order.
    ///
    /// # Errors
    /// [`ImksError::Unavailable`]: a repeat tells the nodes again.
    pub fn everywhere(self) -> ImksResult<u32> {
        if self.silent == 0 { Ok(self.sockets) } else { Err(ImksError::Unavailable("a node")) }
    }
}

/// Carries out an order on all nodes.
///
/// # Errors
/// Those of [`carry_out`], and [`ImksError::Unavailable`] if the other nodes cannot be told.
pub(super) async fn give(messaging: &Messaging, namespace: &Namespace, order: Order) -> ImksResult<Done> {
    let others = async {
        let told = namespace.server_side_emit_with_ack(EVENT, &(&order,), CONFIRMED_MAX).await;
        told.map_err(|error| {
            tracing::warn!(%error, "other nodes were not told an order of a back end");
            ImksError::Unavailable("the other nodes")
        })
    };
    let (here, others) = tokio::join!(carry_out(messaging, namespace, order.clone()), others);
    let (mut sockets, others) = (here?, others?);
    for (node, answer) in &others.answers {
        match answer.parse::<(u32,)>() {
            Ok((there,)) => sockets = sockets.saturating_add(there),
            Err(error) => tracing::debug!(%node, %error, "a node did not say how many sockets it has"),
        }
    }
    if !others.silent.is_empty() {
        tracing::warn!(nodes = ?others.silent, "nodes did not confirm an order of a back end");
    }
    Ok(Done { sockets, silent: others.silent.len() })
}

/// Carries out an order on this node. Returns how many sockets it concerned.
async fn carry_out(messaging: &Messaging, namespace: &Namespace, order: Order) -> ImksResult<u32> {
    match order {
        Order::Invalidate { user, channel } => {
            messaging.permissions().invalidate(user, channel);
            if let Some(channel) = channel {
                messaging.channels().forget(channel);
            }
            Ok(0)
        }
        Order::Join { user, channel } => join(messaging, namespace, user, channel).await,
        Order::Leave { user, channel } => {
            let left = access::remove(messaging, namespace, (user, channel), "removed", None);
            messaging.permissions().left(user, channel);
            workspaces::review(messaging, namespace, user).await;
            Ok(left)
        }
        Order::Kick { user, channel: Some(channel), message } => {
            let left = access::remove(messaging, namespace, (user, channel), "kicked", message.as_deref());
            messaging.permissions().invalidate(Some(user), Some(channel));
            Ok(left)
        }
        Order::Kick { user, channel: None, message } => {
            let kicked = kick(namespace, user, message.as_deref());
            messaging.resume().end_all_of(user).await.map(|()| kicked)
        }
        Order::Revoke { subject, void_until, message } => {
            Ok(revoke(messaging, namespace, subject, void_until, message.as_deref()))
        }
        Order::Disconnect { filter, message } => {
            let sockets = filter.sockets(messaging, namespace);
            let message: Option<std::sync::Arc<str>> = message.map(Into::into);
            messaging.farewells().add(sockets.iter().map(|socket| (socket.id(), message.clone())));
            Ok(count(&sockets))
        }
        Order::Policies => remembered::read_policies(messaging, namespace).await.map(|()| 0),
        Order::Keys => messaging.tokens().refresh_now().await.map(|()| 0),
    }
}

async fn join(messaging: &Messaging, namespace: &Namespace, user: Uuid, channel: Uuid) -> ImksResult<u32> {
    messaging.permissions().forget(user, channel);
    if namespace.sockets_in(&user_room(user)).is_empty() {
        return Ok(0);
    }
    // The core may have changed its mind since.
    let Some(membership) = messaging.core().membership(user, channel).await? else { return Ok(0) };
    let joined = access::join(messaging, namespace, &membership).await;
    messaging.permissions().joined(membership);
    Ok(joined)
}

fn kick(namespace: &Namespace, user: Uuid, message: Option<&str>) -> u32 {
    let room = user_room(user);
    let sockets = namespace.sockets_in(&room);
    for socket in &sockets {
        farewell::ENDED.to_socket(socket, &Farewell { reason: "kicked", message, reconnect: false });
    }
    // Sessions of absent clients end as well.
    if let Err(error) = namespace.to(&room).local().disconnect_sockets(true) {
        tracing::warn!(%error, "sockets were not disconnected");
    }
    count(&sockets)
}

fn revoke(
    messaging: &Messaging,
    namespace: &Namespace,
    subject: Subject,
    void_until: Micros,
    message: Option<&str>,
) -> u32 {
    let sockets = match subject {
        Subject::User(user) => namespace.sockets_in(&user_room(user)),
        Subject::Session(_) => namespace.sockets(),
    };
    let concerned = |socket: &Socket| {
        let latest = socket.data::<Session>().map(|session| session.latest());
        latest.is_some_and(|latest| match subject {
            Subject::User(_) => latest.issued_at <= void_until,
            Subject::Session(session) => latest.session_id == Some(session),
        })
    };
    let sockets: Vec<Socket> = sockets.into_iter().filter(concerned).collect();
    access::disconnect(&sockets, message);
    // Only now, because whoever hears of it ends connections too, and knows no reason.
    messaging.tokens().revoke_locally(subject.revocation(void_until));
    count(&sockets)
}

impl Subject {
    /// Returns the revocation of the subject's tokens that are issued up to a time.
    pub(super) fn revocation(self, revoked_at: Micros) -> Revocation {
        let (user_id, session_id) = match self {
            Self::User(user) => (Some(user), None),
            Self::Session(session) => (None, Some(session)),
        };
        Revocation { user_id, session_id, revoked_at }
    }

    /// Returns up to when tokens are void that are withdrawn now. Those of a session are void whenever they are issued,
    /// as long as one that exists now can be valid.
    pub(super) fn void_until(self, lifetime_max: Duration) -> Micros {
        let now = clock::now_micros();
        match self {
            Self::User(_) => now,
            Self::Session(_) => now.saturating_add(clock::micros(lifetime_max)),
        }
    }
}

impl Filter {
    /// Whether every connection is chosen.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn sockets(&self, messaging: &Messaging, namespace: &Namespace) -> Vec<Socket> {
        if self.node.is_some() && self.node != messaging.config().node {
            return Vec::new();
        }
        let mut sockets = match (self.user, self.channel) {
            (Some(user), _) => namespace.sockets_in(&user_room(user)),
            (None, Some(channel)) => channel_rooms::sockets(namespace, channel),
            (None, None) => namespace.sockets(),
        };
        sockets.retain(|socket| {
            let session = socket.data::<Session>();
            let name = session.as_ref().and_then(|session| session.client().map(|client| &*client.name));
            !socket.is_closing()
                && self.channel.is_none_or(|channel| channel_rooms::is_in(socket, channel))
                && self.client_name.as_ref().is_none_or(|wanted| name == Some(wanted))
        });
        sockets
    }
}

fn count(sockets: &[Socket]) -> u32 {
    u32::try_from(sockets.len()).unwrap_or(u32::MAX)
}

/// The server event that carries an order to other nodes.
const EVENT: &str = "imks:order";
/// How long other nodes may take to confirm an order.
const CONFIRMED_MAX: Duration = Duration::from_secs(3);
