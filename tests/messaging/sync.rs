//! `sync`: what a client missed, and nothing else.

use serde_json::{Value, json};

use crate::on_both;
use crate::server::{first_channel, text};

fn cursor(channel: &str, seq: i64, rev: i64) -> Value {
    json!({ "channels": [{ "channel_id": channel, "seq": seq, "rev": rev }] })
}

on_both! {
    async fn one_call_brings_new_edited_and_deleted_messages(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        let mut ids = Vec::new();
        for number in 1..=3 {
            let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": number.to_string() })).await;
            ids.push(text(&sent["message"]["id"]));
        }
        // A client that was here until the second message.
        alice.ok("message:edit", json!({ "channel_id": channel, "message_id": ids[0], "body": "one" })).await;
        alice.ok("message:edit", json!({ "channel_id": channel, "message_id": ids[0], "body": "One" })).await;
        alice.ok("message:delete", json!({ "channel_id": channel, "message_id": ids[1] })).await;
        let answer = alice.ok("sync", cursor(&channel, 2, 0)).await;
        let synced = &answer["channels"][0];
        assert_eq!((&synced["seq"], &synced["rev"]), (&json!(3), &json!(3)));
        assert_eq!((&synced["truncated"], &synced["reset"], &answer["more"]), (&json!(false), &json!(false), &json!(false)));
        assert_eq!((synced["messages"].as_array().unwrap().len(), &synced["messages"][0]["body"]), (1, &json!("3")));
        let changes = synced["changes"].as_array().unwrap();
        assert_eq!(changes.len(), 2, "one entry per message");
        assert_eq!((&changes[0]["rev"], &changes[0]["message"]["body"]), (&json!(2), &json!("One")));
        assert!(changes[1]["message"]["deleted_at"].is_string());
        let nothing = alice.ok("sync", cursor(&channel, 3, 3)).await;
        assert_eq!((&nothing["channels"][0]["messages"], &nothing["channels"][0]["changes"]), (&json!([]), &json!([])));
        assert_eq!(nothing["user"]["read_states"][0]["unread_count"], 0);
    }

    async fn too_much_to_tell_is_said_and_the_newest_page_comes(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        for number in 1..=12 {
            alice.ok("message:send", json!({ "channel_id": channel, "body": number.to_string() })).await;
        }
        let mut request = cursor(&channel, 0, 0);
        request["limit_per_channel"] = 5.into();
        let answer = alice.ok("sync", request).await;
        let synced = &answer["channels"][0];
        assert_eq!((&synced["truncated"], &synced["seq_range"]), (&json!(true), &json!([8, 12])));
    }

    async fn foreign_channels_are_told_as_removed_whether_they_exist_or_not(server: TestServer) {
        let private = server.channel("secret", &["bob"]).await;
        let mut alice = server.client("alice").await;
        let nowhere = "01909a00-0000-7000-8000-000000000001";
        let request = json!({ "channels": [
            { "channel_id": private, "seq": 0, "rev": 0 }, { "channel_id": nowhere, "seq": 0, "rev": 0 }] });
        let answer = alice.ok("sync", request).await;
        assert_eq!((&answer["channels"], &answer["removed_channels"]), (&json!([]), &json!([private, nowhere])));
    }

    async fn a_cursor_from_the_future_is_reset(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        alice.ok("message:send", json!({ "channel_id": channel, "body": "1" })).await;
        let answer = alice.ok("sync", cursor(&channel, 90, 9)).await;
        assert_eq!(answer["channels"][0]["reset"], true);
    }
}
