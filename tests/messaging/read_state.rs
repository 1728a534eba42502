//! `read:mark` and unread counts.

use serde_json::json;

use crate::on_both;
use crate::server::first_channel;

on_both! {
    async fn reading_on_one_device_is_told_to_the_others_and_never_goes_back(server: TestServer) {
        let mut bob = server.client("bob").await;
        let channel = first_channel(&bob);
        let (mut phone, mut laptop) = (server.client("alice").await, server.client("alice").await);
        for number in 0..5 {
            bob.ok("message:send", json!({ "channel_id": channel, "body": number.to_string() })).await;
        }
        let marked = phone.ok("read:mark", json!({ "channel_id": channel, "seq": 3 })).await;
        assert_eq!(marked, json!({ "read_seq": 3, "unread_count": 2, "mention_count": 0 }));
        let update = laptop.expect("read:updated").await;
        assert_eq!((&update["channel_id"], &update["read_seq"], &update["unread_count"]),
            (&json!(channel), &json!(3), &json!(2)));
        let late = laptop.ok("read:mark", json!({ "channel_id": channel, "seq": 1 })).await;
        assert_eq!(late["read_seq"], 3);
        let beyond = laptop.ok("read:mark", json!({ "channel_id": channel, "seq": 1_000_000 })).await;
        assert_eq!((&beyond["read_seq"], &beyond["unread_count"]), (&json!(5), &json!(0)));
    }

    async fn a_deleted_message_is_not_unread_and_a_mention_counts(server: TestServer) {
        let mut bob = server.client("bob").await;
        let channel = first_channel(&bob);
        let alice = server.client("alice").await;
        let id = alice.ready["user"]["id"].clone();
        let spam = bob.ok("message:send", json!({ "channel_id": channel, "body": "spam" })).await;
        bob.ok("message:send", json!({ "channel_id": channel, "body": "@alice", "mentions": { "users": [id] } })).await;
        bob.ok("message:delete", json!({ "channel_id": channel, "message_id": spam["message"]["id"] })).await;
        let again = server.client("alice").await;
        let state = &again.ready["channels"][0];
        assert_eq!((&state["unread_count"], &state["mention_count"]), (&json!(1), &json!(1)));
    }
}
