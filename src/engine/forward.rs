//! Requests of a polling session on their way between the node that got them and the node that owns the session.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};

/// A request, with its whole body. Not to be logged: the query holds the session id.
pub struct ForwardedRequest {
    /// GET or POST.
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// Headers as they came.
    pub headers: HeaderMap,
    /// Body; at most `max_payload` bytes.
    pub body: Bytes,
}

/// The answer to a [`ForwardedRequest`].
pub struct ForwardedReply {
    /// Status.
    pub status: StatusCode,
    /// Headers, without those that the node that got the request adds to all its answers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// The owner of a session cannot be reached: it is gone, or the way to it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node that owns the session cannot be reached")]
pub struct OwnerUnreachable;
