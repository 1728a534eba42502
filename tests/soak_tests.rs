//! Sessions of every kind come and go, and the server holds nothing of them afterwards. `benches/soak` does the same
//! with 10,000 of each and reads the memory.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../benches/soak/client/mod.rs"]
mod client;
#[allow(dead_code, reason = "shared with the conformance example")]
#[path = "../examples/conformance/soak.rs"]
mod soak;

use std::net::SocketAddr;
use std::time::Duration;

use client::{Carrier, Dialer, Kind, Parser, Target, visit};
use futures_util::{TryStreamExt, stream};
use imks::engine::Engine;
use imks::http::tls::Certificates;
use imks::http::{listener, webtransport};
use imks::socket::{self, Server};
use soak::Holdings;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Clients of one kind.
const CLIENTS: usize = 300;
/// Clients of a kind that waits for a deadline, or that begins with a QUIC handshake.
const SLOW_CLIENTS: usize = 60;
/// Clients of one kind at once: few enough for a debug build, whose clients must not miss the deadlines.
const AT_ONCE: usize = 16;
/// How long the last traces may stay: absent clients may come back for ten seconds, and packets stay half as long
/// again.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(60);

struct Running {
    server: Server,
    engine: Engine,
    target: Target,
    runtime: Runtime,
}

impl Running {
    fn start(parser: socket::Parser) -> Self {
        let runtime = Runtime::new().unwrap();
        let config = imks::engine::Config { webtransport: true, ..soak::engine() };
        let heartbeat =
            webtransport::Heartbeat { interval: config.ping_interval, timeout: config.ping_timeout };
        let engine = Engine::new(config).unwrap();
        let server = soak::server(parser).unwrap();
        let certificates = Certificates::self_signed(vec!["127.0.0.1".into()]).unwrap();
        let (address, dialer) = runtime.block_on(async {
            let tcp = listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address: SocketAddr = tcp.local_addr().unwrap();
            let udp = webtransport::bind(address).unwrap();
            let limits = webtransport::Config::default();
            let quic = webtransport::Listener::new(udp, &certificates, &limits, heartbeat).unwrap();
            let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
            tasks.spawn(quic.serve(engine.clone(), tasks.clone(), stop.clone()));
            let (serving, accepting) = (server.clone(), engine.clone());
            tasks.spawn(async move { serving.serve(accepting).await });
            let limits = listener::Config::default();
            let routes = listener::routes(engine.clone(), axum::Router::new(), &limits);
            tasks.spawn(listener::serve(tcp, limits, routes, tasks.clone(), stop));
            (address, Dialer::new(certificates.hashes()).unwrap())
        });
        Self { server, engine, target: Target { address, dialer }, runtime }
    }

    /// Tasks of the server, and of the clients' QUIC socket.
    fn tasks(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }

    async fn is_empty(&self, tasks: usize) {
        let empty = async {
            while self.tasks() > tasks || Holdings::of(&self.server, &self.engine) != Holdings::default() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(EMPTY_TIMEOUT, empty).await.is_err() {
            let left = Holdings::of(&self.server, &self.engine);
            panic!("{} tasks, once {tasks}; {left:?}", self.tasks());
        }
    }
}

/// Kinds that wait do so beside the others.
async fn come_and_go(running: &Running, parser: Parser) {
    let (waiting, busy): (Vec<Kind>, Vec<Kind>) =
        Kind::all(parser).into_iter().partition(|kind| kind.waits());
    let waiting = waiting.into_iter().map(|kind| all(running, parser, kind, SLOW_CLIENTS, SLOW_CLIENTS));
    let busy = async {
        for kind in busy {
            let slow = kind.carrier == Carrier::WebTransport;
            all(running, parser, kind, if slow { SLOW_CLIENTS } else { CLIENTS }, AT_ONCE).await;
        }
    };
    futures_util::future::join(futures_util::future::join_all(waiting), busy).await;
}

async fn all(running: &Running, parser: Parser, kind: Kind, clients: usize, at_once: usize) {
    let visits = stream::iter((0..clients).map(Ok))
        .try_for_each_concurrent(at_once, |number| visit(&running.target, parser, kind, number));
    visits.await.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
}

fn nothing_is_left(spoken: socket::Parser, parser: Parser) {
    let running = Running::start(spoken);
    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    clients.block_on(async {
        let tasks = running.tasks();
        come_and_go(&running, parser).await;
        running.is_empty(tasks).await;
    });
}

#[test]
fn nothing_is_left_of_sessions_of_every_kind() {
    nothing_is_left(socket::Parser::Default, Parser::Default);
}

#[test]
fn nothing_is_left_of_sessions_of_every_kind_with_the_msgpack_parser() {
    nothing_is_left(socket::Parser::MsgPack, Parser::MsgPack);
}
