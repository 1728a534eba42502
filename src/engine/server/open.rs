//! The first request of a session, which opens it.

use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, header};
use hyper::upgrade::OnUpgrade;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::reply::{self, Reply};
use super::request::{self, Query, WebSocketHandshake};
use super::{Engine, Inner};
use crate::ImksError;
use crate::engine::connection::{self, Start};
use crate::engine::duplex::Duplex;
use crate::engine::metrics::{self, Client};
use crate::engine::newcomers::{Place, for_anybody};
use crate::engine::outbox::Queue;
use crate::engine::polling::{Inbox, Payload};
use crate::engine::registry::LiveSession;
use crate::engine::request_error::RequestError;
use crate::engine::websocket::WebSocket;
use crate::engine::{Connection, Frame, Handshake, Protocol, Secure, Sid, Transport};

impl Engine {
    /// Answers the first request of a session.
    pub(super) async fn open(
        &self,
        parts: &Parts,
        query: &Query<'_>,
        transport: Transport,
        peer: SocketAddr,
        socket: Option<OnUpgrade>,
    ) -> Result<Reply, RequestError> {
        if parts.method != Method::GET {
            return Err(RequestError::BadMethod);
        }
        let socket = match (transport, socket) {
            (Transport::WebSocket, Some(socket)) => Some((request::websocket_handshake(parts)?, socket)),
            (Transport::Polling, None) => None,
            _ => return Err(RequestError::BadRequest),
        };
        let config = &self.0.config;
        if let Some(allow) = &config.hooks.allow_request {
            allow(parts).await.map_err(RequestError::Forbidden)?;
        }
        let known = query.version().filter(|version| config.allow_eio3 || *version == Protocol::V4);
        let protocol = known.ok_or(RequestError::BadProtocol)?;
        let sid = self.generate_id(parts).await?;
        let secure = parts.extensions.get::<Secure>().is_some();
        let mut handshake = Handshake::new(sid, peer, transport, secure, &parts.uri, &parts.headers);
        handshake.protocol = protocol;
        self.0.start(parts, handshake, socket)
    }

    pub(super) async fn generate_id(&self, parts: &Parts) -> Result<Sid, RequestError> {
        let sid = match &self.0.config.hooks.generate_id {
            None => Sid::random(self.0.node),
            Some(generate) => match generate(parts).await {
                Ok(text) => Sid::custom(&text),
                Err(reason) => Err(ImksError::invalid("sid", reason)),
            },
        };
        sid.map_err(|error| {
            tracing::warn!(%error, "no session id");
            RequestError::BadRequest
        })
    }
}

impl Inner {
    /// Starts a session and queues its connection for [`Engine::accept`].
    pub(super) fn start(
        &self,
        parts: &Parts,
        mut handshake: Handshake,
        socket: Option<(WebSocketHandshake<'_>, OnUpgrade)>,
    ) -> Result<Reply, RequestError> {
        // Read first, because the client counts from the OPEN packet that it receives.
        let now = Instant::now();
        let accepting = self.accepting.read();
        let reserved = self.reserve(accepting.as_ref(), &mut handshake);
        let Some((permit, place)) = reserved else { return Ok(reply::unavailable()) };
        let queue = self.queue(&handshake);
        let (mut reply, start) = self.greet(parts, &handshake, &queue, socket);
        self.register(&handshake, &queue, &start)?;
        if let Some(edit) = &self.config.hooks.initial_headers {
            edit(reply.headers_mut(), parts);
        }
        let (handshake, registry) = (Arc::new(handshake), self.registry.clone());
        let timing = self.timing.clone();
        let parts = connection::Parts { queue, start, handshake, registry, place, timing, now };
        permit.send(Connection::new(parts, &self.config));
        Ok(reply)
    }

    /// Reserves a permit of the accept queue, and a place among the new sessions. Returns `None` if new sessions are not
    /// possible or not wanted. Of both, some are kept for clients that come back, which the handshake then says.
    pub(super) fn reserve<'a>(
        &self,
        accepting: Option<&'a mpsc::Sender<Connection>>,
        handshake: &mut Handshake,
    ) -> Option<(mpsc::Permit<'a, Connection>, Place)> {
        let comes_back = self.newcomers.knows(handshake);
        handshake.comes_back = comes_back;
        let has_room = self.registry.len() < self.config.sessions_max;
        let queue = accepting.filter(|queue| has_room && (comes_back || !is_kept(queue)));
        let permit = queue.and_then(|queue| queue.try_reserve().ok());
        let reserved = permit.and_then(|permit| Some((permit, self.newcomers.enter(comes_back)?)));
        if reserved.is_none() {
            let client = if comes_back { Client::Returning } else { Client::New };
            metrics::SESSIONS_REFUSED.of(client).increment();
        }
        reserved
    }

    /// Returns the empty queue of a new session.
    pub(super) fn queue(&self, handshake: &Handshake) -> Arc<Queue> {
        Arc::new(Queue::new(handshake.transport, handshake.protocol, self.limits.clone()))
    }

    pub(super) fn register(
        &self,
        handshake: &Handshake,
        queue: &Arc<Queue>,
        start: &Start,
    ) -> Result<(), RequestError> {
        let inbox = match start {
            Start::Polling(inbox) => Some(inbox.clone()),
            Start::Wire(_) => None,
        };
        let is_new = self.registry.insert(&handshake.sid, LiveSession::new(queue.clone(), inbox));
        is_new.then_some(()).ok_or(RequestError::BadRequest)
    }

    /// Prepares OPEN and the optional initial packet, for the response or the WebSocket that follows.
    fn greet(
        &self,
        parts: &Parts,
        handshake: &Handshake,
        queue: &Arc<Queue>,
        socket: Option<(WebSocketHandshake<'_>, OnUpgrade)>,
    ) -> (Reply, Start) {
        let open = self.open_packet.of(&handshake.sid, handshake.transport);
        let initial = self.config.initial_packet.as_deref();
        let Some((asked, socket)) = socket else {
            let frames = std::iter::once(open).chain(initial.map(Frame::text));
            let frames: Vec<_> = frames.collect();
            let mut reply = reply::payload(&self.config, parts, Payload::new(handshake.protocol, &frames));
            if let Some(cookie) = &self.config.cookie
                && let Ok(value) =
                    format!("{}={}{}", cookie.name, handshake.sid.expose(), cookie.attributes).parse()
            {
                reply.headers_mut().append(header::SET_COOKIE, value);
            }
            return (reply, Start::Polling(Arc::new(Inbox::new(queue.clone()))));
        };
        let (mut socket, extensions) = WebSocket::accept(socket, parts, handshake.protocol, &self.config);
        socket.push(open);
        if let Some(initial) = initial {
            socket.push(Frame::text(initial));
        }
        (reply::switching(asked, extensions), Start::Wire(Duplex::WebSocket(socket)))
    }
}

/// Whether what is left of an accept queue is kept for clients that come back.
fn is_kept(queue: &mpsc::Sender<Connection>) -> bool {
    queue.max_capacity() - queue.capacity() >= for_anybody(queue.max_capacity())
}
