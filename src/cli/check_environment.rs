//! The part of `imks check-config` that tries what a configuration names: addresses, directories, certificates,
//! keys, the database, the broker and the core. Nothing is changed.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use super::healthcheck;
use crate::app::connect_bus;
use crate::auth::{CoreClient, Hook, check_keys};
use crate::clock;
use crate::config::{ClusterAdapter, Config};
use crate::error::with_causes;
use crate::files::Place;
use crate::http::tls::Certificates;
use crate::http::{admin_ui, listener};
use crate::models::{Db, db};
use crate::node::NodeId;
use crate::{ImksError, ImksResult};

/// Returns what of the configuration does not work here and now, each as a sentence that names the setting.
pub(super) async fn problems(config: &Config) -> Vec<String> {
    let mut problems: Vec<String> = local(config).into_iter().filter_map(Result::err).collect();
    let remote = tokio::join!(keys(config), hook(config), core(config), database(config));
    problems.extend([remote.0, remote.1, remote.2].into_iter().filter_map(Result::err));
    problems.extend(remote.3);
    problems
}

/// Returns what of the configuration of `imks core` does not work here and now, each as a sentence that names the
/// setting.
pub(super) async fn problems_of_core(config: &Config) -> Vec<String> {
    let mut checks = listeners(config);
    checks.push(super::token::check_core(config).map_err(|error| error.to_string()));
    checks.push(super::core::secured(config).map(drop).map_err(|error| error.to_string()));
    let mut problems: Vec<String> = checks.into_iter().filter_map(Result::err).collect();
    problems.extend(database(config).await);
    problems
}

/// Returns what may keep a server from starting now, each as a sentence: an address that another program has. A running
/// imks is not told, because it may be the one that is being checked.
pub(super) async fn warnings(config: &Config, of_core: bool) -> Vec<String> {
    // A core has its internal listener only, and what asks for certificates cannot be asked.
    let public = (!of_core).then_some(("IMKS_LISTEN", config.listen, config.tls.is_on()));
    let internal = config.internal_listen.filter(|_| config.internal.client_ca.is_none());
    let internal = internal.map(|it| ("IMKS_INTERNAL_LISTEN", it, config.internal.cert.is_some()));
    let mut warnings = Vec::new();
    for (setting, address, tls) in public.into_iter().chain(internal) {
        if is_in_use(address) && !healthcheck::is_imks(address, tls).await {
            warnings.push(format!(
                "{setting}: another program than imks listens on {address}: stop it, or choose another port"
            ));
        }
    }
    warnings
}

fn is_in_use(address: SocketAddr) -> bool {
    matches!(listener::bind(address), Err(ImksError::Io { source, .. }) if source.kind() == ErrorKind::AddrInUse)
}

type Checked = Result<(), String>;

/// Tries what is on this machine.
fn local(config: &Config) -> Vec<Checked> {
    let mut checks = listeners(config);
    if config.serves_webtransport() {
        checks.push(udp("IMKS_WEBTRANSPORT_LISTEN", config.webtransport.listen.unwrap_or(config.listen)));
    }
    checks.extend(config.quic.listen.map(|address| udp("IMKS_QUIC_LISTEN", address)));
    if let (Some(cert), Some(key)) = (&config.tls.cert, &config.tls.key) {
        checks
            .push(Certificates::open(cert.clone(), key.clone()).map(drop).map_err(|error| error.to_string()));
    }
    if let Some(directory) = &config.engine.client_bundle_dir {
        checks.push(client_bundle(directory));
    }
    if let Some(directory) = &config.admin.ui_dir {
        checks.push(admin_ui::routes(directory).map(drop).map_err(named("IMKS_ADMIN_UI_DIR")));
    }
    if let (Place::Local, Some(directory)) = (config.attachments.place, &config.attachments.dir) {
        checks.push(writable("IMKS_ATTACHMENTS_DIR", directory));
    }
    checks
}

/// Tries what a server and a core have both: their two listeners, and the data directory.
fn listeners(config: &Config) -> Vec<Checked> {
    let mut checks = vec![tcp("IMKS_LISTEN", config.listen)];
    checks.extend(config.internal_listen.map(|address| tcp("IMKS_INTERNAL_LISTEN", address)));
    checks.push(config.internal.open(&config.tls).map(drop).map_err(|error| error.to_string()));
    match config.database.missing_file() {
        _ if config.database.url.is_none() => {
            checks.push(writable("IMKS_DATA_DIR", &config.database.data_dir));
        }
        Some(file) => checks.push(match file.parent() {
            Some(directory) => writable("DATABASE_URL", directory),
            None => Err("DATABASE_URL names no file".into()),
        }),
        None => {}
    }
    checks
}

fn named(setting: &'static str) -> impl Fn(ImksError) -> String {
    move |error| match with_causes(&error) {
        text if text.starts_with(setting) => text,
        text => format!("{setting}: {text}"),
    }
}

