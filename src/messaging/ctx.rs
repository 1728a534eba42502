//! The context of a handler: the caller, the transport of the request, and proofs of permission.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use super::budget::{AnswerSize, Reservation};
use super::channel::{Channel, Moderate, Read, ReadableChannels, View, Write};
use super::own::Own;
use super::parts::Messaging;
use super::presence_board::Board;
use super::preview_queue::Previews;
use super::push::Push;
use super::session::{Session, Token};
use super::small_channels::MEMBERS_MAX;
use super::turn::Turn;
use super::typists::Typing;
use crate::auth::{CoreClient, Grant, Identity, Permission, TokenVerifier, UserInfo};
use crate::clock;
use crate::error::Precondition;
use crate::files::Files;
use crate::socket::{Namespace, Socket};
use crate::telemetry::trace;
use crate::{ImksError, ImksResult};

/// The caller of a request, and how the request arrived.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    session: Arc<Session>,
    via: Via,
}

/// How a request arrived.
#[derive(Debug, Clone)]
enum Via {
    Socket(Socket),
    /// With the namespace of the user's sockets, which may have to be notified.
    Http(Namespace),
}

impl Caller {
    /// Returns the sender of an event on `socket`, and takes a token from the connection's bucket of events.
    pub(super) fn on_socket(messaging: &Messaging, socket: &Socket) -> ImksResult<Self> {
        let session = socket.data::<Session>().ok_or(ImksError::Auth("This connection is not signed in"))?;
        session.count_event(&messaging.rates().events(), socket)?;
        Ok(Self { session, via: Via::Socket(socket.clone()) })
    }

    /// Returns the identity of the caller.
    pub(super) fn identity(&self) -> &Identity {
        self.session.identity()
    }

    /// Returns the caller of an HTTP request, and takes a token from the user's bucket of requests.
    pub(super) fn over_http(
        messaging: &Messaging,
        session: Session,
        namespace: &Namespace,
    ) -> ImksResult<Self> {
        messaging.rates().requests.take(session.identity().user_id)?;
        Ok(Self { session: Arc::new(session), via: Via::Http(namespace.clone()) })
    }
}

/// One request that is being handled: its caller, and everything a handler may use.
#[derive(Debug, Clone)]
pub struct Ctx {
    messaging: Messaging,
    caller: Caller,
    /// When the request arrived.
    since: Instant,
}

impl Ctx {
    pub(super) fn new(messaging: &Messaging, caller: Caller, since: Instant) -> Self {
        Self { messaging: messaging.clone(), caller, since }
    }

    /// Returns the context in which the server acts for a user who is not there. It has no token, so sensitive
    /// permissions are refused.
    pub(super) fn on_behalf_of(messaging: &Messaging, namespace: &Namespace, user: &UserInfo) -> Self {
        let (user_id, username, now) = (user.id, Arc::clone(&user.username), clock::now_micros());
        let identity = Identity { user_id, username, session_id: None, issued_at: now, expires_at: now };
        let session = Arc::new(Session::new(identity, Token::new("", None), None));
        Self::new(messaging, Caller { session, via: Via::Http(namespace.clone()) }, Instant::now())
    }

    /// Returns the identity of the caller.
    pub fn identity(&self) -> &Identity {
        self.caller.session.identity()
    }

    /// Returns the user id of the caller.
    pub fn user(&self) -> Uuid {
        self.identity().user_id
    }

    /// Returns the session of the caller.
    pub fn session(&self) -> &Arc<Session> {
        &self.caller.session
    }

    /// Returns the socket that the event arrived on.
    ///
    /// # Errors
    /// [`ImksError::UnknownEvent`] for a request that did not arrive on a socket.
    pub(super) fn socket(&self) -> ImksResult<Socket> {
        match &self.caller.via {
            Via::Socket(socket) => Ok(socket.clone()),
            Via::Http(_) => Err(ImksError::UnknownEvent),
        }
    }

    /// Returns the namespace of the users' sockets.
    pub(super) fn namespace(&self) -> &Namespace {
        match &self.caller.via {
            Via::Socket(socket) => socket.namespace(),
            Via::Http(namespace) => namespace,
        }
    }

    /// Sends an event to all devices of the caller.
    pub(super) fn tell_user<T: serde::Serialize>(&self, push: &Push<T>, payload: &T) {
        push.to_user(self.namespace(), self.user(), payload);
    }

    /// Sends an event to the caller's devices other than the one that sent the request. Costs nothing if there
    /// are none.
    pub(super) fn tell_other_devices<T: serde::Serialize>(
        &self,
        push: &Push<T>,
        payload: impl FnOnce() -> T,
    ) {
        match &self.caller.via {
            Via::Socket(socket) => push.to_other_devices(socket, self.user(), payload),
            Via::Http(namespace) => push.to_user(namespace, self.user(), &payload()),
        }
    }

    /// Whether the channel has so few members that everybody may know how far the others have read.
    ///
    /// # Errors
    /// [`ImksError::Unavailable`] or [`ImksError::Timeout`] when the core does not answer.
    pub(super) async fn is_small(&self, channel: Uuid) -> ImksResult<bool> {
        let (small, now) = (self.messaging.small_channels(), Instant::now());
        if let Some(known) = small.known(channel, now) {
            return Ok(known);
        }
        let members = self.messaging.core().count_members(channel, MEMBERS_MAX + 1).await;
        let is_small = small.note(channel, *members.as_ref().unwrap_or(&0), now);
        members.map(|_| is_small)
    }

