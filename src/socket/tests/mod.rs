//! Tests of the Socket.IO layer over connections without a network.

mod api;
mod authenticator;
mod classic;
mod cluster;
mod fuzz_corpus;
mod recovery;
mod recovery_cluster;
mod sim;
mod typed;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::bus::sim::SimBus;
use crate::engine::{self, Connection, MemoryPeer, Message};
use crate::socket::{Accept, ConnectError, NamespaceBuilder, Server, Socket};

pub(super) fn server(describe: impl FnOnce(&mut NamespaceBuilder)) -> Server {
    Server::builder(Default::default()).namespace("/", describe).build().unwrap()
}

pub(super) fn open(server: &Server) -> MemoryPeer {
    let (connection, peer) = Connection::in_memory(&engine::Config::default());
    server.take(connection);
    peer
}

pub(super) async fn text(peer: &MemoryPeer) -> String {
    match peer.recv().await {
        Some(Message::Text(text)) => text.as_str().to_owned(),
        other => panic!("expected text, got {other:?}"),
    }
}

/// Joins `/`, and returns the socket id.
pub(super) async fn join(server: &Server) -> (MemoryPeer, String) {
    let peer = open(server);
    peer.send("0");
    let reply = text(&peer).await;
    let reply: serde_json::Value = serde_json::from_str(reply.strip_prefix('0').unwrap()).unwrap();
    (peer, reply["sid"].as_str().unwrap().to_owned())
}

