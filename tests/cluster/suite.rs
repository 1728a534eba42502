//! The conformance profile `cluster` with stock clients, on every broker.

use imks::http::SocketIo;
use imks::http::listener;
use tokio_util::task::TaskTracker;

use crate::application;
use crate::broker::{Broker, Kind};
use crate::script::Script;

/// A node of the profile; its address.
async fn node(broker: &Broker, name: &str, tasks: &TaskTracker) -> (SocketIo, String) {
    let server = application::server(&broker.url(), &broker.prefix, name).await.unwrap();
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

async fn suite(kind: Kind) {
    let (broker, tasks) = (Broker::shared(kind).await, TaskTracker::new());
    let (mut nodes, mut urls) = (Vec::new(), Vec::new());
    for name in ["one", "two", "three"] {
        let (io, url) = node(&broker, name, &tasks).await;
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
    Box::pin(suite(Kind::Redis)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_the_cluster_passes_on_nats() {
    Box::pin(suite(Kind::Nats)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_the_cluster_passes_on_postgres() {
    Box::pin(suite(Kind::Postgres)).await;
}
