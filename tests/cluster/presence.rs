//! The presence of users who are connected to any of several nodes: one for the whole cluster.

use std::time::Duration;

use imks::testing::config::{ClusterAdapter, Config};
use imks::testing::directory::RoleName;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::broker::{Broker, Kind};
use crate::client::TestClient;
use crate::proxy::Line;
use crate::server::{self, TestServer};

/// A server that uses this database, and this broker to reach others.
async fn node(broker: &Broker, database: &str) -> TestServer {
    let configure = |config: &mut Config| {
        config.database.url = Some(database.to_owned().into());
        config.database.max_connections = 8;
        let patience = Duration::from_secs(10);
        (config.database.statement_timeout, config.database.acquire_timeout) = (patience, patience);
        config.cluster.prefix.clone_from(&broker.prefix);
        let url = Some(broker.url().into());
        match broker.kind {
            Kind::Redis => config.cluster.redis_url = url,
            Kind::Nats => config.cluster.nats_url = url,
            Kind::Postgres => config.cluster.adapter = Some(ClusterAdapter::Postgres),
        }
    };
    TestServer::start_with(server::Kind::Sqlite, configure).await
}

/// The database of the nodes; their broker too, if that is PostgreSQL.
async fn database(broker: &Broker) -> String {
    match &broker.database {
        Some(database) => database.clone(),
        None => crate::postgres::create().await,
    }
}

fn id(client: &TestClient) -> Value {
    client.ready["user"]["id"].clone()
}

async fn update(watcher: &mut TestClient) -> Value {
    watcher.expect("presence:update").await
}

async fn watch(watcher: &mut TestClient, user: &Value) -> Value {
    watcher.ok("presence:subscribe", json!({ "user_ids": [user] })).await["presences"][0].clone()
}

/// Asks until the user is seen like that. Nodes hear of each other's users a moment later. What is seen may arrive as an
/// update as well, before the answer or after it.
async fn until_seen(watcher: &mut TestClient, user: &Value, status: &str) -> Value {
    let seen = async {
        loop {
            let seen = watch(watcher, user).await;
            if seen["status"] == status {
                break seen;
            }
            sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), seen).await.expect("all nodes to know")
}

/// Whether a client that has seen this has to show an update.
fn is_news(update: &Value, seen: &Value) -> bool {
    update["user_id"] != seen["user_id"] || update["version"].as_i64() > seen["version"].as_i64()
}

/// Answers the heartbeats of the server.
async fn stay(client: &mut TestClient) {
    loop {
        client.ok("ping", json!({})).await;
        sleep(Duration::from_secs(1)).await;
    }
}

async fn list(client: &mut TestClient, channel: &str) -> Vec<Value> {
    let listed = client.ok("presence:list", json!({ "channel_id": channel })).await;
    listed["presences"].as_array().unwrap().iter().map(|it| it["user_id"].clone()).collect()
}

/// Waits for an update after what was `seen` as long as it takes, up to `patience`.
async fn update_within(watcher: &mut TestClient, seen: &Value, patience: Duration) -> Value {
    let deadline = Instant::now() + patience;
    loop {
        let events = watcher.events_so_far().await;
        let mut updates = events.into_iter().filter(|(name, _)| name == "presence:update");
        if let Some((_, update)) = updates.find(|(_, update)| is_news(update, seen)) {
            return update;
        }
        assert!(Instant::now() < deadline, "no update came");
        sleep(Duration::from_millis(250)).await;
    }
}

async fn one_presence_for_all_nodes(kind: Kind) {
    let broker = Broker::shared(kind).await;
    let database = database(&broker).await;
    let (one, two) = (node(&broker, &database).await, node(&broker, &database).await);
    let channel = one.channel("club", &["alice", "bob", "carol", "dave"]).await;
    one.directory().add_member("club", "alice", RoleName::Owner).await.unwrap();
    let bob_token = one.token("bob").await;
    let bob_id = json!(one.directory().ensure_user("bob").await.unwrap().id);
    let (mut alice, mut carol) = (one.client("alice").await, two.client("carol").await);
    assert_eq!(watch(&mut alice, &bob_id).await["status"], "offline");
    watch(&mut carol, &bob_id).await;

    // Seen from the other node, once, and alike.
    let mut phone = TestClient::connect(two.addr(), &bob_token).await;
    let seen = update(&mut alice).await;
    assert_eq!((&seen["user_id"], &seen["status"]), (&bob_id, &json!("online")));
    assert_eq!(update(&mut carol).await, seen, "also the version");
    let mut dave = one.client("dave").await;
    assert_eq!(watch(&mut dave, &bob_id).await, seen, "who asks later is told the same");
    let mut laptop = TestClient::connect(one.addr(), &bob_token).await;
    laptop.ok("presence:set", json!({ "status": "dnd" })).await;
    assert_eq!(phone.expect("presence:own").await["status"], "dnd");
    let dnd = update(&mut carol).await;
    assert_eq!(dnd["status"], "dnd", "the second device was no change");
    assert_eq!(update(&mut alice).await, dnd);

    // Listed and mentioned on all nodes, wherever they are connected.
    let mut all = vec![id(&alice), bob_id.clone(), id(&carol), id(&dave)];
    all.sort_by_key(Value::to_string);
    assert_eq!(list(&mut alice, &channel).await, all);
    assert_eq!(list(&mut carol, &channel).await, all);
    let rest = json!({ "channel_id": channel, "cursor": all[1] });
    let rest = alice.ok("presence:list", rest).await["presences"].clone();
    assert_eq!((&rest[0]["user_id"], &rest[1]["user_id"], &rest[2]), (&all[2], &all[3], &Value::Null));
    let here = json!({ "channel_id": channel, "body": "lunch?", "mentions": { "here": true } });
    alice.ok("message:send", here).await;
    assert_eq!(carol.expect("mention:new").await["kind"], "here");

    // Moving to another node is not told, neither is a second device that leaves.
    drop(phone);
    drop(laptop);
    let mut phone = TestClient::connect(one.addr(), &bob_token).await;
    phone.ok("presence:set", json!({ "status": "invisible" })).await;
    let hidden = update(&mut alice).await;
    assert_eq!((&hidden["status"], update(&mut carol).await), (&json!("offline"), hidden.clone()));
    let laptop = TestClient::connect(two.addr(), &bob_token).await;
    all.retain(|user| *user != bob_id);
    assert_eq!(list(&mut alice, &channel).await, all, "nobody sees who is invisible");
    assert_eq!(list(&mut carol, &channel).await, all);
    drop(laptop);
    phone.ok("presence:set", json!({ "status": "online" })).await;
    assert_eq!(update(&mut carol).await["status"], "online");
    assert_eq!(update(&mut alice).await["status"], "online");

    drop(phone);
    Box::pin(leaves_in_order([one, two], [alice, carol], (&bob_id, &bob_token), (&broker, &database))).await;
}

