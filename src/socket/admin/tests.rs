//! Tests of the Admin UI with several nodes, floods and errors. `tests/admin_tests.rs` covers a single page
//! and server.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::bus::sim::SimBus;
use crate::engine::MemoryPeer;
use crate::socket::tests::{join, open, rooms, text};
use crate::socket::{NamespaceMatch, Server, ServerBuilder};

/// The hash of `secret` at a low cost.
const HASH: &str = "$2a$04$cxA/W5Oj6DmE8SAwHWoqS.1N/WpkajRR0E2q/9EtW27yVEOm/pl2S";

fn basic() -> Config {
    Config::new(Auth::Basic { username: "operator".into(), password_hash: HASH.into() })
}

fn development(server_id: &str) -> Config {
    let server_id = Some(server_id.into());
    Config { mode: Mode::Development, server_id, ..Config::new(Auth::None) }
}

fn builder() -> ServerBuilder {
    Server::builder(Default::default()).namespace("/", rooms)
}

fn node(bus: &SimBus, admin: Config) -> Server {
    let server = Server::builder(Default::default()).adapter(bus.pipe());
    let server = server.namespace("/", rooms).instrument(admin).build().unwrap();
    server.listen_to_bus();
    server
}

async fn meet(nodes: [&Server; 2]) {
    for node in nodes {
        while node.server_count() < 2 {
            tokio::task::yield_now().await;
        }
    }
}

/// Connects a page, and returns the reply of the server.
async fn enter(server: &Server, auth: Value) -> (MemoryPeer, String) {
    let peer = open(server);
    peer.send(&format!("0/admin,{auth}"));
    let reply = text(&peer).await;
    (peer, reply)
}

/// Returns the arguments of the next event with this name for which `wanted` is true.
async fn hears(page: &MemoryPeer, name: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    loop {
        let packet = text(page).await;
        let Some(event) = packet.strip_prefix("2/admin,") else { continue };
        let mut event: Vec<Value> = serde_json::from_str(event).unwrap();
        if event.remove(0) == name && wanted(&event) {
            return event;
        }
    }
}

fn command(page: &MemoryPeer, command: Value) {
    page.send(&format!("2/admin,{command}"));
}

