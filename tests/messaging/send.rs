//! `message:send` and `message:new`.

use imks::testing::clock;
use imks::testing::directory::{RoleName, Subject};
use serde_json::{Value, json};

use crate::on_both;
use crate::server::first_channel;

/// The bit of `CREATE_POLL` in the contract with the core.
const CREATE_POLL: u64 = 1 << 6;

on_both! {
    async fn a_message_is_acked_and_everybody_in_the_channel_gets_it(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "hello world",
            "thread_id": null, "reply_to_message_id": null, "nonce": "n1" })).await;
        assert_eq!(sent["duplicate"], false);
        let message = &sent["message"];
        assert_eq!(message["body"], "hello world");
        assert_eq!(message["author"]["username"], "alice");
        assert_eq!((&message["reactions"], &message["attachment_count"]), (&json!({}), &json!(0)));
        assert_eq!((&message["seq"], &message["nonce"]), (&json!(1), &json!("n1")));
        assert!(message["created_at"].as_str().unwrap().ends_with('Z'));
        assert_eq!(&bob.expect("message:new").await, message);
        assert_eq!(&alice.expect("message:new").await, message, "the sender's devices get it too");
    }

    async fn the_same_nonce_is_stored_once_and_told_once(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let request = json!({ "channel_id": first_channel(&alice), "body": "once", "nonce": "same" });
        let first = alice.ok("message:send", request.clone()).await;
        let again = alice.ok("message:send", request.clone()).await;
        let mut other_device = server.client("alice").await;
        let elsewhere = other_device.ok("message:send", request.clone()).await;
        assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)));
        assert_eq!(first["message"]["id"], again["message"]["id"]);
        assert_eq!(first["message"]["id"], elsewhere["message"]["id"]);
        bob.expect("message:new").await;
        let more: Vec<_> = bob.events_so_far().await;
        assert!(more.is_empty(), "{more:?}");
        let mut changed = request;
        changed["body"] = "something else".into();
        assert_eq!(alice.refused("message:send", changed).await["code"], "nonce_conflict");
    }

    async fn a_late_repeat_gets_its_first_message_though_it_would_be_refused_now(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let root = alice.ok("message:send", json!({ "channel_id": channel, "body": "root" })).await;
        let root = &root["message"]["id"];
        let soon = clock::rfc3339(clock::now_micros() + 1_500_000);
        let with = |name: &str, field: &str, value: Value| {
            let mut send = json!({ "channel_id": channel, "body": "x", "nonce": name });
            send[field] = value;
            send
        };
        let original = json!({ "channel_id": channel, "message_id": root });
        let sends = [
            with("expires", "expires_at", soon.into()),
            with("poll", "poll", json!({ "question": "Lunch?", "options": ["Soup", "Rice"] })),
            with("reply", "thread_id", root.clone()),
            with("forward", "forward_of", original.clone()),
        ];
        let mut first = Vec::new();
        for send in &sends {
            first.push(bob.ok("message:send", send.clone()).await["message"]["id"].take());
        }
        // The time of the first is over, the original of the last is gone, and bob may start no polls any more.
        assert_eq!(bob.expect("message:deleted").await["id"], first[0]);
        alice.ok("message:delete", original).await;
        server.directory().set_override("general", Subject::User("bob"), 0, CREATE_POLL).await.unwrap();
        let another = json!({ "channel_id": channel, "body": "x", "poll": sends[1]["poll"] });
        while bob.call("message:send", another.clone()).await["ok"] == true {}
        for (send, first) in sends.into_iter().zip(first) {
            let again = bob.ok("message:send", send.clone()).await;
            assert_eq!((&again["message"]["id"], &again["duplicate"]), (&first, &json!(true)), "{send}");
            let changed = json!({ "body": "y" });
            let other = send.as_object().into_iter().chain(changed.as_object()).flatten();
            let other: Value = other.map(|(name, value)| (name.clone(), value.clone())).collect();
            assert_eq!(bob.refused("message:send", other).await["code"], "nonce_conflict");
        }
        let never_sent = with("new", "expires_at", clock::rfc3339(clock::now_micros() - 1_000_000).into());
        assert_eq!(bob.refused("message:send", never_sent).await["details"]["field"], "expires_at");
    }

    async fn of_two_who_take_the_same_turn_one_wins_and_the_other_learns_who(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let take = |name: &str, version: i64| json!({ "channel_id": channel, "body": "mine",
            "expect": {"key": "turn", "version": version, "value": name} });
        alice.ok("message:send", take("alice", 0)).await;
        let error = bob.refused("message:send", take("bob", 0)).await;
        assert_eq!((&error["code"], &error["retryable"]), (&json!("conflict"), &json!(false)));
        assert_eq!(error["details"], json!({"key": {"version": 1, "value": "alice"}}));
        bob.ok("message:send", take("bob", 1)).await;
        let next = |seq: i64| json!({ "body": "next", "expect": {"last_seq": seq} }).to_string();
        let bearer = format!("Bearer {}", server.token("alice").await);
        let path = format!("POST /api/v1/channels/{channel}/messages");
        let stale = crate::api::send(server.addr(), &path, &[("authorization", &bearer)], &next(1)).await;
        assert_eq!(stale.code(), (409, "conflict"));
        let fresh = crate::api::send(server.addr(), &path, &[("authorization", &bearer)], &next(2)).await;
        assert_eq!(fresh.code(), (201, ""));
        let wrong = json!({ "channel_id": channel, "body": "x", "expect": {"key": "turn"} });
        assert_eq!(alice.refused("message:send", wrong).await["details"]["field"], "expect");
    }

    async fn messages_sent_at_once_are_stored_in_the_order_they_were_sent(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        let mut asked = Vec::new();
        for number in 0..100 {
            asked.push(alice.ask("message:send", json!({ "channel_id": channel, "body": number.to_string() })).await);
        }
        for (number, id) in asked.into_iter().enumerate() {
            let answer = alice.answer(id).await;
            assert_eq!(answer["data"]["message"]["seq"], json!(number + 1), "{answer}");
        }
        for number in 0..100 {
            let message = bob.expect("message:new").await;
            assert_eq!((&message["body"], &message["seq"]), (&json!(number.to_string()), &json!(number + 1)));
        }
    }

    async fn a_reply_quotes_what_it_answers(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        let question = alice.ok("message:send", json!({ "channel_id": channel, "body": "really?" })).await;
        let reply = json!({ "channel_id": channel, "body": "yes", "reply_to_message_id": question["message"]["id"] });
        let answer = alice.ok("message:send", reply).await;
        assert_eq!(answer["message"]["type"], "reply");
        assert_eq!(answer["message"]["reply_to"]["body"], "really?");
        let missing = json!({ "channel_id": channel, "body": "yes",
            "reply_to_message_id": "01909a00-0000-7000-8000-000000000001" });
        assert_eq!(alice.refused("message:send", missing).await["code"], "not_found");
    }

    async fn without_an_ack_the_message_is_stored_and_errors_come_as_an_event(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        alice.emit("message:send", json!({ "channel_id": channel, "body": "quiet" })).await;
        assert_eq!(alice.expect("message:new").await["body"], "quiet");
        alice.emit("message:send", json!({ "channel_id": channel, "body": "", "nonce": "n7" })).await;
        let error = alice.expect("error").await;
        assert_eq!((&error["code"], &error["event"], &error["nonce"]),
            (&json!("invalid_input"), &json!("message:send"), &json!("n7")));
        assert_eq!(error["details"], json!({ "field": "body" }));
        assert!(error["request_id"].is_string());
    }

    async fn text_is_stored_exactly_as_it_was_sent(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        let longest = "👍".repeat(8_000);
        for body in ["'; DROP TABLE message; --", "\u{202e}rtl\u{200b} <script>", "a\r\n\tb\u{7f}", &longest] {
            let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": body })).await;
            let page = alice.ok("history", json!({ "channel_id": channel, "around": sent["message"]["id"] })).await;
            let last = page["messages"].as_array().unwrap().last().unwrap();
            assert_eq!(last["body"], Value::from(body));
        }
    }

    async fn the_order_holds_while_permissions_have_to_be_asked_for_again(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let channel = first_channel(&alice);
        for round in 0..10 {
            let mut asked = Vec::new();
            for number in 0..20 {
                let request = json!({ "channel_id": channel, "body": (round * 20 + number).to_string() });
                asked.push(alice.ask("message:send", request).await);
            }
            // Every new role makes the server forget what it knows about this member.
            let role = if round % 2 == 0 { RoleName::Owner } else { RoleName::Member };
            server.directory().add_member("general", "alice", role).await.unwrap();
            for id in asked {
                assert_eq!(alice.answer(id).await["ok"], true);
            }
        }
        for number in 0..200 {
            let message = bob.expect("message:new").await;
            assert_eq!((&message["body"], &message["seq"]), (&json!(number.to_string()), &json!(number + 1)));
        }
    }
}
