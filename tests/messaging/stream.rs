//! Streamed messages: `message:send` with `stream`, `stream:append`, `stream:finish`, `stream:abort` and `message:append`.

use imks::testing::directory::RoleName;
use imks::testing::models::db::Db;
use serde_json::{Value, json};

use crate::client::TestClient;
use crate::http_request::send;
use crate::on_both;
use crate::server::{TestServer, first_channel, text};

/// Starts a message that says `body` and goes on.
async fn start(client: &mut TestClient, body: &str) -> Value {
    let channel = first_channel(client);
    let sent =
        client.ok("message:send", json!({ "channel_id": channel, "body": body, "stream": true })).await;
    json!({ "channel_id": channel, "message_id": sent["message"]["id"] })
}

fn piece(target: &Value, offset: usize, text: &str) -> Value {
    let mut piece = target.clone();
    (piece["offset"], piece["text"]) = (json!(offset), json!(text));
    piece
}

fn state(state: &str, offset: usize) -> Value {
    json!({ "state": state, "offset": offset })
}

async fn seen(client: &mut TestClient, target: &Value) -> Value {
    let get = json!({ "channel_id": target["channel_id"], "message_ids": [target["message_id"]] });
    client.ok("message:get", get).await["messages"][0].take()
}

/// Makes as if the authors of all streams had been silent for too long.
async fn let_leases_end(server: &TestServer) {
    let (db, sql) =
        (Db::connect(server.database()).await.unwrap(), "UPDATE message_stream SET expires_at = 0");
    match &db {
        Db::Postgres(pool) => drop(sqlx::query(sql).execute(pool).await.unwrap()),
        Db::Sqlite(sqlite) => drop(sqlx::query(sql).execute(&sqlite.writer).await.unwrap()),
    }
}

