//! Events of a back end's own.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use imks::testing::pb::control::{BroadcastRequest, Target, target};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::backend::Backend;
use crate::client::TestClient;
use crate::on_both;
use crate::server::{first_channel, text};

on_both! {
    async fn an_event_of_the_back_end_reaches_a_user_a_channel_or_everybody(backend: Backend) {
        let (mut alice, mut bob) = (backend.client("alice").await, backend.client("bob").await);
        let (user, channel) = (text(&alice.ready["user"]["id"]), first_channel(&alice));
        let send = async |target, payload| {
            let body = json!({ "target": target, "event": "app:order", "payload": payload });
            let sent = backend.post("/broadcast", body).await;
            assert_eq!((sent.status, &sent.body["data"]), (200, &json!({})), "{}", sent.body);
        };
        send(json!({ "user_id": user }), json!({ "n": 1 })).await;
        send(json!({ "channel_id": channel }), json!([2, "two"])).await;
        send(json!({ "all": true }), json!(null)).await;
        assert_eq!(alice.event().await, ("app:order".into(), json!({ "n": 1 })));
        for client in [&mut alice, &mut bob] {
            assert_eq!(client.event().await, ("app:order".into(), json!([2, "two"])));
            assert_eq!(client.event().await, ("app:order".into(), json!(null)));
        }
    }

    async fn an_event_for_a_workspace_reaches_who_has_a_channel_in_it_and_nobody_who_left(backend: Backend) {
        let (mut alice, mut bob) = (backend.client("alice").await, backend.client("bob").await);
        let put = async |path: &str, body: Value| {
            let answer = backend.put(path, body).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            answer.body["data"].clone()
        };
        let workspace = put("/workspaces", json!({ "name": "acme" })).await["id"].clone();
        for channel in ["acme/one", "acme/two"] {
            put("/channels", json!({ "name": channel, "kind": "private" })).await;
            put("/members", json!({ "place": channel, "user": "alice" })).await;
            alice.expect("channel:joined").await;
        }
        let mut late = backend.client("alice").await;
        let send = async |n: u32| {
            let body = json!({ "target": { "workspace_id": workspace }, "event": "app:all-hands", "payload": n });
            let sent = backend.post("/broadcast", body).await;
            assert_eq!(sent.status, 200, "{}", sent.body);
        };
        let leave = async |channel: &str| {
            let left = backend.delete(&format!("/members?place={channel}&user=alice")).await;
            assert_eq!(left.status, 200, "{}", left.body);
        };
        send(1).await;
        leave("acme/one").await;
        for device in [&mut alice, &mut late] {
            assert_eq!(device.expect("app:all-hands").await, json!(1));
            device.expect("channel:left").await;
        }
        send(2).await;
        leave("acme/two").await;
        for device in [&mut alice, &mut late] {
            assert_eq!(device.expect("app:all-hands").await, json!(2));
            device.expect("channel:left").await;
        }
        // Whether the user has another channel there is asked of the core after they left this one.
        let mut gone = false;
        for n in 3..1_000 {
            send(n).await;
            backend.post("/broadcast", json!({ "target": { "all": true }, "event": "app:end" })).await;
            gone = alice.event().await.0 == "app:end";
            if gone {
                break;
            }
            alice.expect("app:end").await;
        }
        assert!(gone, "who left the workspace still hears of it");
        assert!(bob.events_so_far().await.iter().all(|(event, _)| event == "app:end"));
    }

    async fn a_workspace_is_left_with_its_last_channel_also_when_that_is_removed(backend: Backend) {
        let mut alice = backend.client("alice").await;
        let workspace = backend.put("/workspaces", json!({ "name": "acme" })).await.body["data"]["id"].clone();
        // Which of the two news of a removal comes first differs.
        for round in 0..6 {
            backend.put("/channels", json!({ "name": "acme/one", "kind": "private" })).await;
            backend.put("/members", json!({ "place": "acme/one", "user": "alice" })).await;
            alice.expect("channel:joined").await;
            backend.directory().remove_channel("acme/one").await.unwrap();
            alice.expect("channel:left").await;
            assert!(falls_silent(&backend, &mut alice, &workspace).await, "{round}");
        }
    }

    async fn an_event_is_sent_once_however_often_its_request_is_repeated(backend: Backend) {
        let (mut alice, grpc) = (backend.client("alice").await, backend.grpc().await);
        let request = |payload: &str| BroadcastRequest {
            target: Some(Target { to: Some(target::To::All(true)) }),
            event: "app:once".into(),
            payload_json: payload.into(),
            request_id: "event-1".into(),
            ..BroadcastRequest::default()
        };
        let repeats = join_all((0..6).map(|_| {
            let (mut grpc, request) = (grpc.clone(), request("7"));
            async move { grpc.broadcast(request).await.unwrap() }
        }));
        repeats.await;
        let other = grpc.clone().broadcast(request("8")).await.unwrap_err();
        assert_eq!(other.code(), tonic::Code::AlreadyExists);
        let again = json!({ "target": { "all": true }, "event": "app:once", "payload": 7 });
        let again = backend.post_as(&backend.key, "/broadcast", &[("idempotency-key", "event-1")], again).await;
        assert_eq!(again.status, 200, "the same over HTTP: {}", again.body);
        let other = backend.key("another", "publish").await;
        grpc_of(&backend, &other).await.broadcast(request("9")).await.unwrap();
        assert_eq!(alice.event().await, ("app:once".into(), json!(7)));
        assert_eq!(alice.event().await, ("app:once".into(), json!(9)), "another caller has ids of its own");
        assert_eq!(alice.events_so_far().await, []);
    }

    async fn an_event_can_say_who_it_is_from(backend: Backend) {
        let mut alice = backend.client("alice").await;
        let mut wire = wire(&backend).await;
        let id = "0190a8c0-0000-7000-8000-000000000007";
        let sender = json!({ "kind": "bot", "id": id, "name": "shop" });
        let body = json!({ "target": { "all": true }, "event": "app:order", "payload": [1], "sender": sender });
        assert_eq!(backend.post("/broadcast", body.clone()).await.status, 200);
        assert_eq!(alice.event().await, ("app:order".into(), json!([1])), "the payload is as it was");
        let event = json!(["app:order", [1], { "sender": { "id": id, "username": "shop", "type": "bot" } }]);
        assert_eq!(heard(&mut wire, "app:order").await, event);
        // Without a name and an id, it is the caller.
        let webhook = json!({ "target": { "all": true }, "event": "app:order", "sender": { "kind": "webhook" } });
        assert_eq!(backend.post("/broadcast", webhook).await.status, 200);
        let event = heard(&mut wire, "app:order").await;
        let sender = &event[2]["sender"];
        assert_eq!((&event[1], &sender["type"]), (&json!(null), &json!("webhook")));
        assert!(sender["id"].as_str().unwrap().len() == 36 && !sender["username"].as_str().unwrap().is_empty());
        let mut nameless = body;
        nameless["sender"] = json!({ "name": "x".repeat(65) });
        let refused = backend.post("/broadcast", nameless).await;
        assert_eq!(refused.body["error"]["details"]["field"], "sender.name");
    }

    async fn a_call_that_was_refused_can_be_repeated_with_the_same_request_id(backend: Backend) {
        let mut alice = backend.client("alice").await;
        let send = async |event: &str| {
            let body = json!({ "target": { "all": true }, "event": event, "payload": 1, "request_id": "event-2" });
            backend.post("/broadcast", body).await
        };
        assert_eq!(send("order").await.code(), (400, "invalid_input"));
        assert_eq!(send("app:order").await.status, 200);
        assert_eq!(alice.event().await.0, "app:order");
    }

    async fn only_names_of_its_own_and_small_payloads_are_allowed(backend: Backend) {
        let all = json!({ "all": true });
        for (body, field) in [
            (json!({ "target": all, "event": "message:new" }), "event"),
            (json!({ "target": all, "event": "app:" }), "event"),
            (json!({ "target": all, "event": format!("app:{}", "x".repeat(125)) }), "event"),
            (json!({ "target": all, "event": "app:x", "payload": "x".repeat(65_536) }), "payload"),
            (json!({ "target": all, "event": "app:x", "payload": [{ "_placeholder": true, "num": 0 }] }), "payload"),
            (json!({ "target": { "all": false }, "event": "app:x" }), "target.all"),
            (json!({ "event": "app:x" }), "target"),
            (json!({ "target": { "channel_id": "general" }, "event": "app:x" }), "target.channel_id"),
            (json!({ "target": { "workspace_id": "7" }, "event": "app:x" }), "target.workspace_id"),
        ] {
            let refused = backend.post("/broadcast", body.clone()).await;
            assert_eq!(refused.status, 400, "{body}: {}", refused.body);
            assert_eq!(refused.body["error"]["details"]["field"], field, "{body}: {}", refused.body);
        }
        for target in [json!({}), json!({ "all": true, "channel_id": "general" }), json!(null)] {
            let refused = backend.post("/broadcast", json!({ "target": target, "event": "app:x" })).await;
            let message = text(&refused.body["error"]["message"]);
            assert!(message.starts_with("target: must have exactly one of user_id, channel_id, "), "{target}: {message}");
        }
        let (deepest, too_deep) = (nested(127), nested(128));
        for (payload, allowed) in [("{broken", false), (deepest.as_str(), true), (too_deep.as_str(), false)] {
            let request = BroadcastRequest {
                target: Some(Target { to: Some(target::To::All(true)) }),
                event: "app:x".into(),
                payload_json: payload.into(),
                ..BroadcastRequest::default()
            };
            let answer = backend.grpc().await.broadcast(request).await;
            let code = answer.map_or_else(|status| status.code(), |_| tonic::Code::Ok);
            let expected = if allowed { tonic::Code::Ok } else { tonic::Code::InvalidArgument };
            assert_eq!(code, expected, "{payload}");
        }
    }
}

