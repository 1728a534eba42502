//! Who may do what, and how fast that changes.

use std::time::Duration;

use imks::testing::directory::{RoleName, Subject};
use serde_json::json;

use crate::on_both;
use crate::server::{Kind, TestServer, first_channel, text};

/// The promise is a second; these tests share the machine with a database that syncs and with each other.
const WITHIN: Duration = Duration::from_secs(3);

on_both! {
    async fn a_channel_one_is_not_in_looks_like_none_at_all_for_every_event(server: TestServer) {
        let private = server.channel("secret", &["bob"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let sent = bob.ok("message:send", json!({ "channel_id": private, "body": "psst" })).await;
        let message = &sent["message"]["id"];
        for channel in [private.as_str(), "01909a00-0000-7000-8000-000000000001"] {
            for (event, request) in [
                ("message:send", json!({ "channel_id": channel, "body": "let me in" })),
                ("message:edit", json!({ "channel_id": channel, "message_id": message, "body": "x" })),
                ("message:delete", json!({ "channel_id": channel, "message_id": message })),
                ("history", json!({ "channel_id": channel })),
                ("message:get", json!({ "channel_id": channel, "message_ids": [message] })),
                ("read:mark", json!({ "channel_id": channel, "seq": 1 })),
            ] {
                let error = alice.refused(event, request).await;
                assert_eq!((&error["code"], &error["retryable"]), (&json!("not_found"), &json!(false)), "{event}");
            }
            let answer = alice.ok("channel:subscribe", json!({ "channel_ids": [channel] })).await;
            let (ok, error) = (&answer["channels"][0]["ok"], &answer["channels"][0]["error"]);
            assert_eq!((ok, &error["code"], &error["retryable"]), (&json!(false), &json!("not_found"), &json!(false)));
        }
        bob.ok("message:send", json!({ "channel_id": private, "body": "still alone" })).await;
        assert_eq!(alice.events_so_far().await, [], "nothing of the channel reaches who is not in it");
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

    async fn a_new_member_is_in_the_room_without_a_reconnect(server: TestServer) {
        let channel = server.channel("club", &["bob"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        server.directory().add_member("club", "alice", RoleName::Member).await.unwrap();
        assert_eq!(alice.expect("channel:joined").await["channel_id"], json!(channel));
        bob.ok("message:send", json!({ "channel_id": channel, "body": "welcome" })).await;
        assert_eq!(alice.expect("message:new").await["body"], "welcome");
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
        bob.expect("message:new").await;
        assert_eq!(alice.events_so_far().await, []);
        let answer = alice.ok("channel:subscribe", json!({ "channel_ids": [channel] })).await;
        assert_eq!(answer["channels"], json!([{ "channel_id": channel, "ok": true, "last_seq": 1, "rev": 0 }]));
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