/// Waits until everything that was sent before has been handled.
pub(super) async fn settle(peer: &MemoryPeer) {
    peer.send("0/no-such-namespace,");
    assert_eq!(text(peer).await, r#"4/no-such-namespace,{"message":"Invalid namespace"}"#);
}

pub(super) fn rooms(builder: &mut NamespaceBuilder) {
    builder.on_sync("join", |event| event.socket().join(&event.first::<String>().unwrap()));
    builder.on_sync("leave", |event| event.socket().leave(&event.first::<String>().unwrap()));
    builder.on_sync("say", |event| {
        let (room, what): (String, String) = event.parse().unwrap();
        event.socket().namespace().to(&room).emit("said", &what).unwrap();
    });
    builder.on_sync("say to others", |event| {
        let (room, what): (String, String) = event.parse().unwrap();
        event.socket().to(&room).emit("said", &what).unwrap();
    });
}

#[tokio::test]
async fn an_event_is_answered_with_what_the_handler_says() {
    let server = server(|ns| {
        ns.on_sync("echo", |mut event| event.take_ack().unwrap().send_args(event.args()).unwrap());
    });
    let (peer, _) = join(&server).await;
    peer.send(r#"27["echo",1,{"a":"b"}]"#);
    assert_eq!(text(&peer).await, r#"37[1,{"a":"b"}]"#);
    peer.send(r#"28["echo"]"#);
    assert_eq!(text(&peer).await, "38[]");
}

#[tokio::test]
async fn a_binary_event_is_answered_with_its_attachments_in_order() {
    let server = server(|ns| {
        ns.on_sync("echo", |mut event| event.take_ack().unwrap().send_args(event.args()).unwrap());
    });
    let (peer, _) = join(&server).await;
    peer.send(r#"52-7["echo",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#);
    peer.send_message(Message::Binary(Bytes::from_static(&[1, 2])));
    peer.send_message(Message::Binary(Bytes::from_static(&[3])));
    assert_eq!(text(&peer).await, r#"62-7[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#);
    assert_eq!(peer.recv().await, Some(Message::Binary(Bytes::from_static(&[1, 2]))));
    assert_eq!(peer.recv().await, Some(Message::Binary(Bytes::from_static(&[3]))));
}

/// Asks an engine for a session, and returns the status of the answer and its body.
async fn request(engine: &engine::Engine, method: &str, query: &str, body: &'static str) -> (u16, String) {
    request_from([127, 0, 0, 1], engine, method, query, body).await
}

async fn request_from(
    ip: [u8; 4],
    engine: &engine::Engine,
    method: &str,
    query: &str,
    body: &'static str,
) -> (u16, String) {
    let request =
        http::Request::builder().method(method).uri(format!("/socket.io/?EIO=4&transport=polling{query}"));
    let request = request.body(http_body_util::Full::new(Bytes::from_static(body.as_bytes()))).unwrap();
    let reply = engine.handle(request, (ip, 9).into()).await;
    let status = reply.status().as_u16();
    let body = http_body_util::BodyExt::collect(reply.into_body()).await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn connections_that_join_nothing_have_so_many_places_and_do_not_keep_out_those_that_join() {
    let config = crate::socket::Config { unjoined_max: 1, ..Default::default() };
    let server = Server::builder(config).namespace("/", |_| {}).build().unwrap();
    let engine =
        engine::Engine::new(engine::Config { close_timeout: Duration::from_millis(1), ..Default::default() })
            .unwrap();
    let serving = TaskTracker::new().spawn({
        let (server, engine) = (server.clone(), engine.clone());
        async move { server.serve(engine).await }
    });
    let (status, opened) = request(&engine, "GET", "", "").await;
    assert_eq!(status, 200);
    let opened: serde_json::Value = serde_json::from_str(&opened[1..]).unwrap();
    while server.connections() == 0 {
        tokio::task::yield_now().await;
    }
    // The next one is told to come back, and not left without OPEN and pings.
    assert_eq!(request(&engine, "GET", "", "").await.0, 503);
    let sid = format!("&sid={}", opened["sid"].as_str().unwrap());
    assert_eq!(request(&engine, "POST", &sid, "40").await.0, 200);
    while request(&engine, "GET", "", "").await.0 == 503 {
        tokio::task::yield_now().await;
    }
    while server.connections() == 1 {
        tokio::task::yield_now().await;
    }
    server.close().await;
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_has_joined_comes_in_again_when_newcomers_have_all_places_that_are_theirs() {
    let config = crate::socket::Config { unjoined_max: 8, ..Default::default() };
    let server = Server::builder(config).namespace("/", |_| {}).build().unwrap();
    let engine = engine::Engine::new(engine::Config::default()).unwrap();
    let serving = TaskTracker::new().spawn({
        let (server, engine) = (server.clone(), engine.clone());
        async move { server.serve(engine).await }
    });
    let (alice, others) = ([203, 0, 113, 9], [198, 51, 100, 1]);
    let (status, opened) = request_from(alice, &engine, "GET", "", "").await;
    assert_eq!(status, 200);
    let opened: serde_json::Value = serde_json::from_str(&opened[1..]).unwrap();
    let sid = format!("&sid={}", opened["sid"].as_str().unwrap());
    assert_eq!(request_from(alice, &engine, "POST", &sid, "40").await.0, 200);
    assert!(request_from(alice, &engine, "GET", &sid, "").await.1.starts_with("40"));
    let mut came_in = 0;
    while request_from(others, &engine, "GET", "", "").await.0 == 200 {
        came_in += 1;
    }
    assert_eq!(came_in, 6);
    for _ in 0..2 {
        assert_eq!(request_from(alice, &engine, "GET", "", "").await.0, 200);
    }
    assert_eq!(request_from(alice, &engine, "GET", "", "").await.0, 503, "her places have a bound, too");
    server.close().await;
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_joined_nothing_in_time_leaves_the_place_to_another_though_the_end_is_never_fetched() {
    let connect_timeout = Duration::from_secs(10);
    let config = crate::socket::Config { connect_timeout, unjoined_max: 1, ..Default::default() };
    let server = Server::builder(config).namespace("/", |_| {}).build().unwrap();
    let engine = engine::Engine::new(engine::Config::default()).unwrap();
    let serving = TaskTracker::new().spawn({
        let (server, engine) = (server.clone(), engine.clone());
        async move { server.serve(engine).await }
    });
    for _ in 0..3 {
        assert_eq!(request(&engine, "GET", "", "").await.0, 200);
        tokio::time::sleep(connect_timeout / 2).await;
        assert_eq!(request(&engine, "GET", "", "").await.0, 503);
        tokio::time::sleep(connect_timeout / 2 + Duration::from_millis(10)).await;
    }
    assert_eq!(server.connections(), 3, "whoever polls learns that the session has ended");
    server.close().await;
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_joined_nothing_in_time_and_does_not_poll_holds_up_no_end_of_the_server() {
    let connect_timeout = Duration::from_secs(1);
    let config = crate::socket::Config { connect_timeout, ..Default::default() };
    let server = Server::builder(config).namespace("/", |_| {}).build().unwrap();
    let engine = engine::Engine::new(engine::Config::default()).unwrap();
    let serving = TaskTracker::new().spawn({
        let (server, engine) = (server.clone(), engine.clone());
        async move { server.serve(engine).await }
    });
    assert_eq!(request(&engine, "GET", "", "").await.0, 200);
    tokio::time::sleep(2 * connect_timeout).await;
    assert_eq!(server.connections(), 1, "its end waits for a poll");
    let began = tokio::time::Instant::now();
    server.close().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    serving.await.unwrap();
}

#[tokio::test]
async fn a_waiting_handler_holds_up_neither_the_next_event_nor_the_order_in_which_events_start() {
    let gate = Arc::new(Notify::new());
    let started = Arc::new(Mutex::new(Vec::new()));
    let server = server(|ns| {
        let (gate, started) = (gate.clone(), started.clone());
        ns.on("slow", move |mut event| {
            started.lock().push(event.first::<u32>().unwrap());
            let gate = gate.clone();
            async move {
                gate.notified().await;
                event.take_ack().unwrap().send(&"slow").unwrap();
            }
        });
        ns.on_sync("quick", |mut event| event.take_ack().unwrap().send(&"quick").unwrap());
    });
    let (peer, _) = join(&server).await;
    peer.send(r#"20["slow",1]"#);
    peer.send(r#"21["slow",2]"#);
    peer.send(r#"22["quick"]"#);
    assert_eq!(text(&peer).await, r#"32["quick"]"#);
    assert_eq!(*started.lock(), [1, 2]);
    gate.notify_one();
    assert_eq!(text(&peer).await, r#"30["slow"]"#);
    gate.notify_one();
    assert_eq!(text(&peer).await, r#"31["slow"]"#);
}

#[tokio::test]
async fn handlers_in_flight_are_bounded_and_the_rest_waits_on_the_wire() {
    let gate = Arc::new(Notify::new());
    let started = Arc::new(Mutex::new(0_usize));
    let config = crate::socket::Config { events_in_flight_max: 2, ..Default::default() };
    let server = Server::builder(config)
        .namespace("/", |ns| {
            let (gate, started) = (gate.clone(), started.clone());
            ns.on("slow", move |mut event| {
                *started.lock() += 1;
                let gate = gate.clone();
                async move {
                    gate.notified().await;
                    event.take_ack().unwrap().send(&()).unwrap();
                }
            });
        })
        .build()
        .unwrap();
    let (peer, _) = join(&server).await;
    for id in 0..5 {
        peer.send(&format!(r#"2{id}["slow"]"#));
    }
    for done in 0..5_usize {
        while *started.lock() < (done + 2).min(5) {
            tokio::task::yield_now().await;
        }
        assert_eq!(*started.lock(), (done + 2).min(5));
        gate.notify_one();
        text(&peer).await;
    }
}

#[tokio::test]
async fn any_number_of_handlers_may_ask_their_own_client_back() {
    let server = server(|ns| {
        ns.on("ask me", |mut event| async move {
            let (ack, socket) = (event.take_ack().unwrap(), event.socket().clone());
            let answer = socket.emit_with_ack("what", &(), Duration::from_secs(5)).await.unwrap();
            ack.send_args(&answer).unwrap();
        });
    });
    let (peer, _) = join(&server).await;
    for id in 0..300 {
        peer.send(&format!(r#"2{id}["ask me"]"#));
    }
    let mut answers = 0;
    while answers < 300 {
        let packet = text(&peer).await;
        match packet.strip_prefix('2').and_then(|rest| rest.strip_suffix(r#"["what"]"#)) {
            Some(id) => peer.send(&format!("3{id}[{id}]")),
            None => answers += 1,
        }
    }
}

#[tokio::test]
async fn acks_are_read_while_events_wait_and_events_that_wait_are_bounded() {
    let gate = Arc::new(Notify::new());
    let started = Arc::new(Mutex::new(0_usize));
    let config =
        super::Config { events_in_flight_max: 1, events_waiting_bytes_max: 4_096, ..Default::default() };
    let server = Server::builder(config)
        .namespace("/", |ns| {
            let (gate, started) = (gate.clone(), started.clone());
            ns.on("slow", move |_| {
                *started.lock() += 1;
                let gate = gate.clone();
                async move { gate.notified().await }
            });
        })
        .build()
        .unwrap();
    let (peer, id) = join(&server).await;
    let socket = server.namespace("/").unwrap().socket(&id).unwrap();
    for _ in 0..3 {
        peer.send(r#"2["slow"]"#);
    }
    let asking = TaskTracker::new()
        .spawn(async move { socket.emit_with_ack("question", &(), Duration::from_secs(5)).await });
    assert_eq!(text(&peer).await, r#"20["question"]"#);
    peer.send("30[1]");
    assert_eq!(asking.await.unwrap().unwrap().json(), "1", "it stood behind events that wait");
    for _ in 0..100 {
        peer.send(r#"2["slow"]"#);
    }
    while *started.lock() < 103 {
        gate.notify_one();
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_second_connect_gets_the_same_id_and_one_namespace_too_many_is_refused() {
    let config = super::Config { namespaces_max: 2, ..Default::default() };
    let server = Server::builder(config);
    let server = ["/", "/a", "/b"].iter().fold(server, |server, path| server.namespace(path, rooms));
    let server = server.build().unwrap();
    let (peer, id) = join(&server).await;
    peer.send("0");
    assert_eq!(text(&peer).await, format!(r#"0{{"sid":"{id}"}}"#));
    peer.send("0/a,");
    assert!(text(&peer).await.starts_with("0/a,"));
    peer.send("0/b,");
    assert_eq!(text(&peer).await, r#"4/b,{"message":"Too many namespaces"}"#);
    peer.send("1/a,");
    settle(&peer).await;
    assert_eq!(server.namespace("/").unwrap().len(), 1);
}

#[tokio::test]
async fn an_event_that_is_nested_too_deep_is_refused_and_the_connection_stays() {
    let refused = Arc::new(Mutex::new(0));
    let server = server(|ns| {
        let refused = refused.clone();
        ns.on_event_refused(move |_, _| *refused.lock() += 1);
    });
    let (peer, _) = join(&server).await;
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    peer.send(&format!(r#"27["a",{deep}]"#));
    assert_eq!(text(&peer).await, r#"37[{"error":{"message":"arguments are nested too deep"}}]"#);
    peer.send(&format!(r#"2["a",{deep}]"#));
    settle(&peer).await;
    assert_eq!(*refused.lock(), 2);
}

#[tokio::test]
async fn an_event_with_too_many_or_too_large_attachments_is_refused_and_the_connection_stays() {
    let limits = super::packet::Limits { attachments_max: 2, attachment_bytes_max: 5 };
    let server = Server::builder(super::Config { limits, ..Default::default() }).namespace("/", rooms);
    let server = server.build().unwrap();
    let (peer, _) = join(&server).await;
    for (text_part, attachments, reason) in [
        (r#"53-7["a"]"#, ["1", "2", "3"].as_slice(), "too many attachments"),
        (r#"52-7["a"]"#, &["123", "456"], "attachments are too large"),
    ] {
        peer.send(text_part);
        attachments.iter().for_each(|data| peer.send_message(Message::Binary((*data).into())));
        assert_eq!(text(&peer).await, format!(r#"37[{{"error":{{"message":"{reason}"}}}}]"#));
    }
    peer.send(r#"299999999999999999999["a"]"#);
    settle(&peer).await;
    assert_eq!(server.namespace("/").unwrap().len(), 1);
}

#[tokio::test]
async fn who_would_miss_packets_because_the_connect_hook_took_long_is_refused_and_may_try_again() {
    let go_on = Arc::new(Notify::new());
    let builder = Server::builder(Default::default()).namespace("/", rooms).namespace("/slow", |ns| {
        let go_on = go_on.clone();
        ns.on_connect(move |socket, _| {
            let go_on = go_on.clone();
            async move {
                socket.join("news");
                go_on.notified().await;
                Ok::<(), ConnectError>(())
            }
        });
    });
    let server = builder.build().unwrap();
    let (peer, _) = join(&server).await;
    let slow = server.namespace("/slow").unwrap();
    peer.send("0/slow,");
    settle(&peer).await;
    for number in 0..=super::BUFFERED_PACKETS_MAX {
        slow.to("news").emit("news", &number).unwrap();
    }
    go_on.notify_one();
    let refusal = text(&peer).await;
    let refusal: serde_json::Value = serde_json::from_str(refusal.strip_prefix("4/slow,").unwrap()).unwrap();
    assert_eq!(
        (&refusal["data"]["code"], &refusal["data"]["retryable"]),
        (&json!("overloaded"), &json!(true))
    );
    assert_eq!((slow.len(), slow.sockets_in("news").len()), (0, 0), "nothing is left of it");
    peer.send("0/slow,");
    settle(&peer).await;
    slow.to("news").emit("news", &"one").unwrap();
    go_on.notify_one();
    assert!(text(&peer).await.starts_with("0/slow,{"));
    assert_eq!(text(&peer).await, r#"2/slow,["news","one"]"#);
}

#[tokio::test]
async fn who_is_disconnected_by_the_connect_hook_is_refused_and_the_connection_stays() {
    let server = Server::builder(Default::default()).namespace("/", rooms).namespace("/a", |ns| {
        ns.on_connect(|socket, _| async move {
            socket.disconnect(false);
            Ok::<(), ConnectError>(())
        });
    });
    let server = server.build().unwrap();
    let (peer, _) = join(&server).await;
    peer.send("0/a,");
    assert!(text(&peer).await.starts_with("4/a,{"));
    settle(&peer).await;
    assert_eq!((server.namespace("/").unwrap().len(), server.namespace("/a").unwrap().len()), (1, 0));
}

#[tokio::test]
async fn what_a_client_sends_to_a_namespace_just_after_it_left_is_dropped() {
    let server = server(rooms);
    let (peer, _) = join(&server).await;
    peer.send("1");
    peer.send(r#"2["join","r"]"#);
    settle(&peer).await;
    assert_eq!(server.namespace("/").unwrap().len(), 0);
}

#[tokio::test]
async fn clients_of_the_msgpack_parser_get_what_json_does_not_have_and_a_word_about_a_wrong_namespace() {
    let config = super::Config { parser: super::Parser::MsgPack, ..Default::default() };
    let server = Server::builder(config).namespace("/", |ns| {
        ns.on_connect(|_, payload| async move {
            let token: std::collections::HashMap<String, super::Binary> = payload.parse().unwrap();
            assert_eq!(&token["token"][..], [1, 2]);
            Ok::<(), ConnectError>(())
        });
        ns.on_sync("echo", |mut event| event.take_ack().unwrap().send_args(event.args()).unwrap());
    });
    let server = server.build().unwrap();
    let peer = open(&server);
    let send = |bytes: &[u8]| peer.send_message(Message::Binary(Bytes::copy_from_slice(bytes)));
    send(b"\x82\xa4type\x00\xa3nsp\xa3foo");
    let refusal = peer.recv().await;
    let expected = b"\x83\xa4type\x04\xa3nsp\xa3foo\xa4data\x81\xa7message\xb1Invalid namespace";
    assert_eq!(refusal, Some(Message::Binary(Bytes::from_static(expected))));
    send(b"\x83\xa4type\x00\xa3nsp\xa1/\xa4data\x81\xa5token\xc4\x02\x01\x02");
    assert!(peer.recv().await.is_some());
    send(&[b"\x84\xa4type\x02\xa3nsp\xa1/\xa2id\x07\xa4data\x94\xa4echo".as_slice(), BEYOND_JSON].concat());
    let answer = [b"\x84\xa4type\x03\xa3nsp\xa1/\xa2id\x07\xa4data\x93".as_slice(), BEYOND_JSON].concat();
    assert_eq!(peer.recv().await, Some(Message::Binary(Bytes::from(answer))));
}

/// A date, NaN and -Infinity, as notepack.io writes them.
const BEYOND_JSON: &[u8] = b"\xd7\x00\x00\x00\x01\x8b\xcf\xe5\x68\x00\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00\xcb\xff\xf0\x00\x00\x00\x00\x00\x00";

/// Joins `/` of a server with the msgpack parser.
async fn join_msgpack(server: &Server) -> MemoryPeer {
    let peer = open(server);
    peer.send_message(Message::Binary(Bytes::from_static(b"\x82\xa4type\x00\xa3nsp\xa1/")));
    assert!(peer.recv().await.is_some());
    peer
}

async fn binary(peer: &MemoryPeer) -> Bytes {
    match peer.recv().await {
        Some(Message::Binary(data)) => data,
        other => panic!("expected bytes, got {other:?}"),
    }
}

/// A node whose handler of `tell` passes the arguments on to everybody, and sends values of its own.
fn msgpack_node(bus: &SimBus, recovery: Option<super::Recovery>) -> Server {
    let config = super::Config { parser: super::Parser::MsgPack, recovery, ..Default::default() };
    let server = Server::builder(config).adapter(bus.pipe()).namespace("/", |ns| {
        ns.on_sync("tell", |event| {
            event.socket().namespace().everybody().emit_args("told", event.args()).unwrap();
            event.socket().emit("made", &(f64::NAN, [f32::NEG_INFINITY], "\u{e9}")).unwrap();
        });
    });
    let server = server.build().unwrap();
    server.listen_to_bus();
    server
}

#[tokio::test]
async fn what_json_does_not_have_comes_through_handlers_other_nodes_and_recovery_as_well() {
    for recovery in [None, Some(super::Recovery::default())] {
        let bus = SimBus::default();
        let (first, second) = (msgpack_node(&bus, recovery.clone()), msgpack_node(&bus, recovery.clone()));
        while first.server_count() + second.server_count() < 4 {
            tokio::task::yield_now().await;
        }
        let (near, far) = (join_msgpack(&first).await, join_msgpack(&second).await);
        let event = [b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x94\xa4tell".as_slice(), BEYOND_JSON].concat();
        near.send_message(Message::Binary(event.into()));
        // With recovery, the offset is one more argument.
        let count = if recovery.is_some() { 0x95 } else { 0x94 };
        let told = [b"\xa4data".as_slice(), &[count], b"\xa4told", BEYOND_JSON].concat();
        for peer in [&near, &far] {
            assert!(holds(&binary(peer).await, &told));
        }
        let made = b"\xa4made\x93\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00\x91\xcb\xff\xf0\x00\x00\x00\x00\x00\x00\xa2\xc3\xa9";
        assert!(holds(&binary(&near).await, made));
    }
}

fn holds(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_room_is_reached_once_each_without_exceptions_and_the_sender_on_request() {
    let server = server(rooms);
    let (anna, anna_id) = join(&server).await;
    let (bert, bert_id) = join(&server).await;
    let (cleo, _) = join(&server).await;
    for (peer, room) in [(&anna, "r"), (&bert, "r"), (&bert, "s"), (&cleo, "s")] {
        peer.send(&format!(r#"2["join",{room:?}]"#));
        settle(peer).await;
    }
    anna.send(r#"2["say","r","all"]"#);
    assert_eq!(
        (text(&anna).await, text(&bert).await),
        (r#"2["said","all"]"#.into(), r#"2["said","all"]"#.into())
    );
    anna.send(r#"2["say to others","r","others"]"#);
    assert_eq!(text(&bert).await, r#"2["said","others"]"#);
    let namespace = server.namespace("/").unwrap();
    namespace.to("r").to("s").except(&anna_id).emit("union", &1).unwrap();
    assert_eq!((text(&bert).await, text(&cleo).await), (r#"2["union",1]"#.into(), r#"2["union",1]"#.into()));
    namespace.to(&bert_id).emit("own room", &2).unwrap();
    assert_eq!(text(&bert).await, r#"2["own room",2]"#);
    namespace.except("s").emit("not s", &3).unwrap();
    assert_eq!(text(&anna).await, r#"2["not s",3]"#);
    for peer in [&anna, &bert, &cleo] {
        settle(peer).await;
    }
}

#[tokio::test]
async fn who_left_a_room_hears_nothing_more_and_an_empty_room_is_gone() {
    let server = server(rooms);
    let (anna, _) = join(&server).await;
    let (bert, _) = join(&server).await;
    for peer in [&anna, &bert] {
        peer.send(r#"2["join","r"]"#);
        settle(peer).await;
    }
    bert.send(r#"2["leave","r"]"#);
    settle(&bert).await;
    anna.send(r#"2["say","r","hi"]"#);
    assert_eq!(text(&anna).await, r#"2["said","hi"]"#);
    settle(&bert).await;
    assert_eq!(server.namespace("/").unwrap().rooms_len(), 1);
    anna.close();
    while server.namespace("/").unwrap().len() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.namespace("/").unwrap().rooms_len(), 0);
}

#[tokio::test]
async fn what_is_sent_during_the_connect_hook_follows_the_reply_and_the_first_events() {
    let server = server(|ns| {
        ns.on_connect(|socket, payload| async move {
            socket.join("r");
            socket.namespace().to("r").emit("live", &1).unwrap();
            socket.emit("direct", &2).unwrap();
            tokio::task::yield_now().await;
            let auth: serde_json::Value = payload.parse().unwrap();
            Accept::default().with_event("ready", &auth).map_err(|_| ConnectError::new("no"))
        });
    });
    let peer = open(&server);
    peer.send(r#"0{"token":"x"}"#);
    assert!(text(&peer).await.starts_with(r#"0{"sid":""#));
    assert_eq!(text(&peer).await, r#"2["ready",{"token":"x"}]"#);
    assert_eq!(text(&peer).await, r#"2["live",1]"#);
    assert_eq!(text(&peer).await, r#"2["direct",2]"#);
}

#[tokio::test]
async fn a_refused_client_is_told_why_stays_connected_and_leaves_no_trace() {
    let server = server(|ns| {
        ns.on_connect(|socket, payload| async move {
            socket.join("r");
            tokio::task::yield_now().await;
            match payload.json() {
                "{}" => Err(ConnectError::with_data("not authorized", json!({"code": 42}))),
                _ => Ok(()),
            }
        });
    });
    let peer = open(&server);
    peer.send("0");
    assert_eq!(text(&peer).await, r#"4{"message":"not authorized","data":{"code":42}}"#);
    assert_eq!(server.namespace("/").unwrap().rooms_len(), 0);
    peer.send(r#"0{"token":1}"#);
    assert!(text(&peer).await.starts_with("0{"));
    assert_eq!(server.namespace("/").unwrap().rooms_len(), 1);
}

#[tokio::test]
async fn a_client_that_goes_while_its_connect_hook_runs_leaves_no_trace() {
    let joined = Arc::new(Notify::new());
    let server = server(|ns| {
        let joined = joined.clone();
        ns.on_connect(move |socket, _| {
            let joined = joined.clone();
            async move {
                socket.join("r");
                joined.notify_one();
                std::future::pending::<Result<(), ConnectError>>().await
            }
        });
    });
    let peer = open(&server);
    peer.send("0");
    joined.notified().await;
    peer.close();
    while server.connections() > 0 {
        tokio::task::yield_now().await;
    }
    let namespace = server.namespace("/").unwrap();
    assert_eq!((namespace.len(), namespace.rooms_len()), (0, 0));
}

#[tokio::test]
async fn a_panic_in_a_handler_ends_one_connection_and_nothing_else() {
    let server = server(|ns| {
        rooms(ns);
        ns.on_sync("bomb", |_| panic!("boom"));
        ns.on("slow bomb", |_| async {
            tokio::task::yield_now().await;
            panic!("boom")
        });
    });
    let (anna, _) = join(&server).await;
    for bomb in ["bomb", "slow bomb"] {
        let (bert, _) = join(&server).await;
        bert.send(r#"2["join","r"]"#);
        bert.send(&format!("2[{bomb:?}]"));
        assert_eq!(bert.recv().await, None);
    }
    settle(&anna).await;
    let namespace = server.namespace("/").unwrap();
    assert_eq!((namespace.len(), namespace.rooms_len()), (1, 0));
}

#[tokio::test]
async fn the_server_can_ask_a_client_and_hears_its_answer() {
    let server = server(|_| {});
    let (peer, id) = join(&server).await;
    let socket = server.namespace("/").unwrap().socket(&id).unwrap();
    let asking = TaskTracker::new().spawn(async move {
        socket.emit_with_ack("question", &(), Duration::from_secs(5)).await.unwrap().json().to_owned()
    });
    assert_eq!(text(&peer).await, r#"20["question"]"#);
    peer.send("39[\"wrong id\"]");
    peer.send("30[42]");
    assert_eq!(asking.await.unwrap(), "42");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_is_a_timeout_and_one_that_left_is_not_found() {
    let server = server(|_| {});
    let (peer, id) = join(&server).await;
    let socket = server.namespace("/").unwrap().socket(&id).unwrap();
    let late = socket.emit_with_ack("question", &(), Duration::from_secs(1)).await;
    assert_eq!(late.unwrap_err().code(), "timeout");
    let asking = {
        let socket = socket.clone();
        TaskTracker::new()
            .spawn(async move { socket.emit_with_ack("question", &(), Duration::from_secs(5)).await })
    };
    text(&peer).await;
    text(&peer).await;
    peer.close();
    assert_eq!(asking.await.unwrap().unwrap_err().code(), "not_found");
}

#[tokio::test]
async fn disconnecting_tells_the_client_and_runs_the_hooks_once_with_rooms_still_there() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let server = server(|ns| {
        rooms(ns);
        let (before, after) = (log.clone(), log.clone());
        ns.on_disconnecting(move |socket: &Socket, reason| {
            before.lock().push(format!("{} {}", reason.as_str(), socket.is_in("r")));
        });
        ns.on_disconnect(move |socket: &Socket, reason| {
            after.lock().push(format!("{} {}", reason.as_str(), socket.is_in("r")));
        });
    });
    let (peer, id) = join(&server).await;
    peer.send(r#"2["join","r"]"#);
    settle(&peer).await;
    let socket = server.namespace("/").unwrap().socket(&id).unwrap();
    socket.disconnect(false);
    socket.disconnect(false);
    assert_eq!(text(&peer).await, "1");
    assert_eq!(*log.lock(), ["server namespace disconnect true", "server namespace disconnect false"]);
    socket.join("r");
    assert!(!socket.is_in("r"), "joining after the end does nothing");
    settle(&peer).await;
    peer.send("0");
    assert!(text(&peer).await.starts_with("0{"));
    peer.send("1");
    settle(&peer).await;
    assert_eq!(log.lock()[2..], ["client namespace disconnect false", "client namespace disconnect false"]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_joins_nothing_is_closed_and_one_that_left_again_is_not() {
    let server = server(|_| {});
    let idle = open(&server);
    let (left, _) = join(&server).await;
    left.send("1");
    settle(&left).await;
    assert_eq!(idle.recv().await, None);
    settle(&left).await;
}

#[tokio::test]
async fn packets_out_of_step_close_the_connection() {
    for packet in ["2[\"x\"]", "1", "3[1]", "4{}", "0[1]", "0null", "9"] {
        let server = server(|_| {});
        let peer = open(&server);
        peer.send(packet);
        assert_eq!(peer.recv().await, None, "{packet}");
    }
}

#[tokio::test]
async fn what_one_node_does_to_a_room_the_other_node_does_too() {
    let bus = SimBus::default();
    let node = || {
        let server =
            Server::builder(Default::default()).adapter(bus.pipe()).namespace("/", rooms).build().unwrap();
        server.listen_to_bus();
        server
    };
    let (first, second) = (node(), node());
    let (anna, anna_id) = join(&first).await;
    let (bert, _) = join(&second).await;
    for peer in [&anna, &bert] {
        peer.send(r#"2["join","r"]"#);
        settle(peer).await;
    }
    anna.send(r#"2["say","r","both"]"#);
    assert_eq!(
        (text(&anna).await, text(&bert).await),
        (r#"2["said","both"]"#.into(), r#"2["said","both"]"#.into())
    );
    anna.send(r#"2["say to others","r","one"]"#);
    assert_eq!(text(&bert).await, r#"2["said","one"]"#);
    let namespace = second.namespace("/").unwrap();
    namespace.to(&anna_id).sockets_join("s").unwrap();
    namespace.to("s").emit("in s", &1).unwrap();
    assert_eq!(text(&anna).await, r#"2["in s",1]"#);
    namespace.to("s").disconnect_sockets(false).unwrap();
    assert_eq!(text(&anna).await, "1");
    settle(&bert).await;
}
