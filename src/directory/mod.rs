//! The embedded core of a standalone server: users, channels, members and their roles, signing keys and
//! revocations, stored in the server's own database.
//!
//! It implements the core's gRPC contract, and the server reaches it only through this contract, so that a
//! standalone server and one with an external core use the same code.
//!
//! Several processes may use one database, for example a server and the command line. Every change adds a row
//! to `directory_change`, which the watch streams read. A change by another process is noticed within
//! [`Config::poll`].

mod ban;
mod change;
mod channel;
mod direct;
mod effective;
mod emoji;
mod follow;
mod login;
mod member;
mod overrides;
mod permission;
mod place;
mod role;
mod seed;
mod service;
mod session;
mod shown;
mod signing;
mod status;
mod token_service;
mod traced;
mod user;
mod visitor;
mod watch;
mod webhook;
mod workspace;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::sync::{Notify, mpsc, watch as signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::{Connected, Router};
use tonic::transport::{Channel as GrpcChannel, Endpoint, Server, Uri};
use tonic_health::ServingStatus;

pub use ban::Ban;
pub use channel::{Channel, ChannelChange, NewChannel, RoomKind};
pub use emoji::CustomEmoji;
pub use member::{HeldRole, Member, NotifyLevel, WorkspaceMember};
pub use overrides::{ChannelOverride, Subject};
pub use permission::{permission_bits, permission_names};
pub use role::{Role, RoleChange, RoleName};
pub use seed::{Count, Imported, Seed};
pub use session::{SessionInfo, Tokens};
pub use shown::kind_name;
pub use signing::SigningKeyInfo;
pub use user::User;
pub use webhook::{NewWebhook, Webhook};
pub use workspace::{FIRST_WORKSPACE, Workspace};

use crate::error::{Cause, ImksError, ImksResult};
use crate::models::db::{Db, on};
use crate::pb::v1;
use crate::telemetry::trace::Tracer;
use traced::Traced;

/// The settings of the directory.
#[derive(Debug, Clone)]
pub struct Config {
    /// The `iss` of issued tokens.
    pub issuer: String,
    /// The `aud` of issued tokens.
    pub audience: String,
    /// The interval between two checks for changes by other processes.
    pub poll: Duration,
    /// How long changes are kept for interrupted streams.
    pub change_horizon: Duration,
    /// How long the signatures of a key remain valid after the key is replaced.
    pub key_overlap: Duration,
    /// The age at which the signing key is replaced; zero for never.
    pub key_age: Duration,
    /// Whether servers accept the tokens of this directory. Where the operator's own application issues tokens, they
    /// accept no other, and no session begins here.
    pub issues_tokens: bool,
    /// How long an access token of a session is valid.
    pub access_ttl: Duration,
    /// How long a session lasts.
    pub refresh_ttl: Duration,
    /// The age at which a connection to a core on a port takes no further calls, so that clients that balance find new
    /// nodes, and read new certificates. Streams go on.
    pub connection_age: Duration,
    /// A PEM file with the certificates that may vouch for callers of a core on a port; without it, everybody
    /// who reaches the port may call.
    pub client_ca: Option<PathBuf>,
    /// Records the calls over a port whose callers record them.
    pub tracer: Option<Tracer>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            issuer: "imks".into(),
            audience: "imks".into(),
            poll: Duration::from_millis(250),
            change_horizon: Duration::from_secs(24 * 3600),
            key_overlap: Duration::from_secs(31 * 24 * 3600),
            key_age: Duration::from_secs(90 * 24 * 3600),
            issues_tokens: true,
            access_ttl: Duration::from_secs(15 * 60),
            refresh_ttl: Duration::from_secs(30 * 24 * 3600),
            connection_age: Duration::from_secs(30 * 60),
            client_ca: None,
            tracer: None,
        }
    }
}

