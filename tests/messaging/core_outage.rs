//! A core of its own that is down, late, by turns, or without streams: what goes on, what is refused, and how it ends.

use std::time::Duration;

use imks::testing::clock::now_micros;
use imks::testing::config::Config;
use imks::testing::pb::v1;
use serde_json::json;
use sqlx::{Connection, SqliteConnection};
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::TestClient;
use crate::core::{FakeCore, Mode};
use crate::server::{Kind, TestServer, first_channel};
use crate::token::{Key, claims};

/// What a moderator may do.
const MODERATOR: u64 = 0b1111_1111_1111;

/// A server with a core, and the key that signs the core's tokens.
pub struct World {
    pub core: FakeCore,
    key: Key,
    pub server: TestServer,
}

impl World {
    pub async fn start(core: FakeCore, edit: impl FnOnce(&mut Config)) -> Self {
        let key = Key::ed25519("ed");
        core.set_keys(vec![key.listed()]);
        let configure = |config: &mut Config| {
            config.core_url = Some(core.url().into());
            config.core.deadline = Duration::from_millis(500);
            edit(config);
        };
        let server = TestServer::start_with(Kind::Sqlite, configure).await;
        Self { core, key, server }
    }

    /// A user with a channel of their own.
    pub fn user(&self) -> Uuid {
        let user = Uuid::now_v7();
        self.core.add_member(user, MODERATOR);
        let known =
            |user: Uuid| v1::User { id: user.to_string(), username: "alice".into(), ..Default::default() };
        self.core.set_users(vec![known(user)]);
        user
    }

    /// A token that the core has issued.
    pub fn token(&self, user: Uuid) -> String {
        self.key.token(user)
    }

    pub async fn client(&self, user: Uuid) -> TestClient {
        TestClient::connect(self.server.addr(), &self.token(user)).await
    }

    /// A token of a session.
    fn session_token(&self, user: Uuid, session: Uuid) -> String {
        let mut claims = claims("imks", user);
        claims["sid"] = json!(session);
        self.key.sign(&self.key.header(), &claims)
    }

    /// Ends a session, and waits until the server knows.
    async fn revoke_session(&self, user: Uuid, session: Uuid) {
        let (session_id, revoked_at_us) = (session.to_string(), now_micros());
        self.core.revoke(v1::Revocation { session_id, revoked_at_us, ..Default::default() });
        let token = self.session_token(user, session);
        loop {
            let mut client = TestClient::open(self.server.addr()).await;
            if client.join(json!({ "token": token })).await.is_err() {
                return;
            }
        }
    }

    /// A token that ends in half a minute.
    fn short_token(&self, user: Uuid) -> String {
        let mut claims = claims("imks", user);
        claims["exp"] = json!(now_micros() / 1_000_000 + 30);
        self.key.sign(&self.key.header(), &claims)
    }
}

