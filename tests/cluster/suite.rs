//! The conformance profile `cluster` with stock clients, on every broker.

use imks::http::SocketIo;
use imks::http::listener;
use imks::socket::Server;
use imks::testing::forward::Forwarder;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::application;
use crate::broker::{Broker, BrokerProcess, Kind};
use crate::script::Script;

/// A node of the profile; its address.
async fn node(broker: &Broker, name: &str, recovery: bool, tasks: &TaskTracker) -> (SocketIo, String) {
    let forwarder = Forwarder::new(tasks, &CancellationToken::new()).unwrap();
    let node = (name, &forwarder);
    let server = match recovery {
        true => application::recovering_server(&broker.url(), &broker.prefix, node).await.unwrap(),
        false => application::server(&broker.url(), &broker.prefix, node).await.unwrap(),
    };
    listening(server, tasks).await
}

/// A server with a listener, and its address.
pub async fn listening(server: Server, tasks: &TaskTracker) -> (SocketIo, String) {
    let engine = imks::engine::Config { node: Some(server.node()), ..Default::default() };
    let io = SocketIo::start(server, engine).unwrap();
    let free = listener::bind(([127, 0, 0, 1], 0).into()).unwrap().local_addr().unwrap();
    let listening = io.clone();
    tasks.spawn(async move { listening.listen(free).await });
    while tokio::net::TcpStream::connect(free).await.is_err() {
        tokio::task::yield_now().await;
    }
    (io, format!("http://{free}"))
}

async fn suite(kind: Kind, recovery: bool) {
    play(Broker::shared(kind).await, recovery).await;
}

async fn play(broker: Broker, recovery: bool) {
    let tasks = TaskTracker::new();
    let (mut nodes, mut urls) = (Vec::new(), Vec::new());
    for name in ["one", "two", "three"] {
        let (io, url) = node(&broker, name, recovery, &tasks).await;
        nodes.push(io);
        urls.push(url);
    }
    let script = move || Script::run("cluster.js", &[("URLS", &urls.join(","))]);
    tokio::task::spawn_blocking(script).await.unwrap();
    for node in nodes {
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_the_cluster_passes_on_redis() {
    Box::pin(suite(Kind::Redis, false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_the_cluster_passes_on_nats() {
    Box::pin(suite(Kind::Nats, false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_the_cluster_passes_on_postgres() {
    Box::pin(suite(Kind::Postgres, false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_the_cluster_passes_with_sessions_in_postgres() {
    Box::pin(suite(Kind::Postgres, true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_the_cluster_passes_with_sessions_in_redis() {
    Box::pin(suite(Kind::Redis, true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_the_cluster_passes_with_sessions_in_nats() {
    let nats = BrokerProcess::start_with(Kind::Nats, &["-js", "-sd", "."]).await;
    Box::pin(play(Broker::own(&nats).await, true)).await;
}
