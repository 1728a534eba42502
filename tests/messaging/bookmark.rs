//! `bookmark:add`, `bookmark:update`, `bookmark:remove`, `bookmark:list` and `bookmark:updated`.

use imks::testing::clock;
use serde_json::json;

use crate::on_both;
use crate::server::first_channel;

on_both! {
    async fn a_saved_message_is_saved_on_every_device_with_its_note(server: TestServer) {
        let (mut phone, mut laptop) = (server.client("alice").await, server.client("alice").await);
        let channel = first_channel(&phone);
        let sent = phone.ok("message:send", json!({ "channel_id": channel, "body": "hello" })).await;
        let id = sent["message"]["id"].clone();
        let target = json!({ "channel_id": channel, "message_id": id });
        let saved = phone.ok("bookmark:add", target.clone()).await;
        assert_eq!((&saved["bookmark"]["message_id"], &saved["bookmark"]["note"]), (&id, &json!(null)));
        assert_eq!(laptop.expect("bookmark:updated").await, saved["bookmark"]);
        let with = |note| json!({ "channel_id": channel, "message_id": id, "note": note });
        assert_eq!(phone.ok("bookmark:update", with(json!("later"))).await["bookmark"]["note"], "later");
        assert_eq!(phone.ok("bookmark:add", target).await["bookmark"]["note"], "later", "saving again keeps the note");
        assert_eq!(phone.ok("bookmark:update", with(json!(null))).await["bookmark"]["note"], json!(null));
        let list = laptop.ok("bookmark:list", json!({})).await;
        assert_eq!((&list["bookmarks"][0]["message_id"], &list["bookmarks"][1], &list["next"]), (&id, &json!(null), &json!(null)));
        laptop.ok("bookmark:remove", json!({ "message_id": id })).await;
        laptop.ok("bookmark:remove", json!({ "message_id": id })).await;
        assert_eq!(phone.ok("bookmark:list", json!({})).await["bookmarks"], json!([]));
        assert_eq!(phone.refused("bookmark:update", with(json!("x"))).await["code"], "not_found");
    }

    async fn a_reminder_comes_when_it_is_due_and_once(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "hello" })).await;
        let soon = clock::rfc3339(clock::now_micros() + 700_000);
        let target = json!({ "channel_id": channel, "message_id": sent["message"]["id"], "remind_at": soon });
        alice.ok("bookmark:add", target.clone()).await;
        assert_eq!(alice.expect("bookmark:updated").await["reminded_at"], json!(null));
        let due = alice.expect("bookmark:updated").await;
        assert!(due["reminded_at"].is_string() && due["remind_at"].is_null());
        assert_eq!(due["user_rev"], 2);
        let others: Vec<_> = bob.events_so_far().await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(others, ["message:new"], "nobody else learns of it");
        let mut past = target;
        past["remind_at"] = json!("2020-01-01T00:00:00Z");
        let error = alice.refused("bookmark:update", past.clone()).await;
        assert_eq!((&error["code"], &error["details"]["field"]), (&json!("invalid_input"), &json!("remind_at")));
        past["remind_at"] = json!("tomorrow");
        assert_eq!(alice.refused("bookmark:update", past).await["details"]["field"], "remind_at");
    }

    async fn what_is_not_there_or_gone_cannot_be_saved(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "hello" })).await;
        let target = json!({ "channel_id": channel, "message_id": sent["message"]["id"] });
        let nothing = json!({ "channel_id": channel, "message_id": channel });
        assert_eq!(alice.refused("bookmark:add", nothing).await["code"], "not_found");
        alice.ok("message:delete", target.clone()).await;
        assert_eq!(alice.refused("bookmark:add", target).await["code"], "message_deleted");
    }
}
