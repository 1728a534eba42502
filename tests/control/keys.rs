//! API keys: who may call, and what.

use std::process::{Command, Output};

use imks::socket::rate_limit::Rate;
use imks::testing::clock::now_micros;
use imks::testing::control::{Listeners, Scopes, keys};
use imks::testing::models::api_key;
use imks::testing::pb::control::GetMessagesRequest;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::backend::Backend;
use crate::http_request::send;
use crate::on_both;
use crate::server::{Kind, TestServer, first_channel};

fn event() -> Value {
    json!({ "target": { "all": true }, "event": "app:x" })
}

on_both! {
    async fn without_a_valid_key_nobody_is_heard_on_any_way(backend: Backend) {
        let forged = format!("imks_{}", "A".repeat(64));
        let cut = &backend.key[..backend.key.len() - 1];
        let token = backend.token("alice").await;
        let mut other = backend.key.clone();
        other.replace_range(68..69, if other.ends_with('A') { "E" } else { "A" });
        for key in [&*forged, cut, &*token, "", "imks_", &other] {
            let refused = backend.post_as(key, "/broadcast", &[], event()).await;
            assert_eq!(refused.code(), (401, "unauthenticated"), "{key}");
            assert!(refused.head.contains("www-authenticate: bearer"), "{}", refused.head);
            let status = backend.grpc_with(key).await.get_messages(GetMessagesRequest::default()).await;
            assert_eq!(status.unwrap_err().code(), tonic::Code::Unauthenticated, "{key}");
        }
        for addr in [backend.addr(), backend.internal_addr()] {
            let refused = send(addr, "POST /api/v1/admin/broadcast", &[], "").await;
            assert_eq!(refused.code(), (401, "unauthenticated"));
        }
    }

    async fn a_key_can_only_do_what_its_scopes_say(backend: Backend) {
        let (alice, reader) = (backend.client("alice").await, backend.key("search", "read").await);
        let channel = first_channel(&alice);
        let refused = backend.post_as(&reader, "/broadcast", &[], event()).await;
        assert_eq!((refused.code(), &refused.body["error"]["details"]), ((403, "forbidden"), &json!({ "permission": "publish" })));
        let mut grpc = backend.grpc_with(&reader).await;
        let request = GetMessagesRequest { channel_id: channel, ..GetMessagesRequest::default() };
        assert!(grpc.get_messages(request).await.is_ok());
    }

    async fn a_revoked_or_expired_key_stops_working_within_two_seconds(backend: Backend) {
        let db = backend.db().await;
        let soon = now_micros() + 1_500_000;
        let short = keys::create(&db, "short", Scopes::ALL, Some(soon)).await.unwrap();
        let works = async |key: &str| backend.post_as(key, "/broadcast", &[], event()).await.status == 200;
        assert!(works(short.expose()).await && works(&backend.key).await);
        let revoked_at = now_micros();
        api_key::revoke(&db, "backend", revoked_at).await.unwrap();
        while works(&backend.key).await {}
        assert!(now_micros() - revoked_at < 2_500_000);
        while works(short.expose()).await {}
        assert!(now_micros() >= soon && now_micros() - soon < 2_500_000);
        let again = keys::create(&db, "backend", Scopes::ALL, None).await.unwrap();
        assert!(works(again.expose()).await, "a new key of the same name works at once");
        let noted = async || api_key::list(&db).await.unwrap().iter().all(|key| key.last_used_at.is_some());
        while !noted().await {}
        db.close().await;
    }

    async fn a_key_that_is_revoked_while_its_poll_waits_gets_no_events(backend: Backend) {
        let (mut alice, reader) = (backend.client("alice").await, backend.key("reader", "read").await);
        let channel = first_channel(&alice);
        let authorization = format!("Bearer {reader}");
        let headers = [("authorization", authorization.as_str())];
        let waiting = send(backend.addr(), "GET /api/v1/admin/events?wait=25", &headers, "");
        let told = async {
            api_key::revoke(&backend.db().await, "reader", now_micros()).await.unwrap();
            let works = async || send(backend.addr(), "GET /api/v1/admin/presence?user_ids=", &headers, "").await.status != 401;
            while works().await {}
            alice.ok("message:send", json!({ "channel_id": channel, "body": "secret" })).await;
        };
        let (answer, ()) = tokio::join!(waiting, told);
        assert_eq!(answer.code(), (401, "unauthenticated"), "{}", answer.body);
    }

    async fn an_operator_makes_lists_and_revokes_keys_while_the_server_runs(backend: Backend) {
        let database = backend.database();
        let run = |arguments: &[&str]| -> Output {
            let mut command = Command::new(env!("CARGO_BIN_EXE_imks"));
            command.arg("key").args(arguments).env_clear().env("IMKS_DATA_DIR", &database.data_dir);
            let url = database.url.as_ref().map(|url| url.expose().to_owned());
            command.envs(url.map(|url| ("DATABASE_URL", url))).output().unwrap()
        };
        let out = |arguments: &[&str]| String::from_utf8(run(arguments).stdout).unwrap();
        let key = out(&["add", "shop", "--scope", "publish,read", "--expires", "1h"]);
        assert_eq!((key.lines().count(), key.trim_end().len()), (1, 69), "the key alone: {key}");
        assert_eq!(backend.post_as(key.trim_end(), "/broadcast", &[], event()).await.status, 200);
        let again = run(&["add", "shop"]);
        assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("exists"), "{again:?}");
        let listed: Value = serde_json::from_str(&out(&["list", "--json"])).unwrap();
        let shop = listed.as_array().unwrap().iter().find(|key| key["name"] == "shop").unwrap();
        assert_eq!((&shop["scopes"], &shop["revoked_at"]), (&json!(["publish", "read"]), &json!(null)));
        assert!(shop["expires_at"].is_string());
        let secret = &key.trim_end()[30..];
        assert!(!listed.to_string().contains(secret) && !out(&["list"]).contains(secret));
        assert!(run(&["revoke", "shop"]).status.success());
        assert_eq!(run(&["revoke", "shop"]).status.code(), Some(1));
        while backend.post_as(key.trim_end(), "/broadcast", &[], event()).await.status == 200 {}
        assert!(out(&["list"]).lines().any(|line| line.starts_with("shop\t") && line.contains("revoked")));
        assert_eq!(run(&["add", "shop", "--scope", "write"]).status.code(), Some(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_configuration_at_all_the_api_is_where_the_clients_are() {
    let server = TestServer::start(Kind::Sqlite).await;
    let refused = send(server.addr(), "POST /api/v1/admin/broadcast", &[], "").await;
    assert_eq!(refused.code(), (401, "unauthenticated"));
    let method = send(server.addr(), "DELETE /api/v1/admin/broadcast", &[], "").await;
    assert_eq!(method.code(), (405, "method_not_allowed"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_decides_which_listener_has_the_api() {
    for (listeners, public, internal) in
        [(Listeners::Auto, 404, 401), (Listeners::Internal, 404, 401), (Listeners::Off, 404, 404)]
    {
        let backend = Backend::start_with(Kind::Sqlite, |config| config.control.listeners = listeners).await;
        let status = async |addr| send(addr, "POST /api/v1/admin/broadcast", &[], "").await.status;
        let statuses = (status(backend.addr()).await, status(backend.internal_addr()).await);
        assert_eq!(statuses, (public, internal), "{listeners:?}");
        backend.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_development_callers_on_the_internal_listener_need_no_key() {
    let backend = Backend::start_with(Kind::Sqlite, |config| config.control.allow_anonymous = true).await;
    let body = event().to_string();
    let sent = send(backend.internal_addr(), "POST /api/v1/admin/broadcast", &[], &body).await;
    assert_eq!(sent.status, 200, "{}", sent.body);
    let refused = send(backend.addr(), "POST /api/v1/admin/broadcast", &[], &body).await;
    assert_eq!(refused.status, 401, "nowhere else");
    let page = [("origin", "https://page.example"), ("content-type", "text/plain")];
    let refused = send(backend.internal_addr(), "POST /api/v1/admin/broadcast", &page, &body).await;
    assert_eq!(refused.code(), (403, "forbidden"), "a page that a developer looks at");
    let rebound = [("host", "evil.example:9090")];
    let refused = send(backend.internal_addr(), "GET /api/v1/admin/events?cursor=0", &rebound, "").await;
    assert_eq!(refused.code(), (403, "forbidden"), "a page whose name was made to resolve to this machine");
    let key = format!("Bearer {}", backend.key);
    let page = [page[0], ("authorization", key.as_str())];
    let sent = send(backend.internal_addr(), "POST /api/v1/admin/broadcast", &page, &body).await;
    assert_eq!(sent.status, 200, "{}", sent.body);
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_a_key_have_a_rate_and_requests_a_size() {
    let slow = |config: &mut imks::testing::config::Config| config.control.calls = Rate::new(1, 4);
    let backend = Backend::start_with(Kind::Sqlite, slow).await;
    let big = backend.post("/broadcast", json!("x".repeat(5 << 20))).await;
    assert_eq!(big.code(), (413, "payload_too_large"));
    for _ in 0..3 {
        assert_eq!(backend.post("/broadcast", event()).await.status, 200);
    }
    let refused = backend.post("/broadcast", event()).await;
    assert_eq!(refused.code(), (429, "rate_limited"));
    assert!(refused.head.contains("retry-after: 1\r\n"), "{}", refused.head);
    let other = backend.key("other", "all").await;
    assert_eq!(backend.post_as(&other, "/broadcast", &[], event()).await.status, 200);
    let status = backend
        .grpc()
        .await
        .get_messages(GetMessagesRequest { channel_id: Uuid::now_v7().to_string(), ..Default::default() })
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    backend.stop().await;
}