    /// Whether another user may see a channel.
    ///
    /// # Errors
    /// [`ImksError::Unavailable`] or [`ImksError::Timeout`] when the core does not answer.
    pub(super) async fn may_see(&self, user: Uuid, channel: Uuid) -> ImksResult<bool> {
        match self.messaging.permissions().require(user, channel, Permission::ViewChannel).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_retryable() => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Returns the channels of the caller.
    ///
    /// # Errors
    /// [`ImksError::Unavailable`] or [`ImksError::Timeout`] when the core does not answer.
    pub(super) async fn channels(&self) -> ImksResult<Vec<Uuid>> {
        let memberships = self.messaging.core().list_user_channels(self.user()).await?;
        Ok(memberships.into_iter().map(|membership| membership.channel_id).collect())
    }

    /// Returns access to what belongs to the caller alone.
    pub(super) fn own(&self) -> Own {
        Own::new(&self.messaging, self.user())
    }

    pub(super) fn messaging(&self) -> &Messaging {
        &self.messaging
    }

    pub(super) fn typing(&self) -> &Typing {
        self.messaging.typing()
    }

    pub(super) fn presence(&self) -> &Board {
        self.messaging.presence()
    }

    pub(super) fn previews(&self) -> Option<&Previews> {
        self.messaging.previews()
    }

    pub(super) fn files(&self) -> &Files {
        self.messaging.files()
    }

    pub(super) fn core(&self) -> &CoreClient {
        self.messaging.core()
    }

    pub(super) fn tokens(&self) -> &TokenVerifier {
        self.messaging.tokens()
    }

    /// Waits for the turn of a further write of this request, after the writes that arrived meanwhile.
    pub async fn next_turn(&self) -> Turn {
        Turn::take(&self.caller.session).await
    }

    /// Takes a token for a send from the user's bucket and from their bucket for this channel.
    pub fn count_send(&self, channel: Uuid) -> ImksResult<()> {
        self.messaging.rates().count_send(self.user(), channel)
    }

    /// Takes a token for a piece of text from the user's bucket, and from their bucket for this message.
    pub fn count_piece(&self, message: Uuid) -> ImksResult<()> {
        self.messaging.rates().count_piece_of_user(self.user(), message)
    }

    /// Reserves room for a large answer, and waits while other answers hold it.
    pub(super) async fn reserve(&self, size: AnswerSize) -> ImksResult<Reservation> {
        self.messaging.answers().reserve(self.caller.session.answers(), self.user(), size).await
    }

    /// Returns a proof that the user may see the channel.
    ///
    /// # Errors
    /// [`ImksError::NotFound`] for a user who may not, [`ImksError::Unavailable`] when the core does not
    /// answer.
    pub async fn visible(&self, channel: Uuid) -> ImksResult<Channel<View>> {
        self.prove(channel, Permission::ViewChannel).await
    }

    /// Returns a proof that the user may read the messages of the channel.
    ///
    /// # Errors
    /// Those of [`Ctx::visible`], and [`ImksError::Forbidden`].
    pub async fn readable(&self, channel: Uuid) -> ImksResult<Channel<Read>> {
        self.prove(channel, Permission::ReadHistory).await
    }

    /// Returns a proof that the user may write in the channel in the way that `permission` allows.
    ///
    /// # Errors
    /// Those of [`Ctx::readable`], and [`ImksError::FailedPrecondition`] for an archived or read-only
    /// channel.
    pub async fn writable(&self, channel: Uuid, permission: Permission) -> ImksResult<Channel<Write>> {
        let grant = self.require(channel, permission).await?;
        // A permission to read is granted in an archived channel too.
        match grant.archived {
            true => Err(ImksError::FailedPrecondition(Precondition::ChannelArchived)),
            false => Ok(self.proof(channel, grant)),
        }
    }

    /// Returns a proof that the user may change the messages of others in the channel. The core is asked each
    /// time, and also verifies the token.
    ///
    /// # Errors
    /// Those of [`Ctx::writable`] and of [`TokenVerifier::verify_remote`].
    pub async fn moderated(&self, channel: Uuid) -> ImksResult<Channel<Moderate>> {
        self.prove(channel, Permission::ManageMessages).await
    }

    /// Splits `channels` into those that the user may read and the others, with few calls to the core.
    ///
    /// # Errors
    /// [`ImksError::Unavailable`] or [`ImksError::Timeout`] when the core does not answer.
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

    /// Caches the user's permissions in many channels. Any that this misses are requested one by one later.
    pub(super) async fn warm(&self, channels: &[Uuid]) {
        if let Err(error) = self.messaging.permissions().warm(self.user(), channels).await {
            tracing::debug!(%error, "permissions not fetched in advance");
        }
    }

    async fn prove<P>(&self, channel: Uuid, permission: Permission) -> ImksResult<Channel<P>> {
        let grant = self.require(channel, permission).await?;
        Ok(self.proof(channel, grant))
    }

    fn proof<P>(&self, channel: Uuid, grant: Grant) -> Channel<P> {
        Channel::new(&self.messaging, &self.caller.session, channel, grant.slow_mode, self.since)
    }

    /// Checks a permission besides the one of a proof. Returns its conditions.
    pub(super) fn require(
        &self,
        channel: Uuid,
        permission: Permission,
    ) -> impl Future<Output = ImksResult<Grant>> {
        trace::spanned("permission", self.ask(channel, permission))
    }

    async fn ask(&self, channel: Uuid, permission: Permission) -> ImksResult<Grant> {
        let permissions = self.messaging.permissions();
        if permission.is_sensitive() {
            let token = self.caller.session.token();
            self.messaging.tokens().verify_remote(token.presented()).await?;
        }
        match permissions.cached(self.user(), channel, permission) {
            Some(answer) => answer,
            None => permissions.require(self.user(), channel, permission).await,
        }
    }
}
