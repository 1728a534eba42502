//! Coming back: a client whose connection was lost continues where it was, gets what it missed once and in order, and gets a
//! new session where the server is not sure.

use std::time::Duration;

use imks::testing::directory::RoleName;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::client::TestClient;
use crate::script::Script;
use crate::server::{Kind, TestServer, first_channel, text};

/// A client that comes back with what it knows of its session.
async fn back(server: &TestServer, token: &str, before: &TestClient) -> (TestClient, bool) {
    let mut client = TestClient::open(server.addr()).await;
    let auth = json!({ "token": token, "pid": before.pid, "offset": before.offset });
    client.join(auth).await.unwrap();
    let is_recovered = client.pid == before.pid;
    client.ready = client.expect("session:ready").await;
    assert_eq!(client.ready["resumed"], is_recovered, "both say the same");
    (client, is_recovered)
}

async fn say(client: &mut TestClient, channel: &str, body: &str) -> Value {
    client.ok("message:send", json!({ "channel_id": channel, "body": body })).await["message"].clone()
}

/// The bodies of the messages that have come, after everything that was sent before has.
async fn bodies(client: &mut TestClient) -> Vec<String> {
    client.ok("ping", json!({})).await;
    let messages = client.kept().into_iter().filter(|(name, _)| name == "message:new");
    messages.map(|(_, message)| text(&message["body"])).collect()
}

