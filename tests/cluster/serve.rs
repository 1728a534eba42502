//! `imks serve` on several nodes, with clients on all of them.

use std::collections::BTreeSet;
use std::time::Duration;

use imks::testing::clock;
use imks::testing::config::{ClusterAdapter, Config};
use imks::testing::directory::RoleName;
use imks::testing::models::cluster_node::ClusterNode;
use imks::testing::models::db::Db;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::broker::{Broker, Kind};
use crate::client::TestClient;
use crate::collector::{Collector, hex};
use crate::proxy::Line;
use crate::server::{TestServer, first_channel};

/// Several servers with one database, which reach each other through a broker.
pub struct Cluster {
    pub nodes: Vec<TestServer>,
    broker: Broker,
}

impl Cluster {
    pub async fn start(kind: Kind, nodes: usize) -> Self {
        Self::start_with(kind, nodes, |_| {}).await
    }

    pub async fn start_with(kind: Kind, nodes: usize, edit: impl Fn(&mut Config)) -> Self {
        let broker = Broker::shared(kind).await;
        let database = match &broker.database {
            Some(url) => url.clone(),
            None => crate::postgres::create().await,
        };
        let mut cluster = Self { nodes: Vec::new(), broker };
        for _ in 0..nodes {
            let node = node(&cluster.broker, &database, &edit).await;
            cluster.nodes.push(node);
        }
        cluster
    }

    /// A signed-in client of node `index`.
    async fn client(&self, index: usize, name: &str) -> TestClient {
        self.nodes[index].client(name).await
    }

    pub async fn stop(self) {
        for node in self.nodes {
            node.stop().await;
        }
    }
}

