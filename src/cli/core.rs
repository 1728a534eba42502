//! `imks core`: serves the embedded directory as a separate core: over gRPC for servers, and over HTTP for back ends.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{ServiceManager, reachable, start_core, start_exporter, where_data_is};
use crate::background;
use crate::clock;
use crate::config::Config;
use crate::control::api::PREFIX;
use crate::control::directory::DirectoryApi;
use crate::control::{Gate, Listeners};
use crate::directory::{self, Directory};
use crate::http::health::Health;
use crate::http::listener;
use crate::http::mutual_tls::MutualTls;
use crate::http::tls::{Callers, Certificates, Tls};
use crate::models::{Db, api_key};
use crate::node::NodeId;
use crate::telemetry::logging::LogFormat;
use crate::telemetry::otlp::Exporter;
use crate::{ImksError, ImksResult};

/// Returns the configuration that file, environment and flags override. Its default addresses differ from the
/// server's, so that a core and a server can run on one machine.
pub(super) fn base() -> Config {
    Config { listen: ADDRESS, internal_listen: Some(INTERNAL_ADDRESS), ..Config::default() }
}

/// Serves on the configured addresses until `shutdown` completes. SIGHUP reads the certificate again. Without a CA for
/// clients there is no authentication over gRPC, so that port must be on a private network.
///
/// # Errors
/// `Io` if an address cannot be bound; `Config` if an external core is configured, or a certificate cannot be
/// used; `Database`; `Internal` if it ended because a task has panicked that nothing replaces.
pub async fn run(config: &Config, shutdown: impl Future<Output = ()> + Send) -> ImksResult<()> {
    super::token::check_core(config)?;
    let tls = secured(config)?;
    // Before anything is said, because whoever reads it may send one.
    let hangup = signal(SignalKind::hangup()).map_err(ImksError::io("listening for signals"))?;
    // The listeners come first, so that a second core on the same address does not touch the database.
    let grpc = listener::bind(config.listen)?;
    let internal = config.internal_listen.map(bind_internal).transpose()?;
    let db = Db::connect(&config.database).await?;
    db.migrate().await?;
    let (directory, exporter) = open_directory(config, &db).await?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let certificates = tls.as_ref().map(MutualTls::certificates);
    tasks.spawn(stop.clone().run_until_cancelled_owned(reload_on(hangup, certificates)));
    let health = Arc::new(health(&db));
    let gate = Gate::new(&config.control, &db);
    let calling = gate.clone();
    tasks.spawn(background::keep("callers", stop.clone(), move |stop| calling.clone().run(stop)));
    let api = DirectoryApi::new(gate, Some(directory.clone()));
    let start = |socket| start_core(config, socket, &health, &api, &tasks, &stop);
    let internal = internal.map(start).transpose()?;
    let address = grpc.local_addr().map_err(ImksError::io("reading the listening address"))?;
    warn_of_strangers(config, address);
    announce(config, address, internal, &db).await?;
    let manager = ServiceManager::of_process();
    manager.ready();
    let ended = async {
        until_stopped(shutdown).await;
        health.start_draining();
        manager.stopping(CLOSING);
    };
    match tls {
        None => directory.serve_on(grpc, ended).await?,
        Some(secured) => {
            secured.watch(&tasks, &stop);
            directory.serve(accept(secured, grpc, &tasks, &stop), ended).await?;
        }
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    directory.close().await;
    db.close().await;
    if let Some(exporter) = exporter {
        exporter.shutdown().await;
    }
    // What started the core should start it again.
    let broken = background::broken().now_or_never();
    broken.map_or(Ok(()), |_| Err(ImksError::Internal("a task has panicked that nothing replaces")))
}

/// Waits until the core shall stop, or is broken.
async fn until_stopped(shutdown: impl Future<Output = ()> + Send) {
    tokio::select! {
        () = shutdown => {}
        task = background::broken() => tracing::error!(task, "the core ends: it cannot go on without this task"),
    }
}

/// Binds the address for back ends. An error names the setting: nobody may have chosen the address.
fn bind_internal(address: SocketAddr) -> ImksResult<TcpListener> {
    listener::bind(address).map_err(|error| match error {
        ImksError::Io { context, source } => {
            ImksError::Io { context: format!("{context} (IMKS_INTERNAL_LISTEN)"), source }
        }
        other => other,
    })
}

/// Reads the certificate again on each signal. Everything else of a core counts after a restart.
async fn reload_on(mut hangup: Signal, certificates: Option<Certificates>) {
    let manager = ServiceManager::of_process();
    while hangup.recv().await.is_some() {
        manager.reloading();
        match certificates.as_ref().map(Certificates::reload) {
            None => tracing::info!("SIGHUP changes nothing: there is no certificate to read again"),
            // What is in use now is told where it is read.
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(%error, "the certificate was not exchanged, the old one stays in use");
            }
        }
        manager.ready();
    }
}

/// Opens the directory, and starts to export what a collector is to get of it.
async fn open_directory(config: &Config, db: &Db) -> ImksResult<(Directory, Option<Exporter>)> {
    let (exporter, tracer) = start_exporter(&config.otlp, NodeId::random()?)?;
    let settings = directory::Config { tracer, ..config.directory() };
    Ok((Directory::open(db.clone(), settings).await?, exporter))
}

