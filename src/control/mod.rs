//! What a back end may ask of imks: one table of operations ([`operations`]), served over gRPC ([`grpc`]) and over
//! HTTP ([`api`]), with API keys or certificates. docs/server-api.md describes it.

pub mod api;
mod broadcast;
mod caller;
pub mod directory;
mod ephemeral;
mod grpc;
mod input;
pub mod keys;
mod messages;
pub mod metrics;
mod once;
mod operation;
mod operations;
mod purge;
mod queries;
mod rpc_status;
mod sync;
mod users;
mod watch;
mod watchers;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::directory::Directory;
use crate::messaging::backend::Backend;
use crate::models::feed::Feed;
use crate::models::{Db, control_request};
use crate::rate_limit::{Limiter, Rate};
use crate::{ImksError, ImksResult};
use api::Peer;
pub use caller::{Caller, Scopes};
pub use grpc::ControlService;
use keys::Keys;
use watchers::Watchers;

/// The settings of the calls of back ends.
#[derive(Debug, Clone)]
pub struct Config {
    /// The listeners that serve the HTTP API.
    pub listeners: Listeners,
    /// The names in certificates of callers that need no API key.
    pub callers: Vec<String>,
    /// Whether callers on the internal listener need no credentials, for development.
    pub allow_anonymous: bool,
    /// The rate of calls of one key, or of one name in a certificate.
    pub calls: Rate,
    /// The interval of the heartbeats of a stream of events, and of the checks of its key.
    pub heartbeat: Duration,
}

impl Config {
    /// Returns the problems of the settings on a server with this internal listener.
    pub fn problems(&self, internal: Option<SocketAddr>) -> impl Iterator<Item = &'static str> + use<> {
        let is_private = internal.is_some_and(|address| address.ip().is_loopback());
        let checks = [
            (
                !self.allow_anonymous || is_private,
                "IMKS_CONTROL_ALLOW_ANONYMOUS needs an IMKS_INTERNAL_LISTEN on a loopback address",
            ),
            (
                self.listeners != Listeners::Internal || internal.is_some(),
                "IMKS_CONTROL is internal: set IMKS_INTERNAL_LISTEN",
            ),
        ];
        checks.into_iter().filter(|(fine, _)| !fine).map(|(_, sentence)| sentence)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listeners: Listeners::Auto,
            callers: Vec::new(),
            allow_anonymous: false,
            calls: Rate::new(1_000, 2_000),
            heartbeat: HEARTBEAT,
        }
    }
}

/// The listeners that serve the HTTP API for back ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listeners {
    /// The internal listener, or the public one if there is no internal one.
    Auto,
    /// Both.
    Public,
    /// The internal listener only.
    Internal,
    /// None.
    Off,
}

impl Listeners {
    /// Whether the public listener serves the API, on a server that has an internal listener or not.
    pub fn include_public(self, has_internal: bool) -> bool {
        self == Self::Public || (self == Self::Auto && !has_internal)
    }
}

/// The calls of back ends. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    config: Config,
    db: Db,
    backend: Backend,
    /// The embedded directory; `None` if an external core is in charge.
    directory: Option<Directory>,
    keys: Keys,
    calls: Limiter<uuid::Uuid>,
    feed: Feed,
    watchers: Watchers,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// One call that is being handled.
#[derive(Debug, Clone)]
pub(crate) struct Ctx {
    control: Control,
    caller: Caller,
}

impl Control {
    /// Creates the calls. Keys and request ids are in the database of the `feed`. Streams are in `tasks`, and end
    /// at `stop`.
    pub fn new(
        config: &Config,
        backend: Backend,
        directory: Option<&Directory>,
        feed: &Feed,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let db = feed.db().clone();
        Self(Arc::new(Inner {
            config: config.clone(),
            keys: Keys::new(db.clone()),
            db,
            backend,
            directory: directory.cloned(),
            calls: Limiter::new(config.calls),
            feed: feed.clone(),
            watchers: Watchers::default(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        }))
    }

    /// Returns the caller that the key in the header `Authorization` or the certificate of the connection
    /// identifies, and takes a token from the caller's bucket.
    ///
    /// # Errors
    /// [`ImksError::Auth`], [`ImksError::RateLimited`], [`ImksError::Database`].
    pub async fn authenticate(&self, bearer: Option<&str>, peer: &Peer) -> ImksResult<Caller> {
        let caller = self.identify(bearer, peer).await?;
        let refuse = |retry_after| ImksError::RateLimited { bucket: "calls:key", retry_after };
        self.0.calls.take(caller.id, Instant::now()).map_err(refuse)?;
        Ok(caller)
    }

    async fn identify(&self, bearer: Option<&str>, peer: &Peer) -> ImksResult<Caller> {
        if let Some(key) = bearer {
            return self.0.keys.caller(key).await;
        }
        let mut known = self.0.config.callers.iter();
        if let Some(name) = known.find(|known| peer.names.iter().any(|name| **name == ***known)) {
            return Ok(Caller::trusted(name));
        }
        if self.0.config.allow_anonymous && peer.is_internal {
            return Ok(Caller::trusted("anonymous"));
        }
        Err(ImksError::Auth("An API key is needed in the header Authorization: Bearer"))
    }

    /// Forgets old request ids and idle rate limits until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.0.calls.sweep(Instant::now()),
            }
            while !stop.is_cancelled() {
                match control_request::sweep(&self.0.db, clock::now_micros()).await {
                    Ok(removed) if removed >= control_request::SWEEP_STEP.unsigned_abs() => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(%error, "old request ids were not forgotten");
                        break;
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Control").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Ctx {
    /// Returns who calls.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Checks that the caller may still call, in a call that goes on for long.
    ///
    /// # Errors
    /// [`ImksError::Auth`] if the key of the caller was revoked or has expired; [`ImksError::Database`].
    pub(crate) async fn still_allowed(&self) -> ImksResult<()> {
        if self.caller.has_key { self.control.0.keys.check(self.caller.id).await } else { Ok(()) }
    }

    /// Returns what a back end may do.
    pub(crate) fn backend(&self) -> &Backend {
        &self.control.0.backend
    }

    /// Returns the embedded directory; `None` if an external core is in charge.
    pub(crate) fn directory(&self) -> Option<&Directory> {
        self.control.0.directory.as_ref()
    }

    /// Returns the feed.
    pub(crate) fn feed(&self) -> &Feed {
        &self.control.0.feed
    }

    /// Returns the database.
    pub(crate) fn db(&self) -> &Db {
        &self.control.0.db
    }
}

/// The interval of heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(15);
const SWEEP: Duration = Duration::from_secs(30);
