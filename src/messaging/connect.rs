//! The handler of CONNECT: verifies the token, joins the rooms, and sends the first events of the session.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::budget::AnswerSize;
use super::channel_rooms;
use super::coming_back::ComingBack;
use super::expiry::Expiry;
use super::greeting::Greeting;
use super::held::Held;
use super::mention;
use super::parts::Messaging;
use super::presence_board::Arrival;
use super::push::user_room;
use super::server_facts::{Limits, PROTOCOL};
use super::session::{Client, Session, Token};
use super::session_log::{self, Refusals};
use super::standings::ChannelStates;
use super::timed::timed;
use super::{traced, workspaces};
use crate::auth::{Identity, Membership, Permission};
use crate::clock::jittered;
use crate::envelope::{ErrorBody, RequestId};
use crate::error::Code;
use crate::models::message_read_state::baseline;
use crate::socket::metrics;
use crate::socket::{Accept, ConnectError, ConnectPayload, NamespaceBuilder, Socket, token_in_header};
use crate::telemetry::trace::{self, Span};
use crate::{ImksError, ImksResult};

/// The `auth` object of the CONNECT packet. Unknown fields are ignored.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Auth {
    /// The token of the user; not needed if it is in the header `Authorization`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    token: Option<Value>,
    /// The version of the messaging protocol: 1.
    #[serde(default)]
    #[schemars(with = "Option<u32>")]
    protocol: Option<Value>,
    /// The program that the client is, for logs and lists of sessions.
    #[serde(default)]
    #[schemars(with = "Option<Client>")]
    client: Option<Value>,
    /// Whether the device starts `online` (as without this) or `idle`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    presence: Option<Value>,
    /// Whether the device gets everything of its channels (`full`, as without this), or digests until it says which it
    /// looks at (`light`).
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    mode: Option<Value>,
    /// Whether the client may come back to its session (`recovered`), as those of Socket.IO do that keep the offset at the end of
    /// events. False for those whose handlers fail if there is one more argument.
    #[serde(default)]
    #[schemars(with = "Option<bool>")]
    recovery: Option<Value>,
    /// The trace that the client is in, as W3C writes it.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    #[allow(dead_code, reason = "read where the span begins; it stands here for the contract")]
    traceparent: Option<Value>,
}

/// What a session gets of its channels when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "SessionMode")]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    /// Everything.
    Full,
    /// Digests, until `channel:focus`.
    Light,
}

impl Mode {
    fn of(auth: &Auth) -> Self {
        match auth.mode.as_ref().is_some_and(|mode| mode == "light") {
            true => Self::Light,
            false => Self::Full,
        }
    }
}

/// Registers the handler of CONNECT. It sends `limits` to every client.
pub(super) fn register(
    builder: &mut NamespaceBuilder,
    messaging: &Messaging,
    expiry: &Expiry,
    limits: &Limits,
) {
    let (messaging, expiry, limits) = (messaging.clone(), expiry.clone(), Arc::clone(limits));
    let (held, refusals) = (Held::default(), Refusals::new());
    let context = Arc::new(SignIn { messaging, expiry, limits, held, refusals });
    builder.on_connect(move |socket, payload| connect(Arc::clone(&context), socket, payload));
}

/// Everything that signing in needs besides the client's request.
struct SignIn {
    messaging: Messaging,
    expiry: Expiry,
    limits: Limits,
    held: Held,
    refusals: Refusals,
}

/// Signs a socket in, or refuses it with an error. A cause that passes is waited for: a stock client that gets
/// an error does not come back by itself, but one whose transport ends does.
async fn connect(
    context: Arc<SignIn>,
    socket: Socket,
    payload: ConnectPayload,
) -> Result<Accept, ConnectError> {
    let mut span = traced::connect(&context.messaging, &socket, &payload);
    let within = span.as_ref().map(Span::context);
    let admitted = Box::pin(admit(&context, socket, payload, &mut span));
    trace::within(within, admitted).await
}

