//! Forwarding: requests of sessions on other nodes, and requests that other nodes forward to this one.

use http::Request;
use http::request::Parts;
use http_body::Body;
use http_body_util::{BodyExt, Full};

use super::reply::{self, Reply};
use super::request::{self, Query};
use super::{Engine, Inner};
use crate::engine::forward::{ForwardedReply, ForwardedRequest, OwnerUnreachable};
use crate::engine::request_error::RequestError;
use crate::engine::{Sid, Transport, metrics};

impl Engine {
    /// Answers a request that another node received for a session of this node (see
    /// [`crate::engine::config::Hooks::forward`]). Dropping the future means that the client disconnected,
    /// and ends the session. The request is not forwarded again.
    pub async fn handle_forwarded(&self, request: ForwardedRequest) -> ForwardedReply {
        let ForwardedRequest { method, uri, headers, body } = request;
        let mut parts = Request::new(()).into_parts().0;
        (parts.method, parts.uri, parts.headers) = (method, uri, headers);
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let session = query.sid.as_deref().and_then(|sid| self.0.registry.get(sid));
        let answered = match (session, query.transport()) {
            (Some(session), Some(Transport::Polling)) => {
                let body = Full::new(body);
                self.session_request(&parts, body, &query, Transport::Polling, None, &session).await
            }
            _ => Err(RequestError::SessionUnknown),
        };
        let reply = answered.unwrap_or_else(|error| reply::error(&error, &parts, false));
        let (head, body) = reply.into_parts();
        let Ok(body) = body.collect().await;
        ForwardedReply { status: head.status, headers: head.headers, body: body.to_bytes() }
    }

    /// Answers a polling request for a session of another node, by forwarding it if possible.
    pub(super) async fn forward<B: Body>(
        &self,
        sid: &str,
        parts: &Parts,
        body: B,
    ) -> Result<Reply, RequestError> {
        let config = &self.0.config;
        let unknown = self.0.unknown(sid);
        let owner = Sid::owner(sid).filter(|owner| *owner != self.0.node);
        let (Some(owner), Some(forward)) = (owner, &config.hooks.forward) else { return Err(unknown) };
        let body = request::read_body(&parts.headers, body, config.max_payload, config.body_timeout).await;
        let body = body.map_err(|_| RequestError::BadRequest)?;
        let (method, uri, headers) = (parts.method.clone(), parts.uri.clone(), parts.headers.clone());
        let answer = forward(owner, ForwardedRequest { method, uri, headers, body });
        // No owner takes longer to answer a poll.
        let within = config.ping_interval + config.ping_timeout;
        match tokio::time::timeout(within, answer).await {
            Ok(Ok(ForwardedReply { status, headers, body })) => {
                let mut reply = Reply::new(Full::new(body));
                (*reply.status_mut(), *reply.headers_mut()) = (status, headers);
                Ok(reply)
            }
            Ok(Err(OwnerUnreachable)) | Err(_) => Err(unknown),
        }
    }
}

impl Inner {
    /// Counts a request for a session that another node owns, and returns the error for a client that cannot
    /// be served.
    pub(super) fn unknown(&self, sid: &str) -> RequestError {
        if Sid::owner(sid).is_some_and(|owner| owner != self.node) {
            metrics::SESSIONS_ELSEWHERE.increment();
        }
        RequestError::SessionUnknown
    }
}
