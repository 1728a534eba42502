//! Who a client is by its address: behind proxies, and how much one address may have.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use imks::engine::Config;
use imks::engine::config::{Cors, Origins};
use imks::http::listener;
use imks::rate_limit::Rate;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;

use crate::support::{Answer, Server, read_head, within};

const HANDSHAKE: &str = "/socket.io/?EIO=4&transport=polling";

/// A server that answers `/me` with the address that it takes the client for.
async fn server(limits: listener::Config) -> Server {
    serve(Config::default(), limits).await
}

async fn serve(engine: Config, limits: listener::Config) -> Server {
    let me = |ConnectInfo(client): ConnectInfo<SocketAddr>| async move { client.to_string() };
    Server::with_routes(engine, limits, Router::new().route("/me", get(me))).await
}

fn behind_a_proxy() -> listener::Config {
    listener::Config { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..listener::Config::default() }
}

async fn answer_to(server: &Server, bytes: &str) -> Answer {
    Answer::read(&mut server.raw(bytes).await).await
}

#[tokio::test]
async fn behind_a_trusted_proxy_a_client_is_who_the_proxy_says_and_otherwise_who_connects() {
    let forwarded = [("x-forwarded-for", "192.0.2.1, 203.0.113.9")];
    let trusting = server(behind_a_proxy()).await;
    assert_eq!(trusting.request("GET", "/me", &forwarded, "").await.body, "203.0.113.9:0");
    let own = server(listener::Config::default()).await;
    assert!(own.request("GET", "/me", &forwarded, "").await.body.starts_with("127.0.0.1:"));
}

#[tokio::test]
async fn a_proxy_tells_the_client_before_the_first_byte_of_http() {
    let server = server(listener::Config { proxy_protocol: true, ..behind_a_proxy() }).await;
    let request = "GET /me HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let told = answer_to(&server, &format!("PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n{request}")).await;
    assert_eq!(told.body, "203.0.113.9:4711");
    let check = answer_to(&server, &format!("PROXY UNKNOWN\r\n{request}")).await;
    assert!(check.body.starts_with("127.0.0.1:"), "{}", check.body);
    let mut without = server.raw(request).await;
    let mut nothing = Vec::new();
    // The end of the stream, or a reset: the bytes of the request were not read.
    let _ = within(without.read_to_end(&mut nothing)).await;
    assert!(nothing.is_empty(), "{nothing:?}");
}

/// What this thread logs. The runtimes of these tests have one thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_says_once_in_a_while_that_a_proxy_does_not_tell_its_clients() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(lines.finish());
    let server = server(listener::Config { proxy_protocol: true, ..behind_a_proxy() }).await;
    for _ in 0..3 {
        let mut without = server.raw("GET /me HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let _ = within(without.read_to_end(&mut Vec::new())).await;
    }
    let text = String::from_utf8(log.0.lock().clone()).unwrap();
    let told: Vec<&str> = text.lines().filter(|line| line.contains("trusted proxy refused")).collect();
    assert_eq!(told.len(), 1, "{text}");
    assert!(told[0].contains("WARN") && told[0].contains("peer=127.0.0.1:"), "{text}");
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_websockets_count() {
    let limits = listener::Config { connections_per_address_max: 2, ..listener::Config::default() };
    let server = server(limits).await;
    let websocket = server.websocket().await;
    let mut kept = server.raw("GET /me HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(read_head(&mut kept).await.starts_with("HTTP/1.1 200"));
    let crowded = answer_to(&server, "GET /me HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!((crowded.status, crowded.header("retry-after")), (429, Some("5")));
    drop(websocket);
    within(async {
        while server.get("/me").await.status == 429 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_address_begins_so_many_sessions_and_is_told_when_it_may_begin_the_next() {
    let limits = listener::Config { sessions_per_address: Rate::new(1, 2), ..behind_a_proxy() };
    let server = server(limits).await;
    let begin = |client: &'static str| {
        let server = &server;
        async move { server.request("GET", HANDSHAKE, &[("x-forwarded-for", client)], "").await }
    };
    let first = begin("203.0.113.9").await;
    assert_eq!((first.status, begin("203.0.113.9").await.status), (200, 200));
    let refused = begin("203.0.113.9").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert!(refused.body.contains("rate_limited"), "{}", refused.body);
    assert_eq!(begin("203.0.113.10").await.status, 200);
    let open: serde_json::Value = serde_json::from_str(&first.body[1..]).unwrap();
    let session = format!("{HANDSHAKE}&sid={}", open["sid"].as_str().unwrap());
    let asked = server.request("OPTIONS", HANDSHAKE, &[("x-forwarded-for", "203.0.113.9")], "").await;
    assert_ne!(asked.status, 429, "a page may ask whether it may");
    let polled = server.request("POST", &session, &[("x-forwarded-for", "203.0.113.9")], "2").await;
    assert_eq!(polled.status, 200, "a session that is there goes on: {}", polled.body);
}

#[tokio::test]
async fn a_page_of_another_origin_learns_that_its_address_has_begun_too_many_sessions() {
    let limits = listener::Config { sessions_per_address: Rate::new(1, 1), ..listener::Config::default() };
    let origins = Origins::List(vec!["https://page.example".into()]);
    let cors = Some(Cors { origins, ..Cors::default() });
    let server = serve(Config { cors, ..Config::default() }, limits).await;
    assert_eq!(server.get(HANDSHAKE).await.status, 200);
    let refused = server.request("GET", HANDSHAKE, &[("origin", "https://page.example")], "").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://page.example"));
    assert_eq!(refused.header("access-control-expose-headers"), Some("Retry-After"));
    let evil = server.request("GET", HANDSHAKE, &[("origin", "https://evil.example")], "").await;
    assert_eq!((evil.status, evil.header("access-control-allow-origin")), (429, None));
}
