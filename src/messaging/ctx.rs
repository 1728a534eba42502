//! What handlers work with: the parts of the server, who asks, and proofs of permission.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::MutexGuard;
use tokio::time::Instant;
use uuid::Uuid;

use super::Config;
use crate::auth::{Authenticator, CoreClient, Identity, Permission, Permissions};
use crate::clock::Micros;
use crate::models::Db;
use crate::models::append::{Appender, Receipt, Write};
use crate::models::channel_state::{ChannelHead, heads};
use crate::models::message::{self, MessageDetail, MessagePage, Page};
use crate::models::message_read_state::{self, ReadState};
use crate::models::metrics;
use crate::socket::rate_limit::{Bucket, Limiter};
use crate::socket::{Namespace, Socket};
use crate::{ImksError, ImksResult};

/// The parts that messaging is made of.
#[derive(Clone)]
pub struct Parts {
    /// Where messages are read.
    pub db: Db,
    /// Where messages are written.
    pub appender: Appender,
    /// Who is this.
    pub authenticator: Authenticator,
    /// May they.
    pub permissions: Permissions,
    /// Which channels are theirs.
    pub core: CoreClient,
}

/// The features' shared state. Cheap to clone.
#[derive(Clone)]
pub struct Messaging(Arc<Inner>);

struct Inner {
    config: Config,
    parts: Parts,
    connects: Limiter<Uuid>,
    sends: Limiter<Uuid>,
    sends_per_channel: Limiter<(Uuid, Uuid)>,
}

impl Messaging {
    /// Puts the parts together.
    pub fn new(config: Config, parts: Parts) -> Self {
        let (connects, sends) = (Limiter::new(config.connects), Limiter::new(config.sends));
        let sends_per_channel = Limiter::new(config.sends_per_channel);
        Self(Arc::new(Inner { config, parts, connects, sends, sends_per_channel }))
    }

    /// What was configured.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Who is this.
    pub(super) fn authenticator(&self) -> &Authenticator {
        &self.0.parts.authenticator
    }

    /// May they. Only for decisions about rooms; writing and reading go through [`Ctx::channel`].
    pub(super) fn permissions(&self) -> &Permissions {
        &self.0.parts.permissions
    }

    /// The core.
    pub(super) fn core(&self) -> &CoreClient {
        &self.0.parts.core
    }

    /// The database, for what belongs to one user and to no channel.
    pub(super) fn db(&self) -> &Db {
        &self.0.parts.db
    }

    /// Takes one connect from the bucket of the user.
    pub(super) fn count_connect(&self, user: Uuid) -> ImksResult<()> {
        let refuse = |retry_after| ImksError::RateLimited { bucket: "connect:user", retry_after };
        self.0.connects.take(user, Instant::now()).map_err(refuse)
    }

    /// Forgets rate limits that nobody is near; called once in a while.
    pub fn sweep(&self, now: Instant) {
        self.0.connects.sweep(now);
        self.0.sends.sweep(now);
        self.0.sends_per_channel.sweep(now);
    }
}

impl fmt::Debug for Messaging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messaging").field("config", &self.0.config).finish_non_exhaustive()
    }
}

/// What a socket is to messaging: one signed-in device. Kept with the socket.
#[derive(Debug)]
pub struct Session {
    identity: Identity,
    /// The token shown last, and what it says, which counts for expiry and revocation.
    latest: Mutex<Shown>,
    expires_at: AtomicI64,
    /// When [`super::expiry`] looks at it next.
    look_at: AtomicI64,
    events: Mutex<Bucket>,
    /// Events refused for their rate, less those accepted.
    refusals: AtomicU32,
    /// Fair, so that writes are submitted in the order their events arrived.
    turn: tokio::sync::Mutex<()>,
    /// Channels that the client left by itself: a late word of the core does not bring it back. Each was one of
    /// its rooms, so there are no more than it had rooms.
    left: Mutex<HashSet<Uuid>>,
}

#[derive(Debug)]
struct Shown {
    identity: Identity,
    token: Token,
}

/// A token as it was shown, for questions to the core. Whoever has it is the user: it never reaches a log.
#[derive(Clone)]
pub(super) struct Token(Arc<str>);