/// Whether a client soon hears no more of a workspace.
async fn falls_silent(backend: &Backend, client: &mut TestClient, workspace: &Value) -> bool {
    for n in 0..1_000 {
        let body = json!({ "target": { "workspace_id": workspace }, "event": "app:all-hands", "payload": n });
        backend.post("/broadcast", body).await;
        backend.post("/broadcast", json!({ "target": { "all": true }, "event": "app:end" })).await;
        if client.event().await.0 == "app:end" {
            return true;
        }
        client.expect("app:end").await;
    }
    false
}

type Wire = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A client whose events can have more than one argument.
async fn wire(backend: &Backend) -> Wire {
    let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", backend.addr());
    let (mut wire, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let connect = json!({ "token": backend.token("bob").await });
    wire.send(Message::text(format!("40{connect}"))).await.unwrap();
    heard(&mut wire, "session:ready").await;
    wire
}

/// The next event with this name.
async fn heard(wire: &mut Wire, name: &str) -> Value {
    loop {
        let message = timeout(Duration::from_secs(10), wire.next()).await.unwrap().unwrap().unwrap();
        let Some(event) = message.to_text().unwrap().strip_prefix("42") else { continue };
        let event: Value = serde_json::from_str(event).unwrap();
        if event[0] == name {
            return event;
        }
    }
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

async fn grpc_of(backend: &Backend, key: &str) -> crate::backend::Client {
    backend.grpc_with(key).await
}
