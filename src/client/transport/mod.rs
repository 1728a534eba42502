//! The transports of a client, and how one is chosen for a session.

mod http;
mod io;
mod link;
mod polling;
mod queue;
mod websocket;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

pub(crate) use self::link::Link;
use self::polling::Polling;
use self::websocket::WebSocket;
pub(crate) use self::wire::{Dialer, LinkEvent};
use super::core::{Opened, PayloadMax};
use super::error::{ClientError, ClientResult};
use super::event::TransportKind;

/// Which transports a client uses, and in which order it tries them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transports {
    order: Vec<TransportKind>,
    upgrade: bool,
}

impl Transports {
    /// A WebSocket, and polling where there can be none: the fastest way to connect, and the default.
    pub fn websocket_or_polling() -> Self {
        Self { order: vec![TransportKind::WebSocket, TransportKind::Polling], upgrade: false }
    }

    /// Polling, from which a WebSocket takes over: the way of the stock client. It works at once wherever HTTP
    /// does.
    pub fn upgrade() -> Self {
        Self { order: vec![TransportKind::Polling], upgrade: true }
    }

    /// One transport and no other.
    pub fn only(transport: TransportKind) -> Self {
        Self { order: vec![transport], upgrade: false }
    }

    /// Returns the transports, in the order in which they are tried.
    pub fn order(&self) -> &[TransportKind] {
        &self.order
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
    pub(crate) has_succeeded: bool,
}

/// Opens the first transport that can be opened. Also returns how each attempt went.
pub(crate) async fn open(
    dialer: Arc<Dialer>,
    transports: Transports,
) -> (Vec<Attempt>, ClientResult<(Link, Opened)>) {
    let (mut attempts, mut failures) = (Vec::new(), Vec::new());
    for transport in transports.order {
        let start = tokio::time::Instant::now();
        let opening = open_one(dialer.clone(), transport, transports.upgrade);
        let result = tokio::time::timeout(dialer.timeout, Box::pin(opening)).await;
        let result = result.unwrap_or(Err(ClientError::Timeout("a connection")));
        let (took, has_succeeded) = (start.elapsed(), result.is_ok());
        attempts.push(Attempt { transport, took, has_succeeded });
        match result {
            Ok(opened) => return (attempts, Ok(opened)),
            Err(error) => failures.push(error),
        }
    }
    let error = match failures.pop() {
        Some(only) if failures.is_empty() => only,
        last => ClientError::NoTransport(failures.into_iter().chain(last).collect()),
    };
    (attempts, Err(error))
}

async fn open_one(
    dialer: Arc<Dialer>,
    transport: TransportKind,
    upgrade: bool,
) -> ClientResult<(Link, Opened)> {
    match transport {
        TransportKind::WebSocket => {
            let mut websocket = WebSocket::open(&dialer, None).await?;
            let handshake = Handshake::read(transport, &websocket.handshake().await?)?;
            Ok((Link::WebSocket(Box::new(websocket)), handshake.opened(transport)))
        }
        TransportKind::Polling => {
            let (mut polling, text) = Polling::open(dialer).await?;
            let handshake = Handshake::read(transport, &text)?;
            let upgrade =
                upgrade && handshake.upgrades.iter().any(|name| name == TransportKind::WebSocket.name());
            polling.begin(&handshake.sid, handshake.max_payload.unwrap_or(usize::MAX), upgrade);
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
        Opened { transport, silence_max: Duration::from_millis(silence), payload_max }
    }
}

/// The longest time in milliseconds that a server can make a client believe in a dead connection.
const SILENCE_MS_MAX: u64 = 600_000;
