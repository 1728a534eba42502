//! Requests and replies that travel between the receiving node and the owner of the session.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};

use crate::engine::client_stream::ClientStream;

/// A request for a session of another node, with its whole body. It must not be logged, because the query contains
/// the session id.
pub struct ForwardedRequest {
    /// The method.
    pub method: Method,
    /// The path and query.
    pub uri: Uri,
    /// The headers as they were received.
    pub headers: HeaderMap,
    /// The body, at most `max_payload` bytes.
    pub body: Bytes,
    /// The stream of a client that asks for a WebSocket. If the owner answers 101, whoever forwards the request
    /// connects this stream with that of the owner ([`ClientStream::join`]).
    pub client: Option<ClientStream>,
}

impl ForwardedRequest {
    /// Returns what the request is for.
    pub fn kind(&self) -> ForwardedKind {
        match (&self.client, &self.method) {
            (Some(_), _) => ForwardedKind::Upgrade,
            (None, &Method::POST) => ForwardedKind::Post,
            (None, _) => ForwardedKind::Poll,
        }
    }
}

/// The answer to a [`ForwardedRequest`].
pub struct ForwardedReply {
    /// The status.
    pub status: StatusCode,
    /// The headers, without those that the node that received the request adds to all its responses.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// The purpose of a forwarded request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedKind {
    /// It waits for packets.
    Poll,
    /// It carries packets of the client.
    Post,
    /// It asks for a WebSocket.
    Upgrade,
}

/// The reason why the owner of a session did not get a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotForwarded {
    /// The session id names a node that is not known, or requests are not forwarded at all.
    #[error("no such node is known")]
    UnknownNode,
    /// The node is gone, or there is no way to it.
    #[error("the node that owns the session cannot be reached")]
    Unreachable,
    /// Too many requests for sessions of the node are in progress. The client gets 503, and may retry.
    #[error("too many requests for sessions of one node are in progress")]
    Overloaded,
    /// The node did not answer in time.
    #[error("the node that owns the session did not answer in time")]
    TooSlow,
}
