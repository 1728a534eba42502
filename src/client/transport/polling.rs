//! The transport that is HTTP requests: one waits for packets from the server, another one carries packets there.
//! It makes way for a better transport where the server offers one.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Method;

use super::duplex::Duplex;
use super::http::{Answer, Asked, HttpConnection, request};
use super::io::HEAD_START;
use super::queue::{Piece, SendQueue};
use super::reach::probe;
use super::staggered::first;
use super::wire::{Dialer, LinkEvent, Session};
use crate::client::core::Sending;
use crate::client::error::{ClientError, ClientResult, DisconnectReason};
use crate::client::event::TransportKind;
use crate::engine::{Packet, codec};
use crate::error::{Cause, ImksError};

const NAME: &str = TransportKind::Polling.name();

/// A session over polling.
pub(crate) struct Polling {
    dialer: Arc<Dialer>,
    session: Session,
    /// The number of bytes that the server takes in one request.
    payload_max: usize,
    queue: SendQueue,
    received: VecDeque<Result<Packet, ImksError>>,
    get: Lane,
    post: Lane,
    upgrade: Upgrade,
}

/// Requests of one kind, one at a time.
enum Lane {
    Idle(Option<HttpConnection>),
    Busy(BoxFuture<'static, ClientResult<(Answer, HttpConnection)>>),
}

/// How far a transport is that is to take over.
enum Upgrade {
    No,
    Probing(BoxFuture<'static, ClientResult<Duplex>>),
    /// The server has said yes. Polling ends as soon as no request is under way.
    Probed(Duplex),
    /// The last word on polling was said, the first one on the other transport is being said.
    Switching(BoxFuture<'static, ClientResult<Duplex>>),
    Done(Duplex),
}

impl Polling {
    /// Begins a session. Returns the text of the handshake.
    pub(super) async fn open(
        dialer: Arc<Dialer>,
        connection: HttpConnection,
    ) -> ClientResult<(Self, String)> {
        let target = dialer.address.target(NAME, None);
        let asked = Asked { method: Method::GET, target, cookies: None, body: Bytes::new() };
        let (answer, connection) = request(&dialer, Some(connection), asked).await?;
        let mut received: VecDeque<_> = codec::decode_payload(&answer.body).collect();
        let Some(Ok(Packet::Open(handshake))) = received.pop_front() else {
            return Err(ClientError::connect(NAME, "the server did not begin with a handshake"));
        };
        let polling = Self {
            dialer,
            session: Session { sid: String::new(), cookies: answer.cookies },
            payload_max: usize::MAX,
            queue: SendQueue::default(),
            received,
            get: Lane::Idle(Some(connection)),
            post: Lane::Idle(None),
            upgrade: Upgrade::No,
        };
        Ok((polling, handshake.to_string()))
    }

    /// Goes on with what the handshake said, and tries the transports that could take over.
    pub(super) fn begin(&mut self, sid: &str, payload_max: usize, upgrades: Vec<TransportKind>) {
        self.session.sid = sid.to_owned();
        self.payload_max = payload_max;
        if upgrades.is_empty() {
            return;
        }
        let (dialer, session) = (self.dialer.clone(), self.session.clone());
        self.upgrade = Upgrade::Probing(Box::pin(async move {
            let timeout = ClientError::Timeout("the upgrade to another transport");
            let probes = upgrades.into_iter().map(|kind| probe(dialer.clone(), session.clone(), kind));
            let probing = first(probes, HEAD_START, timeout.clone());
            tokio::time::timeout(dialer.timeout, probing).await.unwrap_or(Err(timeout))
        }));
    }

    pub(crate) fn send(&mut self, sending: Sending) {
        self.queue.push(sending);
    }

    /// Whether a request with packets is under way, which others have to wait for.
    pub(crate) fn is_congested(&self) -> bool {
        !self.post.is_idle()
    }

    /// Returns the transport that has taken over, once.
    pub(super) fn take_successor(&mut self) -> Option<Duplex> {
        match std::mem::replace(&mut self.upgrade, Upgrade::No) {
            Upgrade::Done(successor) => Some(successor),
            other => {
                self.upgrade = other;
                None
            }
        }
    }

    /// Sends what waits, and returns what has come in if `read`.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<LinkEvent> {
        loop {
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                return Poll::Ready(LinkEvent::Closed(failure(error)));
            }
            if let Poll::Ready(event) = self.poll_upgrade(cx) {
                return Poll::Ready(event);
            }
            if !read {
                return Poll::Pending;
            }
            match self.received.pop_front() {
                Some(Ok(packet)) => return Poll::Ready(LinkEvent::Packet(packet)),
                Some(Err(error)) => {
                    return Poll::Ready(LinkEvent::Closed(DisconnectReason::Protocol(Arc::new(error))));
                }
                None => {}
            }
            match std::task::ready!(self.poll_read(cx)) {
                Ok(body) => self.received.extend(codec::decode_payload(&body)),
                Err(error) => return Poll::Ready(LinkEvent::Closed(failure(error))),
            }
        }
    }

