//! Incoming webhooks and custom emoji, as a back end keeps them.

use serde_json::json;

use crate::http_request::send;
use crate::on_both;

on_both! {
    async fn a_back_end_makes_a_webhook_lists_it_and_removes_it(backend: Backend) {
        backend.client("alice").await;
        let made = backend.post("/webhooks", json!({ "channel": "general", "name": "ci" })).await;
        assert_eq!(made.status, 200, "{}", made.body);
        let (id, path) = (&made.body["data"]["id"], made.body["data"]["path"].as_str().unwrap());
        let posted = send(backend.addr(), &format!("POST {path}"), &[], r#"{"text":"hi"}"#).await;
        assert_eq!(posted.status, 200, "{}", posted.body);
        let listed = backend.get("/webhooks?channel=general").await.body;
        assert_eq!(listed["data"]["webhooks"][0]["id"], *id);
        assert!(!listed.to_string().contains("imks_webhook_"), "the secret is shown once");
        assert_eq!(backend.delete(&format!("/webhooks?id={}", id.as_str().unwrap())).await.status, 200);
        assert_eq!(send(backend.addr(), &format!("POST {path}"), &[], r#"{"text":"hi"}"#).await.status, 404);
        let nowhere = backend.post("/webhooks", json!({ "channel": "nowhere", "name": "ci" })).await;
        assert_eq!(nowhere.code(), (404, "not_found"));
    }

    async fn a_back_end_keeps_custom_emoji(backend: Backend) {
        let ship = json!({ "name": "ship", "picture": "https://emoji.example/ship.png" });
        assert_eq!(backend.post("/emoji", ship.clone()).await.status, 200);
        assert_eq!(backend.post("/emoji", ship).await.code(), (409, "conflict"));
        assert_eq!(backend.get("/emoji").await.body["data"]["emoji"][0]["name"], "ship");
        assert_eq!(backend.delete("/emoji?name=ship").await.status, 200);
        assert_eq!(backend.get("/emoji").await.body["data"]["emoji"], json!([]));
    }
}
