//! Several nodes behind a balancer that sends every request to another one: stock clients notice nothing.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use imks::engine;
use imks::node::NodeId;
use imks::socket::{Config, Parser};
use imks::testing::forward::{Contact, Forwarder, routes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::balancer::{Balancer, Rule};
use crate::broker::{Broker, Kind};
use crate::script::Script;
use crate::serve::Cluster;
use crate::talker::Running;

/// Nothing takes longer, unless it will never come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The answer to one request on a connection of its own: status and body.
async fn http(addr: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Opens a session by polling; its path.
async fn open(addr: SocketAddr) -> String {
    let path = "/socket.io/?EIO=4&transport=polling";
    let (_, body) = http(addr, "GET", path, "").await;
    let opened: serde_json::Value = serde_json::from_str(&body[1..]).unwrap();
    format!("{path}&sid={}", opened["sid"].as_str().unwrap())
}

/// Waits until all nodes pass requests on to each other.
pub async fn acquainted(nodes: &[SocketAddr]) {
    let deadline = Instant::now() + PATIENCE;
    for owner in nodes {
        for other in nodes {
            while http(*other, "POST", &open(*owner).await, "40").await.1 != "ok" {
                assert!(Instant::now() < deadline, "{other} passes nothing on to {owner}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn clients_talk(kind: Kind) {
    let cluster = Cluster::start(kind, 3).await;
    let nodes: Vec<_> = cluster.nodes.iter().map(|node| node.addr()).collect();
    acquainted(&nodes).await;
    let balancer = Balancer::start(nodes, Rule::RoundRobin).await;
    for via in ["polling", "upgrade"] {
        let (alice, bob) = (cluster.nodes[0].token("alice").await, cluster.nodes[0].token("bob").await);
        let url = balancer.url();
        let run = move || {
            let environment = [("URL", &*url), ("VIA", via), ("TOKEN_ALICE", &alice), ("TOKEN_BOB", &bob)];
            Script::run("relay.js", &environment);
        };
        tokio::task::spawn_blocking(run).await.unwrap();
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_clients_talk_through_a_balancer_that_is_not_sticky_on_redis() {
    Box::pin(clients_talk(Kind::Redis)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_clients_talk_through_a_balancer_that_is_not_sticky_on_nats() {
    Box::pin(clients_talk(Kind::Nats)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_clients_talk_through_a_balancer_that_is_not_sticky_on_postgres() {
    Box::pin(clients_talk(Kind::Postgres)).await;
}

/// A node that passes on what belongs to others, and has the events of tests/js/dialect.js.
fn talker(config: Config) -> (NodeId, Forwarder, Running) {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let (node, forwarder) = (NodeId::random().unwrap(), Forwarder::new(&tasks, &stop).unwrap());
    let mut engine = engine::Config { node: Some(node), allow_eio3: true, ..engine::Config::default() };
    engine.hooks.forward = Some(forwarder.hook());
    let running = Running::start_with(engine, config, |engine| routes(&forwarder, engine));
    (node, forwarder, running)
}

/// Clients of these dialects talk while no request of theirs comes to the node that owns their session.
fn talk(parser: Parser, dialects: &[&str]) {
    let nodes = [(); 3].map(|()| talker(Config { parser, ..Config::default() }));
    let contact = |(node, forwarder, running): &(NodeId, Forwarder, Running)| {
        let (address, secret) = (running.address.to_string(), *forwarder.secret());
        (*node, Contact { address, secret, certificate: None })
    };
    let runtime = Runtime::new().unwrap();
    let balancer = runtime.block_on(async {
        for (_, forwarder, _) in &nodes[1..] {
            forwarder.update([contact(&nodes[0])], tokio::time::Instant::now());
        }
        let addresses = nodes.iter().map(|(.., running)| running.address).collect();
        Balancer::start(addresses, Rule::NeverTheOwner).await
    });
    for dialect in dialects {
        for via in ["polling", "upgrade"] {
            let environment = [("URL", &*balancer.url()), ("DIALECT", dialect), ("VIA", via)];
            Script::run("dialect.js", &environment);
        }
    }
}

#[test]
fn binary_data_and_acks_pass_both_ways_though_no_request_reaches_the_owner() {
    talk(Parser::default(), &["v5", "v4.0"]);
}

#[test]
fn clients_of_socket_io_2_talk_though_no_request_reaches_the_owner() {
    talk(Parser::default(), &["v2"]);
}

#[test]
fn clients_with_the_msgpack_parser_talk_though_no_request_reaches_the_owner() {
    talk(Parser::MsgPack, &["msgpack"]);
}

/// A node as a process; killed when dropped.
pub struct Process {
    child: Child,
    pub addr: SocketAddr,
}

pub fn imks(broker: &Broker, database: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imks"));
    command.env_clear().envs(std::env::vars().filter(|(name, _)| name == "PATH"));
    command.env("DATABASE_URL", database).env("IMKS_CLUSTER_PREFIX", &broker.prefix).stdin(Stdio::null());
    match broker.kind {
        Kind::Redis => command.env("REDIS_URL", broker.url()),
        Kind::Nats => command.env("NATS_URL", broker.url()),
        Kind::Postgres => command.env("IMKS_ADAPTER", "postgres"),
    };
    command
}

impl Process {
    fn start(broker: &Broker, database: &str, name: &str) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        Self::start_at(broker, database, name, free)
    }

    /// Starts a node at an address that is free.
    pub fn start_at(broker: &Broker, database: &str, name: &str, free: SocketAddr) -> Self {
        let mut command = imks(broker, database);
        command.env("IMKS_NODE", name).args(["--listen", &free.to_string()]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains(&free.to_string())), "imks does not start");
        // Reads on to the end: a full pipe would block the server.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, addr: free }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn the_owner_dies(kind: Kind, via: &'static str) {
    let broker = Broker::shared(kind).await;
    let database = match &broker.database {
        Some(url) => url.clone(),
        None => crate::postgres::create().await,
    };
    let names = ["one", "two", "three"];
    let mut nodes: Vec<_> = names.iter().map(|name| Process::start(&broker, &database, name)).collect();
    let addresses: Vec<_> = nodes.iter().map(|node| node.addr).collect();
    acquainted(&addresses).await;
    let token = imks(&broker, &database).args(["token", "alice"]).output().unwrap();
    let token = String::from_utf8(token.stdout).unwrap();
    let balancer = Balancer::start(addresses.clone(), Rule::RoundRobin).await;
    let environment = [("URL", &*balancer.url()), ("VIA", via), ("TOKEN_ALICE", token.trim())];
    let mut script = Script::start("relay_crash.js", &environment);
    let owner = script.hears(|line| line["owner"].is_string());
    let killed = names.iter().position(|name| owner["owner"] == *name).unwrap();
    let orphan = open(addresses[killed]).await;
    nodes[killed].kill();
    script.tell("killed");
    for other in (0..3).filter(|other| *other != killed) {
        let asked = Instant::now();
        let answer = http(addresses[other], "GET", &orphan, "").await;
        assert_eq!(answer, (400, r#"{"code":1,"message":"Session ID unknown"}"#.into()));
        assert!(asked.elapsed() < Duration::from_millis(300), "{:?}", asked.elapsed());
    }
    tokio::task::spawn_blocking(move || script.done()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_owner_of_a_polling_session_is_killed() {
    Box::pin(the_owner_dies(Kind::Redis, "polling")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_owner_of_a_forwarded_websocket_is_killed() {
    Box::pin(the_owner_dies(Kind::Nats, "upgrade")).await;
}
