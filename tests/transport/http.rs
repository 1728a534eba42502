//! HTTP/1 as clients and peers with bad manners speak it: what is taken, what is refused and how, and what a server that
//! stops does not wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use imks::engine::Config;
use imks::http::listener;
use imks::http::tls::{self, Certificates};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::{Answer, Server, read_head, within};

const HANDSHAKE: &str = "/socket.io/?EIO=4&transport=polling";

async fn answer_to(server: &Server, request: &str) -> Answer {
    Answer::read(&mut server.raw(request).await).await
}

fn code(answer: &Answer) -> serde_json::Value {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.body);
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert!(body["error"]["message"].is_string());
    body["error"]["code"].clone()
}

#[tokio::test]
async fn a_request_may_have_many_headers() {
    let server = Server::start(Config::default()).await;
    let request = |count: usize| {
        let headers: String = (0..count).map(|number| format!("X-{number}: 1\r\n")).collect();
        format!("GET {HANDSHAKE} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n")
    };
    assert_eq!(answer_to(&server, &request(240)).await.status, 200);
    let refused = answer_to(&server, &request(300)).await;
    assert_eq!((refused.status, code(&refused)), (431, "payload_too_large".into()));
}

#[tokio::test]
async fn a_query_need_not_be_escaped() {
    let server = Server::start(Config::default()).await;
    let path = format!("{HANDSHAKE}&filter=\"<a>\"");
    let mut stream = server.raw(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200"));
    let mut websocket = server.dial_raw(&path.replace("polling", "websocket")).await;
    let mut open = [0; 2];
    within(websocket.read_exact(&mut open)).await.unwrap();
    assert_eq!(open[0], 0x81);
}

#[tokio::test]
async fn what_is_not_http_is_refused_in_json() {
    let server = Server::start(Config::default()).await;
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20 << 10));
    for (request, status, expected) in [
        ("GET /\r\n\r\n", 400, "invalid_payload"),
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "invalid_payload"),
        ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400, "invalid_payload"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, "invalid_payload"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "invalid_payload"),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n", 417, "invalid_payload"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "invalid_payload"),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400, "invalid_payload"),
        ("GET / HTTP/1.1\r\nHost: a b/@\r\n\r\n", 400, "invalid_payload"),
        ("GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n", 400, "invalid_payload"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "invalid_payload"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", 505, "invalid_payload"),
        (&large, 431, "payload_too_large"),
    ] {
        let answer = answer_to(&server, request).await;
        assert_eq!((answer.status, code(&answer)), (status, expected.into()), "{request:.40}");
    }
    let after_a_good_one = format!("GET {HANDSHAKE} HTTP/1.1\r\nHost: a\r\n\r\nGET /\r\n\r\n");
    let mut answers = String::new();
    within(server.raw(&after_a_good_one).await.read_to_string(&mut answers)).await.unwrap();
    assert!(answers.starts_with("HTTP/1.1 200") && answers.contains("HTTP/1.1 400"), "{answers}");
}

/// Requests whose end two readers could see in two places, with what stands where the body is.
const UNCLEAR: [(&str, &str); 17] = [
    ("Content-Length: 4\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked\r\nContent-Length: 4", "0\r\n\r\n"),
    ("Content-Length: 0\r\nContent-Length: 38", ""),
    ("Content-Length: 0, 38", ""),
    ("Content-Length: +0", ""),
    ("Content-Length: 0x0", ""),
    ("Content-Length: 99999999999999999999", ""),
    ("Content-Length : 0", ""),
    ("X: a\r\n Content-Length: 38", ""),
    ("Transfer-Encoding: xchunked", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"),
    ("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "10000000000000000\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "-0\r\n\r\n"),
];

#[tokio::test]
async fn a_request_whose_end_is_unclear_is_answered_once_and_ends_its_connection() {
    let smuggled = Arc::new(AtomicUsize::new(0));
    let counted = smuggled.clone();
    let app = Router::new().route("/", axum::routing::any(async |_: axum::body::Bytes| "taken")).route(
        "/smuggled",
        axum::routing::get(async move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }),
    );
    let server = Server::with_routes(Config::default(), listener::Config::default(), app).await;
    for (framing, body) in UNCLEAR {
        let next = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}{next}");
        let mut answers = Vec::new();
        // The end of the stream, or a reset where bytes were left unread.
        let _ = within(server.raw(&request).await.read_to_end(&mut answers)).await;
        let answers = String::from_utf8(answers).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{framing}: {answers}");
        assert_eq!(smuggled.load(Ordering::SeqCst), 0, "{framing}: {answers}");
    }
    assert_eq!(server.get("/smuggled").await.status, 200, "it can be reached");
}

