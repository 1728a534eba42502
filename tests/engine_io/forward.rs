//! Several nodes, and a load balancer that is not sticky: each request may come to any of them.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use imks::engine::{CloseReason, Config};
use imks::http::{listener, tls};
use imks::node::NodeId;
use imks::testing::forward::{Contact, Forwarder, PATH, routes};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::support::*;

const UNKNOWN: &str = r#"{"code":1,"message":"Session ID unknown"}"#;

/// A server that passes on what belongs to others.
struct Node {
    node: NodeId,
    server: Server,
    forwarder: Forwarder,
    certificate: Option<[u8; 32]>,
}

impl Node {
    async fn start(mut config: Config, certificates: Option<&tls::Certificates>) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (node, forwarder) = (NodeId::random().unwrap(), Forwarder::new(&tasks, &stop).unwrap());
        (config.node, config.hooks.forward) = (Some(node), Some(forwarder.hook()));
        let tls = certificates.map(|it| it.tls(&tls::Config::default()).unwrap());
        let limits = listener::Config { tls, ..listener::Config::default() };
        let starting = Server::with_routes_to_engine(config, limits, |engine| routes(&forwarder, engine));
        let server = Box::pin(starting).await;
        Self { node, server, forwarder, certificate: certificates.map(tls::Certificates::fingerprint) }
    }

    fn contact(&self) -> Contact {
        let (address, secret) = (self.server.addr.to_string(), *self.forwarder.secret());
        Contact { address, secret, certificate: self.certificate }
    }

    fn learns(&self, node: NodeId, contact: Contact) {
        self.forwarder.update([(node, contact)], Instant::now());
    }
}

/// Two nodes that know each other: the owner of the sessions of a test, and the one that its requests come to.
async fn pair(config: Config) -> (Node, Node) {
    let owner = Box::pin(Node::start(config.clone(), None)).await;
    let other = Box::pin(Node::start(config, None)).await;
    owner.learns(other.node, other.contact());
    other.learns(owner.node, owner.contact());
    (owner, other)
}

#[tokio::test]
async fn a_session_is_served_by_its_owner_whichever_node_is_asked() {
    let (owner, other) = pair(Config::default()).await;
    let session = owner.server.open().await;
    for round in 0..4 {
        let (posted, polled) =
            if round % 2 == 0 { (&owner.server, &other.server) } else { (&other.server, &owner.server) };
        let message = format!("4round {round}\x1ebAQIDBA==");
        let (waiting, sent) = tokio::join!(polled.get(&session), posted.post(&session, &message));
        assert_eq!((waiting.body, &*sent.body), (message, "ok"));
    }
    assert_eq!((owner.server.engine.sessions(), other.server.engine.sessions()), (1, 0));
    let bad = other.server.post(&session, "abc").await;
    assert_eq!(bad.status, 400);
    assert_eq!(other.server.get(&session).await.body, UNKNOWN);
}

#[tokio::test]
async fn headers_and_compression_are_those_of_a_request_to_the_owner() {
    let (owner, other) = pair(Config::default()).await;
    let session = owner.server.open().await;
    let large = format!("4{}", "x".repeat(500_000));
    assert_eq!(other.server.post(&session, &large).await.body, "ok");
    let headers = [("Accept-Encoding", "gzip"), ("Origin", "http://a.example")];
    let polled = other.server.request("GET", &session, &headers, "").await;
    let shown =
        ["content-type", "content-encoding", "cache-control"].map(|name| polled.header(name).unwrap());
    assert_eq!((polled.status, shown), (200, ["text/plain; charset=UTF-8", "gzip", "no-store"]));
    assert_eq!(polled.headers("content-length"), [polled.bytes.len().to_string()]);
    assert_eq!((polled.header("imks-node"), polled.headers("date").len()), (None, 1));
}

