//! `message:report` and `report:list`.

use imks::testing::directory::RoleName;
use serde_json::json;

use crate::on_both;

on_both! {
    async fn a_reported_message_is_seen_by_moderators_only_with_its_text_at_that_time(server: TestServer) {
        let channel = server.channel("club", &["alice", "bob"]).await;
        server.directory().ensure_user("mod").await.unwrap();
        server.directory().add_member("club", "mod", RoleName::Moderator).await.unwrap();
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let mut moderator = server.client("mod").await;
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "buy this" })).await;
        let target = json!({ "channel_id": channel, "message_id": sent["message"]["id"] });
        let report = |reason: &str| json!({ "channel_id": channel, "message_id": sent["message"]["id"], "reason": reason, "note": "again" });
        let first = bob.ok("message:report", report("odd")).await;
        assert_eq!(bob.ok("message:report", report("spam")).await, first, "the same report, with another reason");
        assert_eq!(bob.refused("message:report", report(&"x".repeat(51))).await["details"]["field"], "reason");
        alice.ok("message:delete", target).await;
        let list = json!({ "channel_id": channel });
        let reports = moderator.ok("report:list", list.clone()).await;
        let found = &reports["reports"][0];
        assert_eq!((&found["id"], &found["reason"], &found["note"], &found["body"]), (&first["report_id"], &json!("spam"), &json!("again"), &json!("buy this")));
        assert_eq!((&reports["reports"][1], &reports["next"]), (&json!(null), &json!(null)));
        assert_eq!(bob.refused("report:list", list).await["details"]["permission"], "MANAGE_MESSAGES");
        assert_eq!(bob.refused("message:report", report("late")).await["code"], "not_found");
    }
}
