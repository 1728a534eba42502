//! The core of a standalone server: users, channels, members and their roles, signing keys and revocations, on the
//! server's own database. It implements the core's gRPC contract and is reached through nothing else, so that
//! a standalone server and one with an external core take the same path.
//!
//! Several processes may work on one database: a server, and the command line beside it. Every change leaves
//! a row in `directory_change`, which the watch streams read; a change made elsewhere is seen within
//! [`Config::poll`].

mod change;
mod channel;
mod member;
mod seed;
mod service;
mod signing;
mod status;
mod token_service;
mod user;
mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::{Notify, mpsc, watch as signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::Router;
use tonic::transport::{Channel as GrpcChannel, Endpoint, Server, Uri};

pub use channel::{Channel, NewChannel};
pub use member::{Member, RoleName};
pub use seed::{Count, Imported, Seed};
pub use user::User;

use crate::error::{Cause, ImksError, ImksResult};
use crate::models::db::Db;
use crate::pb::v1;

/// How the directory issues tokens and notices changes.
#[derive(Debug, Clone)]
pub struct Config {
    /// `iss` of its tokens.
    pub issuer: String,
    /// `aud` of its tokens.
    pub audience: String,
    /// How often it looks for changes that other processes made.
    pub poll: Duration,
    /// How long changes are kept for streams that were interrupted.
    pub change_horizon: Duration,
    /// How long the signatures of a key are good after it was replaced.
    pub key_overlap: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            issuer: "imks".into(),
            audience: "imks".into(),
            poll: Duration::from_millis(250),
            change_horizon: Duration::from_secs(24 * 3600),
            key_overlap: Duration::from_secs(31 * 24 * 3600),
        }
    }
}

/// The embedded directory. Cheap to clone.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    db: Db,
    config: Config,
    /// Number of the last change, as far as it was noticed.
    head: signal::Sender<i64>,
    /// A change was made in this process.
    changed: Arc<Notify>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Directory {
    /// Opens a directory on `db`, which has to be migrated. Makes the first signing key where there is none.
    ///
    /// # Errors
    /// `Database`.
    pub async fn open(db: Db, config: Config) -> ImksResult<Self> {
        let directory = Self(Arc::new(Inner {
            db,
            config,
            head: signal::Sender::new(0),
            changed: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }));
        directory.active_key().await?;
        directory.follow_changes().await?;
        Ok(directory)
    }

    /// Returns a gRPC channel to this directory inside the process. The services live as long as the channel.
    pub fn channel(&self) -> GrpcChannel {
        let (dial, accept) = mpsc::channel::<DuplexStream>(PIPES_WAITING);
        let incoming = futures_util::stream::unfold(accept, |mut accept| async {
            accept.recv().await.map(|pipe| (Ok::<_, std::io::Error>(pipe), accept))
        });
        let router = self.router();
        let stop = self.0.stop.clone();
        self.0.tasks.spawn(async move {
            if let Err(error) =
                Box::pin(router.serve_with_incoming_shutdown(incoming, stop.cancelled())).await
            {
                tracing::error!(%error, "the embedded directory stopped");
            }
        });
        let connector = tower::service_fn(move |_: Uri| {
            let dial = dial.clone();
            async move {
                let (client, server) = tokio::io::duplex(PIPE_BYTES);
                dial.send(server).await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(client))
            }
        });
        // The name is for error messages only: nothing is resolved.
        Endpoint::from_static("http://directory").connect_with_connector_lazy(connector)
    }

    /// Serves the core's contract on `listener` until `shutdown` ends. There is no authentication: whoever
    /// reaches the port reads the directory.
    ///
    /// # Errors
    /// `GrpcTransport` when the listener fails.
    pub async fn serve_on(
        &self,
        listener: tokio::net::TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> ImksResult<()> {
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        let stop = self.0.stop.clone();
        let ended = async move {
            shutdown.await;
            // Watch streams have no end of their own.
            stop.cancel();
        };
        Box::pin(self.router().serve_with_incoming_shutdown(incoming, ended)).await?;
        Ok(())
    }

    /// Ends the streams and everything that was started here, and waits for it.
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn router(&self) -> Router {
        Server::builder()
            .timeout(REQUEST_TIMEOUT)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .max_concurrent_streams(STREAMS_MAX)
            .add_service(v1::token_service_server::TokenServiceServer::new(self.clone()))
            .add_service(v1::channel_service_server::ChannelServiceServer::new(self.clone()))
            .add_service(v1::member_service_server::MemberServiceServer::new(self.clone()))
            .add_service(v1::permission_service_server::PermissionServiceServer::new(self.clone()))
    }

    /// Runs a write to its end, whatever becomes of the caller: a transaction that is dropped half way would
    /// hand on a poisoned connection.
    async fn settled<T: Send + 'static>(
        &self,
        write: impl Future<Output = ImksResult<T>> + Send + 'static,
    ) -> ImksResult<T> {
        let changed = self.0.changed.clone();
        let task = self.0.tasks.spawn(async move {
            let outcome = write.await;
            changed.notify_one();
            outcome
        });
        task.await.map_err(|error| ImksError::Task(Cause::new(error)))?
    }

    fn db(&self) -> &Db {
        &self.0.db
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("db", &self.0.db.name()).finish_non_exhaustive()
    }
}

/// Connections to the embedded services that wait to be accepted. More wait in the caller.
const PIPES_WAITING: usize = 16;
const PIPE_BYTES: usize = 64 << 10;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Calls at once on one connection.
const STREAMS_MAX: u32 = 1_024;
