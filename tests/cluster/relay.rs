//! Several nodes behind a balancer that sends every request to another one: stock clients notice nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use imks::engine;
use imks::node::NodeId;
use imks::socket::{Config, Parser};
use imks::testing::forward::{Contact, Forwarder, routes};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::balancer::{Balancer, Front, Rule};
use crate::broker::{Broker, Kind};
use crate::process::{Process, acquainted, http, imks, open};
use crate::script::Script;
use crate::serve::Cluster;
use crate::talker::Running;

/// Clients that come right after the end of a node: more than two for each.
const NEWCOMERS: usize = 9;

async fn clients_talk(kind: Kind) {
    clients_talk_through(kind, async |nodes| Balancer::start(nodes, Rule::RoundRobin).await).await;
}

/// Stock clients talk through a balancer in front of three nodes.
pub async fn clients_talk_through<F: Front>(kind: Kind, balance: impl AsyncFnOnce(Vec<SocketAddr>) -> F) {
    let cluster = Cluster::start(kind, 3).await;
    let nodes: Vec<_> = cluster.nodes.iter().map(|node| node.addr()).collect();
    acquainted(&nodes).await;
    let balancer = balance(nodes).await;
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
pub struct Talker {
    node: NodeId,
    forwarder: Forwarder,
    running: Running,
}

impl Talker {
    fn start(engine: engine::Config, config: Config) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (node, forwarder) = (NodeId::random().unwrap(), Forwarder::new(&tasks, &stop).unwrap());
        let mut engine = engine::Config { node: Some(node), allow_eio3: true, ..engine };
        engine.hooks.forward = Some(forwarder.hook());
        let running = Running::start_with(engine, config, |engine| routes(&forwarder, engine));
        Self { node, forwarder, running }
    }

    /// Three nodes that know each other.
    pub fn three(engine: &engine::Config, config: &Config) -> [Self; 3] {
        let nodes = [(); 3].map(|()| Self::start(engine.clone(), config.clone()));
        for node in &nodes {
            let others = nodes.iter().filter(|other| other.node != node.node).map(Self::contact);
            node.forwarder.update(others, tokio::time::Instant::now());
        }
        nodes
    }

    pub fn addr(&self) -> SocketAddr {
        self.running.address
    }

    fn contact(&self) -> (NodeId, Contact) {
        let (address, secret) = (self.addr().to_string(), *self.forwarder.secret());
        (self.node, Contact { address, secret, certificate: None })
    }
}

/// Clients of these dialects talk while no request of theirs comes to the node that owns their session.
fn talk(parser: Parser, dialects: &[&str]) {
    let nodes = Talker::three(&engine::Config::default(), &Config { parser, ..Config::default() });
    let runtime = Runtime::new().unwrap();
    let addresses = nodes.iter().map(Talker::addr).collect();
    let balancer = runtime.block_on(Balancer::start(addresses, Rule::NeverTheOwner));
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

async fn the_owner_dies(kind: Kind, via: &'static str) {
    the_owner_dies_behind(kind, via, async |nodes| Balancer::start(nodes, Rule::RoundRobin).await).await;
}

/// The owner of a session is killed behind a balancer, and nothing that was acknowledged is lost.
pub async fn the_owner_dies_behind<F: Front>(
    kind: Kind,
    via: &'static str,
    balance: impl AsyncFnOnce(Vec<SocketAddr>) -> F,
) {
    let broker = Broker::shared(kind).await;
    let database = match &broker.database {
        Some(url) => url.clone(),
        None => crate::postgres::create().await,
    };
    let names = ["one", "two", "three"];
    let mut nodes: Vec<_> = names.iter().map(|name| Process::start(&broker, &database, name, &[])).collect();
    let addresses: Vec<_> = nodes.iter().map(|node| node.addr).collect();
    acquainted(&addresses).await;
    let token = imks(&broker, &database).args(["token", "alice"]).output().unwrap();
    let token = String::from_utf8(token.stdout).unwrap();
    let balancer = balance(addresses.clone()).await;
    let environment = [("URL", &*balancer.url()), ("VIA", via), ("TOKEN_ALICE", token.trim())];
    let mut script = Script::start("relay_crash.js", &environment);
    let owner = script.hears(|line| line["owner"].is_string());
    let killed = names.iter().position(|name| owner["owner"] == *name).unwrap();
    let orphan = open(addresses[killed]).await;
    nodes[killed].kill();
    script.tell("killed");
    for _ in 0..NEWCOMERS {
        open(balancer.addr()).await;
    }
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
