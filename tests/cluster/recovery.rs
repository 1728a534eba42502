//! Clients that continue their session on another node, with nodes that are processes of their own and die.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use imks::http::SocketIo;
use imks::testing::forward::Forwarder;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::application;
use crate::broker::{Broker, BrokerProcess, Kind, free_address};
use crate::script::Script;

/// A process that is one node of the profile `cluster-recovery`.
struct Node {
    addr: SocketAddr,
    name: &'static str,
    url: String,
    prefix: String,
    process: Option<Child>,
}

impl Node {
    fn start(broker: &Broker, name: &'static str) -> Self {
        let addr = free_address();
        let mut node = Self { addr, name, url: broker.url(), prefix: broker.prefix.clone(), process: None };
        node.begin();
        node
    }

    /// Starts it and waits until it listens.
    fn begin(&mut self) {
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "recovery::a_node_of_its_own", "--ignored", "--nocapture"])
            .env("NODE", format!("{} {} {} {}", self.addr, self.url, self.prefix, self.name))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(self.addr).is_err() {
            assert!(Instant::now() < deadline, "the node does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(&mut self, signal: &str) {
        let Some(mut process) = self.process.take() else { return };
        assert!(Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap().success());
        process.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end("-KILL");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process of the other tests"]
async fn a_node_of_its_own() {
    let Ok(node) = std::env::var("NODE") else { return };
    let [addr, url, prefix, name] = node.split(' ').collect::<Vec<_>>()[..] else { panic!("{node}") };
    let forwarder = Forwarder::new(&TaskTracker::new(), &CancellationToken::new()).unwrap();
    let server = application::recovering_server(url, prefix, (name, &forwarder)).await.unwrap();
    let engine = imks::engine::Config { node: Some(server.node()), ..Default::default() };
    let io = SocketIo::start(server, engine).unwrap();
    let mut told = signal(SignalKind::terminate()).unwrap();
    tokio::select! {
        served = io.listen(addr.parse::<SocketAddr>().unwrap()) => served.unwrap(),
        _ = told.recv() => io.close().await,
    }
}

async fn nodes_die(broker: Broker) {
    let play = move || {
        let mut nodes = ["one", "two", "three"].map(|name| Node::start(&broker, name));
        let urls = nodes.iter().map(|node| format!("http://{}", node.addr)).collect::<Vec<_>>().join(",");
        let mut script = Script::start("cluster_recovery.js", &[("URLS", &urls)]);
        loop {
            let order = script.hears(|line| line.is_object());
            if order["done"] == true {
                return script.ends();
            }
            let node = &mut nodes[order["node"].as_u64().unwrap() as usize];
            match order["act"].as_str() {
                Some("kill") => node.end("-KILL"),
                Some("term") => node.end("-TERM"),
                Some("start") => node.begin(),
                _ => panic!("{order}"),
            }
            script.tell("done");
        }
    };
    tokio::task::spawn_blocking(play).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_client_continues_its_session_when_nodes_die_with_postgres() {
    nodes_die(Broker::shared(Kind::Postgres).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_client_continues_its_session_when_nodes_die_with_redis() {
    nodes_die(Broker::shared(Kind::Redis).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_client_continues_its_session_when_nodes_die_with_nats() {
    let nats = BrokerProcess::start_with(Kind::Nats, &["-js", "-sd", "."]).await;
    nodes_die(Broker::own(&nats).await).await;
}