#[tokio::test]
async fn a_host_may_be_a_name_an_address_or_nothing() {
    let server = Server::start(Config::default()).await;
    for host in ["", "a", "my_host:3000", "chat.example.", "192.0.2.1", "[::1]:3000", "[fe80::1%25eth0]"] {
        let request = format!("GET {HANDSHAKE} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(answer_to(&server, &request).await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn who_asks_first_is_told_at_once_that_a_body_is_too_large() {
    let server = Server::start(Config::default()).await;
    let session = server.open().await;
    let head = format!(
        "POST {session} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 8000000\r\n\r\n"
    );
    let answer = timeout(Duration::from_secs(1), answer_to(&server, &head)).await.unwrap();
    assert_eq!(answer.status, 413);
    // The refusal has ended the first session.
    let session = server.open().await;
    let small =
        format!("POST {session} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert!(read_head(&mut server.raw(&small).await).await.starts_with("HTTP/1.1 100"));
}

#[tokio::test]
async fn the_client_is_not_served_and_the_answer_says_how() {
    let server = Server::start(Config::default()).await;
    let answer = server.get("/socket.io/socket.io.js").await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("IMKS_CLIENT_BUNDLE_DIR"), "{}", answer.body);
}

#[tokio::test]
async fn plain_http_on_a_port_with_tls_is_told_so() {
    let certificates = Certificates::self_signed(vec!["localhost".into()]).unwrap();
    let tls = Some(certificates.tls(&tls::Config::default()).unwrap());
    let limits = listener::Config { tls, ..listener::Config::default() };
    let server = Server::with_listener(Config::default(), limits).await;
    let answer = server.get("/").await;
    assert_eq!((answer.status, code(&answer)), (400, "invalid_payload".into()));
    assert!(answer.body.contains("This port speaks TLS"), "{}", answer.body);
}

/// Sends requests and reads no answer, until the server has had enough.
async fn pipeline(mut stream: TcpStream) {
    let requests = "GET /socket.io/socket.io.js HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    while stream.write_all(requests.as_bytes()).await.is_ok() {}
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_cut() {
    let limits =
        listener::Config { write_timeout: Duration::from_millis(200), ..listener::Config::default() };
    let server = Server::with_listener(Config::default(), limits).await;
    let stream = TcpStream::connect(server.addr).await.unwrap();
    timeout(Duration::from_secs(10), pipeline(stream)).await.expect("it is cut");
}

#[tokio::test]
async fn who_does_not_complete_a_request_in_time_is_told_so_and_who_is_idle_is_not() {
    let limits = listener::Config { head_timeout: Duration::from_millis(200), ..listener::Config::default() };
    let server = Server::with_listener(Config::default(), limits).await;
    let whole = format!("GET {HANDSHAKE} HTTP/1.1\r\nHost: a\r\n\r\n");
    for half in ["G", "GET /socket.io/?EIO=4", "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "] {
        let answer = answer_to(&server, half).await;
        assert_eq!((answer.status, code(&answer)), (408, "timeout".into()), "{half}");
        let mut answers = String::new();
        let mut stream = server.raw(&format!("{whole}{half}")).await;
        within(stream.read_to_string(&mut answers)).await.unwrap();
        let (first, second) = answers.split_once("HTTP/1.1 408").expect(&answers);
        assert!(first.starts_with("HTTP/1.1 200") && second.contains("timeout"), "{answers}");
    }
    let mut answers = String::new();
    within(server.raw(&whole).await.read_to_string(&mut answers)).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1").count(), 1, "{answers}");
}

#[tokio::test]
async fn a_server_that_stops_waits_for_nobody_who_owes_something() {
    let server = Server::start(Config::default()).await;
    let session = server.open().await;
    let idle = server.raw(&format!("GET {HANDSHAKE} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    let half_head = server.raw("GET /socket.io/?EIO=4 HTTP/1.1\r\nHost: ").await;
    let half_body = format!("POST {session} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n4a");
    let half_body = server.raw(&half_body).await;
    let half_body_for_nobody =
        server.raw("POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n4a").await;
    let deaf = TcpStream::connect(server.addr).await.unwrap();
    let pouring = tokio::time::timeout(Duration::from_millis(500), pipeline(deaf));
    assert!(pouring.await.is_err(), "it is not cut before the drain");
    let started = tokio::time::Instant::now();
    timeout(Duration::from_secs(5), server.stop()).await.expect("nobody is waited for");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    drop((idle, half_head, half_body, half_body_for_nobody));
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_half_a_tls_handshake() {
    let certificates = Certificates::self_signed(vec!["localhost".into()]).unwrap();
    let tls = Some(certificates.tls(&tls::Config::default()).unwrap());
    let limits = listener::Config { tls, ..listener::Config::default() };
    let server = Server::with_listener(Config::default(), limits).await;
    let _half = server.raw("\x16\x03\x01").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    timeout(Duration::from_secs(1), server.stop()).await.expect("nobody is waited for");
}

#[tokio::test]
async fn a_server_that_stops_still_answers_what_it_was_asked() {
    let app = Router::new().route(
        "/slow",
        axum::routing::get(async || {
            tokio::time::sleep(Duration::from_millis(300)).await;
            "done"
        }),
    );
    let server = Server::with_routes(Config::default(), listener::Config::default(), app).await;
    let mut slow = server.send("GET", "/slow", &[], "").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (answer, ()) = tokio::join!(Answer::read(&mut slow), server.stop());
    assert_eq!((answer.status, answer.body.as_str()), (200, "done"));
}

#[tokio::test]
async fn localhost_is_both_loopback_addresses() {
    let Ok(other) = TcpListener::bind("[::1]:0").await else { return };
    drop(other);
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listeners = listener::bind_loopbacks(address.parse().unwrap()).unwrap();
        let ports: Vec<_> = listeners.iter().map(|it| it.local_addr().unwrap().port()).collect();
        assert!(ports.len() == 2 && ports[0] == ports[1], "{ports:?}");
        for host in ["127.0.0.1", "::1"] {
            TcpStream::connect((host, ports[0])).await.unwrap();
        }
    }
    assert_eq!(listener::bind_loopbacks("0.0.0.0:0".parse().unwrap()).unwrap().len(), 1);
}
