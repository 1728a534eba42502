//! Sessions on QUIC: WebTransport session requests, which start a session or take one over, and connections without
//! HTTP/3, which start one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use tokio::time::Instant;
use wtransport::proto::session::SessionResponse;

use super::request::Query;
use super::{Engine, Inner, cors};
use crate::engine::connection::{self, Start};
use crate::engine::duplex::Duplex;
use crate::engine::metrics::{self, QuicHandshake};
use crate::engine::registry::LiveSession;
use crate::engine::request_error::RequestError;
use crate::engine::webtransport::{self, Channel, First, StreamWire};
use crate::engine::{Connection, Frame, Handshake, Protocol, QuicRequest, SessionRequest, Transport};

impl Engine {
    /// Answers one WebTransport session request: the request starts a session, takes over an existing one, or
    /// is closed.
    pub async fn handle_webtransport(&self, request: SessionRequest) {
        self.settle(self.open_webtransport(request)).await;
    }

    /// Serves one QUIC connection that speaks Engine.IO without HTTP/3: its first stream starts a session, or it is
    /// closed.
    pub async fn handle_quic(&self, request: QuicRequest) {
        self.settle(self.open_quic(request)).await;
    }

    /// Opens a session in time, or counts why there is none.
    async fn settle(&self, opening: impl Future<Output = Result<(), SessionRefused>>) {
        match tokio::time::timeout(self.0.config.upgrade_timeout, Box::pin(opening)).await {
            Ok(Ok(())) => return,
            Ok(Err(SessionRefused::Request(error))) => {
                metrics::REQUESTS_REFUSED.of(&error).increment();
                tracing::debug!(error = error.message(), "session on QUIC refused");
            }
            Ok(Err(SessionRefused::Busy | SessionRefused::Gone)) | Err(_) => {}
        }
        metrics::QUIC_HANDSHAKES.of(QuicHandshake::Abandoned).increment();
    }

    async fn open_webtransport(&self, request: SessionRequest) -> Result<(), SessionRefused> {
        let config = &self.0.config;
        let peer = request.remote_address();
        let parts = webtransport::head(request.path(), request.authority(), request.headers());
        let Some(parts) = parts.filter(|parts| config.webtransport && self.matches(parts.uri.path())) else {
            request.refuse(SessionResponse::not_found()).await;
            return Err(SessionRefused::Request(RequestError::TransportUnknown));
        };
        if let Some(hook) = &config.hooks.on_request
            && hook(&parts).is_err()
        {
            request.refuse(SessionResponse::forbidden()).await;
            return Err(SessionRefused::Request(RequestError::BadRequest));
        }
        let cors = self.0.cors.get();
        if let Err(error) = cors::enforce(cors.as_deref(), &parts.headers) {
            self.0.refused_origins.note(cors.as_deref(), &parts.headers);
            request.refuse(SessionResponse::forbidden()).await;
            return Err(SessionRefused::Request(error));
        }
        if self.0.accepting.read().is_none() {
            request.refuse(SessionResponse::too_many_requests()).await;
            return Err(SessionRefused::Busy);
        }
        let session = request.accept().await.ok_or(SessionRefused::Gone)?;
        let opened = StreamWire::open(Channel::WebTransport(session), config.max_payload).await;
        let (wire, first) = opened.ok_or(SessionRefused::Request(RequestError::BadRequest))?;
        let opened = match first {
            First::Open => match self.handshake(&parts, peer, Transport::WebTransport).await {
                Ok(handshake) => return self.0.start_stream(handshake, wire),
                Err(error) => Err(error),
            },
            First::Upgrade(sid) => Box::pin(self.upgrade_webtransport(&sid, &parts, wire)).await,
            // Its request has a head of its own.
            First::Request { .. } => Err(RequestError::BadRequest),
        };
        opened.map_err(SessionRefused::Request)
    }

    async fn open_quic(&self, request: QuicRequest) -> Result<(), SessionRefused> {
        let peer = request.remote_address();
        let opened = StreamWire::open(Channel::Quic(request.into_raw()), self.0.config.max_payload).await;
        let (mut wire, first) = opened.ok_or(SessionRefused::Request(RequestError::BadRequest))?;
        if wire.is_early() {
            metrics::QUIC_EARLY_SESSIONS.increment();
        }
        match self.quic_handshake(first, peer, &wire.server_name()).await {
            Ok(handshake) => self.0.start_stream(handshake, wire),
            Err(error) => {
                wire.set_close(REFUSED, error.message().as_bytes());
                // Before the end of the handshake, the peer would get neither the code nor the text.
                wire.confirmed().await;
                Err(SessionRefused::Request(error))
            }
        }
    }

