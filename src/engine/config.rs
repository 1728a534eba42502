//! Settings of an engine, with the defaults of the reference server.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::engine::OutboxLimits;
use crate::engine::forward::{ForwardedReply, ForwardedRequest, OwnerUnreachable};
use crate::node::NodeId;
use crate::{ImksError, ImksResult};

/// Settings of an [`super::Engine`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it is served. A trailing `/` is added unless `add_trailing_slash` is off; what starts with the
    /// result is served.
    pub path: String,
    /// Whether the path ends with `/`.
    pub add_trailing_slash: bool,
    /// From the handshake or the last pong to the next ping.
    pub ping_interval: Duration,
    /// From a ping to the latest pong.
    pub ping_timeout: Duration,
    /// How long a WebSocket or WebTransport stream may take to take over from polling, and a WebTransport
    /// session to send its first packet.
    pub upgrade_timeout: Duration,
    /// Bytes of an incoming message, and of a POST body, at most.
    pub max_payload: usize,
    /// Whether sessions may use HTTP long-polling.
    pub polling: bool,
    /// Whether sessions may use WebSocket.
    pub websocket: bool,
    /// Whether sessions may use WebTransport; needs a listener that calls [`super::Engine::handle_webtransport`].
    pub webtransport: bool,
    /// Whether a polling session is offered the other transports.
    pub allow_upgrades: bool,
    /// Whether clients of Engine.IO v3 (Socket.IO v2) are served too. Their session id, a secret otherwise, is their
    /// public socket id as well: such a client makes one from the other by itself.
    pub allow_eio3: bool,
    /// Directory `dist` of the npm package `socket.io-client`, whose browser builds are served under the path.
    pub client_bundle_dir: Option<PathBuf>,
    /// A text message that follows the OPEN packet.
    pub initial_packet: Option<String>,
    /// A cookie with the session id on the handshake response of polling.
    pub cookie: Option<Cookie>,
    /// Which foreign origins a browser may use it from; none when absent.
    pub cors: Option<Cors>,
    /// Poll responses of at least this many bytes are compressed if the client can; never when absent.
    pub http_compression: Option<usize>,
    /// Whether WebSocket messages may be compressed, for clients that offer it (permessage-deflate, RFC 7692). Neither
    /// side keeps state between messages, so it costs no memory at rest, and small messages gain nothing. Secrets and
    /// text of others in one message can be guessed from its length.
    pub per_message_deflate: bool,
    /// Bytes of a message, from which on it leaves compressed.
    pub per_message_deflate_threshold: usize,
    /// Headers added to each response.
    pub extra_headers: Vec<(HeaderName, HeaderValue)>,
    /// This node's name in the session ids it makes; a random one when absent.
    pub node: Option<NodeId>,
    /// Code of the application that is asked on the way.
    pub hooks: Hooks,
    /// Bounds of the outgoing queue of each connection.
    pub outbox: OutboxLimits,
    /// How long a POST body may take to arrive.
    pub body_timeout: Duration,
    /// How long a graceful close may take to hand over what is queued.
    pub close_timeout: Duration,
    /// Connections that wait for [`super::Engine::accept`] at most; more are refused with 503.
    pub accept_queue: usize,
    /// Live sessions at most; more are refused with 503.
    pub sessions_max: usize,
    /// Messages of polling clients that wait for the holder before the `ok` of their POST is withheld.
    pub inbound_messages_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: "/socket.io".into(),
            add_trailing_slash: true,
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            max_payload: 1_000_000,
            polling: true,
            websocket: true,
            webtransport: false,
            allow_upgrades: true,
            allow_eio3: false,
            client_bundle_dir: None,
            initial_packet: None,
            cookie: None,
            cors: None,
            http_compression: Some(1024),
            per_message_deflate: false,
            per_message_deflate_threshold: 1024,
            extra_headers: Vec::new(),
            node: None,
            hooks: Hooks::default(),
            outbox: OutboxLimits::default(),
            body_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(30),
            accept_queue: 4096,
            sessions_max: 1_000_000,
            inbound_messages_max: 64,
        }
    }
}

impl Config {
    /// Checks what cannot work.
    ///
    /// # Errors
    /// [`ImksError::Config`] naming the value and what to change.
    pub fn validate(&self) -> ImksResult<()> {
        let wrong = |text: &str| Err(ImksError::Config(text.into()));
        if !self.path.starts_with('/') {
            return wrong("engine path must start with /");
        }
        if !self.polling && !self.websocket && !self.webtransport {
            return wrong(
                "engine: at least one of the transports polling, websocket and webtransport must be on",
            );
        }
        if self.ping_interval.is_zero() || self.ping_timeout.is_zero() || self.upgrade_timeout.is_zero() {
            return wrong("engine: ping interval, ping timeout and upgrade timeout must be above zero");
        }
        if self.max_payload == 0 || self.accept_queue == 0 {
            return wrong("engine: max payload and accept queue must be above zero");
        }
        Ok(())
    }

