//! What handlers work with: who asks, which way they came, and proofs of permission.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

use super::budget::{AnswerSize, Reservation};
use super::channel::{Channel, Moderate, Read, ReadableChannels, View, Write};
use super::parts::Messaging;
use super::push::Push;
use super::session::Session;
use super::turn::Turn;
use crate::auth::{Authenticator, Identity, Permission};
use crate::socket::{Namespace, Socket};
use crate::{ImksError, ImksResult};

/// Somebody who asks, and the way they came.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    session: Arc<Session>,
    via: Via,
}

/// The way a request came.
#[derive(Debug, Clone)]
enum Via {
    Socket(Socket),
    /// With the namespace of the user's sockets, which may have to be told something.
    Http(Namespace),
}

impl Caller {
    /// Whoever sent an event on `socket`; takes one from the connection's bucket of events.
    pub(super) fn on_socket(messaging: &Messaging, socket: &Socket) -> ImksResult<Self> {
        let session = socket.data::<Session>().ok_or(ImksError::Auth("This connection is not signed in"))?;
        session.count_event(&messaging.config().events, socket)?;
        Ok(Self { session, via: Via::Socket(socket.clone()) })
    }

    /// Whoever made an HTTP request; takes one from the user's bucket of requests.
    pub(super) fn over_http(
        messaging: &Messaging,
        session: Session,
        namespace: &Namespace,
    ) -> ImksResult<Self> {
        messaging.rates().requests.take(session.identity().user_id)?;
        Ok(Self { session: Arc::new(session), via: Via::Http(namespace.clone()) })
    }
}

/// One request being handled: who sent it, and everything a handler may use.
#[derive(Debug, Clone)]
pub struct Ctx {
    messaging: Messaging,
    caller: Caller,
}

impl Ctx {
    pub(super) fn new(messaging: &Messaging, caller: Caller) -> Self {
        Self { messaging: messaging.clone(), caller }
    }

    /// Who asks.
    pub fn identity(&self) -> &Identity {
        self.caller.session.identity()
    }

    /// Id of the user who asks.
    pub fn user(&self) -> Uuid {
        self.identity().user_id
    }

    /// The session of whoever asks.
    pub fn session(&self) -> &Arc<Session> {
        &self.caller.session
    }

    /// The socket that an event came from.
    ///
    /// # Errors
    /// [`ImksError::UnknownEvent`] for a request that came another way.
    pub(super) fn socket(&self) -> ImksResult<Socket> {
        match &self.caller.via {
            Via::Socket(socket) => Ok(socket.clone()),
            Via::Http(_) => Err(ImksError::UnknownEvent),
        }
    }

    /// Sends an event to all devices of whoever asks.
    pub(super) fn tell_user<T: serde::Serialize>(&self, push: &Push<T>, payload: &T) {
        let namespace = match &self.caller.via {
            Via::Socket(socket) => socket.namespace(),
            Via::Http(namespace) => namespace,
        };
        push.to_user(namespace, self.user(), payload);
    }

    pub(super) fn authenticator(&self) -> &Authenticator {
        self.messaging.authenticator()
    }

    /// The turn for a further write of the same request. It comes after the writes that have arrived meanwhile.
    pub async fn next_turn(&self) -> Turn {
        Turn::take(&self.caller.session).await
    }

    /// Takes one send from the buckets of the user and of the user in this channel.
    pub fn count_send(&self, channel: Uuid) -> ImksResult<()> {
        self.messaging.rates().count_send(self.user(), channel)
    }

    /// Room for a large answer: waits for others to finish, and holds it until the reservation is dropped.
    pub(super) async fn reserve(&self, size: AnswerSize) -> ImksResult<Reservation> {
        self.messaging.answers().reserve(self.caller.session.answers(), self.user(), size).await
    }

    /// Proof that the user may see the channel.
    ///
    /// # Errors
    /// [`ImksError::NotFound`] for a user who may not, [`ImksError::Unavailable`] when the core is silent.
    pub async fn visible(&self, channel: Uuid) -> ImksResult<Channel<View>> {
        self.prove(channel, Permission::ViewChannel).await
    }

    /// Proof that the user may read what was written in the channel.
    ///
    /// # Errors
    /// As [`Ctx::visible`], and [`ImksError::Forbidden`].
    pub async fn readable(&self, channel: Uuid) -> ImksResult<Channel<Read>> {
        self.prove(channel, Permission::ReadHistory).await
    }

    /// Proof that the user may write in the channel in the way that `permission` allows.
    ///
    /// # Errors
    /// As [`Ctx::readable`], and [`ImksError::FailedPrecondition`] for an archived or read-only channel.
    pub async fn writable(&self, channel: Uuid, permission: Permission) -> ImksResult<Channel<Write>> {
        self.prove(channel, permission).await
    }

    /// Proof that the user may change what others wrote in the channel. The core is asked each time, about the token
    /// too.
    ///
    /// # Errors
    /// As [`Ctx::writable`], and those of [`Authenticator::verify_remote`].
    pub async fn moderated(&self, channel: Uuid) -> ImksResult<Channel<Moderate>> {
        self.prove(channel, Permission::ManageMessages).await
    }

    /// Those of `channels` that the user may read, with few calls to the core, and those they may not.
    ///
    /// # Errors
    /// [`ImksError::Unavailable`] or [`ImksError::Timeout`] when the core is silent.
    pub async fn readable_among(&self, channels: &[Uuid]) -> ImksResult<(ReadableChannels, Vec<Uuid>)> {
        self.messaging.permissions().warm(self.user(), channels).await?;
        let (mut readable, mut others) = (HashSet::with_capacity(channels.len()), Vec::new());
        for &channel in channels {
            match self.require(channel, Permission::ReadHistory).await {
                Ok(_) => drop(readable.insert(channel)),
                Err(ImksError::NotFound(_) | ImksError::Forbidden(_)) => others.push(channel),
                Err(error) => return Err(error),
            }
        }
        Ok((ReadableChannels::new(&self.messaging, self.user(), readable), others))
    }

    /// Learns in advance what the user may do in many channels; what is not learnt is asked for one by one later.
    pub(super) async fn warm(&self, channels: &[Uuid]) {
        if let Err(error) = self.messaging.permissions().warm(self.user(), channels).await {
            tracing::debug!(%error, "permissions not fetched in advance");
        }
    }

    async fn prove<P>(&self, channel: Uuid, permission: Permission) -> ImksResult<Channel<P>> {
        let slow_mode = self.require(channel, permission).await?;
        Ok(Channel::new(&self.messaging, &self.caller.session, channel, slow_mode))
    }

    /// Asks for a permission beside the one that a proof stands for. Returns the slow mode of the user there.
    pub(super) async fn require(
        &self,
        channel: Uuid,
        permission: Permission,
    ) -> ImksResult<std::time::Duration> {
        let permissions = self.messaging.permissions();
        if permission.is_sensitive() {
            let token = self.caller.session.token();
            self.messaging.authenticator().verify_remote(token.as_str()).await?;
        }
        let grant = match permissions.cached(self.user(), channel, permission) {
            Some(answer) => answer?,
            None => permissions.require(self.user(), channel, permission).await?,
        };
        Ok(grant.slow_mode)
    }
}
