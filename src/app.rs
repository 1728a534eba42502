//! Builds every part once, owns their tasks, and takes them down in order.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Drain};
use crate::http::{self, health::Health};
use crate::models::db::Db;
use crate::telemetry::exposition::Exposition;
use crate::{ImksError, ImksResult};

/// A running server.
pub struct App {
    config: Config,
    addr: SocketAddr,
    health: Arc<Health>,
    metrics: Arc<Exposition>,
    db: Db,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl App {
    /// Starts everything that `config` asks for. When this returns, clients can connect.
    pub async fn start(config: Config) -> ImksResult<Self> {
        config.validate()?;
        let db = Db::connect(&config.database).await?;
        db.migrate().await?;
        let metrics = Arc::new(Exposition::new()?);
        let health = Arc::new(health(&db));
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(ImksError::io(format!("listening on {}", config.listen)))?;
        let addr = listener.local_addr().map_err(ImksError::io("reading the listening address"))?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let router = http::router(health.clone(), metrics.clone());
        tasks.spawn(http::plain::serve(listener, router, tasks.clone(), stop.clone()));
        Ok(Self { config, addr, health, metrics, db, tasks, stop })
    }

    /// Where the server listens; the real port when port 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What was chosen, and the next steps, in a few lines for a person.
    pub fn greeting(&self) -> String {
        let core = self.config.core_url.as_deref().unwrap_or("embedded directory");
        let mut text = format!(
            "imks {version} is ready.\n\
             \x20 listening  http://{addr}  (Socket.IO at /socket.io/, polling and WebSocket)\n\
             \x20 database   {database}\n\
             \x20 core       {core}\n\
             \x20 adapter    local (one node)\n",
            version = env!("CARGO_PKG_VERSION"),
            addr = self.addr,
            database = self.db.describe(),
        );
        if self.config.core_url.is_none() {
            text.push_str("  token      imks token alice   (creates the user, a member of #general)\n");
        }
        text.push_str(&format!(
            "  connect    io(\"http://{}\", {{ auth: {{ token }} }})   with socket.io-client\n  health     curl http://{}/health",
            self.addr, self.addr
        ));
        if self.config.is_reachable_from_outside() {
            text.push_str(
                "\nWarning: this is plain HTTP on an address that other machines can reach. Put a proxy with TLS in front.",
            );
        }
        text
    }

    /// Goes away politely: not ready, no new sessions, everything acknowledged is on disk, sessions
    /// closed without a Socket.IO DISCONNECT, so that clients come back by themselves.
    pub async fn drain(self, drain: Drain) -> ImksResult<()> {
        self.health.start_draining();
        tokio::time::sleep(drain.delay).await;
        self.stop.cancel();
        self.tasks.close();
        let outcome = tokio::time::timeout(drain.deadline, self.tasks.wait()).await;
        self.db.close().await;
        self.metrics.shutdown();
        outcome.map_err(|_| ImksError::Timeout("the drain deadline passed before everything was closed"))
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("addr", &self.addr).finish_non_exhaustive()
    }
}

fn health(db: &Db) -> Health {
    let probe = db.clone();
    Health::new().probe(db.name(), move || {
        let db = probe.clone();
        async move { db.ping().await.map(drop) }
    })
}
