//! The calls reach the clients of other nodes, and what a node has missed is healed: two nodes, a core of its own.

use std::time::Duration;

use imks::testing::clock::now_micros;
use imks::testing::config::{ClusterAdapter, Config};
use imks::testing::models::db;
use imks::testing::models::revocation::{self, RevocationRow};
use imks::testing::pb::v1::{self, channel::Kind as ChannelKind};
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::backend::Backend;
use crate::client::TestClient;
use crate::core::FakeCore;
use crate::server::{Kind, TestServer, first_channel, text};
use crate::token::{Key, claims};
use crate::users::{user_of, within_a_second};

/// What a member may do.
const MEMBER: u64 = 0b1111_1111;

/// Two nodes with one database, which reach each other by it, and their core.
struct World {
    core: FakeCore,
    key: Key,
    database: String,
    /// The node that is called.
    one: Backend,
    /// The node that clients are connected to.
    two: TestServer,
}

fn configure(database: &str, core: &FakeCore) -> impl FnOnce(&mut Config) {
    let (database, core) = (database.to_owned(), core.url());
    move |config| {
        config.database.url = Some(database.into());
        config.database.max_connections = 8;
        config.append.lanes = 2;
        let patience = Duration::from_secs(10);
        (config.database.statement_timeout, config.database.acquire_timeout) = (patience, patience);
        config.cluster.adapter = Some(ClusterAdapter::Postgres);
        config.core_url = Some(core.into());
    }
}

impl World {
    async fn start() -> Self {
        let (core, key, database) =
            (FakeCore::start().await, Key::ed25519("ed"), crate::postgres::create().await);
        core.set_keys(vec![key.listed()]);
        let one = Box::pin(Backend::start_with(Kind::Sqlite, configure(&database, &core))).await;
        let two = Box::pin(TestServer::start_with(Kind::Sqlite, configure(&database, &core))).await;
        Self { core, key, database, one, two }
    }

    /// A user with a channel, both known to the core, and a client on the second node.
    async fn member(&self) -> (Uuid, v1::Channel, TestClient) {
        let user = Uuid::now_v7();
        let channel = self.core.add_member(user, MEMBER);
        let (id, kind) = (channel.to_string(), ChannelKind::Public.into());
        let channel = v1::Channel { id, kind, name: "general".into(), version: 3, ..v1::Channel::default() };
        self.core.set_channels(vec![channel.clone()]);
        let known = v1::User { id: user.to_string(), username: "alice".into(), ..v1::User::default() };
        self.core.set_users(vec![known]);
        (user, channel, self.client(user).await)
    }

