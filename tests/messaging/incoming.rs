//! Incoming webhooks: what programs post that know a secret address, with the embedded directory and another core.

use std::time::Duration;

use futures_util::future::join_all;
use imks::testing::pb::v1;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::core::{FakeCore, Mode};
use crate::core_outage::World;
use crate::http_request::{Response, send};
use crate::on_both;
use crate::server::{TestServer, first_channel};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn post(server: &TestServer, path: &str, body: &str) -> Response {
    send(server.addr(), &format!("POST {path}"), &[JSON], body).await
}

on_both! {
    async fn a_program_posts_under_a_secret_address_as_it_does_elsewhere(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        let picture = "https://ci.example/robot.png";
        let made = server.directory().create_webhook("general", "ci", picture).await.unwrap();
        let id = made.webhook.id.to_string();
        let answer = post(&server, &made.path, r#"{"text":"build **42** failed"}"#).await;
        assert_eq!((answer.status, &answer.body["data"]["seq"]), (200, &json!(1)), "{}", answer.body);
        let message = alice.expect("message:new").await;
        assert_eq!(message["id"], answer.body["data"]["message_id"]);
        assert_eq!((&message["channel_id"], &message["type"]), (&json!(channel), &json!("webhook")));
        assert_eq!(message["author"], json!({ "id": id, "username": "ci" }));
        assert_eq!(message["body"], "build **42** failed");
        assert_eq!(message["metadata"], json!({ "avatar_url": picture }));

        let other = r#"{"content":"deployed","username":"deploy bot","avatar_url":"https://ci.example/d.png"}"#;
        assert_eq!(post(&server, &made.path, other).await.status, 200);
        let message = alice.expect("message:new").await;
        assert_eq!(message["author"], json!({ "id": id, "username": "deploy bot" }));
        assert_eq!(message["metadata"]["avatar_url"], "https://ci.example/d.png");
        let form = "payload=%7B%22text%22%3A%22from%20a%20form%22%7D";
        assert_eq!(post(&server, &made.path, form).await.status, 200);
        assert_eq!(alice.expect("message:new").await["body"], "from a form");
    }

    async fn a_program_says_how_much_its_message_matters_and_asks_readers_to_acknowledge_it(server: TestServer) {
        let mut alice = server.client("alice").await;
        let channel = first_channel(&alice);
        let made = server.directory().create_webhook("general", "monitor", "").await.unwrap();
        for fields in [
            r#""priority":"urgent","ack_requested":true"#,
            r#""priority":{"priority":"urgent","requested_ack":true}"#,
        ] {
            let posted = post(&server, &made.path, &format!(r#"{{"text":"disk is full",{fields}}}"#)).await;
            assert_eq!(posted.status, 200, "{}", posted.body);
            let message = alice.expect("message:new").await;
            assert_eq!((&message["priority"], &message["ack_requested"]), (&json!("urgent"), &json!(true)));
            let ack = json!({ "channel_id": channel, "message_id": message["id"] });
            assert_eq!(alice.ok("message:ack", ack).await["ack_count"], 1);
        }
        let refused = post(&server, &made.path, r#"{"text":"x","priority":"high"}"#).await;
        assert_eq!((refused.code(), refused.field()), ((400, "invalid_payload"), "priority"));
    }

    async fn a_repeated_post_with_the_same_key_is_one_message(server: TestServer) {
        let mut alice = server.client("alice").await;
        let made = server.directory().create_webhook("general", "ci", "").await.unwrap();
        let request = format!("POST {}", made.path);
        let key = ("idempotency-key", "build-42");
        let first = send(server.addr(), &request, &[JSON, key], r#"{"text":"once"}"#).await;
        let again = send(server.addr(), &request, &[JSON, key], r#"{"text":"once"}"#).await;
        assert_eq!((&first.body["data"]["duplicate"], &again.body["data"]["duplicate"]), (&json!(false), &json!(true)));
        assert_eq!(first.body["data"]["message_id"], again.body["data"]["message_id"]);
        alice.expect("message:new").await;
        assert_eq!(alice.events_so_far().await, []);
    }

    async fn an_address_that_stands_for_nothing_and_a_bad_post_are_refused(server: TestServer) {
        let mut alice = server.client("alice").await;
        let made = server.directory().create_webhook("general", "ci", "").await.unwrap();
        for path in ["/api/v1/webhooks/x", "/api/v1/webhooks/imks_webhook_0123456789012345678901234567890123456789012"] {
            assert_eq!(post(&server, path, r#"{"text":"x"}"#).await.code(), (404, "not_found"));
        }
        for (body, code, field) in [
            ("", "invalid_payload", "text"),
            ("text", "invalid_payload", ""),
            (r#"[{"text":"x"}]"#, "invalid_payload", ""),
            ("{}", "invalid_payload", "text"),
            (r#"{"content":7}"#, "invalid_payload", "content"),
            (r#"{"text":" ","content":"x"}"#, "invalid_input", "text"),
            (r#"{"text":"x","username":"a\nb"}"#, "invalid_input", "username"),
            (r#"{"text":"x","avatar_url":"javascript:alert(1)"}"#, "invalid_input", "avatar_url"),
            (r#"{"text":"x","icon_url":"javascript:alert(1)"}"#, "invalid_input", "icon_url"),
        ] {
            let refused = post(&server, &made.path, body).await;
            assert_eq!((refused.code(), refused.field()), ((400, code), field), "{body}");
        }
        let large = json!({ "text": "x".repeat(65_536) }).to_string();
        assert_eq!(post(&server, &made.path, &large).await.code(), (413, "payload_too_large"));
        assert_eq!(send(server.addr(), &format!("GET {}", made.path), &[], "").await.status, 405);
        server.directory().remove_webhook(&made.webhook.id.to_string()).await.unwrap();
        assert_eq!(post(&server, &made.path, r#"{"text":"x"}"#).await.status, 404);
        assert_eq!(alice.events_so_far().await, []);
    }

    async fn a_webhook_that_posts_too_fast_is_slowed_down(server: TestServer) {
        server.channel("builds", &[]).await;
        let made = server.directory().create_webhook("builds", "ci", "").await.unwrap();
        let answers = join_all((0..80).map(|_| post(&server, &made.path, "{}"))).await;
        let refused: Vec<&Response> = answers.iter().filter(|answer| answer.status == 429).collect();
        assert!(!refused.is_empty() && refused.len() < 60, "30 at once: {}", refused.len());
        let error = &refused[0].body["error"];
        assert_eq!((&error["code"], &error["retryable"]), (&json!("rate_limited"), &json!(true)));
    }

    async fn the_webhooks_of_a_channel_that_is_removed_are_gone(server: TestServer) {
        server.channel("builds", &[]).await;
        let made = server.directory().create_webhook("builds", "ci", "").await.unwrap();
        assert_eq!(server.directory().webhooks("builds").await.unwrap(), [made.webhook]);
        server.directory().remove_channel("builds").await.unwrap();
        assert_eq!(post(&server, &made.path, r#"{"text":"x"}"#).await.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_core_says_what_an_address_stands_for() {
    let world = World::start(FakeCore::start().await, |_| {}).await;
    let user = world.user();
    let mut alice = world.client(user).await;
    let channel = first_channel(&alice);
    world.core.set_channels(vec![v1::Channel {
        id: channel.clone(),
        kind: v1::channel::Kind::Public.into(),
        name: "general".into(),
        ..Default::default()
    }]);
    let webhook = |name: &str, enabled| v1::Webhook {
        id: Uuid::now_v7().to_string(),
        channel_id: channel.clone(),
        name: name.into(),
        avatar: "no address".into(),
        enabled,
    };
    const TOKEN: &str = "0123456789abcdef";
    let path = format!("/api/v1/webhooks/{TOKEN}");
    world.core.set_webhook(TOKEN, webhook("monitor", true));
    assert_eq!(post(&world.server, &path, r#"{"text":"all well"}"#).await.status, 200);
    let message = alice.expect("message:new").await;
    assert_eq!((&message["author"]["username"], &message["body"]), (&json!("monitor"), &json!("all well")));
    assert!(
        message.get("metadata").is_none_or(Value::is_null),
        "what is no address is no picture: {message}"
    );

    for (name, enabled, status) in [("monitor", false, 404), ("", true, 503)] {
        world.core.set_webhook(TOKEN, webhook(name, enabled));
        assert_eq!(post(&world.server, &path, r#"{"text":"x"}"#).await.status, status, "{name:?} {enabled}");
    }
    world.core.set_webhook(TOKEN, webhook("monitor", true));
    for mode in Mode::FAILURES {
        world.core.mode(mode);
        let answer = post(&world.server, &path, r#"{"text":"x"}"#).await;
        assert!([503, 504].contains(&answer.status), "{mode:?}: {}", answer.body);
    }
    world.core.mode(Mode::Normal);
    world.core.without_extras();
    let absent = async {
        while post(&world.server, &path, r#"{"text":"x"}"#).await.status != 404 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), absent).await.expect("a core without webhooks has none");
    assert_eq!(alice.events_so_far().await, []);
}