/// A node leaves in order while Bob is connected to it, and another one joins. Nobody is told that he has moved.
async fn leaves_in_order(
    [one, two]: [TestServer; 2],
    [mut alice, _]: [TestClient; 2],
    (bob_id, bob_token): (&Value, &str),
    (broker, database): (&Broker, &str),
) {
    let phone = TestClient::connect(two.addr(), bob_token).await;
    let ((), mut phone) = tokio::join!(two.stop(), async {
        let mut phone = phone;
        phone.ended().await;
        TestClient::connect(one.addr(), bob_token).await
    });
    let three = node(broker, database).await;
    let mut carol = three.client("carol").await;
    let seen = until_seen(&mut carol, bob_id, "online").await;
    phone.ok("presence:set", json!({ "status": "idle" })).await;
    let idle = update(&mut alice).await;
    assert_eq!(idle["status"], "idle", "nothing was told of the move");
    assert_eq!(update_within(&mut carol, &seen, Duration::from_secs(5)).await["status"], "idle");
    one.stop().await;
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_have_one_presence_on_all_nodes_and_may_move_between_them_over_redis() {
    Box::pin(one_presence_for_all_nodes(Kind::Redis)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_have_one_presence_on_all_nodes_and_may_move_between_them_over_nats() {
    Box::pin(one_presence_for_all_nodes(Kind::Nats)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_have_one_presence_on_all_nodes_and_may_move_between_them_over_postgres() {
    Box::pin(one_presence_for_all_nodes(Kind::Postgres)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_a_node_that_is_gone_go_offline_and_are_back_when_it_is_heard_again() {
    let (broker, far) = (Broker::shared(Kind::Redis).await, Broker::shared(Kind::Redis).await);
    let far = Broker { prefix: broker.prefix.clone(), ..far };
    let database = crate::postgres::create().await;
    let (one, two) = (node(&broker, &database).await, node(&far, &database).await);
    let (mut alice, mut bob) = (one.client("alice").await, two.client("bob").await);
    let carol = two.client("carol").await;
    let carol_token = one.token("carol").await;
    let (bob_id, carol_id) = (id(&bob), id(&carol));
    until_seen(&mut alice, &bob_id, "online").await;
    let carol_seen = until_seen(&mut alice, &carol_id, "online").await;
    bob.ok("presence:set", json!({ "status": "dnd" })).await;
    while update(&mut alice).await["status"] != "dnd" {}
    // For the others, a node that is cut off is as good as dead.
    far.proxy.set(Line::Cut);
    let phone = TestClient::connect(one.addr(), &carol_token).await;
    let gone = tokio::select! {
        gone = update_within(&mut alice, &carol_seen, Duration::from_secs(60)) => gone,
        () = stay(&mut bob) => panic!("bob stays"),
    };
    assert_eq!((&gone["user_id"], &gone["status"]), (&bob_id, &json!("offline")), "carol came back in time");
    assert_eq!(watch(&mut alice, &carol_id).await["status"], "online");
    far.proxy.set(Line::Open);
    let back = update_within(&mut alice, &gone, Duration::from_secs(20)).await;
    assert_eq!((&back["user_id"], &back["status"]), (&bob_id, &json!("dnd")), "with what he chose");
    drop((phone, bob, carol));
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_chose_holds_when_they_come_back_after_a_restart() {
    let broker = Broker::shared(Kind::Postgres).await;
    let database = database(&broker).await;
    let before = node(&broker, &database).await;
    let mut bob = before.client("bob").await;
    bob.ok("presence:set", json!({ "status": "dnd" })).await;
    drop(bob);
    before.stop().await;
    let after = node(&broker, &database).await;
    let (bob, mut alice) = (after.client("bob").await, after.client("alice").await);
    assert_eq!(watch(&mut alice, &id(&bob)).await["status"], "dnd");
    after.stop().await;
}