    async fn quic_handshake(
        &self,
        first: First,
        peer: SocketAddr,
        authority: &str,
    ) -> Result<Handshake, RequestError> {
        let (url, headers) = match first {
            First::Open => (self.0.prefix.clone(), HashMap::new()),
            First::Request { url, headers } => (url, headers),
            // Who begins on polling goes on where stock clients go on.
            First::Upgrade(_) => return Err(RequestError::TransportUnknown),
        };
        let parts = webtransport::head(&url, authority, &headers).ok_or(RequestError::BadRequest)?;
        if !self.matches(parts.uri.path()) {
            return Err(RequestError::TransportUnknown);
        }
        if let Some(hook) = &self.0.config.hooks.on_request {
            hook(&parts).map_err(|_| RequestError::BadRequest)?;
        }
        self.handshake(&parts, peer, Transport::Quic).await
    }

    /// Asks the application whether a session may start, and for its id.
    async fn handshake(
        &self,
        parts: &Parts,
        peer: SocketAddr,
        transport: Transport,
    ) -> Result<Handshake, RequestError> {
        if let Some(allow) = &self.0.config.hooks.allow_request {
            allow(parts).await.map_err(RequestError::Forbidden)?;
        }
        // The stock client sends no query.
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        if query.protocol.is_some_and(|protocol| protocol != "4") {
            return Err(RequestError::BadProtocol);
        }
        let sid = self.generate_id(parts).await?;
        Ok(Handshake::new(sid, peer, transport, true, &parts.uri, &parts.headers))
    }

    async fn upgrade_webtransport(
        &self,
        sid: &str,
        parts: &Parts,
        wire: Box<StreamWire>,
    ) -> Result<(), RequestError> {
        match self.0.registry.get(sid) {
            Some(session) => self.offer_stream(&session, wire),
            None => self.forward_webtransport(sid, parts, wire).await,
        }
    }

    /// Offers the stream of a WebTransport session to a session of this node.
    pub(super) fn offer_stream(
        &self,
        session: &LiveSession,
        wire: Box<StreamWire>,
    ) -> Result<(), RequestError> {
        // Version 3 does not support WebTransport.
        if session.protocol() != Protocol::V4 {
            return Err(RequestError::BadRequest);
        }
        session.offer(Box::new(Duplex::Stream(wire))).map_err(|(refusal, _)| refusal.into())
    }
}

impl Inner {
    /// Starts a session on QUIC and queues its connection for [`Engine::accept`].
    fn start_stream(
        &self,
        mut handshake: Handshake,
        mut wire: Box<StreamWire>,
    ) -> Result<(), SessionRefused> {
        let now = Instant::now();
        let accepting = self.accepting.read();
        let Some((permit, place)) = self.reserve(accepting.as_ref(), &mut handshake) else {
            wire.set_close(BUSY, b"try again later");
            return Err(SessionRefused::Busy);
        };
        wire.push(self.open_packet.of(&handshake.sid, handshake.transport));
        if let Some(initial) = self.config.initial_packet.as_deref() {
            wire.push(Frame::text(initial));
        }
        let queue = self.queue(&handshake);
        let start = Start::Wire(Duplex::Stream(wire));
        self.register(&handshake, &queue, &start).map_err(SessionRefused::Request)?;
        let (handshake, registry) = (Arc::new(handshake), self.registry.clone());
        let timing = self.timing.clone();
        let parts = connection::Parts { queue, start, handshake, registry, place, timing, now };
        permit.send(Connection::new(parts, &self.config));
        Ok(())
    }
}

/// The reason why a session on QUIC was closed before it carried anything.
enum SessionRefused {
    Request(RequestError),
    Busy,
    Gone,
}

/// The close code of a request that is refused (policy violation, RFC 6455 section 7.4.1).
const REFUSED: u16 = 1008;
/// The close code of a server that takes no sessions at the moment (try again later, of the registry of RFC 6455).
const BUSY: u16 = 1013;
