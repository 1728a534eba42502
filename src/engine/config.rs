//! Engine settings, with the defaults of the reference server.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::engine::OutboxLimits;
use crate::engine::forward::{ForwardedReply, ForwardedRequest, NotForwarded};
use crate::node::NodeId;
use crate::{ImksError, ImksResult};

/// The settings of an [`super::Engine`].
#[derive(Clone, Debug)]
pub struct Config {
    /// The path prefix of all requests that the engine serves. A trailing `/` is added unless
    /// `add_trailing_slash` is off.
    pub path: String,
    /// Whether the path ends with `/`.
    pub add_trailing_slash: bool,
    /// The time from the handshake or the last pong to the next ping.
    pub ping_interval: Duration,
    /// The time that a client has to answer a ping.
    pub ping_timeout: Duration,
    /// The time that a WebSocket or WebTransport stream has to take over from polling, and that a
    /// WebTransport session has to send its first packet.
    pub upgrade_timeout: Duration,
    /// The maximum size of an incoming message, and of a POST body, in bytes.
    pub max_payload: usize,
    /// Whether sessions may use HTTP long-polling.
    pub polling: bool,
    /// Whether sessions may use WebSocket.
    pub websocket: bool,
    /// Whether sessions may use WebTransport. Requires a listener that calls
    /// [`super::Engine::handle_webtransport`].
    pub webtransport: bool,
    /// Whether a polling session is offered the other transports.
    pub allow_upgrades: bool,
    /// Whether clients of Engine.IO v3 (Socket.IO v2) are served. Such a client derives its public socket id
    /// from its session id, which is otherwise secret.
    pub allow_eio3: bool,
    /// The `dist` directory of npm `socket.io-client`, whose browser builds are served under the path.
    pub client_bundle_dir: Option<PathBuf>,
    /// A text message that is sent right after the OPEN packet.
    pub initial_packet: Option<String>,
    /// A cookie with the session id, set on the handshake response of polling.
    pub cookie: Option<Cookie>,
    /// The cross-origin policy. Without one, no foreign origin may read responses.
    pub cors: Option<Cors>,
    /// The size in bytes from which poll responses are compressed for clients that support it; never if `None`.
    pub http_compression: Option<usize>,
    /// Whether WebSocket messages may be compressed for clients that offer it (permessage-deflate, RFC 7692).
    /// Neither side keeps state between messages, so it costs no memory at rest, but small messages gain
    /// little. If a message combines a secret with text chosen by others, its compressed length can reveal
    /// the secret.
    pub per_message_deflate: bool,
    /// The size in bytes from which outgoing messages are compressed.
    pub per_message_deflate_threshold: usize,
    /// Headers that are added to each response.
    pub extra_headers: Vec<(HeaderName, HeaderValue)>,
    /// The node that new session ids name; a random one if absent.
    pub node: Option<NodeId>,
    /// Application code that is called while requests are handled.
    pub hooks: Hooks,
    /// The limits of the outgoing queue of each connection.
    pub outbox: OutboxLimits,
    /// The time that a POST body may take to arrive.
    pub body_timeout: Duration,
    /// The time that a graceful close may take to send queued packets.
    pub close_timeout: Duration,
    /// The maximum number of connections waiting for [`super::Engine::accept`]; more are refused with 503.
    pub accept_queue: usize,
    /// The maximum number of live sessions. Further ones are refused with 503.
    pub sessions_max: usize,
    /// The number of messages that may wait for the holder before the `ok` of a POST is withheld.
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

/// The deadlines of a session. All sessions share one copy.
#[derive(Debug)]
pub(crate) struct Timing {
    pub(crate) ping_interval: Duration,
    pub(crate) ping_timeout: Duration,
    pub(crate) upgrade_timeout: Duration,
    /// The time that a graceful close may take to send queued packets.
    pub(crate) close_timeout: Duration,
}

impl From<&Config> for Timing {
    fn from(config: &Config) -> Self {
        Self {
            ping_interval: config.ping_interval,
            ping_timeout: config.ping_timeout,
            upgrade_timeout: config.upgrade_timeout,
            close_timeout: config.close_timeout,
        }
    }
}

impl Config {
    /// Checks the settings for values that cannot work.
    ///
    /// # Errors
    /// [`ImksError::Config`] that names the value and the correction.
    pub fn validate(&self) -> ImksResult<()> {
        let wrong = |text: &str| Err(ImksError::Config(text.into()));
        if !is_path(&self.path) {
            return wrong(PATH_RULE);
        }
        if !self.polling && !self.websocket && !self.webtransport {
            return wrong(
                "engine: at least one of the transports polling, websocket and webtransport must be on",
            );
        }
        if self.ping_interval.is_zero() || self.ping_timeout.is_zero() || self.upgrade_timeout.is_zero() {
            return wrong(
                "engine: ping interval, ping timeout and upgrade timeout (IMKS_ENGINE_PING_INTERVAL, \
                 IMKS_ENGINE_PING_TIMEOUT, IMKS_ENGINE_UPGRADE_TIMEOUT) must be above zero",
            );
        }
        if self.max_payload == 0 || self.accept_queue == 0 {
            return wrong(
                "engine: max payload (IMKS_ENGINE_MAX_PAYLOAD) and accept queue (IMKS_ENGINE_ACCEPT_QUEUE) must be above zero",
            );
        }
        Ok(())
    }

