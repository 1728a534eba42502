//! `reaction:add` and `reaction:remove`.

use serde_json::json;

use crate::on_both;
use crate::server::first_channel;

on_both! {
    async fn a_reaction_reaches_everybody_with_the_totals_and_shows_in_history(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "hello" })).await;
        let (message, user) = (sent["message"]["id"].clone(), bob.ready["user"]["id"].clone());
        let target = json!({ "channel_id": channel, "message_id": message, "emoji": "👍" });
        let added = bob.ok("reaction:add", target.clone()).await;
        assert_eq!(added, json!({ "message_id": message, "emoji": "👍", "count": 1, "rev": 1 }));
        let mut event = alice.expect("reaction:updated").await;
        assert!(event["event_id"].take().is_string());
        assert_eq!(event, json!({ "channel_id": channel, "message_id": message, "rev": 1, "event_id": null,
            "action": "add", "emoji": "👍", "user_id": user, "count": 1,
            "reactions": { "👍": { "count": 1, "user_ids": [user] } } }));
        for (client, me) in [(&mut alice, false), (&mut bob, true)] {
            let page = client.ok("history", json!({ "channel_id": channel })).await;
            let total = &page["messages"][0]["reactions"]["👍"];
            assert_eq!((&total["count"], total["me"] == json!(true)), (&json!(1), me));
        }
        let synced = bob.ok("sync", json!({ "channels": [{ "channel_id": channel, "seq": 1, "rev": 0 }] })).await;
        assert_eq!(synced["channels"][0]["changes"][0]["message"]["reactions"]["👍"]["me"], true);
        assert_eq!(bob.ok("reaction:remove", target.clone()).await["count"], 0);
        let event = alice.expect("reaction:updated").await;
        assert_eq!((&event["action"], &event["rev"], &event["reactions"]), (&json!("remove"), &json!(2), &json!({})));
        assert_eq!(bob.ok("reaction:remove", target).await["rev"], 2, "taking it back again is no error");
        assert_eq!(alice.events_so_far().await, []);
    }

    async fn what_is_no_emoji_and_what_is_not_there_is_refused(server: TestServer) {
        let (mut alice, bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "hello" })).await;
        let with = |emoji: &str| json!({ "channel_id": channel, "message_id": sent["message"]["id"], "emoji": emoji });
        for wrong in ["", "x", "👍👍", "<script>", &format!(":{}:", "n".repeat(63))] {
            let error = alice.refused("reaction:add", with(wrong)).await;
            assert_eq!((&error["code"], &error["details"]["field"]), (&json!("invalid_input"), &json!("emoji")), "{wrong:?}");
        }
        let elsewhere = json!({ "channel_id": channel, "message_id": channel, "emoji": "👍" });
        assert_eq!(alice.refused("reaction:add", elsewhere).await["code"], "not_found");
        let mut of_bob = with("👍");
        of_bob["user_id"] = bob.ready["user"]["id"].clone();
        let error = alice.refused("reaction:remove", of_bob).await;
        assert_eq!((&error["code"], &error["details"]["permission"]), (&json!("forbidden"), &json!("MANAGE_MESSAGES")));
    }
}
