//! Events of a back end's own.

use futures_util::future::join_all;
use imks::testing::pb::control::{BroadcastRequest, Target, target};
use serde_json::json;

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
            (json!({ "target": { "all": false }, "event": "app:x" }), "target"),
            (json!({ "event": "app:x" }), "target"),
            (json!({ "target": { "channel_id": "general" }, "event": "app:x" }), "target.channel_id"),
            (json!({ "target": { "workspace_id": "7" }, "event": "app:x" }), "target"),
        ] {
            let refused = backend.post("/broadcast", body.clone()).await;
            assert_eq!(refused.status, 400, "{body}: {}", refused.body);
            assert_eq!(refused.body["error"]["details"]["field"], field, "{body}: {}", refused.body);
        }
        let request = BroadcastRequest {
            target: Some(Target { to: Some(target::To::All(true)) }),
            event: "app:x".into(),
            payload_json: "{broken".into(),
            ..BroadcastRequest::default()
        };
        let status = backend.grpc().await.broadcast(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }
}

async fn grpc_of(backend: &crate::backend::Backend, key: &str) -> crate::backend::Client {
    backend.grpc_with(key).await
}
