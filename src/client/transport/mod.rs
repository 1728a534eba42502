//! The transports of a client, and how one is chosen for a session.

mod compressed;
mod duplex;
mod http;
mod io;
mod link;
mod polling;
mod queue;
#[cfg(feature = "client-quic")]
mod quic;
#[cfg(feature = "client-quic")]
mod quic_config;
mod reach;
mod staggered;
#[cfg(feature = "client-quic")]
mod stream;
mod upgrade;
mod websocket;
#[cfg(feature = "client-quic")]
mod webtransport;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, timeout};

pub(crate) use self::io::Io;
pub(crate) use self::link::Link;
use self::polling::Polling;
#[cfg(feature = "client-quic")]
pub(crate) use self::quic_config::{QuicConfig, Raw};
use self::reach::Reached;
use self::staggered::Staggered;
pub(crate) use self::wire::{Dialer, Joins, LinkEvent};
use super::core::{Opened, PayloadMax};
use super::error::{ClientError, ClientResult};
use super::event::TransportKind;
use super::racing::Racing;

/// Which transports a client uses, and in which order it tries them.
#[derive(Debug, Clone, PartialEq)]
pub struct Transports {
    racing: Option<Racing>,
    order: Vec<TransportKind>,
    upgrades: Vec<TransportKind>,
}

impl Transports {
    /// A WebSocket, and polling where there can be none: the fastest way to connect, and the default.
    pub fn websocket_or_polling() -> Self {
        Self::in_order([TransportKind::WebSocket, TransportKind::Polling])
    }

    /// Polling, from which a WebSocket takes over: the way of the stock client. It works at once wherever HTTP
    /// does.
    pub fn upgrade() -> Self {
        Self::upgrade_to([TransportKind::WebSocket])
    }

    /// Polling, from which the first of these takes over that the server offers and answers on, each with a head start of
    /// 250 ms before the next.
    pub fn upgrade_to(transports: impl IntoIterator<Item = TransportKind>) -> Self {
        let better = transports.into_iter().filter(|transport| *transport != TransportKind::Polling);
        Self { upgrades: better.collect(), ..Self::only(TransportKind::Polling) }
    }

    /// One transport and no other.
    pub fn only(transport: TransportKind) -> Self {
        Self::in_order([transport])
    }

    /// Each of these, if all before it cannot connect.
    pub fn in_order(transports: impl IntoIterator<Item = TransportKind>) -> Self {
        Self { racing: None, order: transports.into_iter().collect(), upgrades: Vec::new() }
    }

    /// The one that reaches the server first, at every attempt to connect.
    pub fn racing(racing: Racing) -> Self {
        let fallback = racing.has_fallback().then_some(TransportKind::Polling);
        Self { racing: Some(racing), ..Self::in_order(fallback) }
    }

    /// Returns the transports that can carry a session, in the order in which they are tried. Those that race come
    /// first.
    pub fn all(&self) -> Vec<TransportKind> {
        let racing = self.racing.as_ref().map(Racing::between).unwrap_or_default();
        racing.into_iter().chain(self.order.iter().chain(&self.upgrades).copied()).collect()
    }

    pub(crate) fn race(&self) -> Option<&Racing> {
        self.racing.as_ref()
    }
}

impl Default for Transports {
    fn default() -> Self {
        Self::websocket_or_polling()
    }
}

/// The attempt to open one transport, for statistics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) transport: TransportKind,
    pub(crate) took: Duration,
    /// The time until the server was reached, if everything has succeeded.
    pub(crate) reached: Option<Duration>,
}

impl Attempt {
    pub(crate) fn has_succeeded(&self) -> bool {
        self.reached.is_some()
    }
}

