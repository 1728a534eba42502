//! Threads: replies, `thread:updated`, `thread:follow`, `thread:unfollow`, `thread:list`, `thread:followed` and
//! `read:mark` in a thread.

use serde_json::{Value, json};

use crate::client::TestClient;
use crate::on_both;
use crate::server::{Kind, TestServer, first_channel};

async fn reply(client: &mut TestClient, channel: &str, root: &Value, body: &str) -> Value {
    let send = json!({ "channel_id": channel, "thread_id": root, "body": body });
    client.ok("message:send", send).await["message"].take()
}

on_both! {
    async fn replies_are_counted_on_the_first_message_for_everybody(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let root = alice.ok("message:send", json!({ "channel_id": channel, "body": "root" })).await["message"]["id"].take();
        let first = reply(&mut bob, &channel, &root, "one").await;
        let event = alice.expect("thread:updated").await;
        assert_eq!((&event["thread_id"], &event["reply_count"], &event["last_reply_seq"], &event["rev"]),
            (&root, &json!(1), &json!(2), &json!(1)));
        assert_eq!(event["participant_ids"], json!([bob.ready["user"]["id"]]));
        reply(&mut alice, &channel, &root, "two").await;
        bob.ok("message:delete", json!({ "channel_id": channel, "message_id": first["id"] })).await;
        let list = bob.ok("thread:list", json!({ "channel_id": channel })).await;
        let thread = &list["threads"][0]["thread"];
        assert_eq!((&list["threads"][0]["id"], &thread["reply_count"], &list["next"]), (&root, &json!(1), &json!(null)));
        let synced = bob.ok("sync", json!({ "channels": [{ "channel_id": channel, "seq": 3, "rev": 0 }] })).await;
        let changes = synced["channels"][0]["changes"].as_array().unwrap();
        assert!(changes.iter().any(|change| change["message"]["thread"]["reply_count"] == 1));
    }

    async fn a_thread_one_takes_part_in_is_followed_with_a_position_of_its_own(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let root = alice.ok("message:send", json!({ "channel_id": channel, "body": "root" })).await["message"]["id"].take();
        for body in ["one", "two"] {
            reply(&mut bob, &channel, &root, body).await;
        }
        let followed = alice.ok("thread:followed", json!({ "unread": true })).await;
        let thread = &followed["threads"][0];
        assert_eq!((&thread["thread_id"], &thread["unread_count"], &thread["read_seq"]), (&root, &json!(2), &json!(1)));
        assert_eq!(bob.ok("thread:followed", json!({ "unread": true })).await["threads"], json!([]));
        let mut laptop = server.client("alice").await;
        let marked = alice.ok("read:mark", json!({ "channel_id": channel, "thread_id": root, "seq": 2 })).await;
        assert_eq!((&marked["read_seq"], &marked["unread_count"]), (&json!(2), &json!(1)));
        assert_eq!(laptop.expect("thread:state").await["unread_count"], 1);
        let target = json!({ "channel_id": channel, "thread_id": root });
        assert_eq!(alice.ok("thread:unfollow", target.clone()).await["following"], false);
        reply(&mut bob, &channel, &root, "three").await;
        let state = laptop.ok("sync", json!({ "channels": [], "user_rev": 0 })).await;
        let mine = &state["user"]["threads"][0];
        assert_eq!((&mine["thread_id"], &mine["following"]), (&root, &json!(false)), "the reply of somebody else follows nothing");
        reply(&mut alice, &channel, &root, "mine").await;
        assert_eq!(alice.ok("thread:followed", json!({})).await["threads"][0]["unread_count"], 0);
        let nothing = json!({ "channel_id": channel, "thread_id": channel });
        assert_eq!(alice.refused("thread:follow", nothing).await["code"], "not_found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_thread_is_listed_though_all_together_have_no_room() {
    let scarce = |config: &mut imks::testing::config::Config| {
        config.messaging.answers.server_bytes = 2 << 20;
        config.messaging.answers.wait = std::time::Duration::from_millis(400);
    };
    let server = TestServer::start_with(Kind::Sqlite, scarce).await;
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    let mut roots = Vec::new();
    for _ in 0..8 {
        let send = json!({ "channel_id": channel, "body": "👍".repeat(8_000) });
        roots.push(alice.ok("message:send", send).await["message"]["id"].take());
    }
    for root in &roots {
        reply(&mut alice, &channel, root, "yes").await;
    }
    let (mut listed, mut before) = (Vec::new(), json!(null));
    loop {
        let page = alice.ok("thread:list", json!({ "channel_id": channel, "before": before })).await;
        let threads = page["threads"].as_array().unwrap();
        assert!((1..8).contains(&threads.len()), "{} threads", threads.len());
        listed.extend(threads.iter().map(|thread| thread["id"].clone()));
        before = page["next"].clone();
        if before.is_null() {
            break;
        }
    }
    roots.reverse();
    assert_eq!(listed, roots);
    server.stop().await;
}
