//! Bad input of every kind: a stable code, no effect, and the connection goes on.

use serde_json::{Value, json};

use crate::server::{Kind, TestServer, first_channel};

/// An id of nothing.
const NOWHERE: &str = "01909a00-0000-7000-8000-000000000001";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_payloads_are_refused_and_nothing_is_stored() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    for (event, request, code) in wrong_sends(&channel).into_iter().chain(wrong_requests(&channel)) {
        let error = alice.refused(event, request.clone()).await;
        assert_eq!(error["code"], code, "{event} {request}");
        assert!(
            error["message"].is_string() && error["request_id"].is_string() && error["retryable"] == false
        );
    }
    let page = alice.ok("history", json!({ "channel_id": channel })).await;
    assert_eq!(page["messages"], json!([]));
    server.stop().await;
}

/// JSON that no library writes by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_an_emoji_a_giant_number_and_a_wide_object_are_refused_and_the_connection_goes_on() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    let (digits, wide) =
        ("9".repeat(500_000), (0..50_000).map(|n| format!("\"k{n}\":{n},")).collect::<String>());
    let send = |field: &str| format!(r#"["message:send",{{"channel_id":"{channel}",{field}}}]"#);
    let requests = [
        send(r#""body":"nice \ud83d""#),
        send(r#""body":"x","flags":1e400"#),
        send(&format!(r#""body":"x","flags":{digits}"#)),
        send(&format!(r#""body":{{{wide}"last":1}}"#)),
        format!(r#"["read:mark",{{"channel_id":"{channel}","seq":-{digits}}}]"#),
    ];
    for (number, request) in (1_000..).zip(requests) {
        alice.raw(&format!("42{number}{request}")).await;
        let answer = alice.answer(number).await;
        assert_eq!(answer["error"]["code"], "invalid_payload", "{:.80}: {answer}", request);
    }
    assert_eq!(alice.ok("history", json!({ "channel_id": channel })).await["messages"], json!([]));
    server.stop().await;
}

type Wrong = (&'static str, Value, &'static str);

fn wrong_sends(channel: &str) -> Vec<Wrong> {
    let id = NOWHERE;
    let body = |body: Value| json!({ "channel_id": channel, "body": body });
    let with = |field: &str, value: Value| {
        let mut request = body("x".into());
        request[field] = value;
        request
    };
    vec![
        ("message:send", json!(null), "invalid_payload"),
        ("message:send", json!("text"), "invalid_payload"),
        ("message:send", json!([channel, "x"]), "invalid_payload"),
        ("message:send", json!({}), "invalid_payload"),
        ("message:send", json!({ "channel_id": "general", "body": "x" }), "invalid_payload"),
        ("message:send", json!({ "channel_id": 7, "body": "x" }), "invalid_payload"),
        ("message:send", body(json!(7)), "invalid_payload"),
        ("message:send", body(json!({})), "invalid_payload"),
        ("message:send", body("".into()), "invalid_input"),
        ("message:send", body("a\u{0}b".into()), "invalid_input"),
        ("message:send", body("x".repeat(8_001).into()), "invalid_input"),
        ("message:send", with("nonce", "n".repeat(65).into()), "invalid_input"),
        ("message:send", with("nonce", "".into()), "invalid_input"),
        ("message:send", with("flags", json!(1024)), "invalid_input"),
        ("message:send", with("mentions", json!({ "users": vec![id; 101] })), "invalid_input"),
        ("message:send", with("attachments", json!([id])), "not_found"),
        ("message:send", with("thread_id", json!(id)), "not_found"),
    ]
}

fn wrong_requests(channel: &str) -> Vec<Wrong> {
    let id = NOWHERE;
    vec![
        ("message:edit", json!({ "channel_id": channel, "message_id": id, "body": "x" }), "not_found"),
        ("message:delete", json!({ "channel_id": channel, "message_id": id }), "not_found"),
        ("history", json!({ "channel_id": channel, "limit": 0 }), "invalid_input"),
        ("history", json!({ "channel_id": channel, "limit": -1 }), "invalid_payload"),
        ("history", json!({ "channel_id": channel, "before": id, "after": id }), "invalid_payload"),
        ("history", json!({ "channel_id": channel, "around": id }), "not_found"),
        ("message:get", json!({ "channel_id": channel, "message_ids": [] }), "invalid_input"),
        ("message:get", json!({ "channel_id": channel, "message_ids": vec![id; 101] }), "invalid_input"),
        ("channel:subscribe", json!({ "channel_ids": vec![id; 101] }), "invalid_input"),
        ("read:mark", json!({ "channel_id": channel, "seq": -1 }), "invalid_input"),
        ("sync", json!({ "channels": [{ "channel_id": channel, "seq": -1, "rev": 0 }] }), "invalid_input"),
        ("sync", json!({ "channels": [], "total_limit": 0 }), "invalid_input"),
        ("auth:refresh", json!({ "token": "x" }), "unauthenticated"),
        ("no:such:event", json!({}), "unknown_event"),
        ("__proto__", json!({}), "unknown_event"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_names_the_field_and_says_what_it_wants() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut alice = server.client("alice").await;
    let channel = first_channel(&alice);
    for (event, request, field, message) in [
        ("message:send", json!({ "channel_id": "general", "body": "x" }), "channel_id", "must be a UUID"),
        ("message:send", json!({ "channel_id": channel, "body": 5 }), "body", "must be text"),
        ("message:send", json!({ "channel_id": channel }), "body", "is missing"),
        ("read:mark", json!({ "channel_id": channel, "seq": 1.5 }), "seq", "must be a whole number"),
        ("message:get", json!({ "channel_id": channel, "message_ids": [] }), "message_ids", "is empty"),
        ("sync", json!({ "channels": [{ "seq": 1, "rev": 0 }] }), "channels[0].channel_id", "is missing"),
    ] {
        let error = alice.refused(event, request).await;
        assert_eq!(error["details"], json!({ "field": field }), "{error}");
        assert_eq!(error["message"], format!("{field}: {message}"));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_arguments_is_no_object() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut alice = server.client("alice").await;
    alice.raw(r#"42["message:send"]"#).await;
    assert_eq!(alice.expect("error").await["code"], "invalid_payload");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_beyond_a_bound_is_refused_like_every_other_request() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut alice = server.client("alice").await;
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    alice.raw(&format!(r#"42["message:send",{deep}]"#)).await;
    let error = alice.expect("error").await;
    assert_eq!((&error["code"], &error["retryable"]), (&json!("invalid_payload"), &json!(false)));
    assert_eq!(error["message"], "arguments are nested too deep");
    let mut nested = json!(1);
    for _ in 0..200 {
        nested = json!([nested]);
    }
    let error = alice.refused("message:send", json!({ "metadata": nested })).await;
    assert_eq!(
        (&error["code"], &error["message"]),
        (&json!("invalid_payload"), &json!("arguments are nested too deep"))
    );
    alice.ok("ping", json!({ "t": 1 })).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_packet_ends_its_own_connection_only() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (mut alice, mut bob) = (server.client("alice").await, server.client("bob").await);
    alice.raw("42[\"message:send\"").await;
    alice.ended().await;
    bob.ok("ping", json!({ "t": 1 })).await;
    server.stop().await;
}
