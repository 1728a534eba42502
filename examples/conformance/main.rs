//! Serves the contracts that the public protocol suites, client suites and the load generator expect.
//!
//! ```text
//! cargo run --release --example conformance -- PROFILE --port N [--tls] [--webtransport]
//! ```
//!
//! Profiles: `engine-v4`, `engine-v3`, `socket-v5`, `socket-v5-msgpack`, `engine-client`, `socket-client`, `load`,
//! `short-deadlines`, `soak`, `soak-msgpack`, `cluster`, `cluster-recovery`.

mod cluster;
mod contacts;
mod engine_profiles;
mod load;
mod soak;
mod socket_profiles;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use imks::engine::{self, Engine};
use imks::http::tls::{self, Certificates};
use imks::http::{listener, webtransport};
use imks::socket::{self, Server};
use imks::testing::forward::{self, Forwarder};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// As in `imks` itself.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Serves one contract until it is interrupted.
#[derive(Debug, Parser)]
struct Args {
    /// What to serve.
    profile: Profile,
    /// Port on 127.0.0.1.
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// HTTPS and secure WebSockets, with a self-signed certificate.
    #[arg(long)]
    tls: bool,
    /// WebTransport too, on the same port; the hash of its certificate is served as by imks.
    #[arg(long)]
    webtransport: bool,
    /// Broker of `cluster` and `cluster-recovery`: redis://…, nats://… or postgres://….
    #[arg(long, required_if_eq_any([("profile", "cluster"), ("profile", "cluster-recovery")]))]
    adapter: Option<String>,
    /// Name of the cluster in the broker; `socket.io` with `--family classic`, else `conformance`.
    #[arg(long)]
    prefix: Option<String>,
    /// Messages of `cluster`.
    #[arg(long, default_value = "imks")]
    family: Family,
    /// Milliseconds after which `load` answers an `echo`.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Name of this node, for `cluster` and `cluster-recovery`.
    #[arg(long, default_value = "node")]
    name: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Profile {
    /// Engine.IO v4 protocol suite: echo, heartbeat of 300 + 200 ms.
    EngineV4,
    /// Engine.IO v3 protocol suite: as `engine-v4`, with clients of version 3 allowed.
    EngineV3,
    /// Socket.IO v5 protocol suite.
    SocketV5,
    /// As `socket-v5`, with the msgpack parser.
    SocketV5Msgpack,
    /// Test suite of the reference Engine.IO client.
    EngineClient,
    /// Test suite of the reference Socket.IO client.
    SocketClient,
    /// Load generator: echo, join, leave, broadcast; default deadlines.
    Load,
    /// As `load`, with deadlines of seconds.
    ShortDeadlines,
    /// `benches/soak`: sessions of every kind that come and go; `GET /holdings` says what is left of them.
    Soak,
    /// As `soak`, with the msgpack parser.
    SoakMsgpack,
    /// One node of a cluster: rooms, broadcasts, questions and sockets of all nodes.
    Cluster,
    /// As `cluster`, with sessions that clients continue on any node.
    ClusterRecovery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Family {
    /// Those of imks.
    Imks,
    /// Those of Node.js servers with `createAdapter` of @socket.io/redis-adapter, for a cluster with them on one Redis.
    Classic,
}

impl Args {
    async fn cluster(&self, forwarder: &Forwarder) -> imks::ImksResult<Server> {
        let (url, node) = (self.adapter.as_deref().unwrap_or_default(), (&*self.name, forwarder));
        let prefix = |otherwise| self.prefix.as_deref().unwrap_or(otherwise);
        match (self.profile, self.family) {
            (Profile::Cluster, Family::Imks) => cluster::server(url, prefix("conformance"), node).await,
            (Profile::Cluster, Family::Classic) => cluster::classic_server(url, prefix("socket.io"), node),
            (_, Family::Imks) => cluster::recovering_server(url, prefix("conformance"), node).await,
            (_, Family::Classic) => Err(imks::ImksError::Config(
                "Node.js servers share no sessions: use the profile cluster".into(),
            )),
        }
    }

    async fn parts(
        &self,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> imks::ImksResult<(engine::Config, Application)> {
        match self.profile {
            Profile::Cluster | Profile::ClusterRecovery => {
                let forwarder = Forwarder::new(tasks, stop)?;
                let server = self.cluster(&forwarder).await?;
                let mut engine = engine::Config { node: Some(server.node()), ..load::engine() };
                engine.hooks.forward = Some(forwarder.hook());
                tasks.spawn(contacts::tell(server.clone(), forwarder.clone(), self.port));
                Ok((engine, Application::Cluster(server, forwarder)))
            }
            profile => profile.parts(Duration::from_millis(self.delay_ms)),
        }
    }
}

impl Profile {
    fn parts(self, delay: Duration) -> imks::ImksResult<(engine::Config, Application)> {
        Ok(match self {
            Self::Cluster | Self::ClusterRecovery => {
                return Err(imks::ImksError::Internal("a cluster needs its arguments"));
            }
            Self::EngineV4 => (engine_profiles::v4(), Application::Engine(engine_profiles::echo)),
            Self::EngineV3 => (engine_profiles::v3(), Application::Engine(engine_profiles::echo)),
            Self::EngineClient => {
                let (config, headers) = engine_profiles::client();
                (config, Application::EngineClient(headers))
            }
            Self::SocketV5 => {
                let server = socket_profiles::v5(socket::Parser::Default)?;
                (socket_profiles::v5_engine(), Application::Socket(server))
            }
            Self::SocketV5Msgpack => {
                let server = socket_profiles::v5(socket::Parser::MsgPack)?;
                (socket_profiles::v5_engine(), Application::Socket(server))
            }
            Self::SocketClient => {
                (socket_profiles::client_engine(), Application::Socket(socket_profiles::client()?))
            }
            Self::Load => (load::engine(), Application::Socket(load::server(delay)?)),
            Self::ShortDeadlines => (load::short_engine(), Application::Socket(load::short_server()?)),
            Self::Soak => (soak::engine(), Application::Soak(soak::server(socket::Parser::Default)?)),
            Self::SoakMsgpack => (soak::engine(), Application::Soak(soak::server(socket::Parser::MsgPack)?)),
        })
    }
}

enum Application {
    Engine(engine_profiles::Handler),
    EngineClient(engine_profiles::PostHeaders),
    Socket(Server),
    Soak(Server),
    Cluster(Server, Forwarder),
}

impl Application {
    /// What it serves beside the engine.
    fn routes(&self, engine: &Engine) -> axum::Router {
        match self {
            Self::Soak(server) => soak::routes(server.clone(), engine.clone()),
            Self::Cluster(_, forwarder) => forward::routes(forwarder, engine),
            _ => axum::Router::new(),
        }
    }

    /// What is closed when the process is told to end.
    fn server(&self) -> Option<Server> {
        match self {
            Self::Socket(server) | Self::Cluster(server, _) => Some(server.clone()),
            _ => None,
        }
    }

    async fn run(self, engine: Engine) {
        match self {
            Self::Engine(handler) => engine_profiles::run(engine, handler).await,
            Self::EngineClient(headers) => engine_profiles::run_client(engine, headers).await,
            Self::Socket(server) | Self::Soak(server) | Self::Cluster(server, _) => {
                server.serve(engine).await
            }
        }
    }
}

fn main() -> ExitCode {
    let served = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(imks::ImksError::io("starting the runtime"))
        .and_then(|runtime| runtime.block_on(serve(&Args::parse())));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "stopped");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: &Args) -> imks::ImksResult<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let (mut engine, application) = args.parts(&tasks, &stop).await?;
    engine.webtransport = args.webtransport;
    let heartbeat = webtransport::Heartbeat { interval: engine.ping_interval, timeout: engine.ping_timeout };
    let engine = Engine::new(engine)?;
    let address = ([127, 0, 0, 1], args.port).into();
    let listener = listener::bind(address)?;
    let mut config = listener::Config::default();
    let mut router = application.routes(&engine);
    if args.tls || args.webtransport {
        let certificates = Certificates::self_signed(vec!["localhost".into(), "127.0.0.1".into()])?;
        config.tls = args.tls.then(|| certificates.tls(&tls::Config::default())).transpose()?;
        if args.webtransport {
            let socket = webtransport::bind(address)?;
            let limits = webtransport::Config::default();
            let quic = webtransport::Listener::new(socket, &certificates, &limits, heartbeat)?;
            tasks.spawn(quic.serve(engine.clone(), tasks.clone(), stop.clone()));
            router = router.merge(webtransport::routes(certificates));
        }
    }
    let routes = listener::routes(engine.clone(), router, &config);
    let closing = application.server();
    tasks.spawn(application.run(engine));
    tracing::info!(port = args.port, profile = ?args.profile, "listening");
    // In a task, as in the real server: what it spawns then stays on its own worker instead of crossing threads.
    let serving = tasks.spawn(listener::serve(listener, config, routes, tasks.clone(), stop));
    tokio::select! {
        served = serving => served.map_err(|_| imks::ImksError::Internal("the listener panicked")),
        ended = end(closing) => ended,
    }
}

/// Waits until the process is told to end, and closes the server.
async fn end(server: Option<Server>) -> imks::ImksResult<()> {
    let failed = imks::ImksError::io("waiting for the end");
    signal(SignalKind::terminate()).map_err(failed)?.recv().await;
    if let Some(server) = server {
        server.close().await;
    }
    Ok(())
}
