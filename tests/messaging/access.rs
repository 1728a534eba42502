//! Who may do what, and how fast that changes.

use std::time::Duration;

use imks::testing::clock::{now_micros, rfc3339};
use imks::testing::directory::{RoleName, Subject};
use serde_json::{Value, json};

use crate::client::TestClient;
use crate::on_both;
use crate::server::{Kind, TestServer, first_channel, text};

/// The promise is a second; these tests share the machine with a database that syncs and with each other.
const WITHIN: Duration = Duration::from_secs(3);

/// Every event about a channel, for this one.
fn of_channel(channel: &str, message: &Value) -> Vec<(&'static str, Value)> {
    let in_an_hour = rfc3339(now_micros() + 3_600_000_000);
    let file = json!({ "filename": "a.txt", "mime": "text/plain", "size": 1 });
    let requests = [
        ("message:send", json!({ "body": "let me in" })),
        ("message:edit", json!({ "message_id": message, "body": "x" })),
        ("message:edits", json!({ "message_id": message })),
        ("message:delete", json!({ "message_id": message })),
        ("message:delete_bulk", json!({ "message_ids": [message] })),
        ("message:get", json!({ "message_ids": [message] })),
        ("report:list", json!({})),
        ("history", json!({})),
        ("read:mark", json!({ "seq": 1 })),
        ("read:mark_unread", json!({ "from_seq": 1 })),
        ("read:receipts", json!({ "seq": 1 })),
        ("reaction:add", json!({ "message_id": message, "emoji": "👍" })),
        ("reaction:remove", json!({ "message_id": message, "emoji": "👍" })),
        ("pin:add", json!({ "message_id": message })),
        ("pin:remove", json!({ "message_id": message })),
        ("pin:list", json!({})),
        ("poll:vote", json!({ "message_id": message, "option_ids": [0] })),
        ("poll:close", json!({ "message_id": message })),
        ("poll:voters", json!({ "message_id": message, "option_id": 0 })),
        ("thread:follow", json!({ "thread_id": message })),
        ("thread:unfollow", json!({ "thread_id": message })),
        ("thread:list", json!({})),
        ("draft:set", json!({ "body": "x" })),
        ("bookmark:add", json!({ "message_id": message })),
        ("bookmark:update", json!({ "message_id": message, "note": "x" })),
        ("attachment:create", file),
        ("attachment:get", json!({ "attachment_id": message })),
        ("schedule:create", json!({ "body": "later", "send_at": in_an_hour })),
        ("keypackage:claim", json!({ "user_ids": [message] })),
        ("presence:list", json!({})),
        ("typing:start", json!({})),
        ("call:signal", json!({ "data": "ring" })),
    ];
    let of_channel = |(event, mut request): (&'static str, Value)| {
        request["channel_id"] = json!(channel);
        (event, request)
    };
    requests.into_iter().map(of_channel).collect()
}

/// Returns the refusal of a request, without its id. Some events may not come as fast as a test asks.
async fn refusal(client: &mut TestClient, event: &str, request: Value) -> Value {
    loop {
        let mut error = client.refused(event, request.clone()).await;
        if error["code"] != "rate_limited" {
            error.as_object_mut().unwrap().remove("request_id");
            return error;
        }
        tokio::time::sleep(Duration::from_millis(error["retry_after_ms"].as_u64().unwrap())).await;
    }
}

