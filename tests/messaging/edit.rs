//! `message:edit` and `message:delete`.

use imks::testing::directory::RoleName;
use serde_json::{Value, json};

use crate::on_both;
use crate::server::first_channel;

on_both! {
    async fn an_edit_reaches_everybody_with_a_revision_and_the_same_text_changes_nothing(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "tpyo" })).await;
        let edit = json!({ "channel_id": channel, "message_id": sent["message"]["id"], "body": "typo" });
        let edited = alice.ok("message:edit", edit.clone()).await;
        assert_eq!((&edited["message"]["body"], &edited["rev"]), (&json!("typo"), &json!(1)));
        assert_eq!(edited["message"]["version"], 2);
        bob.expect("message:new").await;
        let update = bob.expect("message:updated").await;
        assert_eq!((&update["body"], &update["rev"], &update["kind"]), (&json!("typo"), &json!(1), &json!("edit")));
        assert_eq!((&update["id"], &update["seq"]), (&sent["message"]["id"], &json!(1)));
        assert!(update["edited_at"].is_string() && update["event_id"].is_string());
        assert_eq!(alice.ok("message:edit", edit).await["rev"], 1);
        assert_eq!(bob.events_so_far().await, []);
    }

    async fn a_lost_update_is_noticed_with_expected_version(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "one" })).await;
        let edit = |body: &str| json!({ "channel_id": channel, "message_id": sent["message"]["id"],
            "body": body, "expected_version": 1 });
        alice.ok("message:edit", edit("two")).await;
        let error = alice.refused("message:edit", edit("three")).await;
        assert_eq!((&error["code"], &error["details"]), (&json!("version_mismatch"), &json!({ "current": 2 })));
    }

    async fn nobody_edits_or_deletes_what_others_wrote(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "mine" })).await;
        let target = json!({ "channel_id": channel, "message_id": sent["message"]["id"], "body": "yours" });
        assert_eq!(bob.refused("message:edit", target.clone()).await["code"], "forbidden");
        let error = bob.refused("message:delete", target.clone()).await;
        assert_eq!((&error["code"], &error["details"]["permission"]), (&json!("forbidden"), &json!("MANAGE_MESSAGES")));
        let page = bob.ok("history", json!({ "channel_id": channel })).await;
        assert_eq!(page["messages"][0]["body"], "mine");
    }

    async fn a_deleted_message_is_a_tombstone_for_everybody(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "oops" })).await;
        let id = sent["message"]["id"].clone();
        let target = json!({ "channel_id": channel, "message_id": id });
        let deleted = alice.ok("message:delete", target.clone()).await;
        assert_eq!((&deleted["message_id"], &deleted["rev"]), (&id, &json!(1)));
        let event = bob.expect("message:deleted").await;
        assert_eq!((&event["id"], &event["rev"], &event["seq"]), (&id, &json!(1), &json!(1)));
        assert_eq!(event["deleted_by"], sent["message"]["author"]["id"]);
        let again = alice.ok("message:delete", target.clone()).await;
        assert_eq!(again, deleted, "deleting twice is no error");
        let page = bob.ok("history", json!({ "channel_id": channel })).await;
        assert_eq!((&page["messages"][0]["body"], &page["messages"][0]["deleted_at"].is_string()),
            (&json!(""), &true));
        let mut edit = target;
        edit["body"] = "back again".into();
        assert_eq!(alice.refused("message:edit", edit).await["code"], "message_deleted");
        assert_eq!(bob.events_so_far().await.into_iter().filter(|(name, _)| name != "message:new")
            .collect::<Vec<(String, Value)>>(), []);
    }

    async fn an_owner_of_the_channel_deletes_what_others_wrote(server: TestServer) {
        let channel = server.channel("club", &["bob"]).await;
        server.directory().ensure_user("carol").await.unwrap();
        let owner = imks::testing::directory::RoleName::Owner;
        server.directory().add_member("club", "carol", owner).await.unwrap();
        let (mut bob, mut carol) = (server.client("bob").await, server.client("carol").await);
        let sent = bob.ok("message:send", json!({ "channel_id": channel, "body": "spam" })).await;
        let target = json!({ "channel_id": channel, "message_id": sent["message"]["id"] });
        carol.ok("message:delete", target).await;
        let event = bob.expect("message:deleted").await;
        assert_ne!(event["deleted_by"], sent["message"]["author"]["id"]);
    }

    async fn earlier_texts_are_shown_to_the_author_and_hidden_from_others_and_with_the_message(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "one" })).await;
        let target = json!({ "channel_id": channel, "message_id": sent["message"]["id"] });
        for body in ["two", "three"] {
            let mut edit = target.clone();
            edit["body"] = json!(body);
            alice.ok("message:edit", edit).await;
        }
        let answer = alice.ok("message:edits", target.clone()).await;
        let texts: Vec<_> = answer["edits"].as_array().unwrap().iter().map(|it| (&it["version"], &it["body"])).collect();
        assert_eq!(texts, [(&json!(2), &json!("two")), (&json!(1), &json!("one"))]);
        let error = bob.refused("message:edits", target.clone()).await;
        assert_eq!(error["details"]["permission"], "MANAGE_MESSAGES");
        alice.ok("message:delete", target.clone()).await;
        assert_eq!(alice.refused("message:edits", target).await["code"], "message_deleted");
    }

    async fn a_moderator_deletes_several_messages_at_once_and_everybody_learns_it(server: TestServer) {
        let channel = server.channel("team", &["bob"]).await;
        server.directory().ensure_user("carol").await.unwrap();
        server.directory().add_member("team", "carol", RoleName::Moderator).await.unwrap();
        let (mut carol, mut bob) = (server.client("carol").await, server.client("bob").await);
        let mut ids = Vec::new();
        for body in ["spam", "more"] {
            let sent = bob.ok("message:send", json!({ "channel_id": channel, "body": body })).await;
            ids.push(sent["message"]["id"].clone());
        }
        let mut request = json!({ "channel_id": channel, "message_ids": [ids[0], channel, ids[1], ids[0]] });
        let error = bob.refused("message:delete_bulk", request.clone()).await;
        assert_eq!(error["details"]["permission"], "MANAGE_MESSAGES");
        let answer = carol.ok("message:delete_bulk", request.clone()).await;
        assert_eq!(answer, json!({ "deleted": ids, "skipped": [channel] }));
        for (id, rev) in ids.iter().zip(1..) {
            let event = bob.expect("message:deleted").await;
            assert_eq!((&event["id"], &event["rev"]), (id, &json!(rev)));
        }
        assert_eq!(carol.ok("message:delete_bulk", request.clone()).await["deleted"], json!([]));
        request["message_ids"] = json!([]);
        assert_eq!(carol.refused("message:delete_bulk", request).await["code"], "invalid_input");
    }
}