impl Token {
    pub(super) fn new(token: &str) -> Self {
        Self(token.into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Session {
    /// A session of somebody whose token was verified.
    pub(super) fn new(identity: Identity, token: Token) -> Self {
        let expires_at = AtomicI64::new(identity.expires_at);
        let latest = Mutex::new(Shown { identity: identity.clone(), token });
        let (look_at, turn) = (AtomicI64::new(0), tokio::sync::Mutex::default());
        Self {
            identity,
            latest,
            expires_at,
            look_at,
            events: Mutex::default(),
            refusals: AtomicU32::new(0),
            turn,
            left: Mutex::default(),
        }
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When its token ends; later after `auth:refresh`.
    pub fn expires_at(&self) -> Micros {
        self.expires_at.load(Ordering::Relaxed)
    }

    fn forgive_refusal(&self) {
        if self.refusals.load(Ordering::Relaxed) > 0 {
            self.refusals.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Who never listens to `rate_limited` has to go.
    fn note_refusal(&self, socket: &Socket) {
        if self.refusals.fetch_add(1, Ordering::Relaxed) == REFUSALS_MAX {
            tracing::warn!(
                socket_sid = socket.id(),
                "disconnected: goes on sending although it is rate limited"
            );
            socket.disconnect(true);
        }
    }

    pub(super) fn look_at(&self) -> Micros {
        self.look_at.load(Ordering::Relaxed)
    }

    pub(super) fn set_look_at(&self, at: Micros) {
        self.look_at.store(at, Ordering::Relaxed);
    }

    /// The client left a channel that it was in.
    pub(super) fn leave(&self, channel: Uuid) {
        self.left.lock().insert(channel);
    }

    /// The client came back to a channel.
    pub(super) fn come_back(&self, channel: Uuid) {
        self.left.lock().remove(&channel);
    }

    /// Whether the client left the channel by itself.
    pub(super) fn has_left(&self, channel: Uuid) -> bool {
        self.left.lock().contains(&channel)
    }

    /// A new token of the same user was shown.
    pub(super) fn renew(&self, identity: Identity, token: Token) {
        self.expires_at.store(identity.expires_at, Ordering::Relaxed);
        *self.latest.lock() = Shown { identity, token };
    }

    /// What the token shown last says.
    pub(super) fn latest(&self) -> Identity {
        self.latest.lock().identity.clone()
    }
}

/// One event being handled: who sent it, and everything a handler may use.
#[derive(Clone)]
pub struct Ctx {
    messaging: Messaging,
    socket: Socket,
    session: Arc<Session>,
}

impl Ctx {
    /// The context of an event on `socket`; takes one from its bucket of events.
    pub(super) fn begin(messaging: &Messaging, socket: &Socket) -> ImksResult<Self> {
        let session = socket.data::<Session>().ok_or(ImksError::Auth("This connection is not signed in"))?;
        let taken = session.events.lock().take(&messaging.config().events, Instant::now());
        if let Err(retry_after) = taken {
            session.note_refusal(socket);
            return Err(ImksError::RateLimited { bucket: "events:socket", retry_after });
        }
        session.forgive_refusal();
        Ok(Self { messaging: messaging.clone(), socket: socket.clone(), session })
    }

    /// Who asks.
    pub fn identity(&self) -> &Identity {
        &self.session.identity
    }

    /// Id of who asks.
    pub fn user(&self) -> Uuid {
        self.session.identity.user_id
    }

    /// The socket it came from.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The session of the socket.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The shared parts.
    pub fn messaging(&self) -> &Messaging {
        &self.messaging
    }

    /// Waits until every write that arrived earlier on this connection has been submitted.
    ///
    /// Must be awaited before anything else in a handler: the place in the line is taken when the handler is
    /// polled for the first time, in arrival order.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        // Unconstrained: tokio's cooperative budget would otherwise answer "pending" without taking a place.
        tokio::task::unconstrained(self.session.turn.lock()).await
    }

    /// Proof that the user may do this in the channel. What is sensitive asks the core about the token too.
    ///
    /// # Errors
    /// `NotFound` for who may not see the channel, `Forbidden`, `FailedPrecondition`, `Unavailable`; for what
    /// is sensitive also those of [`Authenticator::verify_remote`].
    pub async fn channel(&self, id: Uuid, permission: Permission) -> ImksResult<Channel> {
        let permissions = &self.messaging.0.parts.permissions;
        if permission.is_sensitive() {
            let token = self.session.latest.lock().token.clone();
            self.messaging.authenticator().verify_remote(&token.0).await?;
        }
        let grant = match permissions.cached(self.user(), id, permission) {
            Some(answer) => answer?,
            None => permissions.require(self.user(), id, permission).await?,
        };
        Ok(Channel { messaging: self.messaging.clone(), id, slow_mode: grant.slow_mode })
    }

    /// Takes one send from the buckets of the user and of the user in this channel.
    pub fn count_send(&self, channel: Uuid) -> ImksResult<()> {
        let (inner, now) = (&self.messaging.0, Instant::now());
        let refuse = |bucket| move |retry_after| ImksError::RateLimited { bucket, retry_after };
        inner.sends_per_channel.take((self.user(), channel), now).map_err(refuse("send:user_channel"))?;
        inner.sends.take(self.user(), now).map_err(refuse("send:user"))
    }
}

/// A channel in which the user may do what was asked for: the only way to write or read messages.
pub struct Channel {
    messaging: Messaging,
    id: Uuid,
    slow_mode: Duration,
}

impl Channel {
    /// Which one.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Time between two messages of the user here; zero for none.
    pub fn slow_mode(&self) -> Duration {
        self.slow_mode
    }

    /// Puts a write into its lane, at once. What is committed reaches the channel's room by itself.
    pub fn submit(&self, write: Write) -> ImksResult<Receipt> {
        self.messaging.0.parts.appender.submit(write)
    }

    /// A page of history.
    pub async fn page(&self, page: Page) -> ImksResult<MessagePage> {
        timed("history", message::page(self.messaging.db(), self.id, page)).await
    }

    /// The newest numbers.
    pub async fn head(&self) -> ImksResult<ChannelHead> {
        let head = timed("heads", heads(self.messaging.db(), &[self.id])).await?.pop();
        Ok(head.unwrap_or_else(|| ChannelHead::empty(self.id)))
    }

    /// Moves the user's read position forward.
    pub async fn mark_read(&self, user: Uuid, seq: i64) -> ImksResult<ReadState> {
        timed("read_mark", message_read_state::mark(self.messaging.db(), user, self.id, seq)).await
    }

    /// Messages by id; those that are not in this channel are left out.
    pub async fn messages(&self, ids: &[Uuid]) -> ImksResult<Vec<MessageDetail>> {
        timed("messages", message::get_many(self.messaging.db(), self.id, ids)).await
    }
}

/// Measures a query of the database under a name of ours.
pub(super) async fn timed<T>(query: &'static str, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let outcome = work.await;
    metrics::DATABASE_SECONDS.child(query).record(started.elapsed());
    outcome
}

/// An event that the server sends, with the type of its payload.
pub struct Push<T: ?Sized> {
    name: &'static str,
    payload: PhantomData<T>,
}

impl<T: Serialize + ?Sized> Push<T> {
    /// An event with this name.
    pub const fn new(name: &'static str) -> Self {
        Self { name, payload: PhantomData }
    }

    /// To everybody in a channel's room. For what is committed.
    pub(super) fn to_channel(&self, namespace: &Namespace, channel: Uuid, payload: &T) {
        let mut room = Uuid::encode_buffer();
        self.log(namespace.emit_to_room(channel.hyphenated().encode_lower(&mut room), self.name, payload));
    }

    /// To all devices of a user.
    pub(super) fn to_user(&self, namespace: &Namespace, user: Uuid, payload: &T) {
        self.log(namespace.emit_to_room(&user_room(user), self.name, payload));
    }

    /// To one socket.
    pub(super) fn to_socket(&self, socket: &Socket, payload: &T) {
        self.log(socket.emit(self.name, payload));
    }

    /// Whoever missed an event learns of it by `sync`; nobody is there to be told about the failure.
    fn log(&self, outcome: ImksResult<()>) {
        if let Err(error) = outcome {
            tracing::debug!(event = self.name, %error, "event not sent");
        }
    }
}

/// The room of all devices of a user. The prefix keeps it apart from channels, whose rooms are bare ids.
pub fn user_room(user: Uuid) -> String {
    format!("user:{user}")
}

/// So many more events refused for their rate than accepted, and the connection is closed.
const REFUSALS_MAX: u32 = 1_000;