on_both! {
    async fn a_text_that_arrives_in_pieces_reaches_everybody_and_one_change_ends_it(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let target = start(&mut alice, "").await;
        let new = bob.expect("message:new").await;
        assert_eq!((&new["body"], &new["stream"]), (&json!(""), &state("active", 0)));
        assert_eq!(alice.ok("stream:append", piece(&target, 0, "grüß ")).await, state("active", 5));
        assert_eq!(alice.ok("stream:append", piece(&target, 5, "dich")).await, state("active", 9));
        let pieces = [bob.expect("message:append").await, bob.expect("message:append").await];
        let told = |offset: usize, text: &str| json!({ "id": target["message_id"], "channel_id": target["channel_id"],
            "offset": offset, "text": text });
        assert_eq!(pieces, [told(0, "grüß "), told(5, "dich")]);
        let mut finish = target.clone();
        finish["offset"] = json!(9);
        let finished = alice.ok("stream:finish", finish.clone()).await;
        assert_eq!((&finished["message"]["body"], &finished["rev"]), (&json!("grüß dich"), &json!(1)));
        let update = bob.expect("message:updated").await;
        assert_eq!((&update["body"], &update["rev"], &update["kind"]), (&json!("grüß dich"), &json!(1), &json!("stream")));
        assert_eq!((&update["stream"], &update["edited_at"], &update["version"]), (&state("finished", 9), &json!(null), &json!(1)));
        assert_eq!(alice.ok("stream:finish", finish).await["rev"], 1, "to finish again changes nothing");
        assert_eq!(alice.ok("stream:append", piece(&target, 5, "dich")).await, state("finished", 9), "a late repeat");
        assert_eq!(alice.refused("stream:append", piece(&target, 9, "!")).await["code"], "stream_ended");
        assert_eq!(alice.refused("stream:abort", target.clone()).await["code"], "stream_ended");
        assert_eq!(bob.events_so_far().await, []);
    }

    async fn a_repeated_piece_changes_nothing_and_a_wrong_place_is_a_conflict_that_says_the_right_one(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let target = start(&mut alice, "one").await;
        alice.ok("stream:append", piece(&target, 3, " two")).await;
        assert_eq!(alice.ok("stream:append", piece(&target, 3, " two")).await, state("active", 7));
        for (offset, text) in [(3, " ten"), (8, "!"), (6, "o three")] {
            let error = alice.refused("stream:append", piece(&target, offset, text)).await;
            assert_eq!((&error["code"], &error["details"]), (&json!("conflict"), &json!({ "offset": 7 })), "{offset}");
        }
        let mut finish = target.clone();
        finish["offset"] = json!(8);
        assert_eq!(alice.refused("stream:finish", finish).await["details"], json!({ "offset": 7 }));
        assert_eq!(alice.ok("stream:append", piece(&target, 7, "")).await, state("active", 7), "a sign of life");
        bob.expect("message:append").await;
        assert_eq!(bob.events_so_far().await, []);
        assert_eq!(seen(&mut bob, &target).await["body"], "one two");
    }

    async fn whoever_comes_later_gets_the_text_so_far_by_every_way(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let target = start(&mut alice, "so").await;
        let channel = text(&target["channel_id"]);
        alice.ok("stream:append", piece(&target, 2, " far")).await;
        let far = |message: &Value| assert_eq!((&message["body"], &message["stream"]), (&json!("so far"), &state("active", 6)));
        far(&seen(&mut bob, &target).await);
        far(&bob.ok("history", json!({ "channel_id": channel })).await["messages"][0]);
        let sync = |seq: i64| json!({ "channels": [{ "channel_id": channel, "seq": seq, "rev": 0 }] });
        let of_new = bob.ok("sync", sync(0)).await;
        far(&of_new["channels"][0]["messages"][0]);
        assert_eq!(of_new["channels"][0]["changes"], json!([]), "once is enough");
        let of_known = bob.ok("sync", sync(1)).await;
        assert_eq!(of_known["channels"][0]["messages"], json!([]));
        far(&of_known["channels"][0]["changes"][0]["message"]);
        let answered = bob.ok("message:send", json!({ "channel_id": channel, "body": "re", "reply_to_message_id": target["message_id"] })).await;
        assert_eq!(answered["message"]["reply_to"]["body"], "so far");
        alice.ok("stream:abort", target.clone()).await;
        let message = seen(&mut bob, &target).await;
        assert_eq!((&message["body"], &message["stream"]), (&json!("so far"), &state("aborted", 6)));
        let of_known = bob.ok("sync", sync(1)).await;
        assert_eq!(of_known["channels"][0]["changes"][0]["rev"], 1);
    }

    async fn an_edit_has_the_last_word_and_keeps_what_it_replaced(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let target = start(&mut alice, "draft").await;
        alice.ok("stream:append", piece(&target, 5, " one")).await;
        let mut edit = target.clone();
        edit["body"] = json!("final");
        let edited = alice.ok("message:edit", edit).await;
        assert_eq!((&edited["message"]["body"], &edited["message"]["stream"]), (&json!("final"), &state("finished", 5)));
        assert_eq!(alice.refused("stream:append", piece(&target, 5, "!")).await["code"], "stream_ended");
        assert_eq!(alice.ok("message:edits", target.clone()).await["edits"][0]["body"], "draft one");
        assert_eq!(seen(&mut bob, &target).await["body"], "final");
    }

    async fn with_its_message_a_stream_is_over(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let target = start(&mut alice, "secret").await;
        alice.ok("stream:append", piece(&target, 6, " plan")).await;
        alice.ok("message:delete", target.clone()).await;
        let message = seen(&mut bob, &target).await;
        assert_eq!((&message["body"], &message["stream"]), (&json!(""), &json!(null)));
        for (event, request) in [("stream:append", piece(&target, 11, "!")), ("stream:finish", target.clone())] {
            assert_eq!(alice.refused(event, request).await["code"], "message_deleted", "{event}");
        }
    }

    async fn the_stream_of_an_author_who_vanished_is_interrupted_with_the_text_so_far(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let target = start(&mut alice, "I was about").await;
        alice.ok("stream:append", piece(&target, 11, " to")).await;
        let_leases_end(&server).await;
        let update = bob.expect("message:updated").await;
        assert_eq!((&update["body"], &update["stream"], &update["kind"]), (&json!("I was about to"), &state("interrupted", 14), &json!("stream")));
        assert_eq!(alice.refused("stream:append", piece(&target, 14, " say")).await["code"], "stream_ended");
        assert_eq!(alice.refused("stream:finish", target).await["code"], "stream_ended");
    }

    async fn a_repeated_send_says_how_far_the_stream_has_come(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        let request = json!({ "channel_id": channel, "stream": true, "nonce": "n" });
        let first = alice.ok("message:send", request.clone()).await;
        let target = json!({ "channel_id": channel, "message_id": first["message"]["id"] });
        alice.ok("stream:append", piece(&target, 0, "half")).await;
        let again = alice.ok("message:send", request).await;
        assert_eq!((&again["duplicate"], &again["message"]["stream"]), (&json!(true), &state("active", 4)));
        let plain = json!({ "channel_id": channel, "body": "half", "nonce": "n" });
        assert_eq!(alice.refused("message:send", plain).await["code"], "nonce_conflict");
    }

    async fn a_bot_without_a_socket_streams_over_http(server: TestServer) {
        let mut bob = server.client("bob").await;
        let (channel, token) = (first_channel(&bob), format!("Bearer {}", server.token("robot").await));
        let (addr, headers) = (server.addr(), [("authorization", token.as_str())]);
        let path = format!("POST /api/v1/channels/{channel}/messages");
        let sent = send(addr, &path, &headers, r#"{"stream":true}"#).await;
        assert_eq!(sent.status, 201, "{}", sent.body);
        let stream = format!("{path}/{}/stream", text(&sent.body["data"]["message"]["id"]));
        let added = send(addr, &stream, &headers, r#"{"offset":0,"text":"beep"}"#).await;
        assert_eq!((added.status, &added.body["data"]), (200, &state("active", 4)));
        assert_eq!(bob.expect("message:append").await["text"], "beep");
        let wrong = send(addr, &stream, &headers, r#"{"offset":7,"text":"boop"}"#).await;
        assert_eq!((wrong.code(), &wrong.body["error"]["details"]), ((409, "conflict"), &json!({ "offset": 4 })));
        let finished = send(addr, &format!("{stream}/finish"), &headers, "{}").await;
        assert_eq!((finished.status, &finished.body["data"]["message"]["body"]), (200, &json!("beep")));
        assert_eq!(send(addr, &format!("{stream}/abort"), &headers, "{}").await.code(), (422, "stream_ended"));
    }

    async fn only_its_author_adds_to_a_message_and_only_where_it_was_begun_as_a_stream(server: TestServer) {
        let channel = server.channel("club", &["alice", "bob"]).await;
        server.directory().ensure_user("carol").await.unwrap();
        server.directory().add_member("club", "carol", RoleName::Moderator).await.unwrap();
        let (mut alice, mut bob, mut carol) = (server.client("alice").await, server.client("bob").await, server.client("carol").await);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "mine", "stream": true })).await;
        let target = json!({ "channel_id": channel, "message_id": sent["message"]["id"] });
        for other in [&mut bob, &mut carol] {
            assert_eq!(other.refused("stream:append", piece(&target, 4, "!")).await["code"], "forbidden");
            assert_eq!(other.refused("stream:finish", target.clone()).await["code"], "forbidden");
        }
        let plain = alice.ok("message:send", json!({ "channel_id": target["channel_id"], "body": "whole" })).await;
        let whole = json!({ "channel_id": target["channel_id"], "message_id": plain["message"]["id"] });
        assert_eq!(plain["message"]["stream"], json!(null));
        assert_eq!(alice.refused("stream:append", piece(&whole, 5, "!")).await["code"], "not_found");
    }

    async fn what_cannot_be_streamed_is_refused_with_the_field(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        let poll = json!({ "question": "?", "options": ["A", "B"] });
        let later = "2999-01-01T00:00:00.000Z";
        for (event, field, request) in [
            ("message:send", "stream", json!({ "stream": true, "body": "aGk=", "content_type": "e2ee" })),
            ("message:send", "stream", json!({ "stream": true, "body": "?", "poll": poll })),
            ("message:send", "body", json!({ "stream": true, "body": "x".repeat(8_001) })),
            ("message:send", "body", json!({ "stream": true, "body": "\u{0}" })),
            ("schedule:create", "stream", json!({ "stream": true, "body": "x", "send_at": later })),
        ] {
            let mut request = request;
            request["channel_id"] = json!(channel);
            let error = alice.refused(event, request).await;
            assert_eq!((&error["code"], &error["details"]["field"]), (&json!("invalid_input"), &json!(field)), "{event}");
        }
        let target = start(&mut alice, &"x".repeat(7_999)).await;
        for text in ["yz", "\u{0}"] {
            let error = alice.refused("stream:append", piece(&target, 7_999, text)).await;
            assert_eq!((&error["code"], &error["details"]["field"]), (&json!("invalid_input"), &json!("text")));
        }
        assert_eq!(alice.ok("stream:append", piece(&target, 7_999, "y")).await, state("active", 8_000));
        let mut negative = piece(&target, 0, "y");
        negative["offset"] = json!(-1);
        let error = alice.refused("stream:append", negative).await;
        assert_eq!((&error["code"], &error["details"]["field"]), (&json!("invalid_payload"), &json!("offset")));
    }

    async fn a_message_takes_twenty_pieces_in_a_second(server: TestServer) {
        let mut alice = server.client("alice").await;
        assert_eq!(alice.ready["limits"]["stream_appends_per_second"], 20);
        assert_eq!(alice.ready["limits"]["stream_lease_ms"], 30_000);
        let (one, other) = (start(&mut alice, "").await, start(&mut alice, "").await);
        let mut asked = Vec::new();
        for offset in 0..60 {
            asked.push(alice.ask("stream:append", piece(&one, offset, "x")).await);
        }
        let mut refused = 0;
        for id in asked {
            let answer = alice.answer(id).await;
            refused += usize::from(answer["error"]["details"] == json!({ "bucket": "stream:message" }));
        }
        assert!(refused > 0, "sixty at once are too many");
        alice.ok("stream:append", piece(&other, 0, "x")).await;
    }

    async fn whoever_is_not_the_author_uses_up_nothing_of_the_rate_of_a_message(server: TestServer) {
        let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
        let target = start(&mut alice, "").await;
        let mut asked = Vec::new();
        for _ in 0..60 {
            asked.push(bob.ask("stream:append", piece(&target, 0, "x")).await);
        }
        let mut refused = 0;
        for id in asked {
            refused += usize::from(bob.answer(id).await["error"]["code"] == "rate_limited");
        }
        assert!(refused > 0, "sixty at once are too many for him");
        for offset in 0..10 {
            alice.ok("stream:append", piece(&target, offset, "x")).await;
        }
    }
}
