//! Forwarding: requests of sessions on other nodes, and requests that other nodes forward to this one.

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_body::Body;
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;

use super::Engine;
use super::reply::{self, Reply};
use super::request::{self, BodyError, Query};
use crate::ImksError;
use crate::engine::client_stream::ClientStream;
use crate::engine::forward::{ForwardedReply, ForwardedRequest, NotForwarded};
use crate::engine::raw_stream::LateStream;
use crate::engine::registry::LiveSession;
use crate::engine::request_error::RequestError;
use crate::engine::webtransport::{PassedOn, StreamWire};
use crate::engine::{Sid, Transport, metrics};

impl Engine {
    /// Answers a request that another node received for a session of this node (see
    /// [`crate::engine::config::Hooks::forward`]). Dropping the future means that the client disconnected,
    /// and ends the session. The request is never forwarded again, and opens no session. The caller has made sure
    /// that it comes from another node.
    pub async fn handle_forwarded<B: Body>(&self, request: Request<B>) -> Reply {
        let (mut parts, body) = request.into_parts();
        let upgrade = request::is_upgrade(&parts);
        let socket = parts.extensions.remove::<OnUpgrade>().filter(|_| upgrade);
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let session = query.sid.as_deref().and_then(|sid| self.0.registry.get(sid));
        let is_webtransport =
            query.transport() == Some(Transport::WebTransport) && self.0.config.webtransport;
        let answered = match (session, self.transport(&query)) {
            (Some(session), _) if is_webtransport => self.take_carried(&parts, socket, &session),
            (_, None) => Err(RequestError::TransportUnknown),
            (None, _) => Err(RequestError::SessionUnknown),
            (Some(session), Some(transport)) => {
                self.session_request(&parts, body, &query, transport, socket, &session).await
            }
        };
        answered.unwrap_or_else(|error| reply::error(&error, &parts, upgrade))
    }

    /// Answers the stream of a WebTransport session with another node, which wants to take over a session of this one.
    fn take_carried(
        &self,
        parts: &Parts,
        socket: Option<OnUpgrade>,
        session: &LiveSession,
    ) -> Result<Reply, RequestError> {
        let socket = socket.ok_or(RequestError::BadRequest)?;
        let stream = LateStream::new(socket, parts.extensions.get().copied());
        self.offer_stream(session, StreamWire::carried(stream, self.0.config.max_payload))?;
        Ok(reply::carries_stream())
    }

    /// Passes on a WebTransport session that wants to take over a session which this node does not have.
    pub(super) async fn forward_webtransport(
        &self,
        sid: &str,
        parts: &Parts,
        wire: Box<StreamWire>,
    ) -> Result<(), RequestError> {
        let config = &self.0.config;
        let owner =
            Sid::owner(sid).filter(|owner| *owner != self.0.node).ok_or(RequestError::SessionUnknown)?;
        let within = config.ping_interval + config.ping_timeout;
        let uri = format!("{}?EIO=4&transport=webtransport&sid={sid}", self.0.prefix);
        let request = ForwardedRequest {
            method: Method::GET,
            uri: uri.parse().map_err(|_| RequestError::SessionUnknown)?,
            headers: parts.headers.clone(),
            body: Bytes::new(),
            client: Some(ClientStream::webtransport(Box::new(PassedOn::new(wire)), within)),
        };
        metrics::FORWARDED.of(request.kind()).increment();
        let answer = match &config.hooks.forward {
            Some(forward) => forward(owner, request).await,
            None => Err(NotForwarded::UnknownNode),
        };
        match answer {
            Ok(reply) if reply.status == StatusCode::SWITCHING_PROTOCOLS => Ok(()),
            Ok(_) => Err(RequestError::SessionUnknown),
            Err(error) => {
                metrics::NOT_FORWARDED.of(error).increment();
                Err(RequestError::SessionUnknown)
            }
        }
    }

    /// Answers a request for a session that this node does not have, by forwarding it to the owner if there is one.
    pub(super) async fn forward<B: Body>(
        &self,
        sid: &str,
        parts: &Parts,
        body: B,
        socket: Option<OnUpgrade>,
    ) -> Result<Reply, RequestError> {
        let config = &self.0.config;
        let Some(owner) = Sid::owner(sid).filter(|owner| *owner != self.0.node) else {
            return unknown(socket.is_some());
        };
        // No owner takes longer to answer a poll, or waits longer for a pong.
        let within = config.ping_interval + config.ping_timeout;
        let client =
            socket.map(|upgrade| ClientStream::new(upgrade, parts.extensions.get().copied(), within));
        let is_upgrade = client.is_some();
        let Some(forward) = &config.hooks.forward else {
            return failed(NotForwarded::UnknownNode, is_upgrade);
        };
        let body = request::read_body(&parts.headers, body, config.max_payload, config.body_timeout).await;
        let body = match body {
            Ok(body) => body,
            Err(BodyError::TooLarge) => return Ok(reply::too_large()),
            Err(BodyError::TooSlow) => return Ok(reply::too_slow()),
            Err(BodyError::Broken) => return Err(RequestError::BadRequest),
        };
        let (method, uri, headers) = (parts.method.clone(), parts.uri.clone(), parts.headers.clone());
        let request = ForwardedRequest { method, uri, headers, body, client };
        metrics::FORWARDED.of(request.kind()).increment();
        let answer = tokio::time::timeout(within, forward(owner, request)).await;
        match answer.unwrap_or(Err(NotForwarded::TooSlow)) {
            Ok(ForwardedReply { status, headers, body }) => {
                let mut reply = Reply::new(Full::new(body));
                (*reply.status_mut(), *reply.headers_mut()) = (status, headers);
                Ok(reply)
            }
            Err(error) => failed(error, is_upgrade),
        }
    }
}

/// Returns the answer to a request whose owner did not get it.
fn failed(error: NotForwarded, is_upgrade: bool) -> Result<Reply, RequestError> {
    metrics::NOT_FORWARDED.of(error).increment();
    match error {
        NotForwarded::Overloaded => Ok(reply::unavailable()),
        _ => unknown(is_upgrade),
    }
}

fn unknown(is_upgrade: bool) -> Result<Reply, RequestError> {
    if is_upgrade {
        tracing::debug!(error = %ImksError::UpgradeSessionNotFound, "upgrade refused");
    }
    Err(RequestError::SessionUnknown)
}
