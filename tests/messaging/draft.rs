//! `draft:set`, `draft:clear`, `draft:list` and `draft:updated`.

use serde_json::json;

use crate::on_both;
use crate::server::first_channel;

on_both! {
    async fn a_draft_written_on_the_phone_is_on_the_laptop_and_gone_when_it_is_sent(server: TestServer) {
        let (mut phone, mut laptop) = (server.client("alice").await, server.client("alice").await);
        let channel = first_channel(&phone);
        let draft = json!({ "channel_id": channel, "body": "dear all" });
        let stored = phone.ok("draft:set", draft.clone()).await;
        assert_eq!((&stored["version"], &stored["user_rev"]), (&json!(1), &json!(1)));
        let seen = laptop.expect("draft:updated").await;
        assert_eq!((&seen["body"], &seen["cleared"], &seen["thread_id"]), (&json!("dear all"), &json!(false), &json!(null)));
        assert_eq!(phone.ok("draft:set", draft).await["version"], 1, "the same text again changes nothing");
        phone.expect("draft:updated").await;
        let send = json!({ "channel_id": channel, "body": "dear all", "clear_draft": true, "nonce": "n" });
        phone.ok("message:send", send.clone()).await;
        let seen = laptop.expect("draft:updated").await;
        assert_eq!((&seen["body"], &seen["cleared"], &seen["version"], &seen["user_rev"]),
            (&json!(""), &json!(true), &json!(2), &json!(2)));
        assert_eq!(laptop.ok("draft:list", json!({})).await, json!({ "drafts": [], "next": null }));
        phone.ok("draft:set", json!({ "channel_id": channel, "body": "more" })).await;
        assert_eq!(phone.ok("message:send", send).await["duplicate"], true);
        let left = laptop.ok("draft:list", json!({})).await;
        assert_eq!(left["drafts"][0]["body"], "more", "a repeated send clears no later draft");
    }

    async fn a_device_that_was_away_gets_the_drafts_and_bookmarks_it_missed(server: TestServer) {
        let mut phone = server.client("alice").await;
        let channel = first_channel(&phone);
        let sent = phone.ok("message:send", json!({ "channel_id": channel, "body": "hello" })).await;
        let thread = sent["message"]["id"].clone();
        phone.ok("draft:set", json!({ "channel_id": channel, "body": "one" })).await;
        phone.ok("draft:set", json!({ "channel_id": channel, "thread_id": thread, "body": "two" })).await;
        phone.ok("bookmark:add", json!({ "channel_id": channel, "message_id": thread, "note": "read this" })).await;
        let mut laptop = server.client("alice").await;
        let first = laptop.ok("sync", json!({ "channels": [], "user_rev": 0 })).await;
        let user = &first["user"];
        assert_eq!((&user["rev"], &user["more"], &user["reset"]), (&json!(3), &json!(false), &json!(false)));
        assert_eq!((&user["drafts"][0]["body"], &user["drafts"][1]["thread_id"]), (&json!("one"), &thread));
        assert_eq!(user["bookmarks"][0]["note"], "read this");
        phone.ok("draft:clear", json!({ "channel_id": channel })).await;
        phone.ok("bookmark:remove", json!({ "message_id": thread })).await;
        let next = laptop.ok("sync", json!({ "channels": [], "user_rev": 3 })).await;
        assert_eq!((&next["user"]["rev"], &next["user"]["drafts"][0]["cleared"]), (&json!(5), &json!(true)));
        assert_eq!((&next["user"]["drafts"][1], &next["user"]["bookmarks"][0]["removed"]), (&json!(null), &json!(true)));
        let without = laptop.ok("sync", json!({ "channels": [] })).await;
        assert_eq!((&without["user"]["rev"], &without["user"]["drafts"]), (&json!(5), &json!([])));
        let foreign = laptop.ok("sync", json!({ "channels": [], "user_rev": 99 })).await;
        assert_eq!((&foreign["user"]["reset"], &foreign["user"]["rev"]), (&json!(true), &json!(5)));
    }

    async fn a_draft_is_private_and_one_that_others_overwrote_is_noticed(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let with = |body: &str, base: i64| json!({ "channel_id": channel, "body": body, "base_version": base });
        alice.ok("draft:set", with("one", 0)).await;
        alice.ok("draft:set", with("two", 1)).await;
        let error = alice.refused("draft:set", with("three", 1)).await;
        assert_eq!((&error["code"], &error["details"]), (&json!("version_mismatch"), &json!({ "current": 2 })));
        assert_eq!(alice.ok("draft:set", with("two", 1)).await["version"], 2, "a repeat of what is stored");
        assert_eq!(bob.ok("draft:list", json!({})).await["drafts"], json!([]));
        assert_eq!(bob.events_so_far().await, []);
        let secret = server.channel("secret", &["bob"]).await;
        let error = alice.refused("draft:set", json!({ "channel_id": secret, "body": "x" })).await;
        assert_eq!(error["code"], "not_found");
        let long = alice.refused("draft:set", json!({ "channel_id": channel, "body": "x".repeat(8_001) })).await;
        assert_eq!((&long["code"], &long["details"]["field"]), (&json!("invalid_input"), &json!("body")));
    }
}
