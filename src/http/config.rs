//! Limits of the public listener, and the types that its parts share.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{Either, Full};

use crate::http::tls::Tls;

/// Limits of the listener.
#[derive(Clone, Debug)]
pub struct Config {
    /// From the connection to its first byte.
    pub first_byte_timeout: Duration,
    /// From the end of one request (or the connection) to the whole head of the next. Above the ping interval
    /// of polling clients, so that their kept-alive connections are not cut between two requests.
    pub head_timeout: Duration,
    /// From one piece of an answer that the peer takes to the next.
    pub write_timeout: Duration,
    /// For a request and its answer, beside the engine.
    pub request_timeout: Duration,
    /// Bytes of a request head.
    pub head_bytes_max: usize,
    /// Connections at most that have not become WebSockets; more are answered with 503.
    pub connections_max: usize,
    /// TLS; plain HTTP without it.
    pub tls: Option<Tls>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            first_byte_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            head_bytes_max: 16 << 10,
            connections_max: 100_000,
            tls: None,
        }
    }
}

/// Body of any answer.
pub type AnyBody = Either<Full<Bytes>, Body>;

/// A future on the heap.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