async fn admit(
    context: &SignIn,
    socket: Socket,
    payload: ConnectPayload,
    span: &mut Option<Span>,
) -> Result<Accept, ConnectError> {
    let (deadline, mut pause) = (Instant::now() + context.messaging.config().connect_hold, PAUSE_MIN);
    let (mut attempt, mut place) = (Attempt::default(), None);
    loop {
        let outcome = Box::pin(sign_in(context, &socket, &payload, &mut attempt)).await;
        span.iter_mut().for_each(|span| span.outcome(&outcome));
        let error = match outcome {
            Ok(Some(accept)) => {
                metrics::CONNECTS.of(metrics::Connect::Accepted).increment();
                return Ok(accept);
            }
            Ok(None) => {
                attempt.begins_anew = true;
                socket.rooms().iter().for_each(|room| socket.leave(room));
                continue;
            }
            Err(error) => error,
        };
        if !passes(&error) {
            // Why a token is refused was logged where it was verified.
            if !matches!(error.code(), Code::Unauthenticated | Code::TokenExpired | Code::TokenRevoked) {
                context.refusals.log(&socket, &error);
            }
            return Err(refusal(&error));
        }
        if place.is_none() {
            tracing::debug!(socket_sid = socket.id(), %error, "connect held: it cannot succeed now");
            place = context.held.enter(payload.json().len(), socket.handshake().comes_back);
        }
        if place.is_none() {
            return Err(ConnectError::reconnect("no room to wait"));
        }
        // The next attempt starts from nothing.
        socket.rooms().iter().for_each(|room| socket.leave(room));
        let next = Instant::now() + jittered(error.retry_after().unwrap_or(pause));
        tokio::time::sleep_until(next.min(deadline)).await;
        if next >= deadline {
            return Err(ConnectError::reconnect(error.code().as_str()));
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Whether the cause of a refusal passes without anything that the client does.
fn passes(error: &ImksError) -> bool {
    error.is_retryable() || matches!(error, ImksError::LimitReached(_))
}

/// What is known from earlier attempts to sign in.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    /// Whether the connect was counted against the rate of connects.
    is_counted: bool,
    /// Whether the client gets a new session, because the one that it named cannot continue.
    pub(super) begins_anew: bool,
}

/// Creates the session of a socket, or continues the one that its client names; `None` if it turns out that this one cannot
/// continue. Rooms are joined before the numbers are read: whatever is committed
/// afterwards arrives as an event, so a client that starts from `session:ready` misses nothing.
async fn sign_in(
    context: &SignIn,
    socket: &Socket,
    payload: &ConnectPayload,
    attempt: &mut Attempt,
) -> ImksResult<Option<Accept>> {
    let SignIn { messaging, expiry, .. } = context;
    let Visitor { identity, token, client, mode, idle, suits } =
        Box::pin(verify(context, socket, payload)).await?;
    if !attempt.is_counted {
        messaging.rates().connects.take(identity.user_id)?;
        attempt.is_counted = true;
    }
    let session = begin(messaging, socket, Session::new(identity.clone(), token, client), mode)?;
    let mut all = messaging.permissions().memberships(identity.user_id).await?;
    let mut memberships = visible_channels(messaging, socket, identity.user_id, &all).await?;
    let size = AnswerSize::of_channels(memberships.len());
    let room = messaging.answers().reserve(session.answers(), identity.user_id, size).await?;
    // Who waits for that room does not hold a session meanwhile.
    let who = (payload, &identity);
    let mut coming_back = ComingBack::find(messaging, socket, who, suits.then_some(mode), attempt).await?;
    coming_back.leave_out(&session, &mut memberships);
    // Before the socket is found by its user: that a channel was joined is told of no channel that is listed.
    let listed = follow_channels(socket, &session, &memberships);
    join_user(messaging, socket, identity.user_id)?;
    // A membership that began meanwhile did not find the socket; from now on it does.
    if !messaging.permissions().are_current(identity.user_id, &all) {
        all = messaging.permissions().memberships(identity.user_id).await?;
        memberships = visible_channels(messaging, socket, identity.user_id, &all).await?;
        coming_back.leave_out(&session, &mut memberships);
        follow_instead(socket, &session, &listed, &mut memberships);
    }
    note_memberships(socket, &session, &memberships);
    // Who was removed since the channels were listed was in no room yet that this could end.
    let memberships = still_visible(messaging, socket, identity.user_id, memberships).await?;
    let states = baseline_of(messaging, socket, &session, &memberships, &mut coming_back).await?;
    if !coming_back.read_missed(messaging, &session, &memberships, &states).await? {
        return Ok(None);
    }
    socket.set_data(Arrival::new(messaging.presence(), messaging.db(), identity.user_id, idle).await?);
    // A token that was withdrawn since it was verified ended nothing: the socket was not yet in the user's room.
    if messaging.tokens().is_revoked(&identity) {
        return Err(ImksError::TokenRevoked);
    }
    let limits = &context.limits;
    let greeting =
        Greeting { messaging, limits, session: &session, mode, memberships: &memberships, states: &states };
    let Some((accept, room)) = coming_back.greet(socket, &greeting, room).await? else { return Ok(None) };
    expiry.follow(socket, &session);
    session_log::signed_in(socket, &session);
    Ok(Some(accept.holding(|bytes| room.for_bytes(bytes))))
}

/// Who wants to sign in, and how.
struct Visitor {
    identity: Identity,
    token: Token,
    client: Option<Client>,
    mode: Mode,
    idle: bool,
    /// Whether the session may continue after its connection.
    suits: bool,
}

/// Verifies the token of a client.
async fn verify(context: &SignIn, socket: &Socket, payload: &ConnectPayload) -> ImksResult<Visitor> {
    let auth: Auth =
        payload.parse().map_err(|_| ImksError::InvalidPayload("auth must be an object".into()))?;
    let idle = auth.presence.as_ref().is_some_and(|presence| presence == "idle");
    let mode = Mode::of(&auth);
    let suits = context.messaging.resume().suits(socket, auth.recovery.as_ref());
    let client = auth.client.as_ref().and_then(Client::read);
    let token = Token::new(&token(socket, auth)?, Some(socket.handshake().peer));
    let identity = context.messaging.tokens().verify_for_session(token.presented()).await?;
    Ok(Visitor { identity, token, client, mode, idle, suits })
}

/// Makes a socket one of those of its user, unless there are too many. Those of other nodes are known a moment after they
/// began.
fn join_user(messaging: &Messaging, socket: &Socket, user: Uuid) -> ImksResult<()> {
    let room = user_room(user);
    // Joined before it is counted, so that concurrent connects cannot all pass.
    socket.join(&room);
    let most = messaging.rates().sessions_per_user();
    let sessions =
        || socket.namespace().sockets_in(&room).len().saturating_add(messaging.presence().elsewhere(user));
    if most > 0 && sessions() > most {
        return Err(ImksError::LimitReached("sessions_per_user"));
    }
    Ok(())
}

fn note_memberships(socket: &Socket, session: &Session, memberships: &[&Membership]) {
    workspaces::join(socket, memberships.iter().copied());
    for membership in memberships.iter().copied() {
        mention::note_settings(socket, session, membership);
    }
}

/// Keeps a session with its socket.
fn begin(messaging: &Messaging, socket: &Socket, session: Session, mode: Mode) -> ImksResult<Arc<Session>> {
    socket.set_data(session);
    let session = socket.data::<Session>().ok_or(ImksError::Internal("a session was not kept"))?;
    if mode == Mode::Light {
        messaging.activity().begin();
        channel_rooms::look_at(socket, &session, HashSet::new());
    }
    Ok(session)
}

/// Returns the token from `auth.token`, or else from the `Authorization` header. Never from the query string,
/// which ends up in logs.
fn token(socket: &Socket, auth: Auth) -> ImksResult<String> {
    if auth.protocol.is_some_and(|protocol| protocol != PROTOCOL) {
        return Err(ImksError::invalid("protocol", format!("this server speaks version {PROTOCOL}")));
    }
    match auth.token {
        Some(Value::String(token)) if !token.is_empty() => Ok(token),
        None | Some(Value::Null) => token_in_header(socket.handshake()).ok_or(ImksError::Auth(TOKEN_MISSING)),
        Some(_) => Err(ImksError::Auth(TOKEN_MISSING)),
    }
}

/// Returns up to [`AUTO_JOIN_MAX`] channels of the user that they may see. Others need `channel:subscribe`.
async fn visible_channels<'a>(
    messaging: &Messaging,
    socket: &Socket,
    user: Uuid,
    all: &'a [Membership],
) -> ImksResult<Vec<&'a Membership>> {
    let memberships: Vec<&Membership> = all.iter().take(AUTO_JOIN_MAX).collect();
    messaging.permissions().warm(user, &ids(&memberships)).await?;
    still_visible(messaging, socket, user, memberships).await
}

