//! WebTransport sessions that take over a session of another node, behind a balancer for UDP that knows nothing of that.

use imks::engine::{CloseReason, Config};
use imks::http::{
    listener,
    webtransport::{self, Heartbeat},
};
use imks::node::NodeId;
use imks::testing::forward::{Contact, Forwarder, routes};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::wt_client::{Stream, WtServer};
use crate::support::Server;

/// A node that passes on what belongs to others.
struct Node {
    node: NodeId,
    forwarder: Forwarder,
    server: WtServer,
    stop: CancellationToken,
}

impl Node {
    async fn start() -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (node, forwarder) = (NodeId::random().unwrap(), Forwarder::new(&tasks, &stop).unwrap());
        let mut config = Config { webtransport: true, node: Some(node), ..Config::default() };
        config.hooks.forward = Some(forwarder.hook());
        let heartbeat = Heartbeat { interval: config.ping_interval, timeout: config.ping_timeout };
        let limits = listener::Config::default();
        let starting = Server::with_routes_to_engine(config, limits, |engine| routes(&forwarder, engine));
        let http = Box::pin(starting).await;
        let server = WtServer::over(http, webtransport::Config::default(), heartbeat);
        Self { node, forwarder, server, stop }
    }

    fn learns(&self, other: &Self) {
        let (address, secret) = (other.server.http.addr.to_string(), *other.forwarder.secret());
        let contact = Contact { address, secret, certificate: None };
        self.forwarder.update([(other.node, contact)], Instant::now());
    }
}

/// The owner of the sessions of a test, and the node that WebTransport goes to.
async fn pair() -> (Node, Node) {
    let (owner, other) = (Box::pin(Node::start()).await, Box::pin(Node::start()).await);
    owner.learns(&other);
    other.learns(&owner);
    (owner, other)
}

/// A polling session of the owner, and a WebTransport session with the other node that names it.
async fn upgrade(owner: &Node, other: &Node) -> (String, Stream) {
    let path = owner.server.http.open().await;
    let sid = path.rsplit_once("sid=").unwrap().1.to_owned();
    let stream = other.server.stream(&format!(r#"0{{"sid":"{sid}"}}"#)).await;
    (path, stream)
}

#[tokio::test]
async fn webtransport_at_another_node_takes_the_session_over_with_everything_that_is_queued() {
    let (mut owner, other) = pair().await;
    let (path, mut stream) = upgrade(&owner, &other).await;
    assert_eq!(stream.says("2probe").await, "3probe");
    assert_eq!(owner.server.http.post(&path, "4before").await.body, "ok");
    assert_eq!(other.server.http.get(&path).await.body, "4before", "polling goes on during the probe");
    assert_eq!(owner.server.http.get(&path).await.body, "6");
    stream.raw(b"\x015\x064after").await;
    assert_eq!(stream.text().await, "4after");
    let facts = stream.says("4facts").await;
    let is_taken = facts.contains(r#""now":"webtransport""#) && facts.contains(r#""transport":"polling""#);
    assert!(is_taken, "{facts}");
    assert_eq!((owner.server.http.engine.sessions(), other.server.http.engine.sessions()), (1, 0));
    let data = vec![7; 900_000];
    for _ in 0..3 {
        stream.send_binary(&data).await;
        assert_eq!(stream.next().await, Some((true, data.clone())));
    }
    stream.session.connection.close(0_u32.into(), b"");
    assert_eq!(owner.server.http.closed().await, CloseReason::TransportClose);
}

#[tokio::test]
async fn a_session_that_ends_at_its_node_ends_for_its_client_after_the_last_packet() {
    let (mut owner, other) = pair().await;
    let (path, mut stream) = upgrade(&owner, &other).await;
    assert_eq!(stream.says("2probe").await, "3probe");
    assert_eq!(owner.server.http.get(&path).await.body, "6");
    stream.send("5").await;
    assert_eq!(stream.says("4close:").await, "4last");
    assert_eq!(stream.next().await, None, "the stream ends first");
    stream.session.closed().await;
    assert_eq!(owner.server.http.closed().await, CloseReason::ForcedClose);
    owner.server.http.drained().await;
}

#[tokio::test]
async fn a_client_stays_on_polling_when_the_node_of_its_session_cannot_be_reached_by_webtransport() {
    let (owner, stranger) = (Box::pin(Node::start()).await, Box::pin(Node::start()).await);
    let (path, stream) = upgrade(&owner, &stranger).await;
    stream.session.closed().await;
    assert_eq!(owner.server.http.post(&path, "4still here").await.body, "ok");
    assert_eq!(owner.server.http.get(&path).await.body, "4still here");
}

#[tokio::test]
async fn what_is_carried_ends_when_the_node_in_between_stops() {
    let (mut owner, other) = pair().await;
    let (path, mut stream) = upgrade(&owner, &other).await;
    assert_eq!(stream.says("2probe").await, "3probe");
    assert_eq!(owner.server.http.get(&path).await.body, "6");
    stream.send("5").await;
    assert_eq!(stream.says("4hello").await, "4hello");
    other.stop.cancel();
    stream.session.closed().await;
    owner.server.http.closed().await;
}

#[tokio::test]
async fn a_client_of_http_cannot_pretend_that_another_node_carries_its_stream() {
    let (owner, _) = pair().await;
    let path = owner.server.http.open().await;
    let as_stream = path.replace("transport=polling", "transport=webtransport");
    let headers = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let refused = owner.server.http.request("GET", &as_stream, &headers, "").await;
    assert_eq!((refused.status, &*refused.body), (400, r#"{"code":0,"message":"Transport unknown"}"#));
}
