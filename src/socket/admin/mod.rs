//! The Admin UI protocol: the namespace that the stock page (npm `@socket.io/admin-ui` 0.5) connects to.
//!
//! It costs a server nothing unless it is enabled. Everything runs in hooks that
//! [`ServerBuilder::instrument`] adds to the namespaces before they exist.

mod auth;
mod commands;
mod sessions;
mod shapes;
mod stats;
mod stream;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::RandomState;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::background;
use crate::error::{ImksError, ImksResult};
use crate::socket::codec::arguments::Arguments;
use crate::socket::namespace::builder::NamespaceBuilder;
use crate::socket::namespace::socket::Socket;
use crate::socket::server::builder::ServerBuilder;
use crate::socket::server::instrument::Instrument;
use crate::socket::server::server::{Server, WeakServer};
use auth::Login;
pub use auth::{BCRYPT_COST, check_hash, hash_password};
pub use sessions::{SESSION_TTL, SESSIONS_MAX, SessionStore};

/// The configuration of the Admin UI.
#[derive(Clone)]
pub struct Config {
    /// Who may enter.
    pub auth: Auth,
    /// The amount of detail shown.
    pub mode: Mode,
    /// Whether the page can only watch.
    pub read_only: bool,
    /// The path of the namespace. The page asks for it under "advanced options".
    pub namespace: String,
    /// The name of this server in the page, which must be unique in the cluster. The default is the host name
    /// with a random suffix.
    pub server_id: Option<String>,
    /// The store of login sessions. By default they are kept in memory and announced to the other nodes.
    pub sessions: Option<Arc<dyn SessionStore>>,
}

/// Who may enter. There is no default, so that open access is always explicit.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    /// Everybody who can reach the server. For development, or behind a proxy that authenticates.
    None,
    /// Anyone with the right name and password.
    Basic {
        /// The name.
        username: String,
        /// The bcrypt hash of the password, as [`hash_password`] returns it.
        password_hash: String,
    },
}

/// The amount of detail shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Counters only.
    #[default]
    Production,
    /// Every socket, room and event too, with payloads. Each of these costs a packet to the page.
    Development,
}

impl Config {
    /// Creates a configuration in production mode, with the namespace `/admin`.
    pub fn new(auth: Auth) -> Self {
        Self {
            auth,
            mode: Mode::default(),
            read_only: false,
            namespace: NAMESPACE_DEFAULT.into(),
            server_id: None,
            sessions: None,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Config")
            .field("auth", &self.auth)
            .field("mode", &self.mode)
            .field("read_only", &self.read_only)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Auth {
    /// Omits the hash.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("None"),
            Self::Basic { username, .. } => formatter.debug_tuple("Basic").field(username).finish(),
        }
    }
}

/// The Admin UI of one server.
pub(crate) struct Admin {
    namespace: String,
    mode: Mode,
    read_only: bool,
    server_id: Option<String>,
    login: Login,
    /// The server, set once it exists. Weak, because its namespaces hold hooks that refer to this value.
    server: OnceLock<WeakServer>,
    /// The hasher that derives connection ids from session ids without revealing them.
    hasher: RandomState,
    /// The sockets that may still upgrade from polling. Used in development mode only.
    polling: Mutex<Vec<Socket>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Admin {
    pub(crate) fn new(config: Config) -> ImksResult<Arc<Self>> {
        if config.namespace == MAIN_NAMESPACE {
            return Err(ImksError::Config("the Admin UI needs a namespace of its own, not /".into()));
        }
        Ok(Arc::new(Self {
            login: Login::new(config.auth, config.sessions)?,
            namespace: config.namespace,
            mode: config.mode,
            read_only: config.read_only,
            server_id: config.server_id,
            server: OnceLock::new(),
            hasher: RandomState::new(),
            polling: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    fn server(&self) -> Option<Server> {
        self.server.get()?.upgrade()
    }

    /// Sends an event to every page on every node.
    fn tell(&self, event: &str, args: &impl Arguments) {
        let Some(server) = self.server() else { return };
        let Some(namespace) = server.namespace(&self.namespace) else { return };
        if namespace.is_empty() && !server.reaches_others() {
            return;
        }
        if let Err(error) = namespace.emit_args(event, args) {
            tracing::debug!(%error, event, "not shown in the Admin UI");
        }
    }

    /// Sends the initial state to a page that has just connected.
    async fn greet(&self, socket: &Socket) {
        let greeted = async {
            socket.emit("config", &Features { supported_features: self.features() })?;
            if let (Mode::Development, Some(server)) = (self.mode, self.server()) {
                socket.emit("all_sockets", &stream::all_sockets(self, &server).await)?;
            }
            ImksResult::Ok(())
        };
        if let Err(error) = greeted.await {
            tracing::debug!(%error, socket_sid = socket.id(), "the page left before it was greeted");
        }
    }

    fn features(&self) -> Vec<&'static str> {
        let mut features = Vec::new();
        if !self.read_only {
            features.extend(commands::FEATURES);
        }
        features.push("AGGREGATED_EVENTS");
        if self.mode == Mode::Development {
            features.push("ALL_EVENTS");
        }
        features
    }
}

impl Instrument for Admin {
    fn path(&self) -> &str {
        &self.namespace
    }

    fn describe(self: Arc<Self>) -> NamespaceBuilder {
        let mut builder = NamespaceBuilder::default();
        let admin = self.clone();
        builder.on_connect(move |socket, payload| {
            let admin = admin.clone();
            async move { admin.login.admit(&socket, &payload).await }
        });
        let admin = self.clone();
        builder.on_connected(move |socket| {
            let admin = admin.clone();
            async move { admin.greet(&socket).await }
        });
        self.login.listen(&mut builder);
        if !self.read_only {
            commands::register(&self, &mut builder);
        }
        builder
    }

    fn observe(self: Arc<Self>, path: Option<&str>, builder: &mut NamespaceBuilder) {
        if self.mode == Mode::Development {
            let shows_events = path != Some(self.path());
            stream::observe(&self, shows_events, builder);
        }
    }

    fn bind(&self, server: WeakServer) {
        // Called only once, because a builder builds one server.
        let _ = self.server.set(server);
    }

    /// Sends statistics until [`Instrument::stop`].
    fn start(self: Arc<Self>) {
        if self.tasks.is_empty() {
            let (stop, sent) = (self.stop.clone(), self.clone());
            self.tasks.spawn(background::keep("admin", stop, move |_| stats::run(sent.clone())));
        }
    }

    fn stop(&self) {
        self.stop.cancel();
    }
}

impl ServerBuilder {
    /// Enables the stock Admin UI for this server; see [`admin`](crate::socket::admin).
    pub fn instrument(self, admin: Config) -> Self {
        self.instrument_with(|| Ok(Admin::new(admin)?))
    }
}

/// The payload of `config`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    supported_features: Vec<&'static str>,
}

/// The namespace that the page uses by default.
pub const NAMESPACE_DEFAULT: &str = "/admin";
const MAIN_NAMESPACE: &str = crate::socket::codec::parser::MAIN_NAMESPACE;