async fn node(broker: &Broker, database: &str, edit: impl Fn(&mut Config)) -> TestServer {
    let addr = broker.proxy.addr;
    let url = database.to_owned();
    TestServer::start_with(crate::server::Kind::Sqlite, |config| {
        config.database.url = Some(url.into());
        config.database.max_connections = 8;
        config.append.lanes = 2;
        let patience = Duration::from_secs(10);
        (config.database.statement_timeout, config.database.acquire_timeout) = (patience, patience);
        config.cluster.prefix = broker.prefix.clone();
        match broker.kind {
            Kind::Redis => config.cluster.redis_url = Some(format!("redis://{addr}").into()),
            Kind::Nats => config.cluster.nats_url = Some(format!("nats://{addr}").into()),
            Kind::Postgres => config.cluster.adapter = Some(ClusterAdapter::Postgres),
        }
        edit(config);
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trace_of_a_message_goes_on_at_the_other_nodes() {
    let mut collector = Collector::start().await;
    let cluster = Cluster::start_with(Kind::Redis, 2, |config| collector.configure(config)).await;
    let (mut alice, mut bob) = (cluster.client(0, "alice").await, cluster.client(1, "bob").await);
    let trace = [0x4b; 16];
    let traceparent = format!("00-{}-00f067aa0ba902b7-01", hex(&trace));
    let meta = json!({ "traceparent": traceparent });
    let message = json!({ "channel_id": first_channel(&alice), "body": "hi", "meta": meta });
    alice.ok("message:send", message).await;
    bob.expect("message:new").await;
    let append = collector.named(&trace, "append", 1).await.remove(0);
    let mut delivered = collector.named(&trace, "deliver", 2).await;
    assert!(delivered.iter().all(|span| span.parent_span_id == append.span_id), "{delivered:?}");
    delivered.sort_by_key(|span| span.kind);
    let kinds = delivered.iter().map(|span| span.kind()).collect::<Vec<_>>();
    assert_eq!(kinds, [SpanKind::Producer, SpanKind::Consumer], "one on each node");
    cluster.stop().await;
}

/// The payloads of the next events with this name.
async fn next(client: &mut TestClient, name: &str, count: usize) -> Vec<Value> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        payloads.push(client.expect(name).await);
    }
    payloads
}

fn seqs(messages: &[Value]) -> Vec<i64> {
    messages.iter().map(|message| message["seq"].as_i64().unwrap()).collect()
}

async fn health(server: &TestServer) -> Value {
    let addr = server.addr();
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("GET /health HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

macro_rules! on_each_broker {
    ($($(#[$meta:meta])* async fn $name:ident($cluster:ident: Cluster) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn run(kind: Kind) {
                let $cluster = Cluster::start(kind, 3).await;
                $body
                $cluster.stop().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_redis() {
                Box::pin(run(Kind::Redis)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_nats() {
                Box::pin(run(Kind::Nats)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                Box::pin(run(Kind::Postgres)).await;
            }
        }
    )*};
}

on_each_broker! {
    async fn everybody_sees_the_messages_of_all_nodes_once_and_in_order(cluster: Cluster) {
        let mut clients = Vec::new();
        for (index, name) in ["alice", "bob", "carol"].into_iter().enumerate() {
            clients.push(cluster.client(index, name).await);
        }
        let channel = first_channel(&clients[0]);
        for round in 0..20 {
            for client in &mut clients {
                client.ask("message:send", json!({ "channel_id": channel, "body": format!("{round}") })).await;
            }
        }
        for client in &mut clients {
            let messages = next(client, "message:new", 60).await;
            assert_eq!(seqs(&messages), (1..=60).collect::<Vec<i64>>());
            assert_eq!(client.events_so_far().await, []);
        }
    }

    async fn edits_reactions_deletions_and_read_positions_arrive_on_other_nodes(cluster: Cluster) {
        let (mut alice, mut bob) = (cluster.client(0, "alice").await, cluster.client(1, "bob").await);
        let mut phone = cluster.client(2, "alice").await;
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "hi" })).await;
        let id = &sent["message"]["id"];
        let this = json!({ "channel_id": channel, "message_id": id });
        assert_eq!(bob.expect("message:new").await["body"], "hi");
        alice.ok("message:edit", json!({ "channel_id": channel, "message_id": id, "body": "hello" })).await;
        assert_eq!(bob.expect("message:updated").await["body"], "hello");
        let reaction = json!({ "channel_id": channel, "message_id": id, "emoji": "\u{1f44d}" });
        bob.ok("reaction:add", reaction).await;
        assert_eq!(phone.expect("reaction:updated").await["count"], 1);
        alice.ok("read:mark", json!({ "channel_id": channel, "seq": 1 })).await;
        assert_eq!(phone.expect("read:updated").await["read_seq"], 1);
        alice.ok("message:delete", this).await;
        assert_eq!(bob.expect("message:deleted").await["id"], *id);
    }

    async fn a_text_is_streamed_through_any_node_and_seen_piece_by_piece_on_all(cluster: Cluster) {
        let (mut alice, mut bob) = (cluster.client(0, "alice").await, cluster.client(1, "bob").await);
        let mut phone = cluster.client(2, "alice").await;
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "stream": true })).await;
        let this = json!({ "channel_id": channel, "message_id": sent["message"]["id"] });
        let piece = |offset: usize, text: &str| {
            let mut piece = this.clone();
            (piece["offset"], piece["text"]) = (json!(offset), json!(text));
            piece
        };
        bob.expect("message:new").await;
        alice.ok("stream:append", piece(0, "one")).await;
        assert_eq!(bob.expect("message:append").await["text"], "one");
        assert_eq!(phone.ok("stream:append", piece(3, " two")).await["offset"], 7, "another node, the same stream");
        assert_eq!(bob.expect("message:append").await["offset"], 3);
        assert_eq!(alice.refused("stream:append", piece(3, " six")).await["details"], json!({ "offset": 7 }));
        let page = bob.ok("history", json!({ "channel_id": channel })).await;
        assert_eq!(page["messages"][0]["body"], "one two", "what its row may not have yet");
        alice.ok("stream:finish", this).await;
        let update = bob.expect("message:updated").await;
        assert_eq!((&update["body"], &update["stream"]["state"]), (&json!("one two"), &json!("finished")));
    }

    async fn scheduled_messages_are_sent_once_by_whichever_node(cluster: Cluster) {
        let (mut alice, mut bob) = (cluster.client(0, "alice").await, cluster.client(1, "bob").await);
        let mut phone = cluster.client(2, "alice").await;
        let channel = first_channel(&alice);
        let soon = clock::rfc3339(clock::now_micros() + 2_000_000);
        for number in 0..8 {
            let request = json!({ "channel_id": channel, "body": format!("{number}"), "send_at": soon });
            alice.ok("schedule:create", request).await;
        }
        assert_eq!(seqs(&next(&mut bob, "message:new", 8).await), (1..=8).collect::<Vec<i64>>());
        let told = next(&mut phone, "schedule:updated", 16).await;
        assert_eq!(told.iter().filter(|it| it["state"] == "sent").count(), 8);
        let page = bob.ok("history", json!({ "channel_id": channel })).await;
        assert_eq!(page["messages"].as_array().unwrap().len(), 8);
    }

    async fn who_is_removed_or_joins_on_one_node_leaves_or_joins_on_all_within_a_second(cluster: Cluster) {
        let channel = cluster.nodes[0].channel("club", &["alice", "bob"]).await;
        let (mut alice, mut bob) = (cluster.client(1, "alice").await, cluster.client(2, "bob").await);
        let started = Instant::now();
        cluster.nodes[0].directory().remove_member("club", "alice").await.unwrap();
        let left = timeout(Duration::from_secs(5), alice.expect("channel:left")).await.unwrap();
        assert_eq!((&left["channel_id"], &left["reason"]), (&json!(channel), &json!("removed")));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        bob.ok("message:send", json!({ "channel_id": channel, "body": "is she gone?" })).await;
        assert_eq!(alice.events_so_far().await, []);
    }

    async fn who_does_not_look_gets_digests_of_other_nodes_and_everything_once_they_look(cluster: Cluster) {
        let (mut alice, mut bob) = (cluster.client(0, "alice").await, cluster.client(1, "bob").await);
        let channel = first_channel(&alice);
        bob.ok("channel:focus", json!({ "channel_ids": [] })).await;
        for body in ["one", "two", "three"] {
            alice.ok("message:send", json!({ "channel_id": channel, "body": body })).await;
        }
        let mut digest = bob.event().await;
        while digest.1["channels"][0]["last_seq"] != 3 {
            assert_eq!(digest.0, "channel:activity");
            digest = bob.event().await;
        }
        let in_view = bob.ok("channel:focus", json!({ "channel_ids": [channel] })).await;
        assert_eq!(in_view["channels"][0]["last_seq"], 3);
        alice.ok("message:send", json!({ "channel_id": channel, "body": "four" })).await;
        assert_eq!(bob.expect("message:new").await["seq"], 4);
        cluster.nodes[0].directory().remove_member("general", "bob").await.unwrap();
        bob.expect("channel:left").await;
        alice.ok("message:send", json!({ "channel_id": channel, "body": "five" })).await;
        assert_eq!(bob.events_so_far().await, []);
    }

    async fn who_is_online_on_another_node_is_here_and_hears_of_every_mention_once(cluster: Cluster) {
        let channel = cluster.nodes[0].channel("club", &["alice", "bob", "carol", "dave"]).await;
        cluster.nodes[0].directory().add_member("club", "alice", RoleName::Owner).await.unwrap();
        let (mut alice, mut bob) = (cluster.client(0, "alice").await, cluster.client(1, "bob").await);
        let mut carol = cluster.client(2, "carol").await;
        let bob_id = bob.ready["user"]["id"].clone();
        let moderators = "00000000-0000-7000-8000-000000000003";
        cluster.nodes[0].directory().add_member("club", "carol", RoleName::Moderator).await.unwrap();
        for mentions in [
            json!({"users": [bob_id]}), json!({"roles": [moderators]}), json!({"here": true}), json!({"channel": true}),
        ] {
            let request = json!({ "channel_id": channel, "body": "you", "mentions": mentions });
            alice.ok("message:send", request).await;
        }
        // Those of a user and those of everybody take different ways: their order is not promised.
        let kinds = |mentions: &[Value]| {
            mentions.iter().map(|new| new["kind"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
        };
        assert_eq!(kinds(&next(&mut bob, "mention:new", 3).await), ["user", "here", "channel"].map(str::to_owned).into());
        assert_eq!(kinds(&next(&mut carol, "mention:new", 3).await), ["role", "here", "channel"].map(str::to_owned).into());
        for client in [&mut alice, &mut bob, &mut carol] {
            let more = client.events_so_far().await;
            assert!(more.iter().all(|(name, _)| name != "mention:new"), "{more:?}");
        }
        let dave = cluster.client(1, "dave").await;
        let state = dave.ready["channels"].as_array().unwrap().iter().find(|it| it["channel_id"] == json!(channel));
        assert_eq!(state.unwrap()["mention_count"], 1, "who was away is not here");
    }

    async fn what_is_sent_while_the_broker_is_away_arrives_in_order_when_it_is_back(cluster: Cluster) {
        let (mut alice, mut bob) = (cluster.client(0, "alice").await, cluster.client(1, "bob").await);
        let mut neighbour = cluster.client(0, "carol").await;
        let channel = first_channel(&alice);
        alice.ok("message:send", json!({ "channel_id": channel, "body": "before" })).await;
        assert_eq!(seqs(&next(&mut bob, "message:new", 1).await), [1]);
        if cluster.broker.kind != Kind::Postgres {
            cluster.broker.proxy.set(Line::Cut);
        }
        for n in 0..20 {
            alice.ok("message:send", json!({ "channel_id": channel, "body": format!("{n}") })).await;
        }
        assert_eq!(seqs(&next(&mut neighbour, "message:new", 21).await), (1..=21).collect::<Vec<i64>>());
        cluster.broker.proxy.set(Line::Open);
        let started = Instant::now();
        let messages = timeout(Duration::from_secs(10), next(&mut bob, "message:new", 20)).await.unwrap();
        assert_eq!(seqs(&messages), (2..=21).collect::<Vec<i64>>());
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        alice.ok("message:send", json!({ "channel_id": channel, "body": "after" })).await;
        assert_eq!(seqs(&next(&mut bob, "message:new", 1).await), [22]);
    }

    async fn the_health_names_the_broker_with_its_latency_and_an_outage_only_degrades(cluster: Cluster) {
        let node = &cluster.nodes[0];
        let part = match cluster.broker.kind {
            Kind::Redis => "redis",
            Kind::Nats => "nats",
            Kind::Postgres => "bus",
        };
        let report = health(node).await;
        assert_eq!(report["checks"][part]["status"], "up", "{report}");
        assert!(report["checks"][part]["latency_ms"].is_number());
        assert_eq!(report["checks"]["cluster"]["status"], "up");
        if cluster.broker.kind == Kind::Postgres {
            return cluster.stop().await;
        }
        cluster.broker.proxy.set(Line::Cut);
        let deadline = Instant::now() + Duration::from_secs(20);
        let report = loop {
            let report = health(node).await;
            if report["checks"][part]["status"] == "down" || Instant::now() > deadline {
                break report;
            }
        };
        assert_eq!((&report["checks"][part]["status"], &report["status"]), (&json!("down"), &json!("degraded")));
        cluster.broker.proxy.set(Line::Open);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_without_a_bus_on_one_database_are_told_so() {
    let database = crate::postgres::create().await;
    let start = |edit: fn(&mut Config)| {
        let url = database.clone();
        TestServer::start_with(crate::server::Kind::Sqlite, move |config| {
            config.database.url = Some(url.into());
            edit(config);
        })
    };
    let one = Box::pin(start(|_| {})).await;
    assert_eq!(health(&one).await["checks"]["cluster"]["status"], "up");
    let two = Box::pin(start(|_| {})).await;
    let report = health(&two).await;
    assert_eq!(
        (&report["checks"]["cluster"]["status"], &report["status"]),
        (&json!("down"), &json!("degraded"))
    );
    two.stop().await;
    let url = Some(database.into());
    let config = imks::testing::models::db::Config { url, ..Default::default() };
    let db = Db::connect(&config).await.unwrap();
    let stranger = ClusterNode {
        node: "x".into(),
        name: "x".into(),
        adapter: "redis imks".into(),
        contact: Default::default(),
    };
    assert_eq!(stranger.renew(&db).await.unwrap().len(), 1, "the node that left is not counted");
    one.stop().await;
    assert_eq!(stranger.renew(&db).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_one_sqlite_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let config = || {
        let mut config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() };
        config.database.data_dir = directory.path().into();
        config
    };
    let one = Box::pin(imks::testing::app::App::start(config())).await.unwrap();
    let refused = Box::pin(imks::testing::app::App::start(config())).await.unwrap_err().to_string();
    assert!(refused.contains("is used by another imks server"), "{refused}");
    let drain = imks::testing::config::Drain { delay: Duration::ZERO, deadline: Duration::from_secs(10) };
    one.drain(drain).await.unwrap();
    let again = Box::pin(imks::testing::app::App::start(config())).await.unwrap();
    again.drain(drain).await.unwrap();
}
