//! Bodies that the server cannot read, messages that delete themselves, and the time for edits.

use std::time::Duration;

use imks::testing::clock;
use serde_json::json;

use crate::on_both;
use crate::server::{Kind, TestServer, first_channel};

on_both! {
    async fn an_encrypted_body_may_be_longer_and_nothing_of_it_is_shown_elsewhere(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let body = "QUJD".repeat(16 * 1024);
        let send = |body: &str| json!({ "channel_id": channel, "body": body, "content_type": "e2ee" });
        let sent = alice.ok("message:send", send(&body)).await;
        assert_eq!(sent["message"]["type"], "e2ee");
        assert_eq!(bob.expect("message:new").await["body"], json!(body));
        for wrong in ["", "plain text", &format!("{body}QUJD")] {
            let error = alice.refused("message:send", send(wrong)).await;
            assert_eq!((&error["code"], &error["details"]["field"]), (&json!("invalid_input"), &json!("body")));
        }
        let id = &sent["message"]["id"];
        let reply = bob.ok("message:send", json!({ "channel_id": channel, "body": "ok", "reply_to_message_id": id })).await;
        assert_eq!(reply["message"]["reply_to"]["body"], "");
        let forward = json!({ "channel_id": channel, "forward_of": { "channel_id": channel, "message_id": id } });
        assert_eq!(bob.refused("message:send", forward).await["details"]["field"], "forward_of");
        let edit = |body: &str| json!({ "channel_id": channel, "message_id": id, "body": body });
        assert_eq!(alice.refused("message:edit", edit("plain text")).await["details"]["field"], "body");
        assert_eq!(alice.ok("message:edit", edit("QUJE")).await["message"]["body"], "QUJE");
        let edits = alice.ok("message:edits", json!({ "channel_id": channel, "message_id": id })).await;
        assert_eq!(edits["edits"], json!([]));
        let long = alice.ok("message:send", json!({ "channel_id": channel, "body": "plain" })).await;
        let edit = json!({ "channel_id": channel, "message_id": long["message"]["id"], "body": body });
        assert_eq!(alice.refused("message:edit", edit).await["details"]["field"], "body", "only an encrypted body may be that long");
    }

    async fn a_message_deletes_itself_when_its_time_is_over(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let until = |millis: i64| json!(clock::rfc3339(clock::now_micros() + millis * 1_000));
        let request = json!({ "channel_id": channel, "body": "soon gone", "expires_at": until(1_200) });
        let sent = alice.ok("message:send", request).await;
        let kept = alice.ok("message:send", json!({ "channel_id": channel, "body": "kept", "expires_at": until(3_600_000) })).await;
        assert_eq!(bob.expect("message:new").await["expires_at"], sent["message"]["expires_at"]);
        let deleted = bob.expect("message:deleted").await;
        assert_eq!((&deleted["id"], &deleted["deleted_by"]), (&sent["message"]["id"], &sent["message"]["author"]["id"]));
        let page = bob.ok("history", json!({ "channel_id": channel })).await;
        assert_eq!((&page["messages"][0]["body"], &page["messages"][1]), (&json!(""), &kept["message"]));
        let past = json!({ "channel_id": channel, "body": "x", "expires_at": "2020-01-01T00:00:00Z" });
        assert_eq!(alice.refused("message:send", past).await["details"]["field"], "expires_at");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_can_be_edited_only_within_the_time_that_the_operator_gives() {
    let start = async |window| {
        let server =
            TestServer::start_with(Kind::Sqlite, |config| config.messaging.edit_window = Some(window)).await;
        let mut alice = server.client("alice").await;
        let limit = alice.ready["limits"]["edit_window_ms"].clone();
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "one" })).await;
        let edit =
            |body: &str| json!({ "channel_id": channel, "message_id": sent["message"]["id"], "body": body });
        alice.ok("message:edit", edit("one")).await;
        let answer = alice.call("message:edit", edit("two")).await;
        server.stop().await;
        (limit, answer["error"]["code"].clone())
    };
    assert_eq!(start(Duration::from_secs(3_600)).await, (json!(3_600_000), json!(null)));
    assert_eq!(
        start(Duration::ZERO).await,
        (json!(0), json!("edit_window_closed")),
        "the same text again is no edit"
    );
}
