//! `search`, by socket and over HTTP.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::api;
use crate::client::TestClient;
use crate::on_both;
use crate::server::{Kind, TestServer, first_channel};

/// Searches until there are `count` messages: the index follows the messages a moment later.
async fn search_until(client: &mut TestClient, request: Value, count: usize) -> Value {
    let searching = async {
        loop {
            let answer = client.call("search", request.clone()).await;
            let data = &answer["data"];
            if data["messages"].as_array().is_some_and(|messages| messages.len() == count) {
                return data.clone();
            }
            let passing = answer["ok"] == true || answer["error"]["code"] == "rate_limited";
            assert!(passing, "{answer}");
            let wait = answer["error"]["retry_after_ms"].as_u64().unwrap_or(150);
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    };
    timeout(Duration::from_secs(20), searching).await.expect("found in time")
}

on_both! {
    async fn a_member_finds_messages_of_their_channels_and_of_no_others(server: TestServer) {
        let secret = server.channel("secret", &["bob"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "我们在上海见面" })).await;
        bob.ok("message:send", json!({ "channel_id": secret, "body": "上海 秘密" })).await;
        let found = search_until(&mut bob, json!({ "q": "上海" }), 2).await;
        assert_eq!((&found["messages"][1]["id"], &found["next"]), (&sent["message"]["id"], &json!(null)));
        let found = search_until(&mut alice, json!({ "q": "上海" }), 1).await;
        assert_eq!(found["messages"][0], sent["message"]);
        let hidden = alice.refused("search", json!({ "q": "上海", "channel_ids": [secret] })).await;
        assert_eq!(hidden["code"], "not_found");
        let inside = search_until(&mut bob, json!({ "q": "上海", "channel_ids": [secret], "limit": 5 }), 1).await;
        assert_eq!(inside["messages"][0]["channel_id"], json!(secret));
    }

    async fn who_is_in_no_channel_finds_nothing(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        server.directory().remove_member(&channel, "alice").await.unwrap();
        alice.expect("channel:left").await;
        let found = alice.ok("search", json!({ "q": "party" })).await;
        assert_eq!(found, json!({ "messages": [], "next": null }));
    }

    async fn a_search_over_http_takes_lists_with_commas_and_pages_by_its_cursor(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        for number in 0..3 {
            alice.ok("message:send", json!({ "channel_id": channel, "body": format!("tea {number} https://a.example") })).await;
        }
        search_until(&mut alice, json!({ "q": "TEA" }), 3).await;
        let token = format!("Bearer {}", server.token("alice").await);
        let get = |query: String| {
            let token = token.clone();
            let addr = server.addr();
            async move { api::send(addr, &format!("GET /api/v1/search?{query}"), &[("authorization", &token)], "").await }
        };
        let first = get(format!("q=tea&limit=2&channel_ids={channel},{channel}&has=link")).await.data();
        assert_eq!(first["messages"].as_array().unwrap().len(), 2);
        let next = first["next"].as_str().unwrap().to_owned();
        let second = get(format!("q=tea&limit=2&cursor={next}")).await.data();
        assert_eq!(second["messages"][0]["body"], "tea 0 https://a.example");
        for (query, field) in [("q=", "q"), ("q=x&has=car", "has"), ("q=x&limit=51", "limit"), ("q=x&channel_ids=", "channel_ids")] {
            let refused = get(query.into()).await;
            assert_eq!(refused.field(), field, "{query}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_may_search_at_a_rate() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut alice = server.client("alice").await;
    let mut last = json!(null);
    for _ in 0..12 {
        last = alice.call("search", json!({ "q": "x" })).await;
    }
    assert_eq!(last["error"]["details"]["bucket"], "search:user");
    server.stop().await;
}
