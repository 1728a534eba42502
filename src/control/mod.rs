//! What a back end may ask of imks: one table of operations ([`operations`]), served over gRPC ([`grpc`]) and over
//! HTTP ([`api`]), with API keys or certificates. docs/server-api.md describes it.

pub mod api;
mod broadcast;
mod caller;
pub mod directory;
mod ephemeral;
mod gate;
mod grpc;
mod holds;
pub mod incoming;
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
mod stream;
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

use crate::ImksResult;
use crate::clock;
use crate::directory::Directory;
use crate::messaging::backend::Backend;
use crate::models::feed::Feed;
use crate::models::{Db, control_request};
use crate::rate_limit::Rate;
pub use caller::{Caller, Scopes};
use directory::DirectoryApi;
pub use gate::Gate;
pub use grpc::ControlService;
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
    gate: Gate,
    db: Db,
    backend: Backend,
    /// The embedded directory; `None` if an external core is in charge.
    directory: Option<Directory>,
    feed: Feed,
    incoming: incoming::Limits,
    watchers: Watchers,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// One call that is being handled.
#[derive(Debug, Clone)]
pub struct Ctx {
    control: Control,
    caller: Caller,
}

impl Control {
    /// Creates the calls of those whom the `gate` lets in. Request ids are in the database of the `feed`. Streams are
    /// in `tasks`, and end at `stop`.
    pub fn new(
        gate: Gate,
        backend: Backend,
        directory: Option<&Directory>,
        feed: &Feed,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            gate,
            db: feed.db().clone(),
            backend,
            directory: directory.cloned(),
            feed: feed.clone(),
            incoming: incoming::Limits::default(),
            watchers: Watchers::default(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        }))
    }

    /// Returns the gate.
    pub fn gate(&self) -> &Gate {
        &self.0.gate
    }

    /// Returns the calls about the directory.
    pub fn directory_api(&self) -> DirectoryApi {
        DirectoryApi::new(self.0.gate.clone(), self.0.directory.clone()).with_backend(&self.0.backend)
    }

    /// Forgets old request ids and idle rate limits until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.0.incoming.sweep(Instant::now());
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
        formatter.debug_struct("Control").field("gate", &self.0.gate).finish_non_exhaustive()
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
    /// [`Auth`](crate::ImksError::Auth) if the key of the caller was revoked or has expired;
    /// [`Database`](crate::ImksError::Database).
    pub(crate) async fn still_allowed(&self) -> ImksResult<()> {
        self.control.0.gate.still_allows(&self.caller).await
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
