//! Going away: nothing acknowledged is lost, and clients come back by themselves.

use serde_json::json;

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
    let told = events.iter().filter(|(name, _)| name == "message:new").count();
    assert_eq!(told, 20, "everything that was accepted is stored and told before the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_is_stored_and_told_before_the_end_on_sqlite() {
    drains(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_is_stored_and_told_before_the_end_on_postgres() {
    drains(Kind::Postgres).await;
}