/// Binds an address for a moment. One that is in use is fine: the server that is being checked may be running.
fn tcp(setting: &'static str, address: SocketAddr) -> Checked {
    match listener::bind(address) {
        Err(ImksError::Io { source, .. }) if source.kind() != ErrorKind::AddrInUse => {
            Err(format!("{setting}: {address} cannot be listened on: {source}"))
        }
        Err(_) | Ok(_) => Ok(()),
    }
}

fn udp(setting: &str, address: SocketAddr) -> Checked {
    match UdpSocket::bind(address) {
        Err(error) if error.kind() != ErrorKind::AddrInUse => {
            Err(format!("{setting}: {address} cannot be listened on with UDP: {error}"))
        }
        Err(_) | Ok(_) => Ok(()),
    }
}

/// Makes a directory in `directory`, or in the part of its path that exists, and removes it again.
fn writable(setting: &'static str, directory: &Path) -> Checked {
    let here = Path::new(".");
    let there = directory.ancestors().map(|path| if path.as_os_str().is_empty() { here } else { path });
    let Some(existing) = there.into_iter().find(|path| path.exists()) else { return Ok(()) };
    let trial = existing.join(format!(".imks-check-{}-{}", std::process::id(), clock::now_micros()));
    let tried = std::fs::create_dir(&trial).and_then(|()| std::fs::remove_dir(&trial));
    tried.map_err(|error| format!("{setting}: {} cannot be written to: {error}", existing.display()))
}

fn client_bundle(directory: &Path) -> Checked {
    match directory.join("socket.io.js").is_file() {
        true => Ok(()),
        false => Err(format!("IMKS_CLIENT_BUNDLE_DIR: there is no socket.io.js in {}", directory.display())),
    }
}

async fn keys(config: &Config) -> Checked {
    check_keys(&config.login).await.map_err(|error| match error {
        // It names the setting itself.
        ImksError::Config(_) => error.to_string(),
        error => named("IMKS_TOKEN_JWKS_URL")(error),
    })
}

async fn hook(config: &Config) -> Checked {
    let Some(url) = &config.hook.url else { return Ok(()) };
    let hook = Hook::new(url.clone(), config.hook.clone()).map_err(|error| error.to_string())?;
    hook.check().await.map_err(named("IMKS_AUTH_URL"))
}

async fn core(config: &Config) -> Checked {
    let Some(url) = &config.core_url else { return Ok(()) };
    // Its errors name the settings themselves.
    let core = CoreClient::connect(url.expose(), config.core.clone()).map_err(|error| error.to_string())?;
    core.signing_keys("").await.map(drop).map_err(|error| match core.failure() {
        Some(why) => format!("IMKS_CORE_URL: no answer from {why}"),
        None => named("IMKS_CORE_URL")(error),
    })
}

/// Tries the database and the broker of the cluster. A file that is not made yet is not made here either.
async fn database(config: &Config) -> Vec<String> {
    let setting = if config.database.url.is_some() { "DATABASE_URL" } else { "IMKS_DATA_DIR" };
    let mut tried = config.database.clone();
    if tried.missing_file().is_some() {
        tried.url = Some("sqlite::memory:".to_owned().into());
    }
    let connected = timeout(ANSWER_MAX, ping(&tried)).await;
    let db = match connected {
        Ok(Ok(db)) => db,
        Ok(Err(error)) => return vec![named(setting)(error)],
        Err(_) => return vec![format!("{setting}: the database does not answer")],
    };
    let problems = broker(config, &db).await;
    // The program ends: a database that does not answer any more need not be waited for.
    let _ = timeout(ANSWER_MAX, db.close()).await;
    problems
}

async fn broker(config: &Config, db: &Db) -> Vec<String> {
    let setting = match config.cluster.adapter() {
        ClusterAdapter::Local => return Vec::new(),
        ClusterAdapter::Redis => "REDIS_URL",
        ClusterAdapter::Nats => "NATS_URL",
        ClusterAdapter::Postgres => "IMKS_ADAPTER",
    };
    let broker = async {
        let bus = connect_bus(config, db, NodeId::random()?).await?;
        let answered = bus.ping().await;
        bus.close().await;
        answered
    };
    match timeout(ANSWER_MAX, broker).await {
        Ok(Ok(())) => Vec::new(),
        Ok(Err(error)) => vec![named(setting)(error)],
        Err(_) => vec![format!("{setting}: the broker does not answer")],
    }
}

async fn ping(config: &db::Config) -> ImksResult<Db> {
    let db = Box::pin(Db::connect_at_once(config)).await?;
    db.ping().await?;
    db.refuse_newer_schema().await?;
    Ok(db)
}

/// How long an answer of the database or the broker may take.
const ANSWER_MAX: Duration = Duration::from_secs(8);
