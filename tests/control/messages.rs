//! Messages of bots, webhooks and the system.

use futures_util::future::join_all;
use imks::testing::pb::control::{
    AppendTextRequest, Content, Expect, GetMessagesRequest, Identity, SendMessageAsRequest,
    SendMessagesRequest, SendSystemMessageRequest, content, identity, send_result,
    send_system_message_request,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::on_both;
use crate::server::{first_channel, text};

fn message(channel: &str, body: &str, request_id: &str) -> SendMessageAsRequest {
    SendMessageAsRequest {
        channel_id: channel.into(),
        content: Some(Content { body: body.into(), ..Content::default() }),
        request_id: request_id.into(),
        ..SendMessageAsRequest::default()
    }
}

on_both! {
    async fn curl_alone_publishes_a_message_that_everybody_in_the_channel_sees_as_unread(backend: Backend) {
        let mut alice = backend.client("alice").await;
        let channel = first_channel(&alice);
        let path = format!("/channels/{channel}/messages");
        let sent = backend.post(&path, json!({ "content": { "body": "deployed" } })).await;
        assert_eq!((sent.status, &sent.body["ok"]), (200, &json!(true)), "{}", sent.body);
        let stored = &sent.body["data"]["stored"];
        let seen = alice.expect("message:new").await;
        assert_eq!((&seen["id"], &seen["seq"]), (&stored["message_id"], &stored["seq"]));
        assert_eq!((&seen["type"], &seen["flags"]), (&json!("bot"), &json!(16)));
        assert_eq!(seen["author"]["username"], "backend", "the name of the key");
        let again = backend.client("alice").await;
        assert_eq!(again.ready["channels"][0]["unread_count"], 1, "{}", again.ready);

        let page = backend.get(&path).await;
        assert_eq!((page.status, &page.body["data"]["has_more"]), (200, &json!(false)));
        assert_eq!(page.body["data"]["messages"], json!([seen]), "as on the wire to clients");
    }

    async fn a_bot_streams_a_message_over_both_ways_and_nobody_else_adds_to_it(backend: Backend) {
        let (mut alice, mut grpc) = (backend.client("alice").await, backend.grpc().await);
        let channel = first_channel(&alice);
        let identity = Identity { id: Uuid::now_v7().to_string(), name: "Assistant".into(), ..Identity::default() };
        let content = Content { stream: true, priority: content::Priority::Important.into(), ack_requested: true, ..Content::default() };
        let request = SendMessageAsRequest { identity: Some(identity.clone()), content: Some(content), ..message(&channel, "", "s-1") };
        let stored = grpc.send_message_as(request).await.unwrap().into_inner().stored.unwrap();
        let seen = alice.expect("message:new").await;
        assert_eq!((&seen["stream"], &seen["priority"], &seen["ack_requested"]),
            (&json!({ "state": "active", "offset": 0 }), &json!("important"), &json!(true)));
        let piece = |offset, text: &str| AppendTextRequest { channel_id: channel.clone(), message_id: stored.message_id.clone(),
            identity: Some(identity.clone()), offset, text: text.into() };
        assert_eq!(grpc.append_text(piece(0, "Once")).await.unwrap().into_inner().offset, 4);
        assert_eq!(alice.expect("message:append").await["text"], "Once");
        let conflict = grpc.append_text(piece(9, "upon")).await.unwrap_err();
        assert_eq!(conflict.code(), tonic::Code::Aborted);
        let path = format!("/channels/{channel}/messages/{}/stream", stored.message_id);
        let of_bot = json!({ "id": identity.id, "name": "Assistant" });
        let added = backend.post(&path, json!({ "identity": of_bot, "offset": 4, "text": " upon" })).await;
        assert_eq!((added.status, &added.body["data"]), (200, &json!({ "offset": 9 })), "{}", added.body);
        let wrong = backend.post(&path, json!({ "identity": of_bot, "offset": 4, "text": "!" })).await;
        assert_eq!((wrong.code(), &wrong.body["error"]["details"]), ((409, "conflict"), &json!({ "offset": 9 })));
        assert_eq!(backend.post(&path, json!({ "offset": 9, "text": "!" })).await.code(), (403, "forbidden"), "another identity");
        let ended = backend.post(&format!("{path}/end"), json!({ "identity": of_bot, "offset": 9 })).await;
        assert_eq!((ended.status, &ended.body["data"]), (200, &json!({ "offset": 9, "rev": 1 })), "{}", ended.body);
        let update = alice.expect("message:updated").await;
        assert_eq!((&update["body"], &update["kind"]), (&json!("Once upon"), &json!("stream")));
        assert_eq!(grpc.append_text(piece(9, "!")).await.unwrap_err().code(), tonic::Code::FailedPrecondition);
    }

    async fn a_bot_adds_nothing_to_what_a_person_writes_and_keeps_the_rate_of_a_message(backend: Backend) {
        let mut alice = backend.client("alice").await;
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "I", "stream": true })).await;
        let path = format!("/channels/{channel}/messages/{}/stream", text(&sent["message"]["id"]));
        let as_alice = json!({ "id": alice.ready["user"]["id"], "name": "alice" });
        let forged = backend.post(&path, json!({ "identity": as_alice, "offset": 1, "text": " quit" })).await;
        assert_eq!(forged.code(), (403, "forbidden"));
        let ended = backend.post(&format!("{path}/end"), json!({ "identity": as_alice })).await;
        assert_eq!(ended.code(), (403, "forbidden"));

        let content = json!({ "content": { "stream": true } });
        let sent = backend.post(&format!("/channels/{channel}/messages"), content).await;
        let path = format!("/channels/{channel}/messages/{}/stream", text(&sent.body["data"]["stored"]["message_id"]));
        let asked = (0..60).map(|_| backend.post(&path, json!({ "offset": 0, "text": "" })));
        let answers = join_all(asked).await;
        assert!(answers.iter().any(|answer| answer.status == 200));
        assert!(answers.iter().any(|answer| answer.status == 429 && answer.code().1 == "rate_limited"), "sixty at once");
    }

    async fn a_bot_says_over_grpc_who_it_is(backend: Backend) {
        let (mut alice, mut grpc) = (backend.client("alice").await, backend.grpc().await);
        let channel = first_channel(&alice);
        let bot = Uuid::now_v7().to_string();
        for (kind, name) in [(identity::Kind::Bot, "bot"), (identity::Kind::Webhook, "webhook")] {
            let identity = Identity { kind: kind.into(), id: bot.clone(), name: "Build ⚙".into() };
            let request = SendMessageAsRequest { identity: Some(identity), ..message(&channel, "done", "") };
            let stored = grpc.send_message_as(request).await.unwrap().into_inner().stored.unwrap();
            let seen = alice.expect("message:new").await;
            assert_eq!((text(&seen["id"]), seen["seq"].as_i64()), (stored.message_id, Some(stored.seq)));
            assert_eq!((&seen["type"], &seen["author"]), (&json!(name), &json!({ "id": bot, "username": "Build ⚙" })));
        }
    }

    async fn a_repeated_request_is_stored_once_on_both_ways_and_another_content_is_refused(backend: Backend) {
        let (mut alice, mut grpc) = (backend.client("alice").await, backend.grpc().await);
        let channel = first_channel(&alice);
        let path = format!("/channels/{channel}/messages");
        let http = async |body: &str| {
            let body = json!({ "content": { "body": body } });
            backend.post_as(&backend.key, &path, &[("idempotency-key", "job-1")], body).await
        };
        let first = http("once").await.body["data"]["stored"].take();
        assert_eq!((&first["duplicate"], http("once").await.body["data"]["stored"]["duplicate"].as_bool()), (&json!(false), Some(true)));
        let repeats = join_all((0..8).map(|_| {
            let (mut grpc, request) = (grpc.clone(), message(&channel, "once", "job-1"));
            async move { grpc.send_message_as(request).await.unwrap().into_inner().stored.unwrap() }
        }));
        for stored in repeats.await {
            assert_eq!((json!(stored.message_id), stored.duplicate), (first["message_id"].clone(), true));
        }
        assert_eq!(http("twice").await.code(), (409, "nonce_conflict"));
        let status = grpc.send_message_as(message(&channel, "twice", "job-1")).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::AlreadyExists);
        let sent = alice.events_so_far().await;
        assert_eq!(sent.iter().filter(|(name, _)| name == "message:new").count(), 1, "{sent:?}");
    }

    async fn of_many_messages_one_that_fails_does_not_stop_the_others(backend: Backend) {
        let (mut alice, mut grpc) = (backend.client("alice").await, backend.grpc().await);
        let channel = first_channel(&alice);
        let nowhere = Uuid::now_v7().to_string();
        let messages = vec![
            message(&channel, "one", "a"), message(&nowhere, "lost", "b"), message(&channel, "", "c"),
            message(&channel, "two", "d"), message(&channel, "one", "a"),
        ];
        let results = grpc.send_messages(SendMessagesRequest { messages }).await.unwrap().into_inner().results;
        let outcome = |at: usize| match results[at].result.as_ref().unwrap() {
            send_result::Result::Stored(stored) => (format!("{} {}", stored.seq, stored.duplicate), false),
            send_result::Result::Failure(failure) => (failure.code.clone(), failure.retryable),
        };
        let outcomes: Vec<_> = (0..5).map(outcome).collect();
        let expected = ["1 false", "not_found", "invalid_input", "2 false", "1 true"];
        assert_eq!(outcomes, expected.map(|text| (text.to_owned(), false)));
        for body in ["one", "two"] {
            assert_eq!(alice.expect("message:new").await["body"], body);
        }
        let many = json!({ "messages": (0..101).map(|_| json!({})).collect::<Vec<_>>() });
        assert_eq!(backend.post("/messages", many).await.code(), (400, "invalid_input"));
        assert_eq!(backend.post("/messages", json!({})).await.code(), (400, "invalid_input"));
        let one = json!({ "messages": [{ "channel_id": channel, "content": { "body": "three" } }] });
        let key = ("idempotency-key", "many");
        let sent = backend.post_as(&backend.key, "/messages", &[key], one.clone()).await;
        assert_eq!(sent.body["data"]["results"][0]["stored"]["seq"], 3, "{}: the header is ignored", sent.body);
        let refused = backend.post_as(&backend.key, "/messages", &[key, key], one).await;
        assert_eq!((refused.code(), refused.field()), ((400, "invalid_input"), "idempotency-key"));
    }

    async fn a_notice_of_the_system_has_a_type_a_text_and_data_for_programs(backend: Backend) {
        let (mut alice, mut grpc) = (backend.client("alice").await, backend.grpc().await);
        let channel = first_channel(&alice);
        let user = backend.directory().user("alice").await.unwrap().unwrap().id.to_string();
        let path = format!("/channels/{channel}/system-messages");
        let notice = json!({ "type": "rename", "body": "alice renamed it", "metadata": { "to": "x", "n": 12345678901234567890123u128.to_string() } });
        let sent = backend.post(&path, notice.clone()).await;
        assert_eq!(sent.status, 200, "{}", sent.body);
        let seen = alice.expect("message:new").await;
        assert_eq!((&seen["type"], &seen["metadata"]), (&json!("system_rename"), &notice["metadata"]));
        assert_eq!(seen["author"], json!({ "id": Uuid::nil(), "username": "system" }));
        let history = alice.ok("history", json!({ "channel_id": channel })).await;
        assert_eq!(history["messages"][0]["metadata"], notice["metadata"]);

        let request = SendSystemMessageRequest {
            channel_id: channel.clone(),
            r#type: send_system_message_request::Type::Join.into(),
            body: "alice joined".into(),
            actor_id: user.clone(),
            ..SendSystemMessageRequest::default()
        };
        grpc.send_system_message(request.clone()).await.unwrap();
        let seen = alice.expect("message:new").await;
        assert_eq!(seen["author"], json!({ "id": user, "username": "alice" }));
        assert_eq!(seen.get("metadata"), None);
        for (field, bad) in [
            ("type", json!({ "body": "x" })),
            ("metadata", json!({ "type": "join", "body": "x", "metadata": [1] })),
            ("actor_id", json!({ "type": "join", "body": "x", "actor_id": "alice" })),
            ("body", json!({ "type": "join" })),
        ] {
            let refused = backend.post(&path, bad).await;
            assert_eq!((refused.status, &refused.body["error"]["details"]["field"]), (400, &json!(field)));
        }
        let nobody = SendSystemMessageRequest { actor_id: Uuid::now_v7().to_string(), ..request };
        assert_eq!(grpc.send_system_message(nobody).await.unwrap_err().code(), tonic::Code::NotFound);
    }

    async fn messages_are_read_by_page_and_by_id(backend: Backend) {
        let (alice, mut grpc) = (backend.client("alice").await, backend.grpc().await);
        let channel = first_channel(&alice);
        let messages = (1..=5).map(|number| message(&channel, &number.to_string(), "")).collect();
        let sent = grpc.send_messages(SendMessagesRequest { messages }).await.unwrap().into_inner();
        let ids: Vec<String> = sent.results.iter().map(|result| match result.result.as_ref().unwrap() {
            send_result::Result::Stored(stored) => stored.message_id.clone(),
            other => panic!("{other:?}"),
        }).collect();
        let page = GetMessagesRequest { channel_id: channel.clone(), limit: 2, before_seq: 5, ..Default::default() };
        let page = grpc.get_messages(page).await.unwrap().into_inner();
        let bodies = |texts: &[String]| -> Vec<String> {
            texts.iter().map(|json| text(&serde_json::from_str::<Value>(json).unwrap()["body"])).collect()
        };
        assert_eq!((bodies(&page.messages_json), page.has_more), (vec!["3".into(), "4".into()], true));
        let wanted = format!("{},{},{}", ids[4], ids[0], Uuid::now_v7());
        let found = backend.get(&format!("/channels/{channel}/messages?message_ids={wanted}")).await;
        let found = found.body["data"]["messages"].as_array().unwrap().iter().map(|it| text(&it["body"]));
        assert_eq!(found.collect::<Vec<_>>(), ["1", "5"]);
        for query in ["?limit=101", "?limit=x", "?message_ids=x", "?wrong=1"] {
            let refused = backend.get(&format!("/channels/{channel}/messages{query}")).await;
            assert_eq!(refused.status, 400, "{query}: {}", refused.body);
        }
    }

    async fn of_all_who_expect_the_same_one_is_stored(backend: Backend) {
        let (alice, mut grpc) = (backend.client("alice").await, backend.grpc().await);
        let channel = first_channel(&alice);
        let path = format!("/channels/{channel}/messages");
        let http = async |expect: Value| backend.post(&path, json!({ "content": { "body": "x" }, "expect": expect })).await;
        assert_eq!(http(json!({ "last_seq": 0 })).await.status, 200);
        let late = http(json!({ "last_seq": 0 })).await;
        assert_eq!((late.code(), &late.body["error"]["details"]), ((409, "conflict"), &json!({ "last_seq": 1 })));
        assert_eq!(http(json!({ "key": "turn", "version": 0, "value": "alice" })).await.status, 200);
        let late = http(json!({ "key": "turn", "version": 0, "value": "bob" })).await;
        assert_eq!(late.body["error"]["details"], json!({ "key": { "version": 1, "value": "alice" } }));
        let expect = Expect { key: "turn".into(), version: 1, value: "bob".into(), last_seq: None };
        let request = |id: &str| SendMessageAsRequest { expect: Some(expect.clone()), ..message(&channel, "y", id) };
        assert!(grpc.send_message_as(request("r")).await.is_ok());
        let repeat = grpc.send_message_as(request("r")).await.unwrap().into_inner().stored.unwrap();
        assert_eq!((repeat.seq, repeat.duplicate), (3, true), "a repeat is no conflict");
        let status = grpc.send_message_as(request("other")).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Aborted);
        for expect in [json!({}), json!({ "last_seq": 1, "key": "turn" }), json!({ "key": "k".repeat(129) })] {
            assert_eq!(http(expect.clone()).await.code(), (400, "invalid_input"), "{expect}");
        }
    }

    async fn a_notice_to_one_user_is_seen_by_that_user_and_stored_nowhere(backend: Backend) {
        let (mut alice, mut bob) = (backend.client("alice").await, backend.client("bob").await);
        let (user, channel) = (text(&alice.ready["user"]["id"]), first_channel(&alice));
        let notice = json!({ "channel_id": channel, "content": { "body": "only you", "format": "plain" }, "request_id": "n" });
        let path = format!("/users/{user}/ephemeral-messages");
        let sent = backend.post(&path, notice.clone()).await;
        assert_eq!(sent.status, 200, "{}", sent.body);
        let again = backend.post(&path, notice).await;
        assert_eq!(again.body["data"], sent.body["data"], "a repeat has the first answer");
        let seen = alice.expect("message:ephemeral").await;
        assert_eq!((&seen["id"], &seen["body"]), (&sent.body["data"]["message_id"], &json!("only you")));
        assert_eq!((&seen["channel_id"], &seen["type"], &seen["content_type"]), (&json!(channel), &json!("bot"), &json!("plain")));
        assert_eq!((alice.events_so_far().await, bob.events_so_far().await), (vec![], vec![]));
        assert_eq!(alice.ok("history", json!({ "channel_id": channel })).await["messages"], json!([]));
        let nowhere = json!({ "channel_id": Uuid::now_v7(), "content": { "body": "x" } });
        assert_eq!(backend.post(&path, nowhere).await.code(), (404, "not_found"));
    }

    async fn messages_are_deleted_whoever_wrote_them(backend: Backend) {
        let (mut alice, moderator) = (backend.client("alice").await, backend.key("moderator", "moderate").await);
        let channel = first_channel(&alice);
        let sent = alice.ok("message:send", json!({ "channel_id": channel, "body": "spam" })).await;
        let (spam, nothing) = (text(&sent["message"]["id"]), Uuid::now_v7().to_string());
        let path = format!("/channels/{channel}/messages/delete");
        let delete = async |key: &str, request_id: &str| {
            let body = json!({ "message_ids": [spam, nothing, spam], "reason": "spam", "request_id": request_id });
            backend.post_as(key, &path, &[], body).await
        };
        assert_eq!(delete(&backend.key("bot", "publish").await, "d").await.code(), (403, "forbidden"));
        let deleted = delete(&moderator, "d").await;
        let expected = json!({ "deleted_ids": [spam], "missing_ids": [nothing] });
        assert_eq!(deleted.body["data"], expected, "{}", deleted.body);
        assert_eq!(alice.expect("message:deleted").await["id"], json!(spam));
        assert_eq!(delete(&moderator, "d").await.body["data"], expected, "a repeat has the first answer");
        let again = delete(&moderator, "e").await;
        assert_eq!(again.body["data"], json!({ "deleted_ids": [], "missing_ids": [spam, nothing] }));
        assert_eq!(backend.post(&path, json!({ "message_ids": [] })).await.code(), (400, "invalid_input"));
    }

    async fn a_number_that_is_no_value_of_an_enum_is_refused(backend: Backend) {
        let (alice, mut grpc) = (backend.client("alice").await, backend.grpc().await);
        let channel = first_channel(&alice);
        for (format, kind, field) in [(99, 0, "content.format"), (0, 77, "identity.kind")] {
            let content = Content { body: "x".into(), format, ..Content::default() };
            let request = SendMessageAsRequest {
                content: Some(content),
                identity: Some(Identity { kind, ..Identity::default() }),
                ..message(&channel, "", "")
            };
            let status = grpc.send_message_as(request).await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().starts_with(field), "{}", status.message());
        }
    }

    async fn what_is_wrong_is_said_with_the_field_and_nothing_is_stored(backend: Backend) {
        let mut alice = backend.client("alice").await;
        let channel = first_channel(&alice);
        let path = format!("/channels/{channel}/messages");
        for (body, code, field) in [
            (json!({}), "invalid_payload", "content"),
            (json!({ "content": {} }), "invalid_input", "body"),
            (json!({ "content": { "body": "x", "format": "html" } }), "invalid_payload", "content.format"),
            (json!({ "content": { "bodi": "x" } }), "invalid_payload", "content.bodi"),
            (json!({ "content": { "body": "x", "thread_id": "7" } }), "invalid_payload", "content.thread_id"),
            (json!({ "content": { "body": "x" }, "identity": { "id": "7" } }), "invalid_payload", "identity.id"),
            (json!({ "content": { "body": "x" }, "identity": { "name": "\n" } }), "invalid_input", "identity.name"),
            (json!({ "content": { "body": "x" }, "request_id": "r".repeat(65) }), "invalid_input", "request_id"),
        ] {
            let refused = backend.post(&path, body.clone()).await;
            assert_eq!(refused.code(), (400, code), "{body}: {}", refused.body);
            assert_eq!(refused.body["error"]["details"]["field"], field, "{body}");
        }
        let control = backend.post(&path, json!({ "content": { "body": "x" }, "identity": { "name": "a\u{7}" } })).await;
        let sentence = control.body["error"]["message"].as_str().unwrap();
        assert!(sentence.ends_with("no control characters"), "{sentence}");
        let beyond = json!({ "key": "k", "version": i64::MAX, "value": "v" });
        let refused = backend.post(&path, json!({ "content": { "body": "x" }, "expect": beyond })).await;
        assert_eq!((refused.code(), refused.field()), ((400, "invalid_input"), "expect.version"), "{}", refused.body);
        let unknown = format!("/channels/{}/messages", Uuid::now_v7());
        let body = json!({ "content": { "body": "x" } });
        assert_eq!(backend.post(&unknown, body.clone()).await.code(), (404, "not_found"));
        assert_eq!(backend.post("/channels/general/messages", body.clone()).await.code(), (400, "invalid_payload"));
        backend.directory().set_channel_state("general", Some(true), None).await.unwrap();
        let archived = async || backend.post(&path, body.clone()).await.code().1 == "channel_archived";
        while !archived().await {}
        let history = alice.ok("history", json!({ "channel_id": channel })).await;
        let stored = history["messages"].as_array().unwrap();
        assert!(stored.iter().all(|message| message["body"] == "x" && message["seq"].as_i64() > Some(0)));
    }
}
