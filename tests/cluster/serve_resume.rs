//! Clients of `imks serve` that come back to another node: their sessions continue, also when their node was killed.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::balancer::{Balancer, Front, Rule};
use crate::broker::{Broker, Kind};
use crate::client::TestClient;
use crate::process::{Process, acquainted, imks};
use crate::proxy::Line;
use crate::script::Script;
use crate::serve::Cluster;
use crate::server::{first_channel, text};

fn token_of(broker: &Broker, database: &str, name: &str) -> String {
    let token = imks(broker, database).args(["token", name]).output().unwrap();
    String::from_utf8(token.stdout).unwrap().trim().to_owned()
}

/// Sends messages, one after the other to each of the channels, and adds their bodies to those that were sent.
async fn say(alice: &mut TestClient, sent: &mut Vec<String>, count: usize) {
    let mut channels: Vec<String> =
        alice.ready["channels"].as_array().unwrap().iter().map(|it| text(&it["channel_id"])).collect();
    channels.sort();
    for _ in 0..count {
        let body = sent.len().to_string();
        let channel = &channels[sent.len() % channels.len()];
        alice.ok("message:send", json!({ "channel_id": channel, "body": body })).await;
        sent.push(body);
    }
}

fn session(bob: &mut Script) -> Value {
    bob.hears(|line| line["session"].is_object())["session"].clone()
}

/// The bodies of the messages that somebody has got: those of a channel in their order, so that what was missed may come channel by
/// channel.
fn got(bob: &mut Script, count: usize) -> Vec<String> {
    bob.tell(&format!("got {count}"));
    let got = bob.hears(|line| line["got"].is_array())["got"].clone();
    let mut seqs = HashMap::new();
    for message in got.as_array().unwrap() {
        let seq = message["seq"].as_i64().unwrap();
        assert!(seqs.insert(text(&message["channel_id"]), seq).is_none_or(|last| last + 1 == seq), "{got}");
    }
    let mut bodies: Vec<String> = got.as_array().unwrap().iter().map(|it| text(&it["body"])).collect();
    bodies.sort_by_key(|body| body.parse::<usize>().unwrap());
    bodies
}