    /// Waits until the server has ended the session too, which refuses the next request then. What it sends in the
    /// meantime is dropped.
    pub(super) async fn ended(&mut self) {
        while !matches!(poll_fn(|cx| self.poll(cx, true)).await, LinkEvent::Closed(_)) {}
    }

    /// Sends what waits. Ready when all of it has arrived.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<ClientResult<()>> {
        loop {
            if let Some(answer) = std::task::ready!(self.post.poll(cx)) {
                answer?;
            }
            if self.queue.is_empty() || self.is_ending() {
                return Poll::Ready(Ok(()));
            }
            let body = self.payload();
            let asked = self.asked(Method::POST, body);
            self.post.start(&self.dialer, asked);
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<ClientResult<Bytes>> {
        loop {
            if let Some(answer) = std::task::ready!(self.get.poll(cx)) {
                return Poll::Ready(answer);
            }
            if self.is_ending() {
                return Poll::Pending;
            }
            let asked = self.asked(Method::GET, Bytes::new());
            self.get.start(&self.dialer, asked);
        }
    }

    fn asked(&self, method: Method, body: Bytes) -> Asked {
        let target = self.dialer.address.target(NAME, Some(&self.session.sid));
        Asked { method, target, cookies: self.session.cookies.clone(), body }
    }

    /// Whether no more requests begin, because another transport takes over.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.upgrade, Upgrade::Probed(_) | Upgrade::Switching(_))
    }

    fn poll_upgrade(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        if let Upgrade::Probing(probing) = &mut self.upgrade {
            self.upgrade = match std::task::ready!(probing.as_mut().poll(cx)) {
                Ok(successor) => Upgrade::Probed(successor),
                Err(error) => {
                    self.upgrade = Upgrade::No;
                    return Poll::Ready(LinkEvent::NotUpgraded(error));
                }
            };
        }
        let is_quiet = self.get.is_idle() && self.post.is_idle() && self.received.is_empty();
        if is_quiet && let Upgrade::Probed(_) = &self.upgrade {
            let Upgrade::Probed(mut successor) = std::mem::replace(&mut self.upgrade, Upgrade::No) else {
                return Poll::Pending;
            };
            self.upgrade = Upgrade::Switching(Box::pin(async move {
                successor.say("5").await?;
                Ok(successor)
            }));
        }
        let Upgrade::Switching(switching) = &mut self.upgrade else { return Poll::Pending };
        match std::task::ready!(switching.as_mut().poll(cx)) {
            Ok(mut successor) => {
                successor.take_over(std::mem::take(&mut self.queue));
                let transport = successor.kind();
                self.upgrade = Upgrade::Done(successor);
                Poll::Ready(LinkEvent::Switched(transport))
            }
            Err(error) => Poll::Ready(LinkEvent::Closed(failure(error))),
        }
    }

    /// Takes as many pieces of packets as the server takes in one request. One that is larger goes alone, and the
    /// server refuses it.
    fn payload(&mut self) -> Bytes {
        let mut payload = String::new();
        while let Some(piece) = self.queue.front() {
            let bytes = match &piece {
                Piece::Text(text) => text.len(),
                Piece::Attachment(bytes) => 1 + bytes.len().div_ceil(3) * 4,
            };
            if !payload.is_empty() {
                if payload.len() + 1 + bytes > self.payload_max {
                    break;
                }
                payload.push(SEPARATOR);
            }
            match self.queue.pop() {
                Some(Piece::Text(text)) => payload.push_str(&text),
                Some(Piece::Attachment(bytes)) => {
                    payload.push('b');
                    STANDARD.encode_string(bytes, &mut payload);
                }
                None => break,
            }
        }
        payload.into()
    }
}

impl Lane {
    fn is_idle(&self) -> bool {
        matches!(self, Self::Idle(_))
    }

    /// Waits until no request is under way, and returns its answer where there was one.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<ClientResult<Bytes>>> {
        let Self::Busy(exchange) = self else { return Poll::Ready(None) };
        let answer = std::task::ready!(exchange.as_mut().poll(cx));
        let (answer, connection) = match answer {
            Ok((answer, connection)) => (Ok(answer.body), Some(connection)),
            Err(error) => (Err(error), None),
        };
        *self = Self::Idle(connection);
        Poll::Ready(Some(answer))
    }

    fn start(&mut self, dialer: &Arc<Dialer>, asked: Asked) {
        let Self::Idle(connection) = self else { return };
        let (connection, dialer) = (connection.take(), dialer.clone());
        let exchange = async move { request(&dialer, connection, asked).await };
        *self = Self::Busy(Box::pin(exchange));
    }
}

impl fmt::Debug for Polling {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Polling({} packets wait)", self.queue.len())
    }
}

fn failure(error: ClientError) -> DisconnectReason {
    match error {
        ClientError::ConnectionFailed { source, .. } => DisconnectReason::TransportFailed(source),
        other => DisconnectReason::TransportFailed(Arc::new(Cause::new(other))),
    }
}

/// The separator between the packets of one request.
const SEPARATOR: char = '\u{1e}';
