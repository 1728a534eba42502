//! The directory over HTTP, as a back end with an API key uses it.

use std::net::SocketAddr;

use imks::testing::control::{Scopes, keys};
use imks::testing::models::db::Db;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::TestClient;
use crate::on_both;
use crate::server::{Kind, TestServer, text};

/// A new key with these scopes.
async fn make_key(server: &TestServer, scopes: &str) -> String {
    let db = Db::connect(server.database()).await.unwrap();
    let key = keys::create(&db, scopes, Scopes::parse(scopes).unwrap(), None).await.unwrap();
    db.close().await;
    key.expose().to_owned()
}

/// What curl sends: a request with a key and a JSON body.
async fn curl(addr: SocketAddr, key: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = format!(
        "{method} /api/v1/admin/{path} HTTP/1.1\r\nHost: imks\r\nAuthorization: Bearer {key}\r\n\
         Idempotency-Key: one\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

on_both! {
    async fn with_an_api_key_alone_a_back_end_makes_a_user_who_connects_and_talks(server: TestServer) {
        let key = make_key(&server, "users,tokens").await;
        let ask = async |method: &str, path: &str, body: Value| {
            let (status, answer) = curl(server.addr(), &key, method, path, body).await;
            assert_eq!((status, &answer["ok"]), (200, &json!(true)), "{method} {path}: {answer}");
            answer["data"].clone()
        };
        let alice = text(&ask("PUT", "users", json!({ "name": "alice" })).await["id"]);
        assert_eq!(text(&ask("PUT", "users", json!({ "name": "alice" })).await["id"]), alice, "a retry");
        let channel = ask("PUT", "channels", json!({ "name": "team", "kind": "private" })).await;
        ask("PUT", "members", json!({ "place": "team", "user": "alice", "roles": ["owner"] })).await;
        let tokens = ask("POST", "tokens", json!({ "user": "alice" })).await;
        let mut client = TestClient::connect(server.addr(), tokens["access_token"].as_str().unwrap()).await;
        assert_eq!(client.ready["channels"][0]["channel_id"], channel["id"]);
        client.ok("message:send", json!({ "channel_id": channel["id"], "body": "hello" })).await;
        let again = ask("POST", "tokens", json!({ "user": "alice" })).await;
        assert_eq!(again["session_id"], tokens["session_id"], "a retry begins no second session");
        let refreshed = ask("POST", "tokens/refresh", json!({ "refresh_token": again["refresh_token"] })).await;
        assert_eq!(refreshed["session_id"], tokens["session_id"]);
        ask("PUT", "bans", json!({ "place": "team", "user": "alice", "reason": "test" })).await;
        assert_eq!(client.expect("channel:left").await["channel_id"], channel["id"]);
        ask("DELETE", "bans?place=team&user=alice", Value::Null).await;
        ask("DELETE", "tokens?user=alice", Value::Null).await;
        client.expect("auth:revoked").await;
        client.ended().await;
        let members = ask("GET", "members?place=team", Value::Null).await;
        assert_eq!(members["members"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_without_the_scope_and_no_key_at_all_are_refused() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (users, publish) = (make_key(&server, "users").await, make_key(&server, "publish").await);
    for (key, path, status, code) in [
        ("", "users", 401, "unauthenticated"),
        ("imks_nonsense", "users", 401, "unauthenticated"),
        (&*publish, "users", 403, "forbidden"),
        (&*users, "tokens?user=alice", 403, "forbidden"),
        (&*users, "nothing", 404, "not_found"),
        (&*users, "users", 200, ""),
    ] {
        let (answered, body) = curl(server.addr(), key, "GET", path, Value::Null).await;
        assert_eq!(
            (answered, body["error"]["code"].as_str().unwrap_or_default()),
            (status, code),
            "{key} {path}"
        );
    }
    let (status, _) = curl(server.addr(), &users, "POST", "users", json!({ "name": "x" })).await;
    assert_eq!(status, 405);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_external_core_a_sentence_says_where_users_live() {
    let core = crate::core::FakeCore::start().await;
    let url = core.url();
    let server =
        TestServer::start_with(Kind::Sqlite, |config| config.core_url = Some(url.clone().into())).await;
    let key = make_key(&server, "users").await;
    let (status, body) = curl(server.addr(), &key, "GET", "users", Value::Null).await;
    assert_eq!((status, &body["error"]["code"]), (422, &json!("failed_precondition")));
    assert!(body["error"]["message"].as_str().unwrap().contains("IMKS_CORE_URL"), "{body}");
    server.stop().await;
}
