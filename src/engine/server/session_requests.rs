//! Requests of live sessions: polling GET and POST, and WebSockets that want to take over.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, header};
use http_body::Body;
use hyper::upgrade::OnUpgrade;

use super::reply::{self, Reply};
use super::request::{self, BodyError};
use super::{Engine, Inner};
use crate::ImksError;
use crate::engine::Protocol;
use crate::engine::close::close_content;
use crate::engine::duplex::Duplex;
use crate::engine::polling::{Inbox, PendingGet, PendingPost, Refusal};
use crate::engine::registry::LiveSession;
use crate::engine::request_error::RequestError;
use crate::engine::websocket::WebSocket;

impl Engine {
    /// Answers a WebSocket that wants to take over a session.
    pub(super) fn upgrade(
        &self,
        parts: &Parts,
        session: &LiveSession,
        socket: OnUpgrade,
    ) -> Result<Reply, RequestError> {
        let asked = request::websocket_handshake(parts)?;
        let (wire, extensions) = WebSocket::accept(socket, parts, session.protocol(), &self.0.config);
        match session.offer(Box::new(Duplex::WebSocket(wire))) {
            Err((Refusal::Unknown, _)) => return Err(RequestError::SessionUnknown),
            // Clients do not expect an HTTP error here, so the WebSocket is opened and then closed.
            Err((refusal, wire)) => {
                tracing::debug!(error = %ImksError::from(refusal), "upgrade refused");
                self.0.refuse_wire(*wire);
            }
            Ok(()) => {}
        }
        Ok(reply::switching(asked, extensions))
    }

    /// Answers GET and POST of a polling session.
    pub(super) async fn poll<B: Body>(
        &self,
        parts: &Parts,
        body: B,
        inbox: Arc<Inbox>,
    ) -> Result<Reply, RequestError> {
        match parts.method {
            Method::GET => match PendingGet::open(inbox) {
                Ok(pending) => {
                    let payload = pending.payload().await?;
                    Ok(reply::payload(&self.0.config, parts, payload))
                }
                Err(refusal) => Err(refusal.into()),
            },
            Method::POST => self.post(parts, body, inbox).await,
            _ => Err(RequestError::BadRequest),
        }
    }

    async fn post<B: Body>(&self, parts: &Parts, body: B, inbox: Arc<Inbox>) -> Result<Reply, RequestError> {
        let config = &self.0.config;
        let mut pending = PendingPost::open(inbox)?;
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let binary = content_type.is_some_and(|value| value == "application/octet-stream");
        if binary && pending.protocol() == Protocol::V4 {
            // Dropping `pending` ends the session, because version 4 has no binary bodies.
            return Err(RequestError::BadRequest);
        }
        let body = request::read_body(&parts.headers, body, config.max_payload, config.body_timeout);
        let body = tokio::select! {
            biased;
            body = body => body,
            // The rest of the body is not needed.
            _ = pending.gone() => return Err(RequestError::BadRequest),
        };
        match body {
            Ok(body) => match request::payload(parts, body) {
                // The session existed when the request arrived.
                Some(payload) => {
                    pending.submit(&payload, binary).await.map_err(|_| RequestError::BadRequest)?;
                    Ok(reply::ok())
                }
                None => {
                    pending.ignore();
                    Ok(reply::ok())
                }
            },
            Err(BodyError::TooLarge) => {
                tracing::info!(limit = config.max_payload, "body too large");
                pending.refuse_size();
                Ok(reply::too_large())
            }
            Err(BodyError::TooSlow) => Ok(reply::too_slow()),
            Err(BodyError::Broken) => Err(RequestError::BadRequest),
        }
    }
}

impl Inner {
    /// Opens a wire that no session wants, closes it with a code, and waits until the peer has read it.
    fn refuse_wire(&self, mut wire: Duplex) {
        wire.push_close(&close_content(SESSION_TAKEN, "the session has a WebSocket already"));
        self.tasks.spawn(async move {
            let ended = poll_fn(|cx| wire.poll_end(cx));
            // The outcome does not matter.
            let _ = tokio::time::timeout(REFUSE_TIME, ended).await;
        });
    }
}

/// The close code of a WebSocket whose session already has a wire.
const SESSION_TAKEN: u16 = 1008;
/// The time that a refused WebSocket may take to open and close.
const REFUSE_TIME: Duration = Duration::from_secs(5);