#[tokio::test]
async fn a_script_element_gets_its_packets_through_another_node() {
    let (owner, other) = pair(Config::default()).await;
    let session = owner.server.open().await;
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let posted = other.server.request("POST", &format!("{session}&j=0"), &form, "d=4hi").await;
    assert_eq!((posted.status, &*posted.body), (200, "ok"));
    assert_eq!(other.server.get(&format!("{session}&j=7")).await.body, r#"___eio[7]("4hi");"#);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_the_node_that_reads_it() {
    let (owner, other) = pair(Config { max_payload: 1000, ..Config::default() }).await;
    let session = owner.server.open().await;
    assert_eq!(other.server.post(&session, &"4".repeat(1001)).await.status, 413);
    assert_eq!(other.server.post(&session, "4small").await.body, "ok");
    assert_eq!(other.server.get(&session).await.body, "4small");
}

#[tokio::test]
async fn a_client_that_leaves_a_forwarded_poll_ends_its_session() {
    let (mut owner, other) = pair(Config::default()).await;
    let session = owner.server.open().await;
    let waiting = other.server.send("GET", &session, &[], "").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(waiting);
    assert_eq!(owner.server.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn a_websocket_at_another_node_takes_the_session_over_with_everything_that_is_queued() {
    let (mut owner, other) = pair(Config::default()).await;
    let session = owner.server.open().await;
    let mut client = other.server.dial(&as_websocket(&session)).await;
    assert_eq!(other.server.post(&session, "4before").await.body, "ok");
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    assert_eq!(other.server.get(&session).await.body, "4before", "polling goes on during the probe");
    assert_eq!(other.server.post(&session, "4during").await.body, "ok");
    client.send("5").await;
    client.send("4after").await;
    assert_eq!((client.text().await, client.text().await), ("4during".into(), "4after".into()));
    let (text, bytes) = (format!("4{}", "y".repeat(900_000)), vec![7; 900_000]);
    for _ in 0..3 {
        client.send(&text).await;
        assert_eq!(client.text().await, text);
        futures_util::SinkExt::send(&mut client.0, Message::binary(bytes.clone())).await.unwrap();
        assert_eq!(client.next().await.into_data(), bytes);
    }
    assert_eq!((owner.server.engine.sessions(), other.server.engine.sessions()), (1, 0));
    drop(client);
    assert_eq!(owner.server.closed().await, CloseReason::TransportClose);
}

#[tokio::test]
async fn a_websocket_through_another_node_ends_with_its_session() {
    let (owner, other) = pair(Config::default()).await;
    let session = owner.server.open().await;
    let mut client = other.server.dial(&as_websocket(&session)).await;
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    client.send("5").await;
    client.send("4close").await;
    assert_eq!(client.text().await, "4last");
    assert_eq!(client.close_code().await, 1000);
    owner.server.drained().await;
    let refused = other.server.dial_refused(&as_websocket(&session)).await;
    assert_eq!(refused, (400, "Session ID unknown".into()));
}

#[tokio::test]
async fn a_session_whose_owner_is_dead_or_not_known_is_unknown_at_once() {
    let (owner, other) = pair(Config::default()).await;
    let session = owner.server.open().await;
    assert_eq!(other.server.post(&session, "4hi").await.body, "ok");
    owner.server.stop().await;
    for path in [
        session.clone(),
        "/socket.io/?EIO=4&transport=polling&sid=abc".into(),
        // The form is right, and the node is none.
        format!("/socket.io/?EIO=4&transport=polling&sid={}", "A".repeat(28)),
    ] {
        let asked = Instant::now();
        let answer = other.server.get(&path).await;
        assert_eq!((answer.status, &*answer.body), (400, UNKNOWN), "{path}");
        assert!(asked.elapsed() < Duration::from_millis(300), "{:?}", asked.elapsed());
    }
    let refused = other.server.dial_refused(&as_websocket(&session)).await;
    assert_eq!(refused, (400, "Session ID unknown".into()));
}

#[tokio::test]
async fn a_host_that_answers_nothing_is_given_up_soon() {
    let (owner, other) = pair(Config::default()).await;
    let session = owner.server.open().await;
    // A listener whose queue is full takes no connection, like a host that is gone.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    silent.listen(0).unwrap();
    let address = silent.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(address)).await
    {
        waiting.push(stream);
    }
    other.learns(owner.node, Contact { address: address.to_string(), ..owner.contact() });
    let asked = Instant::now();
    assert_eq!(other.server.get(&session).await.body, UNKNOWN);
    let took = asked.elapsed();
    // 250 ms, and what a busy machine adds.
    assert!(took > Duration::from_millis(200) && took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn an_id_that_names_another_node_is_worth_nothing_there() {
    let (owner, other) = pair(Config::default()).await;
    let session = owner.server.open().await;
    let forged = format!("{}AAAAAAAAAAAAAAAA", &session[..session.len() - 16]);
    assert_eq!(other.server.get(&forged).await.body, UNKNOWN);
    assert_eq!(other.server.dial_refused(&as_websocket(&forged)).await.1, "Session ID unknown");
    assert_eq!(other.server.post(&session, "4hi").await.body, "ok");
}

#[tokio::test]
async fn a_request_that_pretends_to_come_from_a_node_finds_nothing() {
    let (owner, other) = pair(Config::default()).await;
    let session = owner.server.open().await;
    let (_, query) = session.split_once('?').unwrap();
    let path = format!("{PATH}?{query}");
    let forged = "A".repeat(43);
    for headers in [&[][..], &[("imks-forwarded", ""), ("imks-node", "x")], &[("imks-forwarded", &*forged)]] {
        for server in [&owner.server, &other.server] {
            let answer = server.request("POST", &path, headers, "4hi").await;
            assert_eq!((answer.status, answer.body.contains("not_found")), (404, true), "{}", answer.body);
        }
    }
    // The header means nothing on the path of clients.
    let answer = other.server.request("POST", &session, &[("imks-forwarded", &forged)], "4hi").await;
    assert_eq!((&*answer.body, &*owner.server.get(&session).await.body), ("ok", "4hi"));
}

#[tokio::test]
async fn an_address_that_leads_elsewhere_is_no_loop() {
    let (owner, other) = pair(Config::default()).await;
    let third = Box::pin(Node::start(Config::default(), None)).await;
    third.learns(owner.node, owner.contact());
    let session = owner.server.open().await;
    // The address of a balancer is that of any node: the third, or the one that was asked.
    for address in [third.server.addr, other.server.addr] {
        other.learns(owner.node, Contact { address: address.to_string(), ..owner.contact() });
        assert_eq!(other.server.get(&session).await.body, UNKNOWN);
    }
    // A node that was started again at the address of another one has another secret.
    other.learns(owner.node, Contact { secret: [1; 32], ..owner.contact() });
    assert_eq!(other.server.get(&session).await.body, UNKNOWN);
    other.learns(owner.node, owner.contact());
    assert_eq!(other.server.post(&session, "4hi").await.body, "ok");
}

#[tokio::test]
async fn a_node_with_tls_is_known_by_its_certificate() {
    let certificates = tls::Certificates::self_signed(vec!["chat.example".into()]).unwrap();
    let owner = Box::pin(Node::start(Config::default(), Some(&certificates))).await;
    let other = Box::pin(Node::start(Config::default(), None)).await;
    let open = Request::get("/socket.io/?EIO=4&transport=polling").body(Body::empty()).unwrap();
    let opened = owner.server.engine.handle(open, "127.0.0.1:9".parse().unwrap()).await;
    let opened = opened.into_body().collect().await.unwrap().to_bytes();
    let opened: serde_json::Value = serde_json::from_slice(&opened[1..]).unwrap();
    let session = format!("/socket.io/?EIO=4&transport=polling&sid={}", opened["sid"].as_str().unwrap());
    for wrong in [Some([0; 32]), None] {
        other.learns(owner.node, Contact { certificate: wrong, ..owner.contact() });
        assert_eq!(other.server.get(&session).await.body, UNKNOWN);
    }
    other.learns(owner.node, owner.contact());
    for round in 0..3 {
        let message = format!("4round {round}");
        assert_eq!(other.server.post(&session, &message).await.body, "ok");
        assert_eq!(other.server.get(&session).await.body, message);
    }
    let mut client = other.server.dial(&as_websocket(&session)).await;
    client.send("2probe").await;
    assert_eq!(client.text().await, "3probe");
    client.send("5").await;
    let text = format!("4{}", "z".repeat(300_000));
    client.send(&text).await;
    assert_eq!(client.text().await, text);
}
