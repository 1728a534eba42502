//! The field `forward_of` of `message:send`.

use imks::testing::clock;
use serde_json::{Value, json};

use crate::on_both;
use crate::server::{first_channel, text};

on_both! {
    async fn a_forwarded_message_shows_what_was_forwarded_until_the_original_is_deleted(server: TestServer) {
        let source = server.channel("source", &["alice", "carol"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let mut carol = server.client("carol").await;
        let channel = first_channel(&bob);
        let original = carol.ok("message:send", json!({ "channel_id": source, "body": "the news" })).await;
        let id = &original["message"]["id"];
        let forward = json!({ "channel_id": channel, "forward_of": { "channel_id": source, "message_id": id }, "nonce": "f" });
        let sent = alice.ok("message:send", forward.clone()).await;
        assert_eq!((&sent["message"]["type"], &sent["message"]["body"]), (&json!("forwarded"), &json!("")));
        assert_eq!(alice.ok("message:send", forward).await["duplicate"], true);
        let seen = bob.expect("message:new").await;
        let copy = &seen["forward_of"];
        assert_eq!((&copy["id"], &copy["body"], &copy["author"]["username"]), (id, &json!("the news"), &json!("carol")));
        let comment = json!({ "channel_id": channel, "body": "look", "forward_of": { "channel_id": channel, "message_id": seen["id"] } });
        let again = bob.ok("message:send", comment).await;
        assert_eq!(again["message"]["forward_of"], *copy, "the forward of a mere forward shows the original");

        carol.ok("message:delete", json!({ "channel_id": source, "message_id": id })).await;
        let gone = |forward: &Value| (forward["body"].clone(), forward["deleted_at"].is_string());
        let page = bob.ok("history", json!({ "channel_id": channel })).await;
        for message in page["messages"].as_array().unwrap() {
            assert_eq!(gone(&message["forward_of"]), (json!(""), true));
        }
        let edit = json!({ "channel_id": channel, "message_id": again["message"]["id"], "body": "look!" });
        bob.ok("message:edit", edit).await;
        assert_eq!(gone(&alice.expect("message:updated").await["forward_of"]), (json!(""), true));
        let late = json!({ "channel_id": channel, "forward_of": { "channel_id": channel, "message_id": seen["id"] } });
        assert_eq!(bob.refused("message:send", late).await["code"], "message_deleted");
    }

    async fn nobody_can_forward_what_they_cannot_read(server: TestServer) {
        let secret = server.channel("secret", &["carol"]).await;
        let (mut carol, mut bob) = (server.client("carol").await, server.client("bob").await);
        let channel = first_channel(&bob);
        let sent = carol.ok("message:send", json!({ "channel_id": secret, "body": "the secret" })).await;
        let id = text(&sent["message"]["id"]);
        let forward = |source: &str, id: &str| json!({ "channel_id": channel, "forward_of": { "channel_id": source, "message_id": id } });
        assert_eq!(bob.refused("message:send", forward(&secret, &id)).await["code"], "not_found");
        assert_eq!(bob.refused("message:send", forward(&channel, &id)).await["code"], "not_found", "not a message of that channel");
        assert_eq!(bob.refused("message:send", forward(&channel, &channel)).await["code"], "not_found");
        let mut later = forward(&secret, &id);
        later["send_at"] = json!(clock::rfc3339(clock::now_micros() + 60_000_000));
        assert_eq!(bob.refused("schedule:create", later).await["code"], "not_found");
        assert_eq!(bob.refused("message:send", json!({ "channel_id": channel })).await["details"]["field"], "body");
        assert_eq!(bob.ok("history", json!({ "channel_id": channel })).await["messages"], json!([]));
    }
}