async fn is_told_once_and_in_order(kind: Kind) {
    let server = TestServer::start(kind).await;
    let token = server.token("bob").await;
    let (mut alice, mut bob) =
        (server.client("alice").await, TestClient::connect(server.addr(), &token).await);
    let channel = first_channel(&bob);
    assert_eq!(bob.ready["resumed"], false);
    let first = say(&mut alice, &channel, "first").await;
    bob.expect("message:new").await;
    let lost = bob;
    for body in ["second", "third"] {
        say(&mut alice, &channel, body).await;
    }
    let edit = json!({ "channel_id": channel, "message_id": first["id"], "body": "first!" });
    alice.ok("message:edit", edit).await;
    let (mut bob, is_recovered) = back(&server, &token, &lost).await;
    assert!(is_recovered);
    assert_eq!(bob.ready["channels"], json!([]), "it knows them");
    say(&mut alice, &channel, "fourth").await;
    let mut told = Vec::new();
    while told.len() < 4 {
        let (name, event) = bob.event().await;
        if name.starts_with("message:") {
            told.push((name, text(&event["body"])));
        }
    }
    let expected = [
        ("message:new", "second"),
        ("message:new", "third"),
        ("message:updated", "first!"),
        ("message:new", "fourth"),
    ];
    assert_eq!(told, expected.map(|(name, body)| (name.to_owned(), body.to_owned())));
    // What it does from here on counts too, and again it can come back.
    let lost = bob;
    say(&mut alice, &channel, "fifth").await;
    let (mut bob, is_recovered) = back(&server, &token, &lost).await;
    assert!(is_recovered);
    assert_eq!(bodies(&mut bob).await, ["fifth"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_gets_what_was_missed_once_and_in_order_on_sqlite() {
    is_told_once_and_in_order(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_gets_what_was_missed_once_and_in_order_on_postgres() {
    is_told_once_and_in_order(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_quiet_comes_back_as_well_and_so_does_who_has_got_nothing_yet() {
    let server = TestServer::start(Kind::Sqlite).await;
    let token = server.token("bob").await;
    let (mut alice, bob) = (server.client("alice").await, TestClient::connect(server.addr(), &token).await);
    let channel = first_channel(&bob);
    let (bob, is_recovered) = back(&server, &token, &bob).await;
    assert!(is_recovered, "with the offset of session:ready alone");
    say(&mut alice, &channel, "hi").await;
    let (mut bob, is_recovered) = back(&server, &token, &bob).await;
    assert!(is_recovered);
    assert_eq!(bodies(&mut bob).await, ["hi"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_continued_by_its_user_once_and_with_an_offset_of_its_own_only() {
    let server = TestServer::start(Kind::Sqlite).await;
    let token = server.token("bob").await;
    let mut bob = TestClient::connect(server.addr(), &token).await;
    let channel = first_channel(&bob);
    say(&mut bob, &channel, "hi").await;
    bob.expect("message:new").await;
    let (_, is_recovered) = back(&server, &server.token("eve").await, &bob).await;
    assert!(!is_recovered, "somebody else");
    for wrong in [None, Some("x"), Some("AAAAAAAAAAAAAAAAAAAAAA")] {
        let right = std::mem::replace(&mut bob.offset, wrong.map(str::to_owned));
        let (_, is_recovered) = back(&server, &token, &bob).await;
        assert!(!is_recovered, "{wrong:?}");
        bob.offset = right;
    }
    let auth = json!({ "token": token, "pid": bob.pid, "offset": bob.offset });
    let attempt = async || {
        let mut client = TestClient::open(server.addr()).await;
        client.try_join(auth.clone()).await.filter(|()| client.pid == bob.pid).map(|()| client)
    };
    let (first, second) = tokio::join!(attempt(), attempt());
    bob.ended().await;
    match (first, second) {
        (Some(mut first), Some(mut second)) => tokio::select! {
            () = first.ended() => second.ok("ping", json!({})).await,
            () = second.ended() => first.ok("ping", json!({})).await,
        },
        (first, second) => first.or(second).expect("one of two continues").ok("ping", json!({})).await,
    };
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_was_dismissed_or_left_by_itself_gets_a_new_session() {
    let server = TestServer::start(Kind::Sqlite).await;
    let token = server.token("bob").await;
    let mut bob = TestClient::connect(server.addr(), &token).await;
    let (pid, offset) = (bob.pid.clone(), bob.offset.clone());
    bob.raw("41").await;
    bob.join(json!({ "token": token, "pid": pid, "offset": offset })).await.unwrap();
    assert_ne!(bob.pid, pid, "it has left");
    bob.expect("session:ready").await;
    bob.ok("channel:focus", json!({ "channel_ids": [] })).await;
    let (_, is_recovered) = back(&server, &token, &bob).await;
    assert!(!is_recovered, "of what it does not look at it gets digests");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_wants_no_offsets_gets_none() {
    let server = TestServer::start(Kind::Sqlite).await;
    let token = server.token("bob").await;
    for (agent, recovery) in [("x", Some(false)), ("python-requests/2", None)] {
        let mut bob = TestClient::open_with(server.addr(), "", &[("user-agent", agent)]).await;
        let auth = match recovery {
            Some(recovery) => json!({ "token": token, "recovery": recovery }),
            None => json!({ "token": token }),
        };
        bob.join(auth).await.unwrap();
        bob.ready = bob.expect("session:ready").await;
        let channel = first_channel(&bob);
        say(&mut bob, &channel, "hi").await;
        bob.expect("message:new").await;
        assert_eq!((&bob.pid, &bob.offset), (&None, &None), "{agent}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_began_or_ended_meanwhile_are_told_and_those_that_were_left_stay_so() {
    let server = TestServer::start(Kind::Sqlite).await;
    let [ended, left] = [server.channel("ended", &["bob"]).await, server.channel("left", &["bob"]).await];
    let token = server.token("bob").await;
    let mut bob = TestClient::connect(server.addr(), &token).await;
    bob.ok("channel:unsubscribe", json!({ "channel_ids": [left] })).await;
    server.directory().remove_member("ended", "bob").await.unwrap();
    bob.expect("channel:left").await;
    server.directory().add_member("ended", "bob", RoleName::default()).await.unwrap();
    bob.expect("channel:joined").await;
    bob.ok("channel:subscribe", json!({ "channel_ids": [ended] })).await;
    let lost = bob;
    server.directory().remove_member("ended", "bob").await.unwrap();
    let began = server.channel("began", &["bob"]).await;
    let (mut bob, is_recovered) = back(&server, &token, &lost).await;
    assert!(is_recovered);
    let listed: Vec<&Value> = bob.ready["channels"].as_array().unwrap().iter().collect();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!((&listed[0]["channel_id"], &listed[0]["name"]), (&json!(began), &json!("began")));
    let gone = bob.expect("channel:left").await;
    assert_eq!((&gone["channel_id"], &gone["reason"]), (&json!(ended), &json!("removed")));
    let mut alice = server.client("alice").await;
    server.directory().add_member("left", "alice", RoleName::default()).await.unwrap();
    alice.expect("channel:joined").await;
    say(&mut alice, &left, "nobody hears").await;
    assert_eq!(bodies(&mut bob).await, Vec::<String>::new());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_missed_more_than_the_bound_or_was_away_too_long_gets_a_new_session() {
    let server = TestServer::start_with(Kind::Sqlite, |config| {
        config.messaging.resume.missed = 3;
        config.messaging.resume.window = Duration::from_secs(2);
    })
    .await;
    let token = server.token("bob").await;
    let mut alice = server.client("alice").await;
    let bob = TestClient::connect(server.addr(), &token).await;
    let channel = first_channel(&bob);
    for _ in 0..4 {
        say(&mut alice, &channel, "hi").await;
    }
    let (bob, is_recovered) = back(&server, &token, &bob).await;
    assert!(!is_recovered);
    assert_eq!(bob.ready["channels"][0]["last_seq"], 4, "and all channels");
    for _ in 0..3 {
        say(&mut alice, &channel, "hi").await;
    }
    let (mut bob, is_recovered) = back(&server, &token, &bob).await;
    assert!(is_recovered);
    assert_eq!(bodies(&mut bob).await.len(), 3);
    let lost = (bob.pid.clone(), bob.offset.clone());
    drop(bob);
    // Nothing says when the window is over: the time is what is tested.
    sleep(Duration::from_secs(4)).await;
    let mut client = TestClient::open(server.addr()).await;
    client.join(json!({ "token": token, "pid": lost.0, "offset": lost.1 })).await.unwrap();
    assert_ne!(client.pid, lost.0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_missed_as_much_as_their_connection_has_room_for_comes_back_all_the_same() {
    let server = TestServer::start_with(Kind::Sqlite, |config| {
        config.messaging.answers.connection_bytes = 256 << 10;
    })
    .await;
    let token = server.token("bob").await;
    let (mut alice, bob) = (server.client("alice").await, TestClient::connect(server.addr(), &token).await);
    let channel = first_channel(&bob);
    for _ in 0..3 {
        say(&mut alice, &channel, "hi").await;
    }
    let (mut bob, is_recovered) = back(&server, &token, &bob).await;
    assert!(is_recovered);
    assert_eq!(bodies(&mut bob).await.len(), 3);
    server.stop().await;
}

async fn a_stock_client_is_cut(kind: Kind, via: &str) {
    let server = TestServer::start(kind).await;
    let (token, mut alice) = (server.token("bob").await, server.client("alice").await);
    let channel = first_channel(&alice);
    let url = format!("http://{}", server.addr());
    let mut bob = Script::start("resume.js", &[("URL", &url), ("TOKEN", &token), ("VIA", via)]);
    let begun = bob.hears(|line| line["session"].is_object());
    assert_eq!(begun["session"]["recovered"], false);
    let mut sent = Vec::new();
    for round in 0..4 {
        for n in 0..5 {
            sent.push(format!("{round} {n}"));
            say(&mut alice, &channel, &sent[sent.len() - 1]).await;
            if n == 2 {
                bob.tell("cut");
                bob.hears(|line| line["cut"] == true);
            }
        }
        bob.tell("heal");
        let session = bob.hears(|line| line["session"].is_object())["session"].clone();
        assert_eq!((&session["recovered"], &session["resumed"]), (&json!(true), &json!(true)), "{round}");
        assert_eq!(session["channels"], json!([]));
    }
    bob.tell(&format!("got {}", sent.len()));
    let got = bob.hears(|line| line["got"].is_array())["got"].clone();
    let got: Vec<String> = got.as_array().unwrap().iter().map(|it| text(&it["body"])).collect();
    assert_eq!(got, sent, "each once, and in order");
    bob.ends_when_told();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_client_on_a_websocket_is_cut_again_and_again_and_misses_nothing() {
    Box::pin(a_stock_client_is_cut(Kind::Sqlite, "websocket")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_client_on_polling_is_cut_again_and_again_and_misses_nothing() {
    Box::pin(a_stock_client_is_cut(Kind::Postgres, "polling")).await;
}