/// The node of a client of so many channels is killed, again and again.
async fn nodes_die(via: &str, channels: usize) {
    let broker = Broker::shared(Kind::Postgres).await;
    let database = broker.database.clone().unwrap();
    let names = ["one", "two"];
    let mut nodes = names.map(|name| Process::start(&broker, &database, name, &UNLIMITED));
    let addresses = [nodes[0].addr, nodes[1].addr];
    acquainted(&addresses).await;
    let [alice, bob] = ["alice", "bob"].map(|name| token_of(&broker, &database, name));
    let directory = |arguments: &[&str]| {
        assert!(imks(&broker, &database).arg("directory").args(arguments).output().unwrap().status.success());
    };
    for name in (1..channels).map(|n| format!("channel-{n}")) {
        directory(&["channel", "add", &name]);
        ["alice", "bob"].iter().for_each(|member| directory(&["member", "add", &name, member]));
    }
    let balancer = Balancer::start(addresses.to_vec(), Rule::RoundRobin).await;
    let url = balancer.url();
    let mut bob = Script::start("resume.js", &[("URL", &url), ("TOKEN", &bob), ("VIA", via)]);
    let mut at = session(&mut bob);
    let mut sent = Vec::new();
    for round in 0..3 {
        let owner = names.iter().position(|name| at["node"] == *name).unwrap();
        let mut alice = TestClient::connect(addresses[1 - owner], &alice).await;
        // The last of them comes less than 100 ms before the end: nobody else has heard from the node that it was delivered.
        say(&mut alice, &mut sent, 20).await;
        assert_eq!(got(&mut bob, sent.len()), sent, "before the end of round {round}");
        bob.tell("next");
        nodes[owner].kill();
        say(&mut alice, &mut sent, 3).await;
        at = session(&mut bob);
        assert_eq!((&at["recovered"], &at["resumed"]), (&json!(true), &json!(true)), "round {round}");
        assert_eq!(at["channels"], json!([]));
        assert_eq!(got(&mut bob, sent.len()), sent, "after the end of round {round}");
        nodes[owner].start_again();
        acquainted(&addresses).await;
    }
    bob.ends_when_told();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_on_a_websocket_continues_its_session_each_time_that_its_node_is_killed() {
    Box::pin(nodes_die("websocket", 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_several_channels_continues_its_session_each_time_that_its_node_is_killed() {
    Box::pin(nodes_die("websocket", 4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_continues_its_session_when_its_node_is_drained() {
    let mut cluster = Cluster::start(Kind::Postgres, 2).await;
    let addresses: Vec<_> = cluster.nodes.iter().map(|node| node.addr()).collect();
    let token = cluster.nodes[0].token("bob").await;
    let mut alice = cluster.nodes[1].client("alice").await;
    let balancer = Balancer::start(addresses, Rule::RoundRobin).await;
    let environment = [("URL", &*balancer.url()), ("TOKEN", &token), ("VIA", "websocket")];
    // The first connection goes to the first node.
    let mut bob = Script::start("resume.js", &environment);
    session(&mut bob);
    let mut sent = Vec::new();
    say(&mut alice, &mut sent, 5).await;
    assert_eq!(got(&mut bob, 5), sent);
    bob.tell("next");
    let going = cluster.nodes.remove(0);
    tokio::join!(going.stop(), say(&mut alice, &mut sent, 20));
    let next = session(&mut bob);
    assert_eq!((&next["recovered"], &next["resumed"]), (&json!(true), &json!(true)));
    say(&mut alice, &mut sent, 5).await;
    assert_eq!(got(&mut bob, sent.len()), sent);
    bob.ends_when_told();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_wrote_before_it_ended_unheard_arrives_all_the_same() {
    let mut cluster = Cluster::start(Kind::Redis, 2).await;
    let (mut alice, mut bob) = (cluster.client(1, "alice").await, cluster.client(0, "bob").await);
    let mut sent = Vec::new();
    say(&mut alice, &mut sent, 1).await;
    assert_eq!(bob.expect("message:new").await["body"], "0");
    cluster.broker.proxy.set(Line::Cut);
    say(&mut alice, &mut sent, 1).await;
    let going = cluster.nodes.remove(1);
    // When the other node counts as gone, what it may have had to tell is read from the database.
    let heard = async {
        loop {
            let events = bob.events_so_far().await;
            if let Some((_, message)) = events.into_iter().find(|(name, _)| name == "message:new") {
                return message["body"].clone();
            }
            sleep(Duration::from_millis(500)).await;
        }
    };
    let (body, ()) = tokio::join!(timeout(PATIENCE, heard), going.stop());
    let body = body.expect("the message arrives");
    assert_eq!(body, "1");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_continues_on_a_node_that_is_behind_misses_nothing_and_gets_nothing_twice() {
    let cluster = Cluster::start(Kind::Redis, 2).await;
    let (mut alice, mut carol) = (cluster.client(1, "alice").await, cluster.client(0, "carol").await);
    let token = cluster.nodes[0].token("bob").await;
    let mut bob = TestClient::connect(cluster.nodes[0].addr(), &token).await;
    let channel = first_channel(&alice);
    let mut sent = Vec::new();
    say(&mut alice, &mut sent, 2).await;
    let first = carol.expect("message:new").await;
    carol.expect("message:new").await;
    for body in &sent {
        assert_eq!(bob.expect("message:new").await["body"], *body);
    }
    // The node of bob and carol does not hear of what follows.
    cluster.broker.proxy.set(Line::Cut);
    for body in ["changed", "again", "and again"] {
        let edit = json!({ "channel_id": channel, "message_id": first["id"], "body": body });
        alice.ok("message:edit", edit).await;
    }
    say(&mut alice, &mut sent, 1).await;
    let auth = json!({ "token": token, "pid": bob.pid, "offset": bob.offset });
    let mut bob = TestClient::open(cluster.nodes[0].addr()).await;
    bob.join(auth).await.unwrap();
    assert_eq!(bob.expect("session:ready").await["resumed"], true);
    assert_eq!(bob.expect("message:new").await["body"], "2");
    assert_eq!(bob.expect("message:updated").await["body"], "and again");
    say(&mut alice, &mut sent, 3).await;
    cluster.broker.proxy.set(Line::Open);
    say(&mut alice, &mut sent, 1).await;
    let mut told = Vec::new();
    while told.last().is_none_or(|(_, body)| body != "6") {
        let (name, event) = bob.event().await;
        told.extend(name.starts_with("message:").then(|| (name, text(&event["body"]))));
    }
    let expected = ["3", "4", "5", "6"].map(|body| ("message:new".to_owned(), body.to_owned()));
    assert_eq!(told, expected, "the node reads them from the database, messages before changes");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_that_see_the_same_client_one_continues_its_session() {
    let cluster = Cluster::start(Kind::Postgres, 2).await;
    let token = cluster.nodes[0].token("bob").await;
    let (mut alice, mut bob) =
        (cluster.nodes[1].client("alice").await, TestClient::connect(cluster.nodes[0].addr(), &token).await);
    let mut sent = Vec::new();
    say(&mut alice, &mut sent, 1).await;
    bob.expect("message:new").await;
    // Until the journal of its node is stored, the other node does not know what it has.
    sleep(Duration::from_millis(500)).await;
    let back = |index: usize| {
        let auth = json!({ "token": token, "pid": bob.pid, "offset": bob.offset });
        let (addr, pid) = (cluster.nodes[index].addr(), bob.pid.clone());
        async move {
            let mut client = TestClient::open(addr).await;
            client.try_join(auth).await.filter(|()| client.pid == pid).map(|()| client)
        }
    };
    let (one, two) = tokio::join!(back(0), back(1));
    bob.ended().await;
    match (one, two) {
        // The second one came when the first one had it already.
        (Some(mut one), Some(mut two)) => tokio::select! {
            () = one.ended() => two.ok("ping", json!({})).await,
            () = two.ended() => one.ok("ping", json!({})).await,
        },
        (one, two) => one.or(two).expect("one of two continues").ok("ping", json!({})).await,
    };
    cluster.stop().await;
}

const UNLIMITED: [(&str, &str); 2] = [("IMKS_LIMIT_SENDS", "off"), ("IMKS_LIMIT_SENDS_PER_CHANNEL", "off")];
/// How long a message may take that is found when its node counts as gone: 10 seconds, and what a busy machine adds.
const PATIENCE: Duration = Duration::from_secs(40);
