//! The HTTP API: the handlers of the events, for callers without a socket.

use std::net::SocketAddr;

use imks::socket::rate_limit::Rate;
use serde_json::{Value, json};

pub(crate) use crate::http_request::{Response, send};
use crate::on_both;
use crate::server::{Kind, TestServer, first_channel, text};

/// Somebody who has a token and a channel, and no socket.
struct Caller {
    addr: SocketAddr,
    token: String,
    path: String,
}

impl Caller {
    async fn new(server: &TestServer, name: &str, channel: &str) -> Self {
        let path = format!("/api/v1/channels/{channel}/messages");
        Self { addr: server.addr(), token: server.token(name).await, path }
    }

    async fn post(&self, headers: &[(&str, &str)], body: Value) -> Response {
        let token = format!("Bearer {}", self.token);
        let headers = [headers, &[("Authorization", token.as_str())]].concat();
        send(self.addr, &format!("POST {}", self.path), &headers, &body.to_string()).await
    }

    async fn get(&self, query: &str) -> Response {
        let token = format!("bearer {}", self.token);
        send(self.addr, &format!("GET {}{query}", self.path), &[("authorization", &token)], "").await
    }
}

on_both! {
    async fn a_message_sent_over_http_is_stored_once_told_to_everybody_and_read_back(server: TestServer) {
        let mut bob = server.client("bob").await;
        let channel = first_channel(&bob);
        let alice = Caller::new(&server, "alice", &channel).await;
        let sent = alice.post(&[("Idempotency-Key", "k-1")], json!({ "body": "hello" })).await;
        assert_eq!((sent.status, &sent.body["ok"], &sent.body["data"]["duplicate"]), (201, &json!(true), &json!(false)));
        assert!(sent.body["meta"]["request_id"].is_string() && sent.head.contains("content-type: application/json"));
        let message = &sent.body["data"]["message"];
        assert_eq!((&message["body"], &message["nonce"], &message["author"]["username"]), (&json!("hello"), &json!("k-1"), &json!("alice")));
        assert_eq!(bob.expect("message:new").await["id"], message["id"]);

        let again = alice.post(&[("idempotency-key", "\"k-1\"")], json!({ "body": "hello", "nonce": "k-1" })).await;
        assert_eq!((again.status, &again.body["data"]["duplicate"]), (200, &json!(true)));
        assert_eq!(again.body["data"]["message"]["id"], message["id"]);
        let other = alice.post(&[("idempotency-key", "k-1")], json!({ "body": "other" })).await;
        assert_eq!(other.code(), (409, "nonce_conflict"));
        assert_eq!(alice.post(&[], json!({ "body": "second" })).await.status, 201);

        let page = alice.get("?limit=1").await;
        assert_eq!((page.status, &page.body["data"]["has_more_before"]), (200, &json!(true)));
        assert_eq!(page.body["data"]["messages"][0]["body"], "second");
        let newest = text(&page.body["data"]["messages"][0]["id"]);
        let page = alice.get(&format!("?before={newest}")).await;
        assert_eq!(page.body["data"]["messages"][0]["id"], message["id"]);
        assert_eq!(page.body["data"], bob.ok("history", json!({ "channel_id": channel, "before": newest })).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_the_codes_of_the_events_and_the_statuses_of_the_table() {
    let server = TestServer::start(Kind::Sqlite).await;
    let channel = server.channel("secret", &["bob"]).await;
    let (alice, bob) =
        (Caller::new(&server, "alice", &channel).await, Caller::new(&server, "bob", &channel).await);
    let hidden = alice.get("").await;
    assert_eq!(hidden.code(), (404, "not_found"));
    assert_eq!(alice.post(&[], json!({ "body": "hi" })).await.code(), (404, "not_found"));
    assert_eq!(bob.get("?limit=many").await.body["error"]["details"], json!({ "field": "limit" }));
    assert_eq!(bob.get("?limit=0").await.code(), (400, "invalid_input"));
    assert_eq!(bob.get(&format!("?channel_id={channel}")).await.code(), (400, "invalid_payload"));
    assert_eq!(bob.post(&[], json!({ "body": "" })).await.code(), (400, "invalid_input"));
    assert_eq!(bob.post(&[], json!(["body"])).await.code(), (400, "invalid_payload"));
    let elsewhere = json!({ "body": "hi", "channel_id": "01909a00-0000-7000-8000-000000000001" });
    assert_eq!(bob.post(&[], elsewhere).await.code(), (400, "invalid_payload"));
    let twice = bob.post(&[("idempotency-key", "a")], json!({ "body": "hi", "nonce": "b" })).await;
    assert_eq!(twice.code(), (400, "invalid_payload"));
    let long = bob.post(&[("idempotency-key", &"k".repeat(65))], json!({ "body": "hi" })).await;
    assert_eq!(
        (long.code(), &long.body["error"]["details"]),
        ((400, "invalid_input"), &json!({ "field": "nonce" }))
    );
    assert_eq!(bob.get("").await.body["data"]["messages"], json!([]), "nothing was stored");

    let (addr, path) = (server.addr(), &bob.path);
    for token in [None, Some("Bearer"), Some("Bearer x"), Some("Basic x")] {
        let headers: Vec<(&str, &str)> = token.into_iter().map(|token| ("authorization", token)).collect();
        let refused = send(addr, &format!("GET {path}"), &headers, "").await;
        assert_eq!(refused.code(), (401, "unauthenticated"), "{token:?}");
        assert!(refused.head.contains("www-authenticate: bearer"), "{}", refused.head);
    }
    assert_eq!(send(addr, &format!("DELETE {path}"), &[], "").await.code(), (405, "method_not_allowed"));
    assert_eq!(send(addr, "GET /api/v1/nothing", &[], "").await.code(), (404, "not_found"));
    let broken = send(
        addr,
        "GET /api/v1/channels/general/messages",
        &[("authorization", &format!("Bearer {}", bob.token))],
        "",
    )
    .await;
    assert_eq!(
        (broken.code(), &broken.body["error"]["details"]),
        ((400, "invalid_payload"), &json!({ "field": "channel_id" }))
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rate_of_a_user_counts_over_http_and_sockets_together() {
    let slow =
        |config: &mut imks::testing::config::Config| config.messaging.sends_per_channel = Rate::new(1, 2);
    let server = TestServer::start_with(Kind::Sqlite, slow).await;
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    let caller = Caller::new(&server, "alice", &channel).await;
    alice.ok("message:send", json!({ "channel_id": channel, "body": "hi" })).await;
    assert_eq!(caller.post(&[], json!({ "body": "hi" })).await.status, 201);
    let refused = caller.post(&[], json!({ "body": "hi" })).await;
    assert_eq!(refused.code(), (429, "rate_limited"));
    assert!(refused.head.contains("retry-after: 1\r\n"), "{}", refused.head);
    assert_eq!(refused.body["error"]["details"], json!({ "bucket": "send:user_channel" }));
    let error = alice.refused("message:send", json!({ "channel_id": channel, "body": "hi" })).await;
    assert_eq!(error["code"], "rate_limited");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_a_user_have_a_rate_and_bodies_a_size() {
    let tight = |config: &mut imks::testing::config::Config| {
        config.messaging.events = Rate::new(1, 3);
        config.engine.max_payload = 10_000;
    };
    let server = TestServer::start_with(Kind::Sqlite, tight).await;
    let channel = server.channel("room", &["alice"]).await;
    let alice = Caller::new(&server, "alice", &channel).await;
    let large = alice.post(&[], json!({ "body": "x", "padding": "x".repeat(20_000) })).await;
    assert_eq!(large.code(), (413, "payload_too_large"));
    for _ in 0..3 {
        assert_eq!(alice.get("").await.status, 200);
    }
    let refused = alice.get("").await;
    assert_eq!(refused.code(), (429, "rate_limited"));
    assert_eq!(refused.body["error"]["details"], json!({ "bucket": "requests:user" }));
    server.stop().await;
}
