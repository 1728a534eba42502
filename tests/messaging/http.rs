//! `/health`, `/metrics` and everything that is not there, over HTTP.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http_request::send;
use crate::server::{Kind, TestServer};

/// Status and body of a GET.
pub async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: imks\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_counts_the_connections_that_are_open() {
    let server = TestServer::start(Kind::Sqlite).await;
    let _alice = server.client("alice").await;
    let bob = server.client("bob").await;
    let (status, body) = get(server.addr(), "/health").await;
    let health: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &health["status"]), (200, &json!("healthy")));
    assert_eq!(
        (&health["checks"]["sqlite"]["status"], &health["checks"]["appks_grpc"]["status"]),
        (&json!("up"), &json!("up"))
    );
    assert_eq!((&health["connections"]["active"], &health["connections"]["total"]), (&json!(2), &json!(2)));
    drop(bob);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_show_what_happened() {
    let server = TestServer::start(Kind::Sqlite).await;
    let mut alice = server.client("alice").await;
    let channel = crate::server::first_channel(&alice);
    alice.ok("message:send", json!({ "channel_id": channel, "body": "hi" })).await;
    alice.refused("message:send", json!({})).await;
    let (status, text) = get(server.addr(), "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "imks_sessions{transport=\"websocket\"} 1",
        "imks_messages_stored_total 1",
        "imks_event_duration_seconds_count{event=\"message:send\"} 2",
        "imks_event_errors_total{kind=\"refused\"} 1",
        "imks_append_batch_size_count 1",
        "imks_database_query_seconds_count{query=\"standings\"} ",
        "imks_connects_total{outcome=\"accepted\"} 1",
        "imks_sockets{namespace=\"/\"} 1",
        "imks_message_stage_seconds_count{stage=\"receive\"} 1",
        "imks_message_stage_seconds_count{stage=\"commit\"} 1",
        "imks_message_stage_seconds_count{stage=\"deliver\"} ",
    ] {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_said_in_json() {
    let server = TestServer::start(Kind::Sqlite).await;
    let (status, body) = get(server.addr(), "/admin").await;
    assert_eq!(
        (status, serde_json::from_str::<Value>(&body).unwrap()["error"]["code"].clone()),
        (404, json!("not_found"))
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_of_the_api_with_nonsense_in_it_is_refused_in_json() {
    let server = TestServer::start(Kind::Sqlite).await;
    for (request, expected) in [
        ("GET /api/v1/files/zzz", (404, "not_found")),
        ("PUT /api/v1/files/zzz", (404, "not_found")),
        ("GET /api/v1/files/%ff", (400, "invalid_payload")),
        ("GET /api/v1/channels/%ff/messages", (400, "invalid_payload")),
        ("POST /api/v1/webhooks/%ff", (400, "invalid_payload")),
        ("POST /api/v1/admin/channels/%ff/policy", (400, "invalid_payload")),
    ] {
        let refused = send(server.addr(), request, &[], "").await;
        assert_eq!(refused.code(), expected, "{request}");
        let error = &refused.body["error"];
        assert!(error["message"].is_string() && error["request_id"].is_string(), "{request}: {error}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_can_have_a_listener_of_their_own() {
    let internal = |config: &mut imks::testing::config::Config| {
        config.internal_listen = Some("127.0.0.1:0".parse().unwrap())
    };
    let server = TestServer::start_with(Kind::Sqlite, internal).await;
    let operators = server.internal_addr();
    assert_eq!(get(operators, "/metrics").await.0, 200);
    assert_eq!(get(operators, "/socket.io/?EIO=4&transport=polling").await.0, 404);
    assert_eq!(get(server.addr(), "/metrics").await.0, 404);
    assert_eq!(get(server.addr(), "/health/ready").await.0, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_connections_is_one_for_both_loopback_addresses_and_does_not_keep_operators_out() {
    let server = TestServer::start_with(Kind::Sqlite, |config| {
        config.http.connections_max = 1;
        config.internal_listen = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, server.addr().port()));
    let mut first = TcpStream::connect(v6).await.unwrap();
    first.write_all(b"GET /health HTTP/1.1\r\nHost: imks\r\n\r\n").await.unwrap();
    first.read_u8().await.unwrap();
    // It is refused unread: with a request on its way the close could overtake the answer.
    let mut refused = TcpStream::connect(server.addr()).await.unwrap();
    let mut answer = String::new();
    refused.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(get(server.internal_addr(), "/health").await.0, 200);
    drop(first);
    server.stop().await;
}
