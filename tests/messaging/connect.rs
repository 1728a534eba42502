//! CONNECT, `session:ready`, and what is refused at the door.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use imks::socket::rate_limit::Rate;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::TestClient;
use crate::core::{FakeCore, Mode};
use crate::on_both;
use crate::server::{Kind, TestServer, first_channel};
use crate::token::Key;

on_both! {
    async fn the_first_event_says_who_where_and_what_is_unread(server: TestServer) {
        let mut bob = server.client("bob").await;
        let channel = first_channel(&bob);
        // Alice exists, and has read everything up to here, before Bob writes.
        server.client("alice").await;
        for number in 0..3 {
            bob.ok("message:send", json!({ "channel_id": channel, "body": number.to_string() })).await;
        }
        let alice = server.client("alice").await;
        let ready = &alice.ready;
        assert_eq!((&ready["protocol"], &ready["resumed"]), (&json!(1), &json!(false)));
        assert_eq!((&ready["server"]["name"], &ready["user"]["username"]), (&json!("imks"), &json!("alice")));
        assert_eq!((&ready["limits"]["body_chars"], &ready["limits"]["max_payload"]), (&json!(8000), &json!(1_000_000)));
        assert!(ready["server_time"].is_string() && ready["token_expires_at"].is_string());
        assert_eq!(ready["channels_complete"], true);
        let state = &ready["channels"][0];
        assert_eq!((&state["channel_id"], &state["name"]), (&json!(channel), &json!("general")));
        assert_eq!((&state["last_seq"], &state["rev"], &state["read_seq"]), (&json!(3), &json!(0), &json!(0)));
        assert_eq!((&state["unread_count"], &state["mention_count"], &state["muted"]), (&json!(3), &json!(0), &json!(false)));
    }

    async fn who_writes_has_read(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        alice.ok("message:send", json!({ "channel_id": channel, "body": "hi" })).await;
        let again = server.client("alice").await;
        let state = &again.ready["channels"][0];
        assert_eq!((&state["read_seq"], &state["unread_count"]), (&json!(1), &json!(0)));
    }

    async fn a_new_member_has_nothing_unread(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        alice.ok("message:send", json!({ "channel_id": channel, "body": "hi" })).await;
        let carol = server.client("carol").await;
        let state = &carol.ready["channels"][0];
        assert_eq!((&state["last_seq"], &state["read_seq"], &state["unread_count"]), (&json!(1), &json!(1), &json!(0)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_says_what_it_is_and_a_client_that_says_nonsense_comes_in_all_the_same() {
    let server = TestServer::start(Kind::Sqlite).await;
    let token = server.token("alice").await;
    let web = json!({"name": "web", "version": "1.4.0"});
    for (client, kept) in [
        (json!({"name": "web", "version": "1.4.0", "platform": "browser"}), web),
        (json!({"name": "x".repeat(100_000)}), json!({"name": "x".repeat(64), "version": null})),
        (json!(["web"]), json!(null)),
        (json!({"name": 7}), json!(null)),
    ] {
        let mut alice = TestClient::open(server.addr()).await;
        alice.join(json!({ "token": token, "client": client })).await.unwrap();
        assert_eq!(alice.expect("session:ready").await["client"], kept);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_has_ids_of_its_own_also_where_many_share_a_token() {
    let server = TestServer::start(Kind::Sqlite).await;
    let token = server.token("alice").await;
    let open = async || {
        let mut client = TestClient::open(server.addr()).await;
        let answer = client.join(json!({ "token": token })).await.unwrap();
        let ready = client.expect("session:ready").await;
        (client, answer, ready)
    };
    let clients = join_all((0..20).map(|_| open())).await;
    let different = |of: &dyn Fn(&(TestClient, Value, Value)) -> String| {
        clients.iter().map(of).collect::<HashSet<String>>().len()
    };
    assert_eq!(different(&|(client, ..)| client.sid.clone()), 20, "engine sids");
    assert_eq!(different(&|(_, answer, _)| answer["sid"].to_string()), 20, "socket ids");
    assert_eq!(different(&|(.., ready)| ready["connection_id"].to_string()), 20);
    assert_eq!(different(&|(.., ready)| ready["session_id"].to_string()), 1, "the session of the token");
    for (.., ready) in &clients {
        let id: Uuid = ready["connection_id"].as_str().unwrap().parse().unwrap();
        assert_eq!(id.get_version_num(), 7);
    }
    server.stop().await;
}

async fn refused(server: &TestServer, auth: Value) -> Value {
    let mut client = TestClient::open(server.addr()).await;
    client.join(auth).await.expect_err("the token should be refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_is_refused_with_a_stable_code_and_no_detail() {
    let server = TestServer::start(Kind::Sqlite).await;
    let good = server.token("alice").await;
    let (head, rest) = good.split_once('.').unwrap();
    let (claims, _) = rest.split_once('.').unwrap();
    let unsigned = format!("{head}.{claims}.");
    let forged = format!("{head}.{claims}.{}", "A".repeat(86));
    let long = "x".repeat(100_000);
    for token in [
        json!(""),
        json!("x"),
        json!(null),
        json!(7),
        json!({}),
        json!(["x"]),
        json!(unsigned),
        json!(forged),
        json!(long),
    ] {
        let error = refused(&server, json!({ "token": token })).await;
        let data = &error["data"];
        assert_eq!(
            (&data["code"], &data["retryable"]),
            (&json!("unauthenticated"), &json!(false)),
            "{error}"
        );
        assert_eq!((&data["message"], &data["details"]), (&error["message"], &json!(null)), "{error}");
    }
    assert_eq!(refused(&server, json!({})).await["data"]["code"], "unauthenticated");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_token_is_refused_as_such() {
    let server = TestServer::start_with(Kind::Sqlite, |config| config.token.leeway = Duration::ZERO).await;
    let user = server.directory().ensure_development("alice").await.unwrap();
    let short = server.directory().issue_token(&user, Duration::from_secs(3)).await.unwrap();
    let mut client = TestClient::connect(server.addr(), &short).await;
    // The server ends the session by itself; only then is the token certainly over.
    client.expect("auth:expired").await;
    assert_eq!(refused(&server, json!({ "token": short })).await["data"]["code"], "token_expired");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lives_on_with_a_new_token_of_the_same_user() {
    let server = TestServer::start(Kind::Sqlite).await;
    let user = server.directory().ensure_development("alice").await.unwrap();
    let short = server.directory().issue_token(&user, Duration::from_secs(30)).await.unwrap();
    let mut client = TestClient::connect(server.addr(), &short).await;
    let left = client.expect("auth:expiring").await["expires_in_ms"].as_i64().unwrap();
    assert!((1..=30_000).contains(&left), "{left}");
    let others = server.token("bob").await;
    assert_eq!(client.refused("auth:refresh", json!({ "token": others })).await["code"], "unauthenticated");
    let longer = server.token("alice").await;
    let answer = client.ok("auth:refresh", json!({ "token": longer })).await;
    assert_ne!(answer["token_expires_at"], client.ready["token_expires_at"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_its_newest_token_also_if_the_one_before_would_have_lasted_longer() {
    let server = TestServer::start_with(Kind::Sqlite, |config| config.token.leeway = Duration::ZERO).await;
    let mut client = server.client("alice").await;
    let user = server.directory().ensure_development("alice").await.unwrap();
    let short = server.directory().issue_token(&user, Duration::from_secs(3)).await.unwrap();
    client.ok("auth:refresh", json!({ "token": short })).await;
    let left = client.expect("auth:expiring").await["expires_in_ms"].as_i64().unwrap();
    assert!((1..=3_000).contains(&left), "{left}");
    client.expect("auth:expired").await;
    client.ended().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_may_have_so_many_sessions_and_no_more() {
    let server = TestServer::start_with(Kind::Sqlite, |config| config.messaging.sessions_per_user = 2).await;
    let token = server.token("alice").await;
    let first = TestClient::connect(server.addr(), &token).await;
    let _second = TestClient::connect(server.addr(), &token).await;
    let mut third = TestClient::open(server.addr()).await;
    third.raw(&format!("40{}", json!({ "token": token }))).await;
    server.client("bob").await;
    drop(first);
    assert_eq!(third.event().await.0, "session:ready", "as soon as there is room");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_connects_again_and_again_has_to_wait_and_comes_in() {
    let server =
        TestServer::start_with(Kind::Sqlite, |config| config.messaging.connects = Rate::new(1, 2)).await;
    let token = server.token("alice").await;
    let _first = TestClient::connect(server.addr(), &token).await;
    let _second = TestClient::connect(server.addr(), &token).await;
    let started = std::time::Instant::now();
    TestClient::connect(server.addr(), &token).await;
    assert!(started.elapsed() > Duration::from_millis(200), "{:?}", started.elapsed());
    server.client("bob").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_channels_come_in_several_events() {
    let server = TestServer::start(Kind::Sqlite).await;
    for number in 0..501 {
        server.channel(&format!("c{number}"), &["alice"]).await;
    }
    let mut alice = server.client("alice").await;
    assert_eq!(alice.ready["channels"].as_array().unwrap().len(), 500);
    assert_eq!(alice.ready["channels_complete"], false);
    let (name, rest) = alice.event().await;
    assert_eq!((name.as_str(), rest["channels"].as_array().unwrap().len()), ("session:channels", 2));
    assert_eq!(rest["channels_complete"], true);
    server.stop().await;
}

/// A server of a core that can be stopped, and a token of a user of it.
async fn with_a_core(connect_timeout: Duration) -> (FakeCore, TestServer, String) {
    let (core, key) = (FakeCore::start().await, Key::ed25519("ed"));
    core.set_keys(vec![key.listed()]);
    let edit = |config: &mut imks::testing::config::Config| {
        config.core_url = Some(core.url().into());
        config.socket.connect_timeout = connect_timeout;
    };
    let server = TestServer::start_with(Kind::Sqlite, edit).await;
    (core, server, key.token(uuid::Uuid::now_v7()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_while_the_core_is_away_is_let_in_when_it_is_back() {
    let (core, server, token) = with_a_core(Duration::from_secs(10)).await;
    core.stop();
    let mut client = TestClient::open(server.addr()).await;
    client.raw(&format!("40{}", json!({ "token": token }))).await;
    // An answer to a heartbeat of another client: by now the first attempt has failed.
    TestClient::open(server.addr()).await;
    core.restart().await;
    assert_eq!(client.event().await.0, "session:ready");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_cannot_be_let_in_loses_its_transport_and_gets_no_refusal() {
    let (core, server, token) = with_a_core(Duration::from_secs(1)).await;
    core.mode(Mode::Unavailable);
    let mut client = TestClient::open(server.addr()).await;
    client.raw(&format!("40{}", json!({ "token": token }))).await;
    client.ended().await;
    assert_eq!(client.kept(), [], "no packet, least of all a CONNECT_ERROR");
    assert_eq!(refused(&server, json!({ "token": "x" })).await["data"]["code"], "unauthenticated", "final");
    server.stop().await;
}
