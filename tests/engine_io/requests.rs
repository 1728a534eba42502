//! Which requests are served, how refusals look, what the options change.

use std::{sync::Arc, time::Duration};

use imks::{
    engine::{
        Config, Sid,
        config::{Cookie, Cors, Hooks, Origins},
    },
    http::listener,
    node::NodeId,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::support::*;

#[tokio::test]
async fn a_polling_handshake_answers_open_with_the_five_keys() {
    let server = Server::start(Config::default()).await;
    let answer = server.get("/socket.io/?EIO=4&transport=polling").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; charset=UTF-8")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let open: serde_json::Value = serde_json::from_str(answer.body.strip_prefix('0').unwrap()).unwrap();
    assert_eq!(open.as_object().unwrap().len(), 5);
    assert_eq!(open["sid"].as_str().unwrap().len(), 28);
    let rest = (&open["upgrades"], &open["pingInterval"], &open["pingTimeout"], &open["maxPayload"]);
    assert_eq!(rest, (&serde_json::json!(["websocket"]), &25000.into(), &20000.into(), &1_000_000.into()));
}

#[tokio::test]
async fn a_session_id_names_its_node_and_a_session_of_another_node_is_unknown_here() {
    let node = NodeId::random().unwrap();
    let here = Server::start(Config { node: Some(node), ..Config::default() }).await;
    let there = Server::start(Config::default()).await;
    let path = here.open().await;
    let sid = path.split("sid=").nth(1).unwrap();
    assert_eq!(Sid::owner(sid), Some(node));
    let answer = there.get(&path).await;
    assert_eq!((answer.status, &*answer.body), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
    assert_eq!(there.dial_refused(&path.replace("polling", "websocket")).await.0, 400);
}

#[tokio::test]
async fn refused_requests_get_their_status_and_code() {
    let server = Server::start(Config::default()).await;
    let sid = server.open().await.split("sid=").nth(1).unwrap().to_owned();
    let rows = [
        ("GET", "EIO=4".to_owned(), 0),
        ("GET", "EIO=4&transport=abc".into(), 0),
        ("GET", "EIO=4&transport=webtransport".into(), 0),
        ("GET", "EIO=4&transport=__proto__".into(), 0),
        ("GET", "EIO=4&transport=polling&sid=abc".into(), 1),
        ("GET", "EIO=4&transport=polling&sid=__proto__".into(), 1),
        ("POST", "EIO=4&transport=polling&sid=".into(), 1),
        ("POST", "EIO=4&transport=polling".into(), 2),
        ("PUT", "EIO=4&transport=polling".into(), 2),
        ("OPTIONS", "EIO=4&transport=polling".into(), 2),
        ("GET", "EIO=4&transport=websocket".into(), 3),
        ("GET", "EIO=4&transport=polling&transport=websocket".into(), 3),
        ("GET", format!("EIO=4&transport=websocket&sid={sid}"), 3),
        ("GET", format!("EIO=3&transport=polling&sid={sid}"), 3),
        ("PUT", format!("EIO=4&transport=polling&sid={sid}"), 3),
        ("DELETE", format!("EIO=4&transport=polling&sid={sid}"), 3),
        ("GET", "transport=polling".into(), 5),
        ("GET", "EIO=abc&transport=polling".into(), 5),
        ("GET", "EIO=3&transport=polling".into(), 5),
    ];
    for (method, query, code) in rows {
        let answer = server.request(method, &format!("/socket.io/?{query}"), &[], "").await;
        assert_eq!(answer.status, 400, "{method} {query}");
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["code"], code, "{method} {query}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let path = "/socket.io/?EIO=4&transport=polling";
    let origin = server.request("GET", path, &[("Origin", "http://ümlaut")], "").await;
    assert_eq!(origin.status, 200, "bytes from 0x80 on are letters to Node");
    let unknown = server.get("/socket.io/?EIO=4&transport=polling&sid=abc").await;
    assert_eq!(unknown.body, r#"{"code":1,"message":"Session ID unknown"}"#);
}

#[tokio::test]
async fn a_query_is_decoded_and_of_repeated_parameters_the_last_counts() {
    let server = Server::start(Config::default()).await;
    for query in ["EIO=%34&transport=pol%6Cing", "EIO=3&EIO=4&transport=x&transport=polling"] {
        assert_eq!(server.get(&format!("/socket.io/?{query}")).await.status, 200, "{query}");
    }
}

#[tokio::test]
async fn the_first_subprotocol_that_is_offered_is_chosen() {
    let server = Server::start(Config::default()).await;
    let head = upgrade_head("/socket.io/?EIO=4&transport=websocket");
    let offer =
        |value: &str| head.replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Protocol: {value}\r\n\r\n"));
    let answer = read_head(&mut server.raw(&offer("chat-v2, chat-v1")).await).await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101") && answer.contains("sec-websocket-protocol: chat-v2\r\n"));
    let refused = Answer::read(&mut server.raw(&offer("a, a")).await).await;
    let said = r#"{"code":3,"message":"Invalid Sec-WebSocket-Protocol header"}"#;
    assert_eq!((refused.status, &*refused.body), (400, said));
    let old = head.replace("Version: 13", "Version: 8");
    let refused = Answer::read(&mut server.raw(&old).await).await;
    assert_eq!(refused.header("content-type"), Some("application/json"));
    let headers = (refused.header("sec-websocket-version"), refused.header("connection"));
    assert_eq!(headers, (Some("13"), Some("close")));
}

/// What a client may write into the headers of an upgrade, of every kind that has ended a server elsewhere.
#[tokio::test]
async fn hostile_headers_of_an_upgrade_are_refused_or_ignored_at_once() {
    let server = Server::start(Config::default()).await;
    let head = upgrade_head("/socket.io/?EIO=4&transport=websocket");
    for (header, status) in [
        ("Sec-WebSocket-Extensions: __proto__, constructor; hasOwnProperty=toString".to_owned(), 101),
        ("Sec-WebSocket-Extensions: permessage-deflate; permessage-deflate; =; ;;,,".into(), 101),
        (format!("Sec-WebSocket-Extensions: {}", "a;".repeat(7_000)), 101),
        ("Sec-WebSocket-Protocol: caf\u{e9}".into(), 400),
        (format!("Sec-WebSocket-Protocol: a{}b", " ".repeat(15_000)), 400),
        (format!("Sec-WebSocket-Protocol: {}a", ",".repeat(15_000)), 400),
        ("Origin: \u{e9}\u{ff}".into(), 101),
        ("Cookie: \u{e9}=\u{ff}; __proto__=1".into(), 101),
        ("User-Agent: \u{1f600}".into(), 101),
        (
            format!(
                "Sec-WebSocket-Protocol: {}",
                (0..2_000).map(|n| format!("{n}")).collect::<Vec<_>>().join(",")
            ),
            101,
        ),
    ] {
        let request = head.replace("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"));
        let mut stream = within(server.raw(&request)).await;
        let mut answer = [0; 12];
        within(stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"), "{header:.60}");
    }
    server.open().await;
}

#[tokio::test]
async fn a_websocket_request_is_refused_before_it_is_accepted() {
    let server = Server::start(Config::default()).await;
    for (query, message) in [
        ("EIO=3&transport=websocket", "Unsupported protocol version"),
        ("EIO=4&transport=websocket&sid=abc", "Session ID unknown"),
        ("EIO=4&transport=abc", "Transport unknown"),
        ("EIO=4&transport=polling", "Bad request"),
    ] {
        let refused = server.dial_refused(&format!("/socket.io/?{query}")).await;
        assert_eq!(refused, (400, message.into()), "{query}");
    }
    let bad_key =
        upgrade_head("/socket.io/?EIO=4&transport=websocket").replace("dGhlIHNhbXBsZSBub25jZQ==", "short");
    assert_eq!(Answer::read(&mut server.raw(&bad_key).await).await.status, 400);
    let old = upgrade_head("/socket.io/?EIO=4&transport=websocket").replace("Version: 13", "Version: 8");
    let refused = Answer::read(&mut server.raw(&old).await).await;
    assert_eq!((refused.status, refused.header("sec-websocket-version")), (400, Some("13")));
    assert_eq!(server.engine.sessions(), 0);
}

#[tokio::test]
async fn the_path_is_a_prefix_that_ends_with_a_slash() {
    let server = Server::start(Config::default()).await;
    for (path, status) in [("/socket.io/foo/", 200), ("/socket.io", 404), ("/socket.iox/", 404)] {
        assert_eq!(server.get(&format!("{path}?EIO=4&transport=polling")).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn the_application_decides_who_may_connect() {
    let hooks = Hooks {
        allow_request: Some(Arc::new(|parts| {
            let denied = parts.uri.query().unwrap_or_default().contains("deny");
            Box::pin(async move { if denied { Err("not \"you\"".into()) } else { Ok(()) } })
        })),
        ..Hooks::default()
    };
    let server = Server::start(Config { hooks, ..Config::default() }).await;
    let answer = server.get("/socket.io/?EIO=4&transport=polling&deny=1").await;
    assert_eq!((answer.status, answer.body.as_str()), (403, r#"{"code":4,"message":"not \"you\""}"#));
    let refused = server.dial_refused("/socket.io/?EIO=4&transport=websocket&deny=1").await;
    assert_eq!(refused, (400, "not \"you\"".into()));
    server.open().await;
}

#[tokio::test]
async fn the_application_makes_the_id_and_adds_headers_and_a_first_packet() {
    let hooks = Hooks {
        generate_id: Some(Arc::new(|parts| {
            let bad = parts.uri.query().unwrap_or_default().contains("bad");
            Box::pin(async move { if bad { Err("no".into()) } else { Ok("custom-id".into()) } })
        })),
        initial_headers: Some(Arc::new(|headers, _| {
            headers.append("set-cookie", "1=1".parse().unwrap());
            headers.append("set-cookie", "2=2".parse().unwrap());
        })),
        headers: Some(Arc::new(|headers, _| drop(headers.insert("x-each", "1".parse().unwrap())))),
        ..Hooks::default()
    };
    let cookie = Some(Cookie::default());
    let extra_headers = vec![("x-extra".parse().unwrap(), "2".parse().unwrap())];
    let config =
        Config { hooks, cookie, extra_headers, initial_packet: Some("hey".into()), ..Config::default() };
    let server = Server::start(config).await;
    let answer = server.get("/socket.io/?EIO=4&transport=polling").await;
    assert!(answer.body.contains(r#""sid":"custom-id""#) && answer.body.ends_with("\x1e4hey"));
    let cookies = ["io=custom-id; Path=/; HttpOnly; SameSite=Lax", "1=1", "2=2"];
    assert_eq!(answer.headers("set-cookie"), cookies);
    assert_eq!((answer.header("x-each"), answer.header("x-extra")), (Some("1"), Some("2")));
    let posted = server.post("/socket.io/?EIO=4&transport=polling&sid=custom-id", "4a").await;
    assert_eq!((posted.header("x-each"), posted.headers("set-cookie").len()), (Some("1"), 0));
    assert_eq!(server.get("/socket.io/?EIO=4&transport=polling").await.status, 400, "the id is taken");
    assert_eq!(server.get("/socket.io/?EIO=4&transport=polling&bad").await.status, 400);
}

#[tokio::test]
async fn foreign_origins_are_allowed_by_exact_name_only() {
    let origins = Origins::List(vec!["https://good.example".into()]);
    let cors = Some(Cors { origins, credentials: true, ..Cors::default() });
    let server = Server::start(Config { cors, ..Config::default() }).await;
    let path = "/socket.io/?EIO=4&transport=polling";
    for (origin, allowed) in [
        ("https://good.example", Some("https://good.example")),
        ("https://good.example.evil.example", None),
        ("https://evil-good.example", None),
        ("https://good.example@evil.example", None),
        ("https://good.example:8443", None),
        ("https://good.example/", None),
        ("https://sub.good.example", None),
        ("https://good.example.", None),
        ("http://good.example", None),
        ("https://good.example, https://evil.example", None),
        ("*", None),
        ("null", None),
    ] {
        let answer = server.request("GET", path, &[("Origin", origin)], "").await;
        assert_eq!(answer.header("access-control-allow-origin"), allowed, "{origin}");
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    let headers = [("Origin", "https://good.example"), ("Access-Control-Request-Headers", "x-token")];
    let preflight = server.request("OPTIONS", path, &headers, "").await;
    assert_eq!(preflight.headers("vary"), ["Origin, Access-Control-Request-Headers"]);
    assert_eq!((preflight.status, preflight.body.as_str()), (204, ""));
    assert_eq!(preflight.header("access-control-allow-headers"), Some("x-token"));
    assert_eq!(preflight.header("access-control-allow-credentials"), Some("true"));
    assert!(preflight.header("access-control-allow-methods").unwrap().contains("POST"));
}

#[tokio::test]
async fn pages_of_foreign_origins_are_refused_on_every_transport_where_the_policy_says_so() {
    let origins = Origins::List(vec!["https://good.example".into()]);
    let cors = Some(Cors { origins, enforce: true, ..Cors::default() });
    let server = Server::start(Config { cors, ..Config::default() }).await;
    for (origin, polling, websocket) in [
        ("https://good.example", 200, 101),
        ("http://test", 200, 101),
        ("https://evil.example", 403, 400),
        ("null", 403, 400),
    ] {
        let path = "/socket.io/?EIO=4&transport=polling";
        assert_eq!(server.request("GET", path, &[("Origin", origin)], "").await.status, polling, "{origin}");
        let head = upgrade_head("/socket.io/?EIO=4&transport=websocket");
        let mut stream =
            server.raw(&head.replace("Host: test", &format!("Host: test\r\nOrigin: {origin}"))).await;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(status, *format!("HTTP/1.1 {websocket}").as_bytes(), "{origin}");
    }
    assert_eq!(server.get("/socket.io/?EIO=4&transport=polling").await.status, 200, "no browser");
}

#[tokio::test]
async fn transports_and_upgrades_can_be_switched_off() {
    let server = Server::start(Config { websocket: false, ..Config::default() }).await;
    assert!(server.get("/socket.io/?EIO=4&transport=polling").await.body.contains(r#""upgrades":[]"#));
    assert_eq!(server.dial_refused("/socket.io/?EIO=4&transport=websocket").await.0, 400);
    let server = Server::start(Config { polling: false, ..Config::default() }).await;
    assert_eq!(server.get("/socket.io/?EIO=4&transport=polling").await.status, 400);
    server.websocket().await;
}

#[tokio::test]
async fn a_server_that_is_full_or_stops_says_so() {
    let server = Server::start(Config { sessions_max: 1, ..Config::default() }).await;
    server.open().await;
    let full = server.get("/socket.io/?EIO=4&transport=polling").await;
    assert_eq!((full.status, full.header("retry-after")), (503, Some("5")));
    let server = Server::start(Config::default()).await;
    let session = server.open().await;
    server.engine.close();
    assert_eq!(server.get("/socket.io/?EIO=4&transport=polling").await.status, 503);
    assert_eq!(server.post(&session, "4a").await.status, 200, "existing sessions go on");
}

async fn ends(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let _ = within(stream.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn a_connection_that_sends_nothing_is_cut_before_a_slow_request() {
    let limits =
        listener::Config { first_byte_timeout: Duration::from_millis(50), ..listener::Config::default() };
    let server = Server::with_listener(Config::default(), limits).await;
    let silent = TcpStream::connect(server.addr).await.unwrap();
    let mut slow = server.raw("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: ").await;
    ends(silent).await;
    slow.write_all(b"a\r\nConnection: close\r\n\r\n").await.unwrap();
    assert_eq!(Answer::read(&mut slow).await.status, 200);
}

#[tokio::test]
async fn silent_and_slow_connections_are_cut_and_nobody_else_is() {
    let limits = listener::Config {
        first_byte_timeout: Duration::from_millis(50),
        head_timeout: Duration::from_millis(80),
        ..listener::Config::default()
    };
    let server = Server::with_listener(Config::default(), limits).await;
    let silent = TcpStream::connect(server.addr).await.unwrap();
    let slow = server.raw("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: ").await;
    tokio::join!(ends(silent), ends(slow), async { server.open().await });
}

#[tokio::test]
async fn heads_that_are_too_large_and_connections_that_are_too_many_are_refused() {
    let limits = listener::Config { connections_max: 1, ..listener::Config::default() };
    let server = Server::with_listener(Config::default(), limits).await;
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20 << 10));
    assert_eq!(Answer::read(&mut server.raw(&large).await).await.status, 431);
    let waiting = server.open().await;
    let _held = server.send("GET", &waiting, &[], "").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut refused = TcpStream::connect(server.addr).await.unwrap();
    assert_eq!(Answer::read(&mut refused).await.status, 503);
}