/// The embedded directory. Cheap to clone.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    db: Db,
    config: Config,
    /// The number of the last change that was noticed.
    head: signal::Sender<i64>,
    /// Notified after a change in this process.
    changed: Arc<Notify>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Directory {
    /// Opens a directory on `db`, which must be migrated. Creates the first signing key if there is none.
    ///
    /// # Errors
    /// `Database`.
    pub async fn open(db: Db, config: Config) -> ImksResult<Self> {
        let directory = Self::view(db, config);
        directory.active_key().await?;
        directory.follow_changes().await?;
        Ok(directory)
    }

    /// Opens a directory on `db` to read from it. Nothing is written, and changes are not followed.
    pub fn view(db: Db, config: Config) -> Self {
        Self(Arc::new(Inner {
            db,
            config,
            head: signal::Sender::new(0),
            changed: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Whether the database has the tables of this version of the directory.
    ///
    /// # Errors
    /// `Database` if it does not answer.
    pub async fn is_there(&self) -> ImksResult<bool> {
        let outcome = on!(read self.db(), pool => sqlx::query(NEWEST_TABLE).fetch_all(pool).await.map(drop));
        match outcome {
            Ok(()) => Ok(true),
            Err(sqlx::Error::Database(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns an in-process gRPC channel to this directory. The services live as long as the channel.
    pub fn channel(&self) -> GrpcChannel {
        let (dial, accept) = mpsc::channel::<DuplexStream>(PIPES_WAITING);
        let incoming = futures_util::stream::unfold(accept, |mut accept| async {
            accept.recv().await.map(|pipe| (Ok::<_, std::io::Error>(pipe), accept))
        });
        // Only a server in this process may make users.
        let logins = v1::login_service_server::LoginServiceServer::new(self.clone());
        let router = self.router(Server::builder()).add_service(logins);
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
        // The name only appears in error messages; it is not resolved.
        Endpoint::from_static("http://directory").connect_with_connector_lazy(connector)
    }

    /// Serves the core's contract in plain text on `listener` until `shutdown` completes. There is no
    /// authentication: anyone who can reach the port can read the directory.
    ///
    /// # Errors
    /// `GrpcTransport` if the listener fails.
    pub async fn serve_on(
        &self,
        listener: tokio::net::TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> ImksResult<()> {
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        self.serve(incoming, shutdown).await
    }

    /// Serves the core's contract and `grpc.health.v1` on the connections of `incoming` until `shutdown`
    /// completes.
    ///
    /// # Errors
    /// `GrpcTransport` if `incoming` fails.
    pub async fn serve<S>(
        &self,
        incoming: impl Stream<Item = std::io::Result<S>>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> ImksResult<()>
    where
        S: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let (health, health_service) = tonic_health::server::health_reporter();
        let stop = self.0.stop.clone();
        let ended = async move {
            shutdown.await;
            health.set_service_status("", ServingStatus::NotServing).await;
            // Watch streams do not end by themselves.
            stop.cancel();
        };
        let traced = Server::builder().layer(Traced(self.0.config.tracer.clone()));
        let router = self.router(traced).add_service(health_service);
        Box::pin(router.serve_with_incoming_shutdown(incoming, ended)).await?;
        Ok(())
    }

    /// Ends the streams and all other tasks of the directory, and waits for them.
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn router<L: Clone>(&self, server: Server<L>) -> Router<L> {
        server
            .timeout(REQUEST_TIMEOUT)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .max_concurrent_streams(STREAMS_MAX)
            .max_connection_age(self.0.config.connection_age)
            .add_service(v1::token_service_server::TokenServiceServer::new(self.clone()))
            .add_service(v1::channel_service_server::ChannelServiceServer::new(self.clone()))
            .add_service(v1::member_service_server::MemberServiceServer::new(self.clone()))
            .add_service(v1::permission_service_server::PermissionServiceServer::new(self.clone()))
            .add_service(v1::webhook_service_server::WebhookServiceServer::new(self.clone()))
            .add_service(v1::emoji_service_server::EmojiServiceServer::new(self.clone()))
    }

    /// Runs a write to completion even if the caller is dropped, because a transaction that is dropped half
    /// way would return a poisoned connection to the pool.
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

/// Fails in a database that lacks the newest migration of the directory.
const NEWEST_TABLE: &str = "SELECT 1 FROM directory_emoji LIMIT 1";
/// The number of connections to the embedded services that may wait to be accepted. Further callers wait.
const PIPES_WAITING: usize = 16;
const PIPE_BYTES: usize = 64 << 10;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// The number of concurrent calls on one connection.
const STREAMS_MAX: u32 = 1_024;
