//! What goes into the core of a client, and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::client::budget::Place;
use crate::client::error::{ClientError, ClientResult};
use crate::client::event::{ClientEvent, TransportKind};
use crate::client::reconnect::Reconnect;
use crate::client::retry::Retry;
use crate::socket::codec::outgoing::{EncodedArgs, Encoding, Outgoing};
use crate::socket::packet::{Args, Limits};

/// The path of a namespace.
pub(crate) type Path = Arc<str>;

/// The number of a caller that waits for a [`Reply`].
pub(crate) type Ticket = u64;

/// What the caller of the core has to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Opens a transport and reports it, or the failure.
    Open,
    /// Drops the transport and its successor, or the attempt to open one, at once. Nothing is reported about it any more.
    Drop,
    /// Closes the transport after everything that was sent. Nothing is reported about it any more.
    Close,
    /// Closes the transport after everything that was sent, reports when the server has ended it too, or at this time,
    /// and lets the successor take its place.
    HandOver(Instant),
    /// Drops the successor at once.
    DropSuccessor,
    /// Asks for credentials, and reports them or why there are none, with the same number and by this time.
    Authenticate { namespace: Path, number: u64, until: Instant },
    /// Sends a packet.
    Send(Sending),
    /// Hands an event over to the application.
    Deliver(Incoming),
    /// Tells a caller the result of its call.
    Answer(Ticket, ClientResult<Reply>),
    /// Forgets an entry of the outbox in its store.
    Forget(Uuid),
    /// Tells the application what happened.
    Notify(ClientEvent),
}

/// A packet to send, and its place among what waits.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) packet: Outgoing,
    pub(crate) place: Option<Place>,
}

impl Sending {
    /// Creates the answer to a heartbeat.
    pub(crate) fn pong() -> Self {
        Self { packet: Outgoing { text: "3".into(), attachments: Vec::new() }, place: None }
    }
}

/// The result of a call that succeeded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    /// The connection is open, or the namespace is joined.
    Done,
    /// The arguments of the answer to an event.
    Answer(Args),
}

/// An event from the server.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(crate) namespace: Path,
    pub(crate) args: Args,
    /// The id under which the server expects an answer, and the number of the session in which it does.
    pub(crate) answer_to: Option<(u64, u64)>,
    /// Whether the last argument may be an offset of the server rather than of the application.
    pub(crate) may_have_offset: bool,
}

/// An event to send at most once.
#[derive(Debug)]
pub(crate) struct Emit {
    pub(crate) event: Arc<str>,
    pub(crate) args: EncodedArgs,
    /// Who waits for the answer, and how long.
    pub(crate) answer: Option<(Ticket, Duration)>,
    /// Whether it is dropped when it cannot be sent at once.
    pub(crate) is_volatile: bool,
    pub(crate) place: Place,
}

/// A transport that has opened.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) transport: TransportKind,
    /// How long the server may say nothing: the interval and the timeout of its heartbeat.
    pub(crate) silence_max: Duration,
    pub(crate) payload_max: PayloadMax,
    pub(crate) early: Option<Early>,
}

/// The namespaces whose CONNECT was sent together with the handshake of a transport.
pub(crate) type Early = Vec<Path>;

/// What a namespace says when it is joined, beside its credentials.
pub(crate) type Greeting = serde_json::Map<String, serde_json::Value>;

/// The largest message that a server takes, as its handshake announces it. It ends a connection that brings a larger one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PayloadMax {
    pub(crate) bytes: usize,
    /// Whether attachments count as Base64, as in the bodies of polling.
    pub(crate) is_base64: bool,
}

/// Credentials as the JSON object of a CONNECT, or as nothing.
pub(crate) type Credentials = Result<Option<serde_json::Map<String, serde_json::Value>>, ClientError>;

/// Returns the JSON object of a CONNECT: the credentials, and the session to restore.
pub(crate) fn hello(auth: Option<Greeting>, greeting: Greeting) -> String {
    let mut auth = auth.unwrap_or_default();
    auth.extend(greeting);
    if auth.is_empty() { String::new() } else { serde_json::Value::Object(auth).to_string() }
}

/// The settings of the core.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) reconnect: Reconnect,
    /// Whether the first attempt is repeated like every other one.
    pub(crate) retry_initial: bool,
    /// How long it may take to open a transport.
    pub(crate) connect_timeout: Duration,
    /// How long the server may take to answer a CONNECT.
    pub(crate) join_timeout: Duration,
    pub(crate) retry: Retry,
    pub(crate) limits: Limits,
    pub(crate) encoding: Encoding,
    /// Whether other credentials may be had than those that were refused.
    pub(crate) has_fresh_credentials: bool,
    /// Whether the transport may change although the server has not shown that it restores sessions.
    pub(crate) switch_without_recovery: bool,
}

/// The earlier of two deadlines.
pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// The time after a pause. Whoever wants to wait for `Duration::MAX` waits for as long as a clock can show.
pub(super) fn later(now: Instant, pause: Duration) -> Instant {
    now + pause.min(FAR)
}

/// Longer than any program runs, and short enough for the clocks of all systems.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
