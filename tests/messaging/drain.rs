//! Going away: nothing acknowledged is lost, and clients come back by themselves.

use serde_json::{Value, json};

use crate::client::TestClient;
use crate::server::{Kind, TestServer, first_channel};

async fn drains(kind: Kind) {
    let server = TestServer::start(kind).await;
    let token = server.token("alice").await;
    let mut alice = TestClient::connect(server.addr(), &token).await;
    let channel = first_channel(&alice);
    for number in 0..20 {
        alice.ask("message:send", json!({ "channel_id": channel, "body": number.to_string() })).await;
    }
    alice.ok("ping", json!({})).await;
    let going = tokio::join!(server.stop(), async {
        alice.ended().await;
        alice
    });
    let mut alice = going.1;
    let events = alice.kept();
    let shutdown = events.iter().find(|(name, _)| name == "server:shutdown").expect("a word before the end");
    assert!(shutdown.1["reconnect_after_ms"].as_u64().unwrap() < 30_000);
    let mut told: Vec<Value> = events
        .into_iter()
        .filter(|(name, _)| name == "message:new")
        .map(|(_, message)| message["id"].clone())
        .collect();
    let (stored, refused): (Vec<Value>, Vec<Value>) =
        alice.kept_answers().into_iter().partition(|answer| answer["data"]["message"].is_object());
    let mut stored: Vec<Value> =
        stored.into_iter().map(|answer| answer["data"]["message"]["id"].clone()).collect();
    told.sort_by_key(Value::to_string);
    stored.sort_by_key(Value::to_string);
    assert_eq!(told, stored, "what was stored is acked and told before the end");
    assert!(refused.iter().all(|answer| answer["error"]["retryable"] == true), "{refused:?}");
    assert_eq!(told.len() + refused.len(), 20, "every message is answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_is_stored_and_told_before_the_end_on_sqlite() {
    drains(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_is_stored_and_told_before_the_end_on_postgres() {
    drains(Kind::Postgres).await;
}
