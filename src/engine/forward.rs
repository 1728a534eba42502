//! Polling requests and replies that travel between the receiving node and the owner of the session.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};

/// A forwarded request with its whole body. It must not be logged, because the query contains the session id.
pub struct ForwardedRequest {
    /// The method, GET or POST.
    pub method: Method,
    /// The path and query.
    pub uri: Uri,
    /// The headers as they were received.
    pub headers: HeaderMap,
    /// The body, at most `max_payload` bytes.
    pub body: Bytes,
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

/// The error of a request whose owner cannot be reached: the node is gone, or there is no connection to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node that owns the session cannot be reached")]
pub struct OwnerUnreachable;
