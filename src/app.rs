//! The composition of the server: creates every part once, owns their tasks, and shuts them down in order.

pub mod authenticators;
mod backlogs;
mod bus;
#[cfg(test)]
mod chart;
#[cfg(test)]
mod document;
mod drain;
mod first_page;
mod greeting;
mod instruments;
mod internal;
#[cfg(test)]
mod monitoring;
mod notify;
mod reload;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::application::Application;
use crate::auth::{CoreClient, Permissions, TokenVerifier};
use crate::background;
use crate::config::Config;
use crate::contract::Documents;
use crate::control::{Control, Gate, directory, incoming};
use crate::directory::Directory;
use crate::engine::{self, Engine};
use crate::files::Files;
use crate::http::forward::{self, Forwarder};
use crate::http::front::{self, Front, Served};
use crate::http::health::Health;
use crate::http::tls::Certificates;
use crate::http::{self, Audience, admin_ui};
use crate::messaging::api::{Api, Route};
use crate::messaging::backend::Backend;
use crate::messaging::{self, Messaging, Parts, Relay, Remembered};
use crate::models::Db;
use crate::models::append::Appender;
use crate::models::db::Claim;
use crate::models::feed::Feed;
use crate::node::NodeId;
use crate::page_fetcher::PageFetcher;
use crate::socket::adapter::Adapter;
use crate::socket::{Namespace, Server};
use crate::telemetry::otlp::{self, Exporter};
use crate::telemetry::trace::Tracer;
use crate::{ImksError, ImksResult, webhook};
use backlogs::Backlogs;
pub(crate) use bus::connect_bus;
use bus::{Neighbours, Reach};
pub(crate) use greeting::{reachable, where_data_is};
pub(crate) use instruments::INSTRUMENTS;
pub(crate) use internal::start_core;
pub(crate) use notify::ServiceManager;
pub(crate) use reload::Changes;