#[tokio::test(start_paused = true)]
async fn a_page_sees_the_servers_and_sockets_of_all_nodes_and_reaches_them() {
    let bus = SimBus::default();
    let (one, two) = (node(&bus, development("one")), node(&bus, development("two")));
    meet([&one, &two]).await;
    let (anna, id) = join(&two).await;
    let (page, reply) = enter(&one, json!({})).await;
    assert!(reply.starts_with("0/admin,{"), "{reply}");
    let sockets = hears(&page, "all_sockets", |_| true).await.remove(0);
    let anna_shown = sockets.as_array().unwrap().iter().find(|socket| socket["id"] == id).unwrap();
    assert_eq!((&anna_shown["nsp"], &anna_shown["transport"]), (&json!("/"), &json!("websocket")));
    assert_eq!((anna_shown["clientId"].as_str().unwrap().len(), &anna_shown["data"]), (12, &json!({})));
    for server in ["one", "two"] {
        let stats = hears(&page, "server_stats", |args| args[0]["serverId"] == server).await;
        assert_eq!(stats[0]["namespaces"][0]["name"], "/");
    }
    command(&page, json!(["join", "/", "room", id]));
    let joined = hears(&page, "room_joined", |args| args[1] == "room").await;
    assert_eq!((&joined[0], &joined[2]), (&json!("/"), &json!(id)));
    command(&page, json!(["emit", "/", "room", "hello", 1]));
    assert_eq!(text(&anna).await, r#"2["hello",1]"#);
    command(&page, json!(["_disconnect", "/", false, id]));
    assert_eq!(text(&anna).await, "1");
    let gone = hears(&page, "socket_disconnected", |args| args[1] == id).await;
    assert_eq!(gone[2], "server namespace disconnect");
}

#[tokio::test]
async fn a_session_opened_on_one_node_is_known_on_the_others() {
    let bus = SimBus::default();
    let (one, two) = (node(&bus, basic()), node(&bus, basic()));
    meet([&one, &two]).await;
    let (page, _) = enter(&one, json!({ "username": "operator", "password": "secret" })).await;
    let session = hears(&page, "session", |_| true).await.remove(0);
    // The session arrives over the bus at any time. Before that the reply is a refusal.
    loop {
        let (_, reply) = enter(&two, json!({ "sessionId": session })).await;
        if reply.starts_with('0') {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_flood_of_logins_is_refused_and_who_has_a_session_enters_nevertheless() {
    let server = builder().instrument(basic()).build().unwrap();
    let (page, _) = enter(&server, json!({ "username": "operator", "password": "secret" })).await;
    let session = hears(&page, "session", |_| true).await.remove(0);
    let guesses: Vec<_> = (0..50).map(|_| open(&server)).collect();
    for guess in &guesses {
        guess.send(r#"0/admin,{"username":"operator","password":"guess"}"#);
    }
    for late in &guesses[auth::LOGINS_MAX..] {
        assert_eq!(text(late).await, format!(r#"4/admin,{{"message":"{}"}}"#, auth::BUSY));
    }
    assert!(enter(&server, json!({ "sessionId": session })).await.1.starts_with("0/admin,{"));
    join(&server).await;
}

/// Sessions in an external store.
#[derive(Default)]
struct Elsewhere(Mutex<HashSet<String>>);

impl SessionStore for Elsewhere {
    fn contains<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ImksResult<bool>> {
        Box::pin(async move { Ok(self.0.lock().contains(id)) })
    }

    fn insert<'a>(&'a self, id: &'a str, ttl: Duration) -> BoxFuture<'a, ImksResult<()>> {
        assert_eq!(ttl, SESSION_TTL);
        Box::pin(async move {
            self.0.lock().insert(id.to_owned());
            Ok(())
        })
    }
}

#[tokio::test]
async fn sessions_may_be_kept_elsewhere() {
    let store = Arc::new(Elsewhere::default());
    let config = || Config { sessions: Some(store.clone()), ..basic() };
    let (one, two) = (builder().instrument(config()), builder().instrument(config()));
    let (one, two) = (one.build().unwrap(), two.build().unwrap());
    let (page, _) = enter(&one, json!({ "username": "operator", "password": "secret" })).await;
    let session = hears(&page, "session", |_| true).await.remove(0);
    assert!(enter(&two, json!({ "sessionId": session })).await.1.starts_with('0'));
    let refused = enter(&two, json!({ "sessionId": "0123456789abcdef" })).await.1;
    assert_eq!(refused, r#"4/admin,{"message":"invalid credentials"}"#);
}

#[tokio::test]
async fn in_production_mode_nothing_listens_to_events() {
    let watched = |server: &Server, path| {
        let namespace = server.namespace(path).unwrap();
        namespace.watches_incoming() || namespace.watches_outgoing()
    };
    let server = builder().instrument(Config::new(Auth::None)).build().unwrap();
    assert!(!watched(&server, "/") && !watched(&server, "/admin"));
    let server = builder().instrument(development("one")).build().unwrap();
    assert!(watched(&server, "/") && !watched(&server, "/admin"));
}

#[tokio::test]
async fn namespaces_made_on_demand_are_shown_too() {
    let server = builder().dynamic_namespace("shops", NamespaceMatch::pattern("/shop-*"), rooms);
    let server = server.instrument(development("one")).build().unwrap();
    let (page, _) = enter(&server, json!({})).await;
    let peer = open(&server);
    peer.send("0/shop-1,");
    let shown = hears(&page, "socket_connected", |args| args[0]["nsp"] == "/shop-1").await;
    assert!(shown[1].as_str().unwrap().ends_with('Z'));
    peer.send(r#"2/shop-1,["join","room"]"#);
    let received = hears(&page, "event_received", |_| true).await;
    assert_eq!((&received[0], &received[2]), (&json!("/shop-1"), &json!(["join", "room"])));
    hears(&page, "room_joined", |args| args[1] == "room").await;
}

#[tokio::test]
async fn commands_that_make_no_sense_do_nothing() {
    let server = builder().instrument(development("one")).build().unwrap();
    let (anna, id) = join(&server).await;
    let (page, _) = enter(&server, json!({})).await;
    for wrong in [
        json!(["emit"]),
        json!(["emit", "/", null]),
        json!(["emit", "/nowhere", null, "hello"]),
        json!(["emit", "/", 7, "hello"]),
        json!(["join", "/"]),
        json!(["leave", 1, 2, 3]),
        json!(["_disconnect", "/", "yes"]),
        json!(["destroy", "/"]),
    ] {
        command(&page, wrong);
    }
    command(&page, json!(["emit", "/", id, "hello"]));
    assert_eq!(text(&anna).await, r#"2["hello"]"#);
}

#[test]
fn what_cannot_work_is_refused_when_the_server_is_built() {
    let build = |admin: Config| builder().namespace("/taken", |_| {}).instrument(admin).build();
    assert!(build(Config::new(Auth::None)).is_ok());
    for namespace in ["/", "/taken", "admin"] {
        let config = Config { namespace: namespace.into(), ..Config::new(Auth::None) };
        assert!(build(config).is_err(), "{namespace}");
    }
    let auth = Auth::Basic { username: "operator".into(), password_hash: "secret".into() };
    assert!(!format!("{:?}", Config::new(auth.clone())).contains("secret"));
    assert!(build(Config::new(auth)).is_err());
}