/// Opens the first transport that can be opened: of those that race, lined up with a head start, and then in order.
/// `joins` may go with the handshake of a transport. Also returns how each attempt went.
pub(crate) async fn open(
    dialer: Arc<Dialer>,
    transports: Transports,
    (racers, head_start): (Vec<TransportKind>, Duration),
    mut joins: Option<Joins>,
) -> (Vec<Attempt>, ClientResult<(Link, Opened)>) {
    let Transports { racing, order, upgrades } = transports;
    let reach_timeout = racing.map_or(dialer.timeout, |racing| racing.reach_timeout().min(dialer.timeout));
    let rounds = [(racers, head_start, reach_timeout), (order, Duration::MAX, dialer.timeout)];
    let (mut attempts, mut failures) = (Vec::new(), Vec::new());
    for (contestants, head_start, reach_timeout) in rounds {
        let reaching =
            contestants.into_iter().map(|transport| reach(dialer.clone(), transport, reach_timeout));
        let mut race = Staggered::new(reaching, head_start);
        while let Some((transport, took, result)) = race.next().await {
            let begun = Instant::now();
            let result = match result {
                Ok(reached) => begin_in_time(&dialer, reached, &upgrades, joins.take()).await,
                Err(error) => Err(error),
            };
            let reached = result.is_ok().then_some(took);
            attempts.push(Attempt { transport, took: took + begun.elapsed(), reached });
            match result {
                Ok(opened) => return (attempts, Ok(opened)),
                Err(error) => failures.push(error),
            }
        }
    }
    let error = match failures.pop() {
        Some(only) if failures.is_empty() => only,
        last => ClientError::NoTransport(failures.into_iter().chain(last).collect()),
    };
    (attempts, Err(error))
}

/// Measures how long it takes to reach the server, and hangs up. The server learns of no session.
pub(crate) async fn measure(
    dialer: Arc<Dialer>,
    transport: TransportKind,
    reach_timeout: Duration,
) -> Option<Duration> {
    let (_, took, result) = reach(dialer, transport, reach_timeout).await;
    result.is_ok().then_some(took)
}

async fn reach(
    dialer: Arc<Dialer>,
    transport: TransportKind,
    reach_timeout: Duration,
) -> (TransportKind, Duration, ClientResult<Reached>) {
    let start = Instant::now();
    let reaching = timeout(reach_timeout, Box::pin(Reached::open(&dialer, transport)));
    let result = reaching.await.unwrap_or(Err(ClientError::Timeout(transport.waited_for())));
    (transport, start.elapsed(), result)
}

async fn begin_in_time(
    dialer: &Arc<Dialer>,
    reached: Reached,
    upgrades: &[TransportKind],
    joins: Option<Joins>,
) -> ClientResult<(Link, Opened)> {
    let beginning = timeout(dialer.timeout, Box::pin(begin(dialer, reached, upgrades, joins)));
    beginning.await.unwrap_or(Err(ClientError::Timeout("the beginning of a session")))
}

/// Begins a session on the way that was opened.
async fn begin(
    dialer: &Arc<Dialer>,
    reached: Reached,
    upgrades: &[TransportKind],
    joins: Option<Joins>,
) -> ClientResult<(Link, Opened)> {
    match reached {
        Reached::Duplex(carrier) => {
            let (mut duplex, early) = carrier.begin(dialer, None, joins).await?;
            let transport = duplex.kind();
            let handshake = Handshake::read(transport, &duplex.handshake().await?)?;
            if handshake.bulk && dialer.has_bulk {
                duplex.open_bulk().await?;
            }
            Ok((Link::Duplex(duplex), Opened { early, ..handshake.opened(transport) }))
        }
        Reached::Polling(connection) => {
            let transport = TransportKind::Polling;
            let (mut polling, text) = Polling::open(dialer.clone(), connection).await?;
            let handshake = Handshake::read(transport, &text)?;
            let is_offered = |it: &TransportKind| handshake.upgrades.iter().any(|name| name == it.name());
            let upgrades = upgrades.iter().copied().filter(is_offered).collect();
            polling.begin(&handshake.sid, handshake.max_payload.unwrap_or(usize::MAX), upgrades);
            Ok((Link::Polling(Box::new(polling)), handshake.opened(transport)))
        }
    }
}

/// What the server says first.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Handshake {
    sid: String,
    #[serde(default)]
    upgrades: Vec<String>,
    ping_interval: u64,
    ping_timeout: u64,
    max_payload: Option<usize>,
    /// Whether the server sends large answers on a second stream, if there is one.
    #[serde(default)]
    bulk: bool,
}

impl Handshake {
    fn read(transport: TransportKind, text: &str) -> ClientResult<Self> {
        serde_json::from_str(text).map_err(|error| ClientError::connect(transport.name(), error))
    }

    fn opened(&self, transport: TransportKind) -> Opened {
        let silence = self.ping_interval.saturating_add(self.ping_timeout).min(SILENCE_MS_MAX);
        let payload_max = PayloadMax {
            bytes: self.max_payload.unwrap_or(usize::MAX),
            is_base64: transport == TransportKind::Polling,
        };
        Opened { transport, silence_max: Duration::from_millis(silence), payload_max, early: None }
    }
}

/// The longest time in milliseconds that a server can make a client believe in a dead connection.
const SILENCE_MS_MAX: u64 = 600_000;