/// A running server.
pub struct App {
    config: Config,
    front: Served,
    /// The exporter of metrics and traces, if a collector is configured.
    exporter: Option<Exporter>,
    internal_addr: Option<SocketAddr>,
    health: Arc<Health>,
    db: Db,
    /// Held as long as the database is used.
    _claim: Claim,
    directory: Option<Directory>,
    appender: Appender,
    /// The tasks that broadcast commits; they end when every commit has been broadcast.
    dispatchers: TaskTracker,
    engine: Engine,
    server: Server,
    namespace: Namespace,
    messaging: Messaging,
    gate: Gate,
    api: Api,
    /// The accept loops of HTTP and of Socket.IO, and the background jobs.
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl App {
    /// Starts all parts that `config` enables. Clients can connect when it returns.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the configuration cannot work, [`ImksError::Io`] if the address is in use, or
    /// errors of the database.
    pub async fn start(mut config: Config) -> ImksResult<Self> {
        config.validate()?;
        let node = NodeId::random()?;
        derive(&mut config, node);
        Box::pin(Self::start_parts(config, node)).await
    }

    async fn start_parts(mut config: Config, node: NodeId) -> ImksResult<Self> {
        // The listeners come first, so that a second server on the same address does not touch the database.
        let front = bind(&mut config)?;
        let (db, claim) = open_database(&config).await?;
        let (core, directory) = core(&config, &db).await?;
        let (appender, commits) = Appender::start(db.clone(), config.append.clone());
        let bus = connect_bus(&config, &db, node).await?;
        let (exporter, tracer) = start_exporter(&config.otlp, node)?;
        let relay = Relay::new(bus.clone(), node, db.clone(), tracer.clone());
        let files = Files::open(&config.attachments, &config.database.data_dir)?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (engine, forwarder) = engine(&config, node, &*bus, &tasks, &stop)?;
        let parts = Parts { tracer, ..parts(&config, &db, &appender, &core, &files, relay.as_ref()).await? };
        let messaging = Messaging::new(config.messaging.clone(), parts)?;
        let background = (&tasks, &stop);
        let (server, namespace, api) =
            start_messaging(&config, &messaging, bus.clone(), &engine, background)?;
        remember(&messaging, &namespace, &tasks, &stop).await?;
        let feed = start_feed(&config, &db, &appender, (node, messaging.tracer()), &tasks, &stop)?;
        let dispatchers = messaging::dispatch(&messaging, &namespace, commits, &feed);
        let reach = forwarder.as_ref().map(|forwarder| Reach::new(&config, forwarder, front.served()));
        let neighbours = watch_nodes(&config, &db, node, bus.clone(), reach, (&tasks, &stop)).await?;
        let health = health((&db, &appender), core, bus, neighbours, &engine);
        let health = Arc::new(Backlogs::watch(health, &config, &feed, &tasks, &stop));
        let (backend, gate) = (Backend::new(&messaging, &namespace), Gate::new(&config.control, &db));
        let control = Control::new(gate.clone(), backend, directory.as_ref(), &feed, &tasks, &stop);
        let router = public_routes(&config, &health, &api, &control, (&engine, &files), directory.as_ref())?;
        let internal_addr = internal::start(&config, &health, &control, &tasks, &stop)?;
        let front = front.serve(router.merge(node_routes(forwarder, &engine)), &engine, &tasks, &stop);
        Ok(Self {
            config,
            front,
            exporter,
            internal_addr,
            health,
            db,
            _claim: claim,
            directory,
            appender,
            dispatchers,
            engine,
            server,
            namespace,
            messaging,
            gate,
            api,
            tasks,
            stop,
        })
    }

    /// Returns the address that the server listens on, with the actual port if port 0 was configured.
    #[cfg_attr(
        not(any(feature = "testing", feature = "tools")),
        expect(dead_code, reason = "for tools and tests")
    )]
    pub fn addr(&self) -> SocketAddr {
        self.front.addr
    }

    /// Returns the method and path of every route of the HTTP API.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "for integration tests"))]
    pub fn api_routes(&self) -> Vec<String> {
        let name = |(route, _): (Route, Namespace)| format!("{:?} {}", route.method(), route.path());
        self.api.routes().map(name).collect()
    }

    /// Returns the UDP address that WebTransport listens on.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "for integration tests"))]
    pub fn webtransport_addr(&self) -> Option<SocketAddr> {
        self.front.udp_addr
    }

    /// Returns the UDP address of QUIC without HTTP/3.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "for integration tests"))]
    pub fn quic_addr(&self) -> Option<SocketAddr> {
        self.front.quic_addr
    }

    /// Reloads the certificate without closing connections.
    ///
    /// # Errors
    /// [`ImksError::Config`] if the files cannot be used; the old certificate remains in use.
    pub fn reload_certificate(&self) -> ImksResult<()> {
        self.front.certificates.as_ref().map_or(Ok(()), Certificates::reload)
    }

    /// Returns the address of the operators' listener for `/metrics`, if there is one.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "for integration tests"))]
    pub fn internal_addr(&self) -> Option<SocketAddr> {
        self.internal_addr
    }

    /// Returns the embedded directory; `None` if an external core is used.
    #[cfg_attr(
        not(any(feature = "testing", feature = "tools")),
        expect(dead_code, reason = "for tools and tests")
    )]
    pub fn directory(&self) -> Option<&Directory> {
        self.directory.as_ref()
    }
}

impl fmt::Debug for App {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("App").field("addr", &self.front.addr).finish_non_exhaustive()
    }
}

/// Reads the certificate, binds the public addresses, and configures whether the engine offers WebTransport.
fn bind(config: &mut Config) -> ImksResult<Front> {
    config.engine.webtransport = config.serves_webtransport();
    let front = front::Config {
        http: config.http.clone(),
        tls: config.tls.clone(),
        webtransport: config.webtransport.clone(),
        quic: config.quic.clone(),
    };
    let certificates = front.certificates(Some(config.listen))?;
    Front::bind(config.listen, front, certificates, &config.engine)
}

