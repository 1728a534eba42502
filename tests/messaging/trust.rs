//! What nobody may do by choosing what they send; docs/threats.md says which threat each test is about.

use imks::testing::clock::{now_micros, rfc3339};
use imks::testing::directory::{RoleName, Subject};
use serde_json::json;

use crate::client::TestClient;
use crate::on_both;
use crate::server::{Kind, TestServer, first_channel};

/// The bits of these permissions in the contract with the core.
const SEND_MESSAGES: u64 = 1 << 1;
const READ_HISTORY: u64 = 1 << 2;

on_both! {
    async fn who_wrote_when_and_where_is_not_for_the_sender_to_say(server: TestServer) {
        let (mut alice, bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let request = json!({
            "channel_id": channel, "body": "hi", "id": "01909a00-0000-7000-8000-000000000001", "seq": 900, "rev": 7,
            "author": bob.ready["user"], "author_id": bob.ready["user"]["id"], "created_at": "2001-01-01T00:00:00Z",
            "type": "system", "pinned": true,
        });
        let sent = alice.ok("message:send", request).await["message"].take();
        assert_eq!((&sent["author"]["username"], &sent["seq"]), (&json!("alice"), &json!(1)));
        assert_ne!(sent["id"], "01909a00-0000-7000-8000-000000000001");
        assert!(!sent["created_at"].as_str().unwrap().starts_with("2001"), "{sent}");
        let edit = json!({
            "channel_id": channel, "message_id": sent["id"], "body": "ho", "author_id": bob.ready["user"]["id"], "seq": 5,
        });
        let edited = alice.ok("message:edit", edit).await["message"].take();
        assert_eq!((&edited["author"], &edited["seq"], &edited["id"]), (&sent["author"], &sent["seq"], &sent["id"]));
    }

    async fn whatever_a_client_says_later_its_connection_belongs_to_the_user_of_its_first_token(server: TestServer) {
        let (mut alice, bob) = (server.client("alice").await, server.token("bob").await);
        let channel = first_channel(&alice);
        alice.raw(&format!("40{}", json!({ "token": bob }))).await;
        alice.refused("auth:refresh", json!({ "token": bob })).await;
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "who am I?" })).await;
        assert_eq!(sent["message"]["author"]["username"], "alice");
    }

    async fn a_client_cannot_name_a_room_that_is_no_channel_of_its_user(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let bobs = bob.ready["user"]["id"].as_str().unwrap().to_owned();
        for room in [format!("user:{bobs}"), bobs.clone(), "*".into(), "general".into()] {
            let answer = alice.call("channel:subscribe", json!({ "channel_ids": [room] })).await;
            let joined = answer["data"]["channels"][0]["ok"] == true;
            assert!(!joined, "{room}: {answer}");
        }
        assert_eq!(alice.refused("join", json!({ "room": bobs })).await["code"], "unknown_event");
        bob.ok("draft:set", json!({ "channel_id": first_channel(&bob), "body": "mine" })).await;
        // That the channel was made may be told late.
        let heard = alice.events_so_far().await.into_iter().filter(|(name, _)| name != "channel:updated");
        assert_eq!(heard.collect::<Vec<_>>(), []);
    }

    async fn answers_go_to_the_connection_that_asked_though_others_use_the_same_id(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let (of_alice, of_bob) = (alice.ask("ping", json!({"t": "a"})).await, bob.ask("ping", json!({"t": "b"})).await);
        assert_eq!(of_alice, of_bob);
        assert_eq!(bob.answer(of_bob).await["data"]["t"], "b");
        assert_eq!(alice.answer(of_alice).await["data"]["t"], "a");
    }

    async fn what_somebody_keeps_for_themselves_does_not_exist_for_others(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "hi" })).await["message"].take();
        let saved = json!({ "channel_id": channel, "message_id": sent["id"], "note": "mine" });
        alice.ok("bookmark:add", saved.clone()).await;
        let in_an_hour = rfc3339(now_micros() + 3_600_000_000);
        let later = json!({ "channel_id": channel, "body": "later", "send_at": in_an_hour });
        let later = alice.ok("schedule:create", later).await;
        let later = later["scheduled"]["id"].clone();
        let file = json!({ "channel_id": channel, "filename": "a.txt", "mime": "text/plain", "size": 1 });
        let file = alice.ok("attachment:create", file).await["attachment"]["id"].clone();
        assert!(later.is_string() && file.is_string(), "{later} {file}");
        for (event, request) in [
            ("bookmark:update", saved),
            ("schedule:get", json!({ "id": later })),
            ("schedule:update", json!({ "id": later, "body": "yours" })),
            ("schedule:cancel", json!({ "id": later })),
            ("attachment:complete", json!({ "attachment_id": file })),
            ("attachment:get", json!({ "channel_id": channel, "attachment_id": file })),
        ] {
            assert_eq!(bob.refused(event, request).await["code"], "not_found", "{event}");
        }
        bob.ok("bookmark:remove", json!({ "message_id": sent["id"] })).await;
        assert_eq!(bob.ok("attachment:remove", json!({ "attachment_id": file })).await["removed"], false);
        bob.ok("read:mark", json!({ "channel_id": channel, "seq": 1 })).await;
        for event in ["bookmark:list", "schedule:list", "draft:list", "mentions:list"] {
            let listed = bob.ok(event, json!({})).await;
            let lists = listed.as_object().unwrap().values().filter_map(serde_json::Value::as_array);
            assert_eq!(lists.map(Vec::len).sum::<usize>(), 0, "{event}: {listed}");
        }
        assert_eq!(alice.ok("bookmark:list", json!({})).await["bookmarks"][0]["note"], "mine");
        assert_eq!(alice.ok("schedule:get", json!({ "id": later })).await["scheduled"]["state"], "pending");
        assert_eq!(alice.ok("attachment:remove", json!({ "attachment_id": file })).await["removed"], true);
    }

    async fn a_reply_cannot_quote_what_its_author_cannot_read(server: TestServer) {
        let secret = server.channel("secret", &["bob"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let sent = bob.ok("message:send", json!({ "channel_id": secret, "body": "psst" })).await["message"].take();
        let request = json!({ "channel_id": first_channel(&alice), "body": "what?", "reply_to_message_id": sent["id"] });
        let answer = alice.call("message:send", request).await;
        assert!(!answer.to_string().contains("psst"), "{answer}");
        assert_eq!(answer["ok"], false, "{answer}");
    }

    async fn a_mention_tells_nothing_to_who_cannot_read_the_channel(server: TestServer) {
        let club = server.channel("club", &["alice", "bob"]).await;
        server.directory().add_member("club", "alice", RoleName::Owner).await.unwrap();
        let (mut alice, mut bob, mut carol) =
            (server.client("alice").await, server.client("bob").await, server.client("carol").await);
        let both = [&carol, &bob].map(|client| client.ready["user"]["id"].clone());
        for mentions in [json!({ "users": both }), json!({ "here": true }), json!({ "channel": true })] {
            alice.ok("message:send", json!({ "channel_id": club, "body": "psst", "mentions": mentions })).await;
            bob.expect("mention:new").await;
        }
        let heard = carol.events_so_far().await;
        assert!(heard.iter().all(|(name, _)| name != "mention:new" && name != "message:new"), "{heard:?}");
        assert_eq!(carol.ok("mentions:list", json!({})).await["mentions"], json!([]));
    }

    async fn who_was_removed_reads_nothing_of_what_they_once_could(server: TestServer) {
        let channel = server.channel("club", &["alice", "bob"]).await;
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let sent = bob.ok("message:send", json!({ "channel_id": channel, "body": "hi" })).await["message"].take();
        server.directory().remove_member("club", "alice").await.unwrap();
        alice.expect("channel:left").await;
        for (event, request) in [
            ("history", json!({ "channel_id": channel })),
            ("message:get", json!({ "channel_id": channel, "message_ids": [sent["id"]] })),
            ("reaction:add", json!({ "channel_id": channel, "message_id": sent["id"], "emoji": "👍" })),
            ("pin:list", json!({ "channel_id": channel })),
            ("read:mark", json!({ "channel_id": channel, "seq": 1 })),
            ("typing:start", json!({ "channel_id": channel })),
        ] {
            assert_eq!(alice.refused(event, request).await["code"], "not_found", "{event}");
        }
        server.directory().add_member("club", "alice", RoleName::Member).await.unwrap();
        alice.expect("channel:joined").await;
        alice.ok("history", json!({ "channel_id": channel })).await;
    }

    async fn who_may_only_reply_in_threads_writes_nothing_into_the_channel(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let root = alice.ok("message:send", json!({ "channel_id": channel, "body": "hi" })).await["message"].take();
        server.directory().set_override("general", Subject::User("bob"), 0, SEND_MESSAGES).await.unwrap();
        while bob.call("typing:start", json!({ "channel_id": channel })).await["ok"] == true {}
        let mut reply = json!({ "channel_id": channel, "body": "a comment", "thread_id": root["id"] });
        bob.ok("message:send", reply.clone()).await;
        reply["also_send_to_channel"] = json!(true);
        assert_eq!(bob.refused("message:send", reply).await["code"], "forbidden");
    }

    async fn who_may_not_read_the_history_quotes_nothing_of_it(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "psst" })).await["message"].take();
        server.directory().set_override("general", Subject::User("bob"), 0, READ_HISTORY).await.unwrap();
        while bob.call("history", json!({ "channel_id": channel })).await["ok"] == true {}
        bob.ok("message:send", json!({ "channel_id": channel, "body": "hello" })).await;
        let quote = json!({ "channel_id": channel, "body": "what?", "reply_to_message_id": sent["id"] });
        let refused = bob.refused("message:send", quote).await;
        assert_eq!(refused["code"], "forbidden", "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_do_not_get_into_the_admin_ui_nor_operators_into_the_chat() {
    const HASH: &str = "$2a$04$OneS8iRvsGvbwV6J.uVmXeTPtw.wkVclr65.kYV1Qml8xDfSg.wEK";
    let server = TestServer::start_with(Kind::Sqlite, |config| {
        config.admin.enabled = true;
        config.admin.username = Some("operator".into());
        config.admin.password_hash = Some(HASH.into());
    })
    .await;
    let token = server.token("alice").await;
    let mut alice = TestClient::connect(server.addr(), &token).await;
    for auth in [json!({ "token": token }), json!({ "sessionId": token }), json!({})] {
        let refused = alice.join_at("/admin,", auth).await.unwrap_err();
        assert_eq!(refused, json!({ "message": "invalid credentials" }));
    }
    alice.ok("ping", json!({})).await;
    let operator = json!({ "username": "operator", "password": "correct horse" });
    let mut page = TestClient::open(server.addr()).await;
    page.join_at("/admin,", operator.clone()).await.unwrap();
    let mut page = TestClient::open(server.addr()).await;
    assert_eq!(page.join(operator).await.unwrap_err()["data"]["code"], "unauthenticated");
    server.stop().await;
}
