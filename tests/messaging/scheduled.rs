//! `schedule:create`, `schedule:get`, `schedule:list`, `schedule:update`, `schedule:cancel` and `schedule:updated`.

use imks::testing::clock;
use serde_json::{Value, json};

use super::api::send;
use crate::on_both;
use crate::server::{first_channel, text};

/// A time so many milliseconds from now.
fn in_millis(millis: i64) -> Value {
    clock::rfc3339(clock::now_micros() + millis * 1_000).into()
}

on_both! {
    async fn a_scheduled_message_is_sent_once_when_it_is_due_and_every_device_of_its_author_learns_of_it(server: TestServer) {
        let (mut phone, mut laptop) = (server.client("alice").await, server.client("alice").await);
        let mut bob = server.client("bob").await;
        let channel = first_channel(&phone);
        phone.ok("draft:set", json!({ "channel_id": channel, "body": "good morning" })).await;
        let request = json!({
            "channel_id": channel, "body": "good morning", "send_at": in_millis(1_500), "nonce": "s-1", "clear_draft": true,
            "poll": { "question": "Coffee?", "options": ["Yes", "No"], "closes_at": in_millis(3_600_000) },
        });
        let created = phone.ok("schedule:create", request.clone()).await;
        let scheduled = &created["scheduled"];
        assert_eq!((&scheduled["state"], &scheduled["message"]["body"], &scheduled["version"]), (&json!("pending"), &json!("good morning"), &json!(1)));
        let again = phone.ok("schedule:create", request.clone()).await;
        assert_eq!((&again["duplicate"], &again["scheduled"]["id"]), (&json!(true), &scheduled["id"]));
        let mut other = request;
        other["body"] = json!("good evening");
        assert_eq!(phone.refused("schedule:create", other).await["code"], "nonce_conflict");
        laptop.expect("draft:updated").await;
        assert_eq!(laptop.expect("schedule:updated").await, *scheduled);
        assert_eq!(laptop.expect("draft:updated").await["cleared"], true);

        let message = bob.expect("message:new").await;
        assert_eq!((&message["body"], &message["nonce"], &message["type"]), (&json!("good morning"), &scheduled["id"], &json!("poll")));
        let sent = laptop.expect("schedule:updated").await;
        assert_eq!((&sent["state"], &sent["message_id"], &sent["version"]), (&json!("sent"), &message["id"], &json!(2)));
        assert_eq!(bob.ok("history", json!({ "channel_id": channel })).await["messages"].as_array().unwrap().len(), 1);
        let mut tablet = server.client("alice").await;
        assert_eq!(tablet.ready["channels"][0]["unread_count"], 0, "the author's own message is not unread");
        let synced = tablet.ok("sync", json!({ "channels": [], "user_rev": 0 })).await;
        assert_eq!(synced["user"]["scheduled"], json!([sent]));
    }

    async fn a_repeated_request_gets_its_message_when_that_is_sent_and_its_time_has_passed(server: TestServer) {
        let club = server.channel("club", &["alice", "bob"]).await;
        let mut alice = server.client("alice").await;
        let request = json!({ "channel_id": club, "body": "now", "send_at": in_millis(1_000), "nonce": "s-2" });
        alice.ok("schedule:create", request.clone()).await;
        alice.expect("schedule:updated").await;
        let sent = alice.expect("schedule:updated").await;
        assert_eq!(sent["state"], "sent");
        server.directory().remove_member("club", "alice").await.unwrap();
        alice.expect("channel:left").await;
        let again = alice.ok("schedule:create", request.clone()).await;
        assert_eq!((&again["scheduled"], &again["duplicate"]), (&sent, &json!(true)));
        let mut other = request;
        other["body"] = json!("later");
        assert_eq!(alice.refused("schedule:create", other).await["code"], "nonce_conflict");
    }

    async fn a_scheduled_message_can_be_changed_and_cancelled_by_its_author_until_it_is_sent(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let other = server.channel("other", &["alice"]).await;
        let created = alice.ok("schedule:create", json!({ "channel_id": channel, "body": "one", "flags": 1, "send_at": in_millis(3_600_000) })).await;
        let id = &created["scheduled"]["id"];
        let update = |version: i64, body: &str| json!({ "id": id, "expected_version": version, "body": body });
        let changed = alice.ok("schedule:update", update(1, "two")).await;
        let scheduled = &changed["scheduled"];
        assert_eq!((&scheduled["version"], &scheduled["message"]["body"], &scheduled["message"]["flags"]), (&json!(2), &json!("two"), &json!(1)));
        assert_eq!(alice.ok("schedule:update", update(1, "two")).await["scheduled"]["version"], 2, "the same again changes nothing");
        let stale = alice.refused("schedule:update", update(1, "three")).await;
        assert_eq!((&stale["code"], &stale["details"]), (&json!("version_mismatch"), &json!({ "current": 2 })));
        let later = in_millis(7_200_000);
        let moved = alice.ok("schedule:update", json!({ "id": id, "send_at": later })).await;
        assert_eq!((&moved["scheduled"]["send_at"], &moved["scheduled"]["message"]["body"]), (&later, &json!("two")));
        let elsewhere = alice.refused("schedule:update", json!({ "id": id, "channel_id": other })).await;
        assert_eq!(elsewhere["details"]["field"], "channel_id");
        for event in ["schedule:get", "schedule:update", "schedule:cancel"] {
            assert_eq!(bob.refused(event, json!({ "id": id })).await["code"], "not_found", "{event} of others");
        }
        assert_eq!(bob.ok("schedule:list", json!({})).await["scheduled"], json!([]));
        let cancelled = alice.ok("schedule:cancel", json!({ "id": id })).await;
        assert_eq!(cancelled["scheduled"]["state"], "cancelled");
        assert_eq!(alice.ok("schedule:cancel", json!({ "id": id })).await, cancelled, "cancelling again changes nothing");
        assert_eq!(alice.refused("schedule:update", json!({ "id": id, "body": "three" })).await["code"], "failed_precondition");
        assert_eq!(alice.ok("schedule:list", json!({ "state": "pending" })).await["scheduled"], json!([]));
        assert_eq!(alice.ok("schedule:list", json!({})).await["scheduled"][0], cancelled["scheduled"]);
    }

    async fn a_message_that_its_author_may_not_send_any_more_fails_for_all_to_see(server: TestServer) {
        let club = server.channel("club", &["alice", "bob"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let request = |millis| json!({ "channel_id": club, "body": "too late", "send_at": in_millis(millis) });
        alice.ok("schedule:create", request(1_500)).await;
        server.directory().remove_member("club", "alice").await.unwrap();
        alice.expect("channel:left").await;
        assert_eq!(alice.refused("schedule:create", request(1_500)).await["code"], "not_found");
        let failed = alice.expect("schedule:updated").await;
        let failed = if failed["state"] == "pending" { alice.expect("schedule:updated").await } else { failed };
        assert_eq!((&failed["state"], &failed["error"], &failed["message_id"]), (&json!("failed"), &json!("not_found"), &json!(null)));
        assert_eq!(bob.ok("history", json!({ "channel_id": club })).await["messages"], json!([]));
    }

    async fn a_message_that_cannot_be_scheduled_is_refused_with_the_field(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        let good = json!({ "channel_id": channel, "body": "x", "send_at": in_millis(60_000) });
        for (field, value, code) in [
            ("send_at", json!("2020-01-01T00:00:00Z"), "invalid_input"),
            ("send_at", in_millis(400 * 86_400_000), "invalid_input"),
            ("send_at", json!(null), "invalid_payload"),
            ("body", json!(""), "invalid_input"),
            ("body", json!(null), "invalid_payload"),
            ("flags", json!(64), "invalid_input"),
            ("thread_id", json!("x"), "invalid_payload"),
        ] {
            let mut wrong = good.clone();
            wrong[field] = value;
            let error = alice.refused("schedule:create", wrong).await;
            assert_eq!((&error["code"], &error["details"]["field"]), (&json!(code), &json!(field)));
        }
        assert_eq!(alice.ok("schedule:list", json!({})).await["scheduled"], json!([]));
    }

    async fn scheduled_messages_are_created_read_changed_and_cancelled_over_http(server: TestServer) {
        let alice = server.client("alice").await;
        let token = format!("Bearer {}", server.token("alice").await);
        let call = async |request: &str, body: Value| {
            let headers = [("authorization", token.as_str()), ("idempotency-key", "h-1")];
            let headers = if request.starts_with("POST") { &headers[..] } else { &headers[..1] };
            send(server.addr(), request, headers, &body.to_string()).await
        };
        let request = json!({ "channel_id": first_channel(&alice), "body": "one", "send_at": in_millis(60_000) });
        let created = call("POST /api/v1/scheduled-messages", request.clone()).await;
        assert_eq!(created.status, 201);
        assert_eq!(call("POST /api/v1/scheduled-messages", request).await.status, 200, "the same key again");
        let one = format!("/api/v1/scheduled-messages/{}", text(&created.body["data"]["scheduled"]["id"]));
        assert_eq!(call(&format!("GET {one}"), json!({})).await.body["data"], created.body["data"]);
        let changed = call(&format!("PATCH {one}"), json!({ "body": "two" })).await;
        assert_eq!((changed.status, &changed.body["data"]["scheduled"]["message"]["body"]), (200, &json!("two")));
        let listed = call("GET /api/v1/scheduled-messages?state=pending", json!({})).await;
        assert_eq!(listed.body["data"]["scheduled"], json!([changed.body["data"]["scheduled"]]));
        assert_eq!(call(&format!("DELETE {one}?expected_version=1"), json!({})).await.code(), (409, "version_mismatch"));
        assert_eq!(call(&format!("DELETE {one}"), json!({})).await.body["data"]["scheduled"]["state"], "cancelled");
    }
}