fn ids(memberships: &[&Membership]) -> Vec<Uuid> {
    memberships.iter().map(|membership| membership.channel_id).collect()
}

/// Returns the channels that the user may see now, and makes the socket leave the rooms of the others.
async fn still_visible<'a>(
    messaging: &Messaging,
    socket: &Socket,
    user: Uuid,
    memberships: Vec<&'a Membership>,
) -> ImksResult<Vec<&'a Membership>> {
    let mut visible = Vec::with_capacity(memberships.len());
    for membership in memberships {
        // Reads the cache, unless the core has revoked a permission a moment ago.
        match messaging.permissions().require(user, membership.channel_id, Permission::ViewChannel).await {
            Ok(_) => visible.push(membership),
            Err(error) if error.is_retryable() => return Err(error),
            Err(_) => {
                channel_rooms::leave(socket, membership.channel_id);
            }
        }
    }
    Ok(visible)
}

/// Makes a socket follow channels, and returns their ids.
fn follow_channels(socket: &Socket, session: &Session, memberships: &[&Membership]) -> HashSet<Uuid> {
    let follow = |membership: &&Membership| {
        channel_rooms::join(socket, session, membership.channel_id);
        membership.channel_id
    };
    memberships.iter().map(follow).collect()
}

/// Makes a socket follow the channels of a newer list instead of those of the `listed` one. Keeps in the newer one only
/// what has to be listed: where the socket follows a channel already, an event tells that it was joined.
fn follow_instead(
    socket: &Socket,
    session: &Session,
    listed: &HashSet<Uuid>,
    memberships: &mut Vec<&Membership>,
) {
    let now: HashSet<Uuid> = memberships.iter().map(|it| it.channel_id).collect();
    for ended in listed.difference(&now) {
        channel_rooms::leave(socket, *ended);
    }
    let is_new = |channel| channel_rooms::join(socket, session, channel);
    memberships.retain(|it| listed.contains(&it.channel_id) || is_new(it.channel_id));
}

