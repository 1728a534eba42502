//! Builds every part once, owns their tasks, and takes them down in order.

#[cfg(test)]
mod document;
mod front;
mod instruments;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use serde::Serialize;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Authenticator, CoreClient, Permissions};
use crate::clock::random_up_to;
use crate::config::{Config, Drain, Setting};
use crate::directory::Directory;
use crate::engine::Engine;
use crate::http::tls::Certificates;
use crate::http::{self, Audience, admin_ui, health::Health, listener};
use crate::messaging::api::Api;
use crate::messaging::{self, Messaging, Parts};
use crate::models::Db;
use crate::models::append::Appender;
use crate::node::NodeId;
use crate::secret::Secret;
use crate::socket::adapter::Adapter;
use crate::socket::adapter::local::LocalAdapter;
use crate::socket::{Namespace, Server};
use crate::telemetry::otlp::Exporter;
use crate::{ImksError, ImksResult, engine};
use front::{Front, Served};
pub(crate) use instruments::INSTRUMENTS;

/// A running server.
pub struct App {
    config: Config,
    front: Served,
    /// Pushes metrics, where a collector is configured.
    exporter: Option<Exporter>,
    internal_addr: Option<SocketAddr>,
    health: Arc<Health>,
    db: Db,
    directory: Option<Directory>,
    appender: Appender,
    /// They tell what was committed; over when all of it is told.
    dispatchers: TaskTracker,
    engine: Engine,
    server: Server,
    namespace: Namespace,
    /// The accept loops of HTTP and of Socket.IO, and the jobs.
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl App {
    /// Starts everything that `config` asks for. When this returns, clients can connect.
    ///
    /// # Errors
    /// [`ImksError::Config`] for what cannot work, [`ImksError::Io`] when the address is taken, database errors.
    pub async fn start(config: Config) -> ImksResult<Self> {
        Box::pin(Self::start_parts(config)).await
    }

    async fn start_parts(mut config: Config) -> ImksResult<Self> {
        config.validate()?;
        config.messaging.max_payload = config.engine.max_payload;
        // First of all: a second server on the same address should not touch the database.
        let front = Front::bind(&mut config)?;
        let exporter = Exporter::start(&config.otlp, INSTRUMENTS)?;
        let db = Db::connect(&config.database).await?;
        db.migrate().await?;
        let (core, directory) = core(&config, &db).await?;
        let (appender, commits) = Appender::start(db.clone(), config.append.clone());
        let parts = Parts {
            db: db.clone(),
            appender: appender.clone(),
            authenticator: Authenticator::start(core.clone(), config.token.clone()).await?,
            permissions: Permissions::new(core.clone(), config.permissions.clone()),
            core: core.clone(),
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let engine = Engine::new(config.engine.clone())?;
        let (server, namespace, api) = start_messaging(&config, parts, &engine, &tasks, &stop)?;
        let dispatchers = messaging::dispatch(&namespace, commits);
        let health = Arc::new(health(&db, core, &engine));
        let router =
            public_routes(&config, &health)?.merge(http::api::routes(&api, config.engine.max_payload));
        let front = front.serve(&config, router, &engine, &tasks, &stop);
        let internal_addr = start_internal(&config, &health, &tasks, &stop)?;
        Ok(Self {
            config,
            front,
            exporter,
            internal_addr,
            health,
            db,
            directory,
            appender,
            dispatchers,
            engine,
            server,
            namespace,
            tasks,
            stop,
        })
    }

    /// Where the server listens; the real port when port 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.front.addr
    }

    /// Where WebTransport listens, over UDP.
    pub fn webtransport_addr(&self) -> Option<SocketAddr> {
        self.front.udp_addr
    }

    /// Reads the certificate again; connections go on.
    ///
    /// # Errors
    /// [`ImksError::Config`] naming what is wrong with the files; the old certificate stays in use.
    pub fn reload_certificate(&self) -> ImksResult<()> {
        self.front.certificates.as_ref().map_or(Ok(()), Certificates::reload)
    }

    /// Where operators reach `/metrics`, when they have a listener of their own.
    pub fn internal_addr(&self) -> Option<SocketAddr> {
        self.internal_addr
    }

    /// The embedded directory, unless an external core is used.
    pub fn directory(&self) -> Option<&Directory> {
        self.directory.as_ref()
    }

    /// What was chosen, and the next steps, in a few lines for a person.
    pub fn greeting(&self) -> String {
        let core = self.config.core_url.as_ref().map_or("embedded directory".into(), Secret::to_string);
        let scheme = if self.config.tls.is_on() { "https" } else { "http" };
        let url = format!("{scheme}://{}", reachable(self.front.addr));
        let mut text = format!(
            "imks {version} is ready.\n\
             \x20 listening  {scheme}://{address}  (Socket.IO at {path}/, polling and WebSocket)\n\
             \x20 database   {database}\n\
             \x20 core       {core}\n\
             \x20 adapter    local (one node)\n",
            version = env!("CARGO_PKG_VERSION"),
            address = self.front.addr,
            path = self.config.engine.path.trim_end_matches('/'),
            database = self.db.describe(),
        );
        if let Some(udp) = self.front.udp_addr {
            text.push_str(&format!("  quic       https://{udp}  (WebTransport over UDP)\n"));
        }
        if self.config.admin.enabled {
            let admin = &self.config.admin;
            let mode = admin.mode.show();
            let page = admin.ui_dir.as_ref().map(|_| format!(", page {url}/admin/")).unwrap_or_default();
            text.push_str(&format!("  admin      namespace {}, {mode} mode{page}\n", admin.namespace));
        }
        if self.directory.is_some() {
            text.push_str("  token      imks token alice   (creates the user, a member of #general)\n");
        }
        text.push_str(&format!(
            "  connect    io(\"{url}\", {{ auth: {{ token }} }})   with socket.io-client\n"
        ));
        text.push_str(&format!("  health     curl {url}/health"));
        if let Some(internal) = self.internal_addr {
            text.push_str(&format!("\n  metrics    curl http://{}/metrics", reachable(internal)));
        }
        if self.config.is_reachable_from_outside() && !self.config.tls.is_on() {
            text.push_str(PLAINTEXT_WARNING);
        }
        text
    }

    /// Goes away politely: not ready, no new sessions, everything acknowledged is on disk, sessions
    /// closed without a Socket.IO DISCONNECT, so that clients come back by themselves.
    ///
    /// # Errors
    /// [`ImksError::Timeout`] when the deadline passed before everything was closed; what was acknowledged is
    /// stored even then.
    pub async fn drain(self, drain: Drain) -> ImksResult<()> {
        self.health.start_draining();
        tokio::time::sleep(drain.delay).await;
        let deadline = Instant::now() + drain.deadline;
        let closed = timeout_at(deadline, Box::pin(self.close_sessions(deadline))).await;
        self.stop.cancel();
        self.tasks.close();
        let ended = timeout_at(deadline.max(Instant::now() + LAST_GRACE), self.tasks.wait()).await;
        if let Some(directory) = &self.directory {
            directory.close().await;
        }
        self.db.close().await;
        if let Some(exporter) = &self.exporter {
            exporter.shutdown().await;
        }
        closed
            .and(ended)
            .map_err(|_| ImksError::Timeout("the drain deadline passed before everything was closed"))
    }

    async fn close_sessions(&self, deadline: Instant) {
        self.engine.close();
        self.appender.drain().await;
        self.dispatchers.wait().await;
        // The senders' tasks still have to put their acks into the outboxes.
        tokio::time::sleep(ACKS_GRACE).await;
        let sockets = self.namespace.sockets();
        let pause = pause_between(sockets.len(), deadline.saturating_duration_since(Instant::now()));
        tracing::info!(sessions = sockets.len(), "messages are flushed, closing sessions");
        for (index, socket) in sockets.iter().enumerate() {
            let notice = Shutdown { reason: "restart", reconnect_after_ms: reconnect_after_ms() };
            if socket.emit("server:shutdown", &notice).is_ok() {
                socket.close_connection();
            }
            if index % SLICE == SLICE - 1 {
                tokio::time::sleep(pause).await;
            }
        }
        // Those that joined nothing go too. A polling client that does not come for its goodbye is not waited for.
        if timeout(FAREWELL, self.server.close()).await.is_err() {
            tracing::info!(sessions = self.engine.sessions(), "closed without a goodbye: they did not poll");
        }
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("addr", &self.front.addr).finish_non_exhaustive()
    }
}

/// The external core, or the embedded directory: both are asked over gRPC.
async fn core(config: &Config, db: &Db) -> ImksResult<(CoreClient, Option<Directory>)> {
    if let Some(url) = &config.core_url {
        return Ok((CoreClient::connect(url.expose(), config.core.clone())?, None));
    }
    let directory = Directory::open(db.clone(), config.directory()).await?;
    Ok((CoreClient::from_channel(directory.channel(), config.core.clone()), Some(directory)))
}

/// Where a program on this machine finds what listens on `address`: all addresses are none to connect to.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// What is beside Socket.IO on the public listener.
fn public_routes(config: &Config, health: &Arc<Health>) -> ImksResult<Router> {
    let audience = if config.internal_listen.is_some() { Audience::Clients } else { Audience::All };
    let router = http::router(audience, health.clone(), INSTRUMENTS);
    match config.admin.ui_dir.as_deref().filter(|_| config.admin.enabled) {
        Some(directory) => Ok(router.merge(admin_ui::routes(directory)?)),
        None => Ok(router),
    }
}

/// The listener of operators, if there is one.
fn start_internal(
    config: &Config,
    health: &Arc<Health>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> ImksResult<Option<SocketAddr>> {
    let Some(address) = config.internal_listen else { return Ok(None) };
    let socket = listener::bind(address)?;
    let addr = socket.local_addr().map_err(ImksError::io("reading the internal address"))?;
    let router = http::router(Audience::Operators, health.clone(), INSTRUMENTS);
    let routes = listener::router_only(router, &config.http);
    // Operators and their tools are on a private network: no TLS.
    let limits = listener::Config { tls: None, ..config.http.clone() };
    tasks.spawn(listener::serve(socket, limits, routes, tasks.clone(), stop.clone()));
    Ok(Some(addr))
}

fn start_messaging(
    config: &Config,
    parts: Parts,
    engine: &Engine,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> ImksResult<(Server, Namespace, Api)> {
    let messaging = Messaging::new(config.messaging.clone(), parts);
    let mut jobs = None;
    let mut server = Server::builder(config.socket.clone())
        .adapter(connect_bus())
        .node(NodeId::random()?)
        .namespace("/", |builder| jobs = Some(messaging::register(builder, &messaging)));
    if let Some(admin) = config.admin.instrumentation() {
        server = server.instrument(admin);
    }
    let server = server.build()?;
    let namespace = server.namespace("/").cloned().ok_or(ImksError::Internal("namespace / is missing"))?;
    let jobs = jobs.ok_or(ImksError::Internal("the features of / were not registered"))?;
    let api = jobs.start(&namespace, tasks, stop);
    let (served, engine, stop) = (server.clone(), engine.clone(), stop.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = served.serve(engine) => {}
            () = stop.cancelled() => {}
        }
    });
    Ok((server, namespace, api))
}

/// The pipe to the other nodes of the cluster: one arm for each adapter.
fn connect_bus() -> Arc<dyn Adapter> {
    Arc::new(LocalAdapter)
}

fn health(db: &Db, core: CoreClient, engine: &Engine) -> Health {
    let (db_probe, engine) = (db.clone(), engine.clone());
    Health::new()
        .needs(db.name(), move || {
            let db = db_probe.clone();
            async move { db.ping().await.map(drop) }
        })
        .uses("appks_grpc", move || {
            let core = core.clone();
            async move { core.signing_keys("").await.map(drop) }
        })
        .connections(move || (engine.sessions() as u64, engine::metrics::SESSIONS_OPENED.total()))
}

/// Payload of `server:shutdown`.
#[derive(Debug, Serialize)]
struct Shutdown {
    reason: &'static str,
    /// Different for each client, so that they do not all come back at once.
    reconnect_after_ms: u64,
}

/// A time for each client of its own, so that they do not all come back at once.
fn reconnect_after_ms() -> u64 {
    u64::try_from(random_up_to(RECONNECT_SPREAD).as_millis()).unwrap_or(u64::MAX)
}

/// Between two slices: few sessions go at once, many take up to half of the time there is.
fn pause_between(sessions: usize, time: Duration) -> Duration {
    let slices = u32::try_from(sessions / SLICE).unwrap_or(u32::MAX);
    if slices == 0 { Duration::ZERO } else { (time / 2 / slices).min(PAUSE_MAX) }
}

const PLAINTEXT_WARNING: &str = "\nWarning: this is plain HTTP on an address that other machines can reach. \
     Set IMKS_TLS_CERT and IMKS_TLS_KEY, or put a proxy with TLS in front.";
/// Sessions that are closed without a pause between them.
const SLICE: usize = 200;
const PAUSE_MAX: Duration = Duration::from_millis(500);
const RECONNECT_SPREAD: Duration = Duration::from_secs(30);
/// How long a client may take to fetch its goodbye: longer than a poll takes to come back.
const FAREWELL: Duration = Duration::from_secs(5);
const ACKS_GRACE: Duration = Duration::from_millis(50);
/// What is left to do once the sessions are closed.
const LAST_GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_sessions_go_at_once_and_many_within_half_of_the_time() {
        let time = Duration::from_secs(30);
        assert_eq!(pause_between(SLICE - 1, time), Duration::ZERO);
        let many = 100_000;
        let total = pause_between(many, time) * u32::try_from(many / SLICE).unwrap();
        assert!(total <= time / 2 && total > time / 4, "{total:?}");
    }

    #[test]
    fn clients_are_asked_to_come_back_at_different_times() {
        let times: std::collections::HashSet<u64> = (0..100).map(|_| reconnect_after_ms()).collect();
        assert!(times.len() > 50 && times.iter().all(|time| *time <= 30_000));
    }
}