on_both! {
    async fn a_channel_one_is_not_in_looks_like_none_at_all_for_every_event(server: TestServer) {
        let (private, once) = (server.channel("secret", &["bob"]).await, server.channel("once", &["bob", "alice"]).await);
        let banned = server.channel("banned", &["bob", "alice"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        server.directory().remove_member("once", "alice").await.unwrap();
        server.directory().ban("banned", "alice", "spam", None).await.unwrap();
        for _ in 0..2 {
            alice.expect("channel:left").await;
        }
        let nowhere = "01909a00-0000-7000-8000-000000000001";
        let sent = bob.ok("message:send", json!({ "channel_id": private, "body": "psst" })).await;
        let message = &sent["message"]["id"];
        for channel in [&private, &once, &banned] {
            for ((event, there), (_, none)) in of_channel(channel, message).into_iter().zip(of_channel(nowhere, message)) {
                let (there, none) = (refusal(&mut alice, event, there).await, refusal(&mut alice, event, none).await);
                assert_eq!(there, none, "{event}");
                assert_eq!((&there["code"], &there["retryable"]), (&json!("not_found"), &json!(false)), "{event}");
            }
            let answer = alice.ok("channel:subscribe", json!({ "channel_ids": [channel] })).await;
            let (ok, error) = (&answer["channels"][0]["ok"], &answer["channels"][0]["error"]);
            assert_eq!((ok, &error["code"], &error["retryable"]), (&json!(false), &json!("not_found"), &json!(false)));
            assert_eq!(alice.ok("typing:stop", json!({ "channel_id": channel })).await, json!({}));
        }
        // One, because their rate is limited.
        let report = json!({ "channel_id": private, "message_id": message, "reason": "spam" });
        assert_eq!(alice.refused("message:report", report).await["code"], "not_found");
        bob.ok("message:send", json!({ "channel_id": private, "body": "still alone" })).await;
        assert_eq!(alice.events_so_far().await, [], "nothing of the channel reaches who is not in it");
        let page = bob.ok("history", json!({ "channel_id": private })).await;
        assert_eq!(page["messages"].as_array().unwrap().len(), 2, "nor did anything of it get there");
    }

    async fn a_removed_member_hears_nothing_more_within_a_second(server: TestServer) {
        let channel = server.channel("club", &["alice", "bob"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        server.directory().remove_member("club", "alice").await.unwrap();
        let left = tokio::time::timeout(std::time::Duration::from_secs(1), alice.expect("channel:left")).await;
        assert_eq!(left.unwrap()["channel_id"], json!(channel));
        bob.ok("message:send", json!({ "channel_id": channel, "body": "is she gone?" })).await;
        assert_eq!(alice.events_so_far().await, []);
        let error = alice.refused("message:send", json!({ "channel_id": channel, "body": "hello?" })).await;
        assert_eq!(error["code"], "not_found");
    }

    async fn who_is_removed_is_told_removed_whichever_of_the_two_news_comes_first(server: TestServer) {
        let channel = server.channel("club", &["alice", "bob"]).await;
        let mut alice = server.client("alice").await;
        for round in 0..12 {
            server.directory().remove_member("club", "alice").await.unwrap();
            let left = alice.expect("channel:left").await;
            assert_eq!((&left["channel_id"], &left["reason"]), (&json!(channel), &json!("removed")), "{round}");
            server.directory().add_member("club", "alice", RoleName::Member).await.unwrap();
            alice.expect("channel:joined").await;
        }
    }

    async fn who_was_in_a_channel_that_is_removed_is_told_so_whichever_of_the_two_news_comes_first(server: TestServer) {
        let mut alice = server.client("alice").await;
        for round in 0..12 {
            let channel = server.channel(&format!("club{round}"), &["alice"]).await;
            alice.expect("channel:joined").await;
            server.directory().remove_channel(&channel).await.unwrap();
            let left = alice.expect("channel:left").await;
            assert_eq!((&left["channel_id"], &left["reason"]), (&json!(channel), &json!("channel_removed")), "{round}");
        }
    }

    async fn a_new_member_is_in_the_room_without_a_reconnect(server: TestServer) {
        let channel = server.channel("club", &["bob"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        server.directory().add_member("club", "alice", RoleName::Member).await.unwrap();
        assert_eq!(alice.expect("channel:joined").await["channel_id"], json!(channel));
        bob.ok("message:send", json!({ "channel_id": channel, "body": "welcome" })).await;
        assert_eq!(alice.expect("message:new").await["body"], "welcome");
    }

    async fn a_channel_is_in_the_first_list_or_told_as_joined_and_never_both(server: TestServer) {
        let club = server.channel("club", &[]).await;
        for round in 0..20 {
            let name = format!("user{round}");
            // Becomes a member of `general` here, a moment before the connect, and of the club beside it.
            let token = server.token(&name).await;
            let joining = server.directory().add_member("club", &name, RoleName::Member);
            let (joined, mut client) = tokio::join!(joining, TestClient::connect(server.addr(), &token));
            joined.unwrap();
            let listed = client.ready["channels"].as_array().unwrap().iter();
            let mut known: Vec<String> = listed.map(|channel| text(&channel["channel_id"])).collect();
            while !known.contains(&club) {
                known.push(text(&client.expect("channel:joined").await["channel_id"]));
            }
            server.directory().remove_member("club", &name).await.unwrap();
            loop {
                match client.event().await {
                    (event, _) if event == "channel:left" => break,
                    (event, payload) if event == "channel:joined" => known.push(text(&payload["channel_id"])),
                    _ => {}
                }
            }
            assert_eq!(known.len(), 2, "in round {round}: {known:?}");
        }
    }

    async fn an_override_takes_a_channel_and_gives_it_back_within_a_second(server: TestServer) {
        let channel = server.channel("club", &["alice", "bob"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let view = 1;
        let whom = Subject::User("alice");
        server.directory().set_override("club", whom, 0, view).await.unwrap();
        let left = tokio::time::timeout(WITHIN, alice.expect("channel:left")).await.expect("in time");
        assert_eq!((&left["channel_id"], &left["reason"]), (&json!(channel), &json!("forbidden")));
        bob.ok("message:send", json!({ "channel_id": channel, "body": "is she gone?" })).await;
        let error = alice.refused("message:send", json!({ "channel_id": channel, "body": "hello?" })).await;
        assert_eq!(error["code"], "not_found");
        server.directory().remove_override("club", whom).await.unwrap();
        let joined = tokio::time::timeout(WITHIN, alice.expect("channel:joined")).await.expect("in time");
        assert_eq!(joined["channel_id"], json!(channel));
        bob.ok("message:send", json!({ "channel_id": channel, "body": "welcome back" })).await;
        assert_eq!(alice.expect("message:new").await["body"], "welcome back");
    }

    async fn a_banned_user_is_out_of_all_channels_of_the_workspace_within_a_second(server: TestServer) {
        let channel = server.channel("club", &["alice"]).await;
        let mut alice = server.client("alice").await;
        let general = first_channel(&alice);
        server.directory().ban("main/", "alice", "spam", None).await.unwrap();
        let mut left = std::collections::BTreeSet::new();
        for _ in 0..2 {
            let event = tokio::time::timeout(WITHIN, alice.expect("channel:left")).await.expect("in time");
            left.insert(text(&event["channel_id"]));
        }
        assert!(left.contains(&channel) && left.len() == 2, "{general}: {left:?}");
        let error = alice.refused("message:send", json!({ "channel_id": channel, "body": "hello?" })).await;
        assert_eq!(error["code"], "not_found");
        server.directory().lift_ban("main/", "alice").await.unwrap();
        server.directory().add_member("club", "alice", RoleName::Member).await.unwrap();
        let joined = tokio::time::timeout(WITHIN, alice.expect("channel:joined")).await.expect("in time");
        assert_eq!(joined["channel_id"], json!(channel));
    }

    async fn who_leaves_a_room_hears_nothing_until_they_come_back(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        alice.ok("channel:unsubscribe", json!({ "channel_ids": [channel] })).await;
        bob.ok("message:send", json!({ "channel_id": channel, "body": "1" })).await;
        // The ack may come before the room is told.
        let said = bob.expect("message:new").await["id"].take();
        assert_eq!(alice.events_so_far().await, []);
        let answer = alice.ok("channel:subscribe", json!({ "channel_ids": [channel] })).await;
        let numbers = json!({
            "channel_id": channel, "ok": true, "last_seq": 1, "rev": 0, "last_message_id": said, "horizon_seq": 0, "horizon_id": null
        });
        assert_eq!(answer["channels"], json!([numbers]));
        bob.ok("message:send", json!({ "channel_id": channel, "body": "2" })).await;
        assert_eq!(alice.expect("message:new").await["seq"], 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whose_tokens_are_withdrawn_is_disconnected() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
    server.directory().revoke_user("alice").await.unwrap();
    assert_eq!(alice.expect("auth:revoked").await, json!({}), "says why, before the connection ends");
    alice.ended().await;
    bob.ok("ping", json!({})).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_read_only_channel_members_read_and_do_not_write() {
    let server = TestServer::start(Kind::Sqlite).await;
    let new =
        imks::testing::directory::NewChannel { name: "news".into(), read_only: true, ..Default::default() };
    let channel = server.directory().create_channel(new).await.unwrap().id.to_string();
    server.directory().ensure_user("alice").await.unwrap();
    server.directory().add_member("news", "alice", RoleName::Member).await.unwrap();
    let mut alice = server.client("alice").await;
    let error = alice.refused("message:send", json!({ "channel_id": channel, "body": "x" })).await;
    assert_eq!(error["code"], "channel_read_only");
    alice.ok("history", json!({ "channel_id": channel })).await;
    server.stop().await;
}