/// Creates the engine of this node, which passes on requests for sessions of other nodes if there can be any.
fn engine(
    config: &Config,
    node: NodeId,
    bus: &dyn Adapter,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> ImksResult<(Engine, Option<Forwarder>)> {
    let forwarder = bus.reaches_others().then(|| Forwarder::new(tasks, stop)).transpose()?;
    let mut engine = engine::Config { node: Some(node), ..config.engine.clone() };
    engine.hooks.forward = forwarder.as_ref().map(Forwarder::hook);
    Ok((Engine::new(engine)?, forwarder))
}

/// Starts to watch the other nodes on the same database, and to tell them how this one is reached.
async fn watch_nodes(
    config: &Config,
    db: &Db,
    node: NodeId,
    bus: Arc<dyn Adapter>,
    reach: Option<Reach>,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) -> ImksResult<Arc<Neighbours>> {
    let neighbours = Neighbours::watch(config, db, node, bus, reach).await?;
    let watching = neighbours.clone();
    tasks.spawn(background::keep("cluster", stop.clone(), move |stop| watching.clone().run(stop)));
    Ok(neighbours)
}

/// Returns the routes for other nodes, if there can be any.
fn node_routes(forwarder: Option<Forwarder>, engine: &Engine) -> Router {
    forwarder.map_or_else(Router::new, |forwarder| forward::routes(&forwarder, engine))
}

/// Starts to export metrics and traces, if a collector is configured.
pub(crate) fn start_exporter(
    config: &otlp::Config,
    node: NodeId,
) -> ImksResult<(Option<Exporter>, Option<Tracer>)> {
    Exporter::start(config, node, INSTRUMENTS, |name, stop, work| {
        Box::pin(background::keep(name, stop, work))
    })
}

/// Opens the database for one server, and brings it to the newest schema.
async fn open_database(config: &Config) -> ImksResult<(Db, Claim)> {
    let db = Db::connect(&config.database).await?;
    let claim = db.claim().await?;
    db.migrate().await?;
    Ok((db, claim))
}

/// Sets the values of `config` that follow from others.
fn derive(config: &mut Config, node: NodeId) {
    config.append.feed = config.feed.is_on();
    config.messaging.max_payload = config.engine.max_payload;
    let poll = config.engine.ping_interval + config.engine.ping_timeout + config.engine.body_timeout;
    config.http.slow_paths =
        vec![(crate::files::local::PATH, config.attachments.transfer_timeout), (forward::PATH, poll)];
    // A little less than the socket waits, so that the refusal is that of messaging.
    config.messaging.connect_hold = config.socket.connect_timeout.mul_f64(0.9);
    config.messaging.node.get_or_insert_with(|| node.to_string());
}

/// Starts to verify the tokens of users.
async fn tokens(config: &Config, core: &CoreClient) -> ImksResult<TokenVerifier> {
    let (token, login, hook) = (config.token.clone(), config.login.clone(), config.hook.clone());
    TokenVerifier::start_with(core.clone(), token, login, hook).await
}

/// Creates the client of the external core, or opens the embedded directory. Both are called over gRPC.
async fn core(config: &Config, db: &Db) -> ImksResult<(CoreClient, Option<Directory>)> {
    if let Some(url) = &config.core_url {
        return Ok((CoreClient::connect(url.expose(), config.core.clone())?, None));
    }
    let directory = Directory::open(db.clone(), config.directory()).await?;
    Ok((CoreClient::from_channel(directory.channel(), config.core.clone()), Some(directory)))
}

/// Collects the parts of messaging, and creates those that nothing else uses.
async fn parts(
    config: &Config,
    db: &Db,
    appender: &Appender,
    core: &CoreClient,
    files: &Files,
    relay: Option<&Relay>,
) -> ImksResult<Parts> {
    let (previews, policy) = (config.messaging.link_previews, config.messaging.preview_policy);
    Ok(Parts {
        db: db.clone(),
        appender: appender.clone(),
        tokens: tokens(config, core).await?,
        permissions: Permissions::new(core.clone(), config.permissions.clone()),
        core: core.clone(),
        files: files.clone(),
        fetcher: previews.then(|| PageFetcher::new(policy)).transpose()?,
        relay: relay.cloned(),
        application: Application::start(&config.application)?,
        tracer: None,
    })
}

/// Creates the routes of the public listener that are not Socket.IO.
fn public_routes(
    config: &Config,
    health: &Arc<Health>,
    api: &Api,
    control: &Control,
    (engine, files): (&Engine, &Files),
    directory: Option<&Directory>,
) -> ImksResult<Router> {
    let audience = if config.internal_listen.is_some() { Audience::Clients } else { Audience::All };
    let mut of_users = http::api::routes(api, config.engine.max_payload);
    if let Some(local) = files.local() {
        of_users = of_users.merge(http::files::routes(local.clone()));
    }
    let mut router = http::router(audience, health.clone(), INSTRUMENTS)
        .merge(http::cors::allow(of_users, engine.cors()))
        .merge(http::documents::routes(documents(api)))
        .merge(http::incoming::routes(control));
    if config.control.listeners.include_public(config.internal_listen.is_some()) {
        router = router.merge(http::control::routes(control));
    }
    if let Some(directory) = directory.filter(|_| config.serves_first_page()) {
        router = router.merge(first_page::routes(directory, &config.engine.path, config.tls.is_on()));
    }
    match config.admin.ui_dir.as_deref().filter(|_| config.admin.enabled) {
        Some(directory) => Ok(router.merge(admin_ui::routes(directory)?)),
        None => Ok(router),
    }
}

/// Describes what this server answers on its public listener.
fn documents(api: &Api) -> Documents {
    let mut contract = api.contract().clone();
    Control::describe(&mut contract);
    directory::describe(&mut contract);
    incoming::describe(&mut contract);
    Documents::new(contract)
}

/// Reads what back ends have told, and starts to follow it.
async fn remember(
    messaging: &Messaging,
    namespace: &Namespace,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> ImksResult<()> {
    let remembered = Remembered::read(messaging, namespace).await?;
    tasks.spawn(background::essential("remembered", remembered.run(stop.clone())));
    Ok(())
}

/// Starts what leaves and enters through the database: the feed with its webhooks, and the outbox.
fn start_feed(
    config: &Config,
    db: &Db,
    appender: &Appender,
    (node, tracer): (NodeId, Option<&Tracer>),
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> ImksResult<Feed> {
    let feed = Feed::new(db.clone(), config.feed.clone());
    let looking = feed.clone();
    tasks.spawn(background::keep("feed", stop.clone(), move |stop| looking.clone().run(stop)));
    webhook::start(&config.webhook, &feed, (node, tracer), tasks, stop)?;
    let (db, appender) = (db.clone(), appender.clone());
    let sending = move |stop| messaging::outbox::run(db.clone(), appender.clone(), node, stop);
    tasks.spawn(background::keep("outbox", stop.clone(), sending));
    Ok(feed)
}

fn start_messaging(
    config: &Config,
    messaging: &Messaging,
    bus: Arc<dyn Adapter>,
    engine: &Engine,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) -> ImksResult<(Server, Namespace, Api)> {
    let mut jobs = None;
    let mut server = Server::builder(config.socket.clone())
        .adapter(bus)
        .node(engine.node())
        .namespace("/", |builder| jobs = Some(messaging::register(builder, messaging)));
    if let Some(admin) = config.admin.instrumentation() {
        server = server.instrument(admin);
    }
    let server = server.build()?;
    let namespace = server.namespace("/").cloned().ok_or(ImksError::Internal("namespace / is missing"))?;
    let jobs = jobs.ok_or(ImksError::Internal("the features of / were not registered"))?;
    let api = jobs.start(&namespace, tasks, stop);
    let (served, engine) = (server.clone(), engine.clone());
    let serving = stop.clone().run_until_cancelled_owned(async move { served.serve(engine).await });
    tasks.spawn(background::essential("sessions", serving));
    Ok((server, namespace, api))
}

fn health(
    (db, appender): (&Db, &Appender),
    core: CoreClient,
    bus: Arc<dyn Adapter>,
    neighbours: Arc<Neighbours>,
    engine: &Engine,
) -> Health {
    let (store, engine) = ((db.clone(), appender.clone()), engine.clone());
    let health = match bus.name() {
        _ if !bus.reaches_others() => Health::new(),
        // The database itself has this name.
        "postgres" => Health::new().reports("bus", move || ping(bus.clone())),
        name => Health::new().reports(name, move || ping(bus.clone())),
    };
    health
        .needs(db.name(), move || {
            let (db, appender) = store.clone();
            async move {
                db.ping().await?;
                appender.writes().check(&db).await
            }
        })
        .uses("appks_grpc", move || {
            let core = core.clone();
            async move { core.signing_keys("").await.map(drop) }
        })
        .reports("cluster", move || {
            let neighbours = neighbours.clone();
            async move { neighbours.check() }
        })
        .connections(move || (engine.sessions() as u64, engine::metrics::SESSIONS_OPENED.total()))
}

async fn ping(bus: Arc<dyn Adapter>) -> ImksResult<()> {
    bus.ping().await
}
