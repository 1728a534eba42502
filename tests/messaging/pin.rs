//! `pin:add`, `pin:remove`, `pin:list` and `pin:updated`.

use imks::testing::directory::RoleName;
use serde_json::json;

use crate::on_both;

on_both! {
    async fn a_pin_reaches_everybody_and_is_listed_until_it_is_taken_off_or_the_message_is_deleted(server: TestServer) {
        let channel = server.channel("team", &["bob"]).await;
        server.directory().ensure_user("carol").await.unwrap();
        server.directory().add_member("team", "carol", RoleName::Moderator).await.unwrap();
        let (mut carol, mut bob) = (server.client("carol").await, server.client("bob").await);
        let mut targets = Vec::new();
        for body in ["one", "two"] {
            let sent = bob.ok("message:send", json!({ "channel_id": channel, "body": body })).await;
            targets.push(json!({ "channel_id": channel, "message_id": sent["message"]["id"] }));
        }
        let id = &targets[0]["message_id"];
        let pinned = carol.ok("pin:add", targets[0].clone()).await;
        assert_eq!(pinned, json!({ "message_id": id, "pinned": true, "rev": 1, "pin_count": 1 }));
        let mut event = bob.expect("pin:updated").await;
        assert!(event["event_id"].take().is_string());
        assert_eq!(event, json!({ "channel_id": channel, "message_id": id, "pinned": true, "pin_count": 1, "rev": 1,
            "event_id": null }));
        assert_eq!(carol.ok("pin:add", targets[0].clone()).await["rev"], 1, "pinning again changes nothing");
        carol.ok("pin:add", targets[1].clone()).await;
        let list = bob.ok("pin:list", json!({ "channel_id": channel })).await;
        assert_eq!((&list["pins"][0]["message_id"], &list["pins"][1]["message_id"]), (&targets[1]["message_id"], id));
        assert_eq!((&list["messages"][0]["pinned"], &list["messages"][0]["body"]), (&json!(true), &json!("one")));
        assert_eq!(list["pins"][0]["pinned_by"], carol.ready["user"]["id"]);
        bob.ok("message:delete", targets[1].clone()).await;
        let removed = carol.ok("pin:remove", targets[0].clone()).await;
        assert_eq!((&removed["pinned"], &removed["pin_count"]), (&json!(false), &json!(0)), "the deleted one does not count");
        assert_eq!(bob.ok("pin:list", json!({ "channel_id": channel })).await["pins"], json!([]));
        let error = bob.refused("pin:add", targets[0].clone()).await;
        assert_eq!((&error["code"], &error["details"]["permission"]), (&json!("forbidden"), &json!("PIN_MESSAGES")));
        assert_eq!(carol.refused("pin:add", targets[1].clone()).await["code"], "message_deleted");
    }
}