    async fn client(&self, user: Uuid) -> TestClient {
        TestClient::connect(self.two.addr(), &self.key.token(user)).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.one.post(path, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body["data"].clone()
    }

    async fn stop(self) {
        self.one.stop().await;
        self.two.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kick_on_one_node_reaches_the_client_of_another_who_may_come_back_if_the_core_lets_them() {
    let world = World::start().await;
    let (user, channel, mut alice) = world.member().await;
    let body = json!({ "channel_id": channel.id, "reason": "spam" });
    assert_eq!(world.post(&format!("/users/{user}/kick"), body).await["sockets"], 1);
    let left = within_a_second(&mut alice, "channel:left").await;
    assert_eq!((&left["reason"], &left["message"]), (&json!("kicked"), &json!("spam")));
    let again = alice.ok("channel:subscribe", json!({ "channel_ids": [channel.id] })).await;
    assert_eq!(again["channels"][0]["ok"], true, "the core has not ended the membership");
    assert_eq!(world.post(&format!("/users/{user}/kick"), json!({})).await["sockets"], 1);
    within_a_second(&mut alice, "session:ended").await;
    assert!(alice.was_dismissed().await);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_session_ends_on_all_nodes_also_with_tokens_to_come_and_after_a_restart() {
    let world = World::start().await;
    let (user, ..) = world.member().await;
    let session = Uuid::now_v7();
    let token = |issued_in: i64| {
        let mut claims = claims("imks", user);
        claims["sid"] = json!(session);
        claims["iat"] = json!(claims["iat"].as_i64().unwrap() + issued_in);
        world.key.sign(&world.key.header(), &claims)
    };
    let (old, newer) = (token(0), token(2));
    let mut alice = TestClient::connect(world.two.addr(), &old).await;
    world.post("/sessions/revoke", json!({ "session_id": session, "reason": "stolen" })).await;
    assert_eq!(within_a_second(&mut alice, "auth:revoked").await["message"], "stolen");
    assert!(alice.was_dismissed().await);
    let World { core, database, one, two, key } = world;
    let refused = async |server: &TestServer, token: &str| {
        let mut client = TestClient::open(server.addr()).await;
        let refused = client.join(json!({ "token": token })).await.unwrap_err();
        assert_eq!(refused["data"]["code"], "token_revoked");
    };
    for token in [&old, &newer] {
        refused(&two, token).await;
        refused(&one, token).await;
    }
    two.stop().await;
    let restarted = Box::pin(TestServer::start_with(Kind::Sqlite, configure(&database, &core))).await;
    refused(&restarted, &old).await;
    refused(&restarted, &newer).await;
    TestClient::connect(restarted.addr(), &key.token(user)).await;
    restarted.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_is_revoked_can_sign_in_with_a_token_of_later() {
    let world = World::start().await;
    let (user, _, mut alice) = world.member().await;
    world.post("/sessions/revoke", json!({ "user_id": user })).await;
    assert_eq!(within_a_second(&mut alice, "auth:revoked").await, json!({}));
    let mut claims = claims("imks", user);
    claims["iat"] = json!(claims["iat"].as_i64().unwrap() + 3);
    let later = world.key.sign(&world.key.header(), &claims);
    TestClient::connect(world.two.addr(), &later).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_the_core_took_away_is_gone_on_all_nodes_within_a_second_of_the_call() {
    let world = World::start().await;
    let (user, channel, mut alice) = world.member().await;
    let message = json!({ "channel_id": channel.id, "body": "x" });
    alice.ok("message:send", message.clone()).await;
    world.core.set_bits(user, channel.id.parse().unwrap(), 0b101);
    alice.ok("message:send", message.clone()).await;
    world.post("/permissions/invalidate", json!({ "channel_id": channel.id })).await;
    assert_eq!(alice.refused("message:send", message).await["code"], "forbidden");
    world.core.set_bits(user, channel.id.parse().unwrap(), 0);
    world.post("/permissions/invalidate", json!({ "user_id": user })).await;
    assert_eq!(within_a_second(&mut alice, "channel:left").await["reason"], "forbidden");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_join_and_leave_on_all_nodes_as_the_core_tells() {
    let world = World::start().await;
    let (user, channel, mut alice) = world.member().await;
    let id: Uuid = channel.id.parse().unwrap();
    let tell = async |change: &str, version: i64| {
        let item = json!({ "user_id": user, "channel_id": id, "change": change, "version": version });
        world.post("/memberships/sync", json!({ "items": [item] })).await["results"][0].clone()
    };
    world.core.remove_silently(user, id);
    assert_eq!(tell("left", 8).await["applied"], true);
    assert_eq!(within_a_second(&mut alice, "channel:left").await["reason"], "removed");
    assert_eq!(tell("joined", 7).await["applied"], false, "it was sent before, and arrived late");
    assert_eq!(tell("joined", 9).await["failure"]["code"], "not_found", "the core does not say so");
    world.core.set_bits(user, id, MEMBER);
    let membership = v1::Membership {
        channel_id: id.to_string(),
        user_id: user.to_string(),
        channel_name: "general".into(),
        ..v1::Membership::default()
    };
    world.core.set_memberships(user, vec![membership]);
    assert_eq!(tell("joined", 9).await["applied"], true, "a repeat of what failed");
    assert_eq!(within_a_second(&mut alice, "channel:joined").await["name"], "general");
    alice.ok("message:send", json!({ "channel_id": id, "body": "back" })).await;
    assert_eq!(within_a_second(&mut alice, "message:new").await["body"], "back");
    assert_eq!(alice.events_so_far().await, [], "she was told once");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_holds_on_all_nodes_until_the_core_changes_the_channel() {
    let world = World::start().await;
    let (user, mut channel, mut alice) = world.member().await;
    let (message, path) =
        (json!({ "channel_id": channel.id, "body": "x" }), format!("/channels/{}/policy", channel.id));
    alice.ok("message:send", message.clone()).await;
    world.post(&path, json!({ "archived": true })).await;
    assert_eq!(within_a_second(&mut alice, "channel:updated").await["archived"], true);
    assert_eq!(alice.refused("message:send", message.clone()).await["code"], "channel_archived");
    let bot = json!({ "content": { "body": "x" } });
    let refused = world.one.post(&format!("/channels/{}/messages", channel.id), bot.clone()).await;
    assert_eq!(refused.code().1, "channel_archived", "{}", refused.body);
    world.post(&path, json!({ "archived": false, "slow_mode_s": 60 })).await;
    assert_eq!(within_a_second(&mut alice, "channel:updated").await["slow_mode_s"], 60);
    assert_eq!(alice.refused("message:send", message.clone()).await["code"], "slow_mode");
    let restarted =
        Box::pin(TestServer::start_with(Kind::Sqlite, configure(&world.database, &world.core))).await;
    let mut phone = TestClient::connect(restarted.addr(), &world.key.token(user)).await;
    assert_eq!(phone.refused("message:send", message.clone()).await["code"], "slow_mode");
    channel.version = 4;
    world.core.change_channel(channel);
    assert_eq!(within_a_second(&mut alice, "channel:updated").await["slow_mode_s"], 0);
    alice.ok("message:send", message.clone()).await;
    alice.ok("message:send", message).await;
    restarted.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_all_nodes_are_counted_and_ended_and_keys_are_fetched_when_told() {
    let world = World::start().await;
    let (user, _, mut alice) = world.member().await;
    let mut phone = TestClient::connect(world.one.addr(), &world.key.token(user)).await;
    let fetched = world.core.calls("get_signing_keys");
    world.post("/signing-keys/refresh", json!({})).await;
    assert!(world.core.calls("get_signing_keys") >= fetched + 2, "by both nodes");
    let node = text(&phone.ready["server"]["node"]);
    assert_eq!(world.post("/sessions/disconnect", json!({ "node": node })).await["sockets"], 1);
    within_a_second(&mut phone, "session:ended").await;
    assert_eq!(alice.events_so_far().await, []);
    assert_eq!(user_of(&alice), user.to_string());
    let channel = first_channel(&alice);
    assert_eq!(world.post("/sessions/disconnect", json!({ "channel_id": channel })).await["sockets"], 1);
    within_a_second(&mut alice, "session:ended").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_presence_of_users_of_other_nodes_is_known_and_when_they_were_active() {
    let world = World::start().await;
    let (user, _, mut alice) = world.member().await;
    let presence = async || {
        let answer = world.one.get(&format!("/presence?user_ids={user}")).await;
        answer.body["data"]["presences"][0].clone()
    };
    let until = async |status: &str| {
        while presence().await["status"] != status {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(5), until("online")).await.expect("she is online");
    let active = presence().await["last_active_us"].as_i64().unwrap();
    assert!((0..180_000_000).contains(&(now_micros() - active)), "{active}");
    alice.ok("presence:set", json!({ "status": "invisible" })).await;
    timeout(Duration::from_secs(5), until("offline")).await.expect("she is invisible");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawal_is_read_by_all_whatever_the_clock_of_the_node_that_stored_it() {
    let url = crate::postgres::create().await;
    let config = db::Config { url: Some(url.into()), ..db::Config::default() };
    let db = db::Db::connect(&config).await.unwrap();
    db.migrate().await.unwrap();
    let hour = 3_600_000_000;
    let (ahead, right) = (now_micros() + hour, now_micros());
    let mut subjects = Vec::new();
    for at in [ahead, right] {
        let subject_id = Uuid::now_v7();
        let row = RevocationRow { subject_id, is_session: false, void_until: right, at };
        row.store(&db).await.unwrap();
        subjects.push(subject_id);
    }
    let read = revocation::page(&db, (0, Uuid::nil())).await.unwrap();
    assert_eq!(read.iter().map(|row| row.subject_id).collect::<Vec<_>>(), subjects, "in their order");
    let newer = revocation::page(&db, (read[0].at, read[0].subject_id)).await.unwrap();
    assert_eq!(newer.len(), 1, "who has read the first one reads on with the second");
    assert_eq!(revocation::sweep(&db, hour, ahead + hour).await.unwrap(), 0, "they are not an hour old");
    db.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_kicked_while_away_does_not_continue_the_session() {
    let world = World::start().await;
    let (user, _, alice) = world.member().await;
    let back = async |before: TestClient| {
        let mut client = TestClient::open(world.two.addr()).await;
        let token = world.key.token(user);
        client.join(json!({ "token": token, "pid": before.pid, "offset": before.offset })).await.unwrap();
        client.expect("session:ready").await;
        let is_recovered = client.pid == before.pid;
        (client, is_recovered)
    };
    let (alice, is_recovered) = back(alice).await;
    assert!(is_recovered, "without a kick");
    let (pid, offset) = (alice.pid.clone(), alice.offset.clone());
    drop(alice);
    world.post(&format!("/users/{user}/kick"), json!({})).await;
    let mut again = TestClient::open(world.two.addr()).await;
    again.join(json!({ "token": world.key.token(user), "pid": pid, "offset": offset })).await.unwrap();
    assert_ne!(again.pid, pid);
    world.stop().await;
}