fn health(db: &Db) -> Health {
    let probed = db.clone();
    Health::new().needs(db.name(), move || {
        let db = probed.clone();
        async move { db.ping().await.map(drop) }
    })
}

fn warn_of_strangers(config: &Config, address: SocketAddr) {
    if !address.ip().is_loopback() && config.directory.client_ca.is_none() {
        tracing::warn!(%address, "whoever reaches this port reads the directory: keep it on a private network, or set IMKS_DIRECTORY_CLIENT_CA");
    }
}

/// Says that the core is ready, to people on standard output, or to machines in the log, which is all that they read.
async fn announce(
    config: &Config,
    grpc: SocketAddr,
    internal: Option<SocketAddr>,
    db: &Db,
) -> ImksResult<()> {
    if config.log.format == LogFormat::Pretty {
        return super::say(&greeting(config, grpc, internal, db).await?);
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        address = %grpc,
        internal = internal.map(tracing::field::display),
        database = %db.describe(),
        "ready"
    );
    Ok(())
}

/// Returns what listens where, and the next steps, for people.
async fn greeting(
    config: &Config,
    grpc: SocketAddr,
    internal: Option<SocketAddr>,
    db: &Db,
) -> ImksResult<String> {
    let scheme = |is_on: bool| if is_on { "https" } else { "http" };
    let mut text =
        format!("The core is ready: IMKS_CORE_URL={}://{}", scheme(config.tls.is_on()), reachable(grpc));
    text.push_str(&format!("\n  database   {}", db.describe()));
    let Some(internal) = internal else { return Ok(text) };
    let url = format!("{}://{}", scheme(config.internal.cert.is_some()), reachable(internal));
    if config.control.listeners != Listeners::Off {
        text.push_str(&format!("\n  directory  {url}{PREFIX}/…  (HTTP with an API key, docs/directory.md)"));
        text.push_str(&key_hint(config, db).await?);
    }
    text.push_str(&format!("\n  health     curl {url}/health   (metrics: /metrics)"));
    Ok(text)
}

/// Returns the line about how to make a key; empty if somebody can call already.
async fn key_hint(config: &Config, db: &Db) -> ImksResult<String> {
    let control = &config.control;
    if control.allow_anonymous || !control.callers.is_empty() {
        return Ok(String::new());
    }
    let now = clock::now_micros();
    let is_good = |key: &api_key::ApiKey| key.expires_at.is_none_or(|at| now < at);
    if api_key::live(db).await?.iter().any(is_good) {
        return Ok(String::new());
    }
    let place = where_data_is(&config.database);
    Ok(format!("\n  key        imks key add backend --scope users,tokens{place}   (there is none yet)"))
}

/// Reads the certificates, if there are any.
pub(super) fn secured(config: &Config) -> ImksResult<Option<MutualTls>> {
    let (Some(cert), Some(key)) = (&config.tls.cert, &config.tls.key) else { return Ok(None) };
    let certificates = Certificates::open(cert.clone(), key.clone())?;
    let callers = config.directory.client_ca.clone().map_or(Callers::Anonymous, Callers::Required);
    MutualTls::open(certificates, config.tls.clone(), callers, &["h2"]).map(Some)
}

type Secure = io::Result<TlsStream<TcpStream>>;

/// Returns the connections whose handshake succeeded.
fn accept(
    mut secured: MutualTls,
    listener: TcpListener,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> impl Stream<Item = Secure> + use<> {
    let (ready, streams) = mpsc::channel::<Secure>(HANDSHAKES_QUEUE);
    let (own, stop, ended) = (tasks.clone(), stop.clone(), stop.clone());
    let limit = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let accepting = stop.run_until_cancelled_owned(async move {
        loop {
            let Ok(place) = limit.clone().acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the core was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let handshake = handshake(secured.acceptor(), stream, ready.clone(), place);
            own.spawn(ended.clone().run_until_cancelled_owned(handshake));
        }
    });
    tasks.spawn(background::essential("core", accepting));
    let streams =
        futures_util::stream::unfold(streams, |mut streams| async { Some((streams.recv().await?, streams)) });
    // The server ends by its shutdown only, which also ends the streams of its callers.
    streams.chain(futures_util::stream::pending())
}

/// Hands a connection over when its handshake succeeded. `place` is held meanwhile.
async fn handshake(tls: Tls, stream: TcpStream, ready: mpsc::Sender<Secure>, place: OwnedSemaphorePermit) {
    // Without it the core still works, only slower.
    let _ = stream.set_nodelay(true);
    if let Some(stream) = tls.accept(stream).await {
        // The receiver is gone when the core stops.
        let _ = ready.send(Ok(stream)).await;
    }
    drop(place);
}

/// What a service manager grants for the end of open calls.
const CLOSING: Duration = Duration::from_secs(15);
/// The default address of the core's internal listener.
const INTERNAL_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9001));
/// The default address of the core.
const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9000));
/// The number of connections that may be in their handshake; further ones wait to be accepted.
const HANDSHAKES_MAX: usize = 256;
/// The number of connections that may wait to be served.
const HANDSHAKES_QUEUE: usize = 64;
/// The pause after a connection that was not accepted, for example because there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