/// Reads where the channels are that the client follows; what is committed later arrives as an event.
async fn baseline_of(
    messaging: &Messaging,
    socket: &Socket,
    session: &Session,
    memberships: &[&Membership],
    coming_back: &mut ComingBack,
) -> ImksResult<ChannelStates> {
    let user = session.identity().user_id;
    coming_back.follow_others(messaging, socket, session, memberships).await?;
    let states = channel_states(messaging, user, memberships).await?;
    let heads = states.values().map(|it| &it.head).chain(coming_back.others());
    if messaging.relay().is_none_or(|relay| relay.baseline(heads)) {
        return Ok(states);
    }
    coming_back.follow_others(messaging, socket, session, memberships).await?;
    channel_states(messaging, user, memberships).await
}

/// Returns the heads and read states of the channels. Channels that are new to the user count as read.
async fn channel_states(
    messaging: &Messaging,
    user: Uuid,
    memberships: &[&Membership],
) -> ImksResult<ChannelStates> {
    let db = messaging.db();
    let mut states = messaging.standings().of(db, user, ids(memberships)).await?;
    let starts_anew = |membership: &&&Membership| match states.get(&membership.channel_id) {
        // Who was a member before and came back starts where they came back.
        Some(state) => membership.joined_seq.is_some_and(|joined_seq| joined_seq > state.read.read_seq),
        None => true,
    };
    let new: Vec<(Uuid, Option<i64>)> =
        memberships.iter().filter(starts_anew).map(|it| (it.channel_id, it.joined_seq)).collect();
    if !new.is_empty() {
        timed("baseline", baseline(db, user, &new)).await?;
        let new = new.into_iter().map(|(channel, _)| channel).collect();
        states.extend(messaging.standings().of(db, user, new).await?);
    }
    Ok(states)
}

/// Returns the CONNECT_ERROR of a refusal that is final.
fn refusal(error: &ImksError) -> ConnectError {
    let message = error.client_message();
    let body = ErrorBody::new(error, &RequestId::next());
    match serde_json::to_value(&body) {
        Ok(data) => ConnectError::with_data(message, data),
        Err(_) => ConnectError::new(message),
    }
}

/// The most channels that a session joins automatically.
pub const AUTO_JOIN_MAX: usize = 2_000;
/// The first pause before a connect that was not possible is tried again; it doubles up to `PAUSE_MAX`.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause before a connect that was not possible is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(2);
const TOKEN_MISSING: &str = "A token is needed, as text in auth.token or in the Authorization header";