    /// The prefix of every path that is served.
    pub(crate) fn prefix(&self) -> String {
        let trimmed = self.path.trim_end_matches('/');
        if self.add_trailing_slash { format!("{trimmed}/") } else { trimmed.into() }
    }
}

/// Cookie of the handshake response. Never needed by imks itself; load balancers may use it.
#[derive(Clone, Debug)]
pub struct Cookie {
    /// Name, usually `io`.
    pub name: String,
    /// What follows `name=sid`, for example `; Path=/; HttpOnly; SameSite=Lax`.
    pub attributes: String,
}

impl Default for Cookie {
    fn default() -> Self {
        Self { name: "io".into(), attributes: "; Path=/; HttpOnly; SameSite=Lax".into() }
    }
}

/// Cross-origin policy.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    /// Who is allowed.
    pub origins: Origins,
    /// Whether cookies may be sent. Not with [`Origins::Any`].
    pub credentials: bool,
    /// Methods for the preflight; empty stands for `GET,HEAD,PUT,PATCH,POST,DELETE`.
    pub methods: Vec<String>,
    /// Request headers for the preflight; empty reflects what is asked for.
    pub headers: Vec<String>,
}

/// Allowed origins.
#[derive(Clone, Debug, Default)]
pub enum Origins {
    /// Every origin, answered with `*`, without credentials.
    #[default]
    Any,
    /// Exactly these, for example `https://example.com`.
    List(Vec<String>),
}

/// Future of a hook; it borrows nothing.
pub type HookFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// Decides over a handshake; the error text is told to the client, empty stands for `Forbidden`.
pub type AllowRequest = Arc<dyn Fn(&Parts) -> HookFuture<Result<(), String>> + Send + Sync>;
/// Makes the session id of a handshake: 8 to 128 characters of `A-Z a-z 0-9 _ - . ~`, unguessable.
pub type GenerateId = Arc<dyn Fn(&Parts) -> HookFuture<Result<String, String>> + Send + Sync>;
/// Sees every request first; an error refuses it with code 3.
pub type OnRequest = Arc<dyn Fn(&Parts) -> Result<(), String> + Send + Sync>;
/// Hands a request to the node that owns its session, where [`super::Engine::handle_forwarded`] answers it. Dropping the
/// future tells that node that the client went away. An owner that is unknown or dead is [`OwnerUnreachable`] at once.
pub type Forward = Arc<
    dyn Fn(NodeId, ForwardedRequest) -> HookFuture<Result<ForwardedReply, OwnerUnreachable>> + Send + Sync,
>;
/// Changes the headers of a response.
pub type EditHeaders = Arc<dyn Fn(&mut HeaderMap, &Parts) + Send + Sync>;

/// Code of the application that is asked on the way.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Every request.
    pub on_request: Option<OnRequest>,
    /// The first request of a session. 403 on polling, 400 on WebSocket.
    pub allow_request: Option<AllowRequest>,
    /// Instead of this node's id and 128 random bits. Such sessions name no owner: behind several nodes they need
    /// sticky sessions.
    pub generate_id: Option<GenerateId>,
    /// Polling requests of sessions that another node owns; without it they are unknown here, and several nodes need
    /// sticky sessions. A WebSocket or WebTransport stream that wants to take over is never forwarded: the client stays
    /// on polling.
    pub forward: Option<Forward>,
    /// Headers of the handshake response.
    pub initial_headers: Option<EditHeaders>,
    /// Headers of every response.
    pub headers: Option<EditHeaders>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Hooks")
            .field("on_request", &self.on_request.is_some())
            .field("allow_request", &self.allow_request.is_some())
            .field("generate_id", &self.generate_id.is_some())
            .field("forward", &self.forward.is_some())
            .field("initial_headers", &self.initial_headers.is_some())
            .field("headers", &self.headers.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_ends_with_one_slash() {
        for (path, slash, prefix) in [
            ("/socket.io", true, "/socket.io/"),
            ("/a/", true, "/a/"),
            ("/a/", false, "/a"),
            ("/", true, "/"),
        ] {
            let config = Config { path: path.into(), add_trailing_slash: slash, ..Config::default() };
            assert_eq!(config.prefix(), prefix);
        }
    }

    #[test]
    fn a_server_without_a_transport_is_refused() {
        let config = Config { polling: false, websocket: false, ..Config::default() };
        assert!(config.validate().is_err() && Config::default().validate().is_ok());
    }
}
