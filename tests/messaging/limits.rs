//! Rate limits: who is too fast is told when to come back.

use imks::socket::rate_limit::Rate;
use imks::testing::directory::RoleName;
use serde_json::json;

use crate::server::{Kind, TestServer, first_channel};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_third_message_at_once_is_refused_with_the_time_to_wait() {
    let slow =
        |config: &mut imks::testing::config::Config| config.messaging.sends_per_channel = Rate::new(1, 2);
    let server = TestServer::start_with(Kind::Sqlite, slow).await;
    let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
    let channel = first_channel(&alice);
    let request = json!({ "channel_id": channel, "body": "hi" });
    alice.ok("message:send", request.clone()).await;
    alice.ok("message:send", request.clone()).await;
    let error = alice.refused("message:send", request.clone()).await;
    assert_eq!((&error["code"], &error["retryable"]), (&json!("rate_limited"), &json!(true)));
    assert_eq!(error["details"], json!({ "bucket": "send:user_channel" }));
    assert!((1..=1000).contains(&error["retry_after_ms"].as_u64().unwrap()), "{error}");
    bob.ok("message:send", request.clone()).await;
    let mut other_device = server.client("alice").await;
    assert_eq!(other_device.refused("message:send", request).await["code"], "rate_limited");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_slow_mode_the_next_message_waits_and_a_retry_or_a_moderator_does_not() {
    let server = TestServer::start(Kind::Sqlite).await;
    let directory = server.directory();
    let new =
        imks::testing::directory::NewChannel { name: "slow".into(), slow_mode_s: 600, ..Default::default() };
    let channel = directory.create_channel(new).await.unwrap().id.to_string();
    for (name, role) in
        [("alice", RoleName::Member), ("bob", RoleName::Member), ("carol", RoleName::Moderator)]
    {
        directory.ensure_user(name).await.unwrap();
        directory.add_member("slow", name, role).await.unwrap();
    }
    let mut alice = server.client("alice").await;
    let request = |nonce: &str| json!({ "channel_id": channel, "body": "hi", "nonce": nonce });
    alice.ok("message:send", request("1")).await;
    let again = alice.ok("message:send", request("1")).await;
    assert_eq!(again["duplicate"], true);
    let error = alice.refused("message:send", request("2")).await;
    assert_eq!((&error["code"], &error["retryable"]), (&json!("slow_mode"), &json!(true)));
    assert!((590_000..=600_000).contains(&error["retry_after_ms"].as_u64().unwrap()), "{error}");
    server.client("bob").await.ok("message:send", request("1")).await;
    let mut carol = server.client("carol").await;
    carol.ok("message:send", request("1")).await;
    carol.ok("message:send", request("2")).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_events_of_any_kind_is_limited_per_connection() {
    let server =
        TestServer::start_with(Kind::Sqlite, |config| config.messaging.events = Rate::new(1, 5)).await;
    let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
    for _ in 0..5 {
        alice.ok("ping", json!({})).await;
    }
    let error = alice.refused("no:such:event", json!({})).await;
    assert_eq!(error["details"], json!({ "bucket": "events:socket" }));
    bob.ok("ping", json!({})).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_floods_on_and_on_is_disconnected_and_nobody_else() {
    let server =
        TestServer::start_with(Kind::Sqlite, |config| config.messaging.events = Rate::new(50, 100)).await;
    let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
    for _ in 0..3_000 {
        if alice.try_raw(r#"42["no:such:event",{}]"#).await.is_err() {
            break;
        }
    }
    alice.ended().await;
    bob.ok("ping", json!({})).await;
    server.stop().await;
}