/// Every answer about permissions is stale as soon as it is there, as in the sixth minute of an outage.
fn forgetful(config: &mut Config) {
    config.permissions.ttl = Duration::from_millis(1);
    config.permissions.outage_pause = Duration::from_millis(50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_leaves_members_chatting_refuses_what_must_be_and_ends_without_a_restart() {
    let world = World::start(FakeCore::start().await, forgetful).await;
    let user = world.user();
    let (mut alice, mut tablet) = (world.client(user).await, world.client(user).await);
    let channel = first_channel(&alice);
    let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "before" })).await;
    tablet.expect("message:new").await;
    world.core.stop();
    for number in 0..20 {
        alice.ok("message:send", json!({ "channel_id": channel, "body": number.to_string() })).await;
        assert_eq!(tablet.expect("message:new").await["body"], number.to_string());
    }
    let page = tablet.ok("history", json!({ "channel_id": channel })).await;
    assert_eq!(page["messages"].as_array().unwrap().len(), 21);
    let message_id = &sent["message"]["id"];
    let everyone = json!({ "channel_id": channel, "body": "@everyone", "mentions": { "channel": true } });
    for (event, request) in [
        ("pin:add", json!({ "channel_id": channel, "message_id": message_id })),
        ("message:send", everyone),
        ("auth:refresh", json!({ "token": world.key.token(user) })),
    ] {
        let error = alice.refused(event, request).await;
        assert_eq!(error["retryable"], true, "{event}: silence is a refusal for now: {error}");
    }
    let mut late = TestClient::open(world.server.addr()).await;
    late.raw(&format!("40{}", json!({ "token": world.key.token(user) }))).await;
    alice.ok("ping", json!({})).await;
    world.core.restart().await;
    assert_eq!(late.event().await.0, "session:ready", "who came meanwhile is let in");
    let pinned = async {
        loop {
            let request = json!({ "channel_id": channel, "message_id": message_id });
            if alice.call("pin:add", request).await["ok"] == true {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), pinned).await.expect("within seconds");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_core_that_is_late_or_answers_by_turns_is_not_noticed() {
    let world = World::start(FakeCore::start().await, forgetful).await;
    let user = world.user();
    for mode in [Mode::Slow, Mode::Flapping] {
        world.core.mode(mode);
        let mut alice = world.client(user).await;
        let channel = first_channel(&alice);
        for _ in 0..5 {
            alice.ok("message:send", json!({ "channel_id": channel, "body": "hi" })).await;
        }
        alice.ok("auth:refresh", json!({ "token": world.key.token(user) })).await;
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_says_and_reads_costs_no_call() {
    let world = World::start(FakeCore::start().await, |_| {}).await;
    let user = world.user();
    let (mut alice, mut tablet) = (world.client(user).await, world.client(user).await);
    let channel = first_channel(&alice);
    let before = world.core.all_calls();
    for number in 0..10 {
        let request = json!({ "channel_id": channel, "body": number.to_string() });
        let sent = alice.ok("message:send", request).await["message"].take();
        let id = &sent["id"];
        alice.ok("message:edit", json!({ "channel_id": channel, "message_id": id, "body": "edited" })).await;
        alice.ok("reaction:add", json!({ "channel_id": channel, "message_id": id, "emoji": "👍" })).await;
        alice.ok("history", json!({ "channel_id": channel })).await;
        alice.ok("read:mark", json!({ "channel_id": channel, "seq": sent["seq"] })).await;
        tablet.expect("message:new").await;
    }
    assert_eq!(world.core.all_calls() - before, 0, "all of it was known");
    world.client(user).await;
    assert_eq!(
        world.core.calls("get_signing_keys") + world.core.calls("verify_token"),
        1,
        "nor does a token"
    );
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn about_a_token_that_soon_ends_the_core_is_asked_before_a_session_starts() {
    let world = World::start(FakeCore::start().await, |_| {}).await;
    let user = world.user();
    TestClient::connect(world.server.addr(), &world.short_token(user)).await;
    assert_eq!(world.core.calls("verify_token"), 1);
    world.client(user).await;
    assert_eq!(world.core.calls("verify_token"), 1, "not about one that is good for an hour");
    world.core.revoke_silently(user);
    let mut client = TestClient::open(world.server.addr()).await;
    let refused = client.join(json!({ "token": world.short_token(user) })).await.unwrap_err();
    assert_eq!(refused["data"]["code"], "token_revoked");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_core_without_streams_a_withdrawn_token_ends_its_session_all_the_same() {
    let recheck = |config: &mut Config| config.messaging.recheck = Duration::from_millis(100);
    let world = World::start(FakeCore::start_without_streams().await, recheck).await;
    let (bob, user) = (world.user(), world.user());
    let users =
        [bob, user].map(|id| v1::User { id: id.to_string(), username: "x".into(), ..Default::default() });
    world.core.set_users(users.into());
    let (mut alice, mut bob) = (world.client(user).await, world.client(bob).await);
    world.core.revoke_silently(user);
    assert_eq!(alice.expect("auth:revoked").await, json!({}));
    alice.ended().await;
    bob.ok("ping", json!({})).await;
    world.core.mode(Mode::Unavailable);
    let asked = world.core.calls("verify_token");
    while world.core.calls("verify_token") < asked + 3 {
        bob.ok("ping", json!({})).await;
    }
    bob.ok("ping", json!({})).await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_core_without_streams_a_removed_member_leaves_the_room_all_the_same() {
    let recheck = |config: &mut Config| config.messaging.recheck = Duration::from_millis(100);
    let world = World::start(FakeCore::start_without_streams().await, recheck).await;
    let user = world.user();
    let mut alice = world.client(user).await;
    let channel = first_channel(&alice);
    let (id, kind) = (channel.clone(), v1::channel::Kind::Public.into());
    world.core.set_channels(vec![v1::Channel { id, kind, name: "general".into(), ..Default::default() }]);
    world.core.remove_silently(user, channel.parse().unwrap());
    let left = alice.expect("channel:left").await;
    assert_eq!((&left["channel_id"], &left["reason"]), (&json!(channel), &json!("removed")));
    let refused = alice.refused("message:send", json!({ "channel_id": channel, "body": "hello?" })).await;
    assert_eq!(refused["code"], "not_found");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_core_that_loses_its_streams_for_a_while_tells_what_happened_meanwhile() {
    let world = World::start(FakeCore::start().await, |_| {}).await;
    let user = world.user();
    let mut alice = world.client(user).await;
    let channel = first_channel(&alice);
    world.core.stop();
    world.core.remove_silently(user, channel.parse().unwrap());
    world.core.restart().await;
    let left = alice.expect("channel:left").await;
    assert_eq!(left["channel_id"], json!(channel), "as soon as the streams are back");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_connects_with_unknown_keys_cause_one_refresh() {
    let pause = Duration::from_secs(2);
    let edit = |config: &mut Config| config.token.refresh_pause = pause;
    let (world, started) = (World::start(FakeCore::start().await, edit).await, Instant::now());
    let user = world.user();
    let flood = (0..40).map(|client| {
        let world = &world;
        async move {
            for attempt in 0..50 {
                let token = Key::ed25519(&format!("k{client}-{attempt}")).token(user);
                let mut wire = TestClient::open(world.server.addr()).await;
                wire.raw(&format!("40{}", json!({ "token": token }))).await;
            }
            // Held until the keys can be looked at again.
            let token = Key::ed25519(&format!("k{client}")).token(user);
            let mut wire = TestClient::open(world.server.addr()).await;
            let refused = wire.join(json!({ "token": token })).await.unwrap_err();
            assert_eq!(refused["data"]["code"], "unauthenticated");
        }
    });
    futures_util::future::join_all(flood).await;
    world.client(user).await;
    let pauses = started.elapsed().as_secs() / pause.as_secs();
    let looks = u64::try_from(world.core.calls("get_signing_keys")).unwrap();
    assert!(looks <= 2 + pauses, "at the start, and one for each pause: {looks}, {pauses}");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_rotate_under_a_crowd_let_everybody_in() {
    let eager = |config: &mut Config| config.token.refresh_pause = Duration::from_millis(1);
    let world = World::start(FakeCore::start().await, eager).await;
    let user = world.user();
    for round in 0..5 {
        let new = Key::ed25519(&format!("round{round}"));
        world.core.set_keys(vec![new.listed()]);
        let crowd = (0..10).map(|_| async {
            let token = new.token(user);
            TestClient::connect(world.server.addr(), &token).await
        });
        futures_util::future::join_all(crowd).await;
    }
    world.client(user).await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_withdrawn_while_its_client_connects_lets_nobody_in() {
    let world = World::start(FakeCore::start().await, |_| {}).await;
    let user = world.user();
    world.core.mode(Mode::Slow);
    let mut client = TestClient::open(world.server.addr()).await;
    let withdrawn = async {
        // The token is verified before the core is asked for the channels.
        while world.core.calls("list_user_channels") == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        world.core.revoke(v1::Revocation {
            user_id: user.to_string(),
            revoked_at_us: now_micros(),
            ..Default::default()
        });
    };
    let (joined, ()) = tokio::join!(client.join(json!({ "token": world.key.token(user) })), withdrawn);
    assert_eq!(joined.unwrap_err()["data"]["code"], "token_revoked");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_token_that_is_withdrawn_while_the_core_accepts_it_ends_the_session() {
    let patient = |config: &mut Config| config.core.deadline = Duration::from_secs(20);
    let world = World::start(FakeCore::start().await, patient).await;
    let (user, session) = (world.user(), Uuid::now_v7());
    let mut alice = world.client(user).await;
    let gate = world.core.gate("verify_token");
    alice.emit("auth:refresh", json!({ "token": world.session_token(user, session) })).await;
    while world.core.calls("verify_token") == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    world.revoke_session(user, session).await;
    gate.add_permits(1);
    assert_eq!(alice.expect("auth:revoked").await, json!({}));
    alice.ended().await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_enters_a_room_on_the_word_of_a_membership_while_the_core_is_silent() {
    let world = World::start(FakeCore::start().await, |_| {}).await;
    let user = world.user();
    let mut alice = world.client(user).await;
    let general = first_channel(&alice);
    let club = v1::Membership {
        channel_id: Uuid::now_v7().to_string(),
        user_id: user.to_string(),
        channel_name: "club".into(),
        ..Default::default()
    };
    world.core.mode(Mode::Silent);
    world.core.join(club.clone());
    // Comes on the same stream after it, and needs no answer.
    world.core.leave(user, general.parse().unwrap());
    let (event, left) = alice.event().await;
    assert_eq!((event.as_str(), &left["channel_id"]), ("channel:left", &json!(general)));
    world.core.mode(Mode::Normal);
    world.core.set_bits(user, club.channel_id.parse().unwrap(), MODERATOR);
    world.core.join(club.clone());
    assert_eq!(alice.expect("channel:joined").await["channel_id"], json!(club.channel_id));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_a_channel_while_they_connect_is_not_left_in_its_room() {
    let world = World::start(FakeCore::start().await, |_| {}).await;
    let (user, bystander) = (world.user(), Uuid::now_v7());
    let channel = world.core.add_member(bystander, MODERATOR);
    world.core.join_silently(user, channel, MODERATOR);
    let mut bystander_client = world.client(bystander).await;
    // Holds the connect where it stores that everything before it is read: it is in the room by then.
    let file = world.server.database().data_dir.join("imks.db");
    let mut writer = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut writer).await.unwrap();
    let warmed = world.core.calls("batch_get_effective");
    let mut alice = TestClient::open(world.server.addr()).await;
    alice.raw(&format!("40{}", json!({ "token": world.key.token(user) }))).await;
    while world.core.calls("batch_get_effective") == warmed {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..100 {
        bystander_client.ok("ping", json!({})).await;
    }
    for member in [user, bystander] {
        world.core.set_bits(member, channel, 0);
    }
    world.core.invalidate(None, None);
    bystander_client.expect("channel:left").await;
    sqlx::raw_sql("ROLLBACK").execute(&mut writer).await.unwrap();
    assert_eq!(alice.event().await.0, "session:ready");
    assert_eq!(alice.expect("channel:left").await["channel_id"], json!(channel));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shared_a_channel_until_an_outage_sees_nothing_of_the_other_after_it() {
    let world = World::start(FakeCore::start().await, |_| {}).await;
    let [user, friend, other] = [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()];
    let (lost, kept) = (world.core.add_member(user, MODERATOR), world.core.add_member(other, MODERATOR));
    for channel in [lost, kept] {
        world.core.join_silently(friend, channel, MODERATOR);
    }
    let (mut alice, mut bob, mut carol) =
        (world.client(user).await, world.client(friend).await, world.client(other).await);
    for watcher in [&mut alice, &mut carol] {
        let seen = watcher.ok("presence:subscribe", json!({ "user_ids": [friend] })).await;
        assert_eq!(seen["presences"][0]["status"], "online");
    }
    let mut statuses = ["dnd", "online"].into_iter().cycle();
    let mut is_seen = async |alice: &mut TestClient| {
        bob.ok("presence:set", json!({ "status": statuses.next() })).await;
        carol.expect("presence:update").await;
        alice.events_so_far().await.iter().any(|(name, _)| name == "presence:update")
    };
    assert!(is_seen(&mut alice).await);
    world.core.stop();
    world.core.remove_silently(friend, lost);
    world.core.restart().await;
    let unseen = async {
        while is_seen(&mut alice).await {
            // A user may change their presence once in a second.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), unseen).await.expect("within seconds");
    world.server.stop().await;
}
