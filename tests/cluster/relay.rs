//! Several nodes behind a balancer that sends every request to another one: stock clients notice nothing.

use std::time::{Duration, Instant};

use imks::engine;
use imks::node::NodeId;
use imks::socket::{Config, Parser};
use imks::testing::forward::{Contact, Forwarder, routes};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::balancer::{Balancer, Rule};
use crate::broker::{Broker, Kind};
use crate::process::{Process, acquainted, http, imks, open};
use crate::script::Script;
use crate::serve::Cluster;
use crate::talker::Running;

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

async fn the_owner_dies(kind: Kind, via: &'static str) {
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
