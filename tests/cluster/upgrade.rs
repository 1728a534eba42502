//! A rolling upgrade: the nodes of a cluster are of two versions that follow each other. Here all are of this one, and what
//! one half says to the other is written as by the version after it, and the other way round as by the one before.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use imks::bus::Pipe;
use imks::node::NodeId;
use imks::testing::config::Config;
use imks::testing::models::cluster_node::{ClusterNode, Contact};
use imks::testing::models::db::{self, Db};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::broker::{Broker, Kind};
use crate::serve::node;
use crate::server::{TestServer, first_channel};

/// Nothing takes longer, unless it will never come.
const PATIENCE: Duration = Duration::from_secs(15);
/// The channels on which nodes speak to all others.
const CHANNELS: [&str; 5] = ["cluster", "/", "channels", "presence", "rates"];

/// Returns a message as a version writes it that is so much later, with a field that this one does not know.
fn of_version(message: &[u8], later: i8) -> Bytes {
    const NAME: &[u8] = b"\xa7version";
    let at = message.windows(NAME.len()).position(|window| window == NAME).expect("a version");
    let mut message = message.to_vec();
    message[at + NAME.len()] = message[at + NAME.len()].strict_add_signed(later);
    assert!((0x81..0x8f).contains(&message[0]), "a map of few fields");
    message[0] += 1;
    message.extend_from_slice(b"\xa4more\x07");
    message.into()
}

/// Carries everything that is said in one cluster into the other.
async fn carry(
    from: &Arc<dyn Pipe>,
    to: &Arc<dyn Pipe>,
    nodes: &[NodeId],
    later: i8,
    tasks: &TaskTracker,
) -> Vec<AbortOnDropHandle<()>> {
    let mut carrying = Vec::new();
    let of_one = nodes.iter().map(|node| format!("presence:{node}"));
    for channel in CHANNELS.map(str::to_owned).into_iter().chain(of_one) {
        let mut said = from.subscribe(&channel);
        assert!(timeout(PATIENCE, said.confirmed()).await.unwrap());
        let to = to.clone();
        carrying.push(AbortOnDropHandle::new(tasks.spawn(async move {
            while let Some(message) = said.recv().await {
                // What was carried once is not carried back.
                if !message.ends_with(b"\xa4more\x07") {
                    to.publish(&channel, of_version(&message, later));
                }
            }
        })));
    }
    for node in nodes.iter().copied() {
        let mut said = from.receive(node);
        assert!(timeout(PATIENCE, said.confirmed()).await.unwrap());
        let to = to.clone();
        carrying.push(AbortOnDropHandle::new(tasks.spawn(async move {
            while let Some(message) = said.recv().await {
                let _ = to.send_to(node, of_version(&message, later)).await;
            }
        })));
    }
    carrying
}

/// The nodes on a database that have another adapter than this.
async fn nodes(database: &str, than: &str) -> HashSet<NodeId> {
    let config = db::Config { url: Some(database.to_owned().into()), ..db::Config::default() };
    let db = Db::connect(&config).await.unwrap();
    let asks = ClusterNode {
        node: "asks".into(),
        name: "asks".into(),
        adapter: than.into(),
        contact: Contact::default(),
    };
    let others = asks.renew(&db).await.unwrap();
    asks.leave(&db).await.unwrap();
    db.close().await;
    let others = others.iter().filter(|other| other.adapter != than);
    others.map(|other| NodeId::parse(&other.node).unwrap()).collect()
}

async fn versions_that_follow_each_other(kind: Kind) {
    let old = Broker::shared(kind).await;
    let new = Broker { prefix: format!("{}n", old.prefix), ..old.again() };
    let database = crate::postgres::create().await;
    let edit = |config: &mut Config| config.messaging.sessions_per_user = 0;
    let (one, two) = (node(&old, &database, &edit).await, node(&new, &database, &edit).await);
    let adapter =
        |broker: &Broker| format!("{} {}", if kind == Kind::Redis { "redis" } else { "nats" }, broker.prefix);
    let of_new: Vec<NodeId> = nodes(&database, &adapter(&old)).await.into_iter().collect();
    let of_old: Vec<NodeId> = nodes(&database, &adapter(&new)).await.into_iter().collect();
    assert_eq!((of_old.len(), of_new.len()), (1, 1));
    let tasks = TaskTracker::new();
    let ((_, in_old), (_, in_new)) = (old.pipe().await, new.pipe().await);
    let to_new = carry(&in_old, &in_new, &of_new, -1, &tasks).await;
    let to_old = carry(&in_new, &in_old, &of_old, 1, &tasks).await;
    Box::pin(everything_works(&one, &two)).await;
    Box::pin(everything_works(&two, &one)).await;
    drop((to_new, to_old));
    in_old.close().await;
    in_new.close().await;
    one.stop().await;
    two.stop().await;
}

/// What nodes tell each other: events of channels, what is shown for a moment, presence, orders and questions.
async fn everything_works(one: &TestServer, two: &TestServer) {
    let (mut alice, mut bob) = (one.client("alice").await, two.client("bob").await);
    let channel = first_channel(&alice);
    let bob_id = bob.ready["user"]["id"].clone();
    let here = json!({ "channel_id": channel });
    alice.ok("message:send", json!({ "channel_id": channel, "body": "hi" })).await;
    assert_eq!(timeout(PATIENCE, bob.expect("message:new")).await.unwrap()["body"], "hi");
    alice.ok("typing:start", here.clone()).await;
    assert_eq!(timeout(PATIENCE, bob.expect("typing")).await.unwrap()["typing"], true);
    let started = Instant::now();
    loop {
        let seen = alice.ok("presence:subscribe", json!({ "user_ids": [bob_id] })).await;
        let listed = alice.ok("presence:list", here.clone()).await;
        let is_listed = listed["presences"].as_array().unwrap().iter().any(|it| it["user_id"] == bob_id);
        if seen["presences"][0]["status"] == "online" && is_listed {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{seen} {listed}");
        sleep(Duration::from_secs(1)).await;
    }
    one.directory().remove_member("general", "bob").await.unwrap();
    timeout(PATIENCE, bob.expect("channel:left")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_versions_that_follow_each_other_are_one_cluster_with_redis() {
    Box::pin(versions_that_follow_each_other(Kind::Redis)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_versions_that_follow_each_other_are_one_cluster_with_nats() {
    Box::pin(versions_that_follow_each_other(Kind::Nats)).await;
}
