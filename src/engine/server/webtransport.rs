//! WebTransport session requests, which start a session or take one over.

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
use crate::engine::request_error::RequestError;
use crate::engine::webtransport::{self, First, WebTransport};
use crate::engine::{Connection, Frame, Handshake, Protocol, SessionRequest, Transport};

impl Engine {
    /// Answers one WebTransport session request: the request starts a session, takes over an existing one, or
    /// is closed.
    pub async fn handle_webtransport(&self, request: SessionRequest) {
        let deadline = self.0.config.upgrade_timeout;
        let handled = tokio::time::timeout(deadline, Box::pin(self.open_webtransport(request))).await;
        match handled {
            Ok(Ok(())) => return,
            Ok(Err(SessionRefused::Request(error))) => {
                metrics::REQUESTS_REFUSED.of(&error).increment();
                tracing::debug!(error = error.message(), "WebTransport session refused");
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
        let opened = WebTransport::open(session, config.max_payload).await;
        let (wire, first) = opened.ok_or(SessionRefused::Request(RequestError::BadRequest))?;
        match first {
            First::Open => self.start_webtransport(&parts, peer, wire).await,
            First::Upgrade(sid) => self.upgrade_webtransport(&sid, wire).map_err(SessionRefused::Request),
        }
    }

    async fn start_webtransport(
        &self,
        parts: &Parts,
        peer: SocketAddr,
        wire: Box<WebTransport>,
    ) -> Result<(), SessionRefused> {
        let refused = SessionRefused::Request;
        if let Some(allow) = &self.0.config.hooks.allow_request {
            allow(parts).await.map_err(RequestError::Forbidden).map_err(refused)?;
        }
        // The stock client sends no query.
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        if query.protocol.is_some_and(|protocol| protocol != "4") {
            return Err(refused(RequestError::BadProtocol));
        }
        let sid = self.generate_id(parts).await.map_err(refused)?;
        let handshake = Handshake::new(sid, peer, Transport::WebTransport, true, &parts.uri, &parts.headers);
        self.0.start_webtransport(handshake, wire)
    }

    fn upgrade_webtransport(&self, sid: &str, wire: Box<WebTransport>) -> Result<(), RequestError> {
        let session = self.0.registry.get(sid).ok_or(RequestError::SessionUnknown)?;
        // Version 3 does not support WebTransport.
        if session.protocol() != Protocol::V4 {
            return Err(RequestError::BadRequest);
        }
        session.offer(Box::new(Duplex::WebTransport(wire))).map_err(|(refusal, _)| refusal.into())
    }
}

impl Inner {
    /// Starts a session on WebTransport and queues its connection for [`Engine::accept`].
    fn start_webtransport(
        &self,
        handshake: Handshake,
        mut wire: Box<WebTransport>,
    ) -> Result<(), SessionRefused> {
        let now = Instant::now();
        let accepting = self.accepting.read();
        let permit = self.reserve(accepting.as_ref()).ok_or(SessionRefused::Busy)?;
        wire.push(self.open_packet.of(&handshake.sid, Transport::WebTransport));
        if let Some(initial) = self.config.initial_packet.as_deref() {
            wire.push(Frame::text(initial));
        }
        let queue = self.queue(&handshake);
        let start = Start::Wire(Duplex::WebTransport(wire));
        self.register(&handshake, &queue, &start).map_err(SessionRefused::Request)?;
        let (handshake, registry) = (Arc::new(handshake), self.registry.clone());
        let timing = self.timing.clone();
        let parts = connection::Parts { queue, start, handshake, registry, timing, now };
        permit.send(Connection::new(parts, &self.config));
        Ok(())
    }
}

/// The reason why a WebTransport session was closed before it carried anything.
enum SessionRefused {
    Request(RequestError),
    Busy,
    Gone,
}