    /// Returns the prefix of every path that is served.
    pub(crate) fn prefix(&self) -> String {
        let trimmed = self.path.trim_end_matches('/');
        if self.add_trailing_slash { format!("{trimmed}/") } else { trimmed.into() }
    }
}

/// Whether a path arrives as it is written: clients resolve `.` and `..`, and escape what no path may contain.
fn is_path(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    path.starts_with('/')
        && path.bytes().all(is_plain)
        && !path.split('/').any(|part| matches!(part, "." | ".."))
}

const PATH_RULE: &str = "engine path (IMKS_ENGINE_PATH) must start with / and have only what stands in addresses as it is, for \
     example /socket.io";

/// A cookie of the handshake response. imks itself does not use it; load balancers may.
#[derive(Clone, Debug)]
pub struct Cookie {
    /// The name, usually `io`.
    pub name: String,
    /// The attributes after `name=sid`, for example `; Path=/; HttpOnly; SameSite=Lax`.
    pub attributes: String,
}

impl Default for Cookie {
    fn default() -> Self {
        Self { name: "io".into(), attributes: "; Path=/; HttpOnly; SameSite=Lax".into() }
    }
}

/// The cross-origin policy.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    /// The allowed origins.
    pub origins: Origins,
    /// Whether cookies may be sent. Cannot be combined with [`Origins::Any`].
    pub credentials: bool,
    /// The methods allowed in a preflight response; empty means `GET,HEAD,PUT,PATCH,POST,DELETE`.
    pub methods: Vec<String>,
    /// The request headers allowed in a preflight response; if empty, the requested ones are allowed.
    pub headers: Vec<String>,
    /// Whether requests of pages of other origins are refused (403), also those for WebSocket and WebTransport, to
    /// which the rules of browsers for reading do not apply. False as in the reference server.
    pub enforce: bool,
}

/// The origins that may read responses.
#[derive(Clone, Debug, Default)]
pub enum Origins {
    /// Every origin; responses have `*` and do not allow credentials.
    #[default]
    Any,
    /// Exactly these origins, for example `https://example.com`.
    List(Vec<String>),
}

/// The future of a hook, which borrows nothing.
pub type HookFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// A hook that accepts or refuses a handshake. The client gets the error text, or `Forbidden` if it is empty.
pub type AllowRequest = Arc<dyn Fn(&Parts) -> HookFuture<Result<(), String>> + Send + Sync>;
/// A hook that generates an unguessable session id: 8 to 128 characters of `A-Z a-z 0-9 _ - . ~`.
pub type GenerateId = Arc<dyn Fn(&Parts) -> HookFuture<Result<String, String>> + Send + Sync>;
/// A hook that sees every request first. An error refuses the request with code 3.
pub type OnRequest = Arc<dyn Fn(&Parts) -> Result<(), String> + Send + Sync>;
/// A hook that forwards a request to the node that owns its session, where
/// [`super::Engine::handle_forwarded`] answers it. Dropping the future tells that node that the client
/// disconnected. Fails at once if the owner is unknown or dead.
pub type Forward =
    Arc<dyn Fn(NodeId, ForwardedRequest) -> HookFuture<Result<ForwardedReply, NotForwarded>> + Send + Sync>;
/// A hook that edits the headers of a response.
pub type EditHeaders = Arc<dyn Fn(&mut HeaderMap, &Parts) + Send + Sync>;

/// Application code that is called while requests are handled.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Called for every request.
    pub on_request: Option<OnRequest>,
    /// Called for the first request of a session. A refusal is 403 on polling and 400 on WebSocket.
    pub allow_request: Option<AllowRequest>,
    /// Replaces the default session id, which is the id of this node and 128 random bits. Custom session ids
    /// name no owner, so a cluster of several nodes needs sticky sessions.
    pub generate_id: Option<GenerateId>,
    /// Forwards requests of sessions that another node owns: polling, and WebSockets that want to take over. Without
    /// it such sessions are unknown here, and a cluster of several nodes needs sticky sessions. A WebTransport
    /// stream that wants to take over is never forwarded: the client stays on its transport.
    pub forward: Option<Forward>,
    /// Edits the headers of the handshake response.
    pub initial_headers: Option<EditHeaders>,
    /// Edits the headers of every response.
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
    fn a_path_that_no_client_could_ask_for_is_refused() {
        let config = |path: &str| Config { path: path.into(), ..Config::default() };
        for path in ["", "socket.io", "/a b", "/a?b", "/a#b", "/{id}", "/ü", "/../a", "/a/."] {
            assert!(config(path).validate().is_err(), "{path:?}");
        }
        for path in ["/", "/socket.io", "/a/b_1/", "/a%20b", "/a:b@c"] {
            assert!(config(path).validate().is_ok(), "{path:?}");
        }
    }

    #[test]
    fn a_server_without_a_transport_is_refused() {
        let config = Config { polling: false, websocket: false, ..Config::default() };
        assert!(config.validate().is_err() && Config::default().validate().is_ok());
    }
}
