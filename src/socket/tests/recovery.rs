//! Tests of connection state recovery, over connections without a network.

pub(super) mod client;
mod hooks;
mod model;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use self::client::Client;
use crate::bus::sim::SimBus;
use crate::engine::Message;
use crate::socket::codec::parser::{Placeholder, RawArgs};
use crate::socket::tests::{open, text};
use crate::socket::{Config, Namespace, NamespaceBuilder, Recovery, RecoveryStatus, Server};

fn server_with(recovery: Recovery, describe: impl FnOnce(&mut NamespaceBuilder)) -> Server {
    let config = Config { recovery: Some(recovery), ..Config::default() };
    Server::builder(config).namespace("/", describe).build().unwrap()
}

fn server() -> Server {
    server_with(Recovery::default(), |_| {})
}

pub(super) fn main(server: &Server) -> &Namespace {
    server.namespace("/").unwrap()
}

#[tokio::test]
async fn on_the_wire_missed_events_come_before_the_connect_reply_with_the_same_ids() {
    let server = server_with(Recovery::default(), |ns| {
        ns.on_connected(|socket| async move { socket.emit("hello", &socket.recovered()).unwrap() });
    });
    let peer = open(&server);
    peer.send("0");
    let reply: Value = serde_json::from_str(text(&peer).await.strip_prefix('0').unwrap()).unwrap();
    let (sid, pid) = (reply["sid"].as_str().unwrap(), reply["pid"].as_str().unwrap());
    assert_eq!((reply.as_object().unwrap().len(), sid.len(), pid.len()), (2, 20, 22));
    let hello = text(&peer).await;
    let args: Vec<Value> = serde_json::from_str(hello.strip_prefix('2').unwrap()).unwrap();
    assert_eq!((args.len(), &args[0], &args[1]), (3, &json!("hello"), &json!(false)));
    let offset = args[2].as_str().unwrap();
    drop(peer);
    while !main(&server).is_empty() {
        tokio::task::yield_now().await;
    }
    main(&server).emit_args("none", &()).unwrap();
    main(&server).to(sid).emit("own", &1).unwrap();
    let peer = open(&server);
    peer.send(&format!(r#"0{{"pid":"{pid}","offset":"{offset}"}}"#));
    let first: Vec<Value> = serde_json::from_str(text(&peer).await.strip_prefix('2').unwrap()).unwrap();
    assert_eq!((first.len(), &first[0]), (2, &json!("none")), "the offset is the only argument");
    assert!(text(&peer).await.starts_with(r#"2["own",1,""#));
    assert_eq!(text(&peer).await, format!(r#"0{{"sid":"{sid}","pid":"{pid}"}}"#));
    assert!(text(&peer).await.starts_with(r#"2["hello",true,""#));
}

#[tokio::test]
async fn events_with_an_ack_and_volatile_events_carry_no_offset_and_are_not_kept() {
    let server = server();
    let client = Client::join(&server).await;
    let socket = client.socket();
    let asking = TaskTracker::new()
        .spawn(async move { socket.emit_with_ack("question", &(), Duration::from_secs(5)).await });
    assert_eq!(text(&client.peer).await, r#"20["question"]"#);
    client.peer.send("30[]");
    asking.await.unwrap().unwrap();
    client.socket().emit_volatile("now", &()).unwrap();
    assert_eq!(text(&client.peer).await, r#"2["now"]"#);
    main(&server).to(&client.sid).volatile().emit("now", &1).unwrap();
    assert_eq!(text(&client.peer).await, r#"2["now",1]"#);
    assert_eq!(main(&server).recovery_status().unwrap().packets, 0);
}

#[tokio::test]
async fn without_recovery_there_is_no_pid_and_no_offset() {
    let server = Server::builder(Config::default()).namespace("/", |_| {}).build().unwrap();
    let peer = open(&server);
    peer.send(r#"0{"pid":"AAAAAAAAAAAAAAAAAAAAAA"}"#);
    let reply: Value = serde_json::from_str(text(&peer).await.strip_prefix('0').unwrap()).unwrap();
    assert_eq!(reply.as_object().unwrap().len(), 1);
    main(&server).emit("hi", &1).unwrap();
    assert_eq!(text(&peer).await, r#"2["hi",1]"#);
    assert_eq!(main(&server).recovery_status(), None);
}

#[tokio::test]
async fn rooms_and_data_are_there_again_and_binary_events_too() {
    let server = server();
    let mut client = Client::join(&server).await;
    client.socket().join("r");
    client.socket().join("left");
    client.socket().leave("left");
    client.socket().set_data(7_u32);
    client.socket().share_data("name", "anna".to_owned());
    client.drop_connection().await;
    let json = serde_json::to_string(&Placeholder(0)).unwrap();
    let picture = RawArgs { json: &json, attachments: &[Bytes::from_static(b"abc")] };
    main(&server).to("r").emit_args("picture", &picture).unwrap();
    main(&server).to("left").emit("no", &1).unwrap();
    let peer = open(&server);
    peer.send(&format!(r#"0{{"pid":"{}"}}"#, client.pid));
    assert!(text(&peer).await.starts_with(r#"51-["picture",{"_placeholder":true,"num":0},""#));
    assert_eq!(peer.recv().await, Some(Message::Binary(Bytes::from_static(b"abc"))));
    assert!(text(&peer).await.contains(&client.sid));
    let socket = client.socket();
    assert!(socket.recovered() && socket.is_in("r") && !socket.is_in("left"));
    assert_eq!(*socket.data::<u32>().unwrap(), 7);
    assert_eq!(socket.shared_data(), json!({"name": "anna"}));
    main(&server).to("r").emit("live", &1).unwrap();
    assert!(text(&peer).await.starts_with(r#"2["live",1,""#));
}

#[tokio::test]
async fn a_client_that_never_got_a_packet_comes_back_again_and_again() {
    let server = server();
    let mut client = Client::join(&server).await;
    for round in 0..3 {
        client.drop_connection().await;
        client.come_back().await;
        assert!(client.recovered, "{round}");
    }
    client.drop_connection().await;
    main(&server).emit("e", &1).unwrap();
    client.come_back().await;
    assert!(client.recovered);
    assert_eq!(client.numbers(), [1]);
}

#[tokio::test]
async fn a_client_comes_back_before_the_server_noticed_that_it_was_gone() {
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let server = server_with(Recovery::default(), |ns| {
        let reasons = reasons.clone();
        ns.on_disconnect(move |_, reason| reasons.lock().push(reason.as_str()));
    });
    let mut client = Client::join(&server).await;
    client.socket().join("r");
    let lost = std::mem::replace(&mut client.peer, open(&server));
    main(&server).to("r").emit("e", &1).unwrap();
    client.connect().await;
    assert!(client.recovered);
    main(&server).to("r").emit("e", &2).unwrap();
    client.read(0).await;
    assert_eq!(client.numbers(), [1, 2]);
    assert_eq!(*reasons.lock(), ["transport close"]);
    while lost.recv().await.is_some() {}
    assert_eq!((main(&server).len(), main(&server).rooms_len()), (1, 1));
    assert_eq!(main(&server).recovery_status().unwrap().sessions, 1);
}

#[tokio::test]
async fn a_socket_that_was_kept_from_before_the_absence_still_reaches_the_client() {
    let server = server();
    let mut client = Client::join(&server).await;
    let before = client.socket();
    client.drop_connection().await;
    before.emit("e", &1).unwrap();
    client.come_back().await;
    before.emit("e", &2).unwrap();
    client.read(0).await;
    assert_eq!(client.numbers(), [1, 2]);
    client.socket().disconnect(false);
    assert!(before.emit("e", &3).is_err());
}

#[tokio::test]
async fn whatever_is_wrong_with_the_credentials_the_client_gets_a_new_session() {
    let server = server();
    let mut client = Client::join(&server).await;
    main(&server).emit("e", &1).unwrap();
    client.read(0).await;
    let (pid, offset) = (client.pid.clone(), client.offset.clone().unwrap());
    client.drop_connection().await;
    let mut other_server = Client::join(&self::server()).await;
    main(&other_server.server).emit("e", &1).unwrap();
    other_server.read(0).await;
    let elsewhere = other_server.offset.unwrap();
    // The newest position plus one.
    let future = format!("{}g", &offset[..21]);
    let rows = [
        json!({"pid": "AAAAAAAAAAAAAAAAAAAAAA", "offset": offset}),
        json!({"pid": "", "offset": offset}),
        json!({"pid": 1, "offset": offset}),
        json!({"pid": pid[1..], "offset": offset}),
        json!({"pid": pid, "offset": elsewhere}),
        json!({"pid": pid, "offset": future}),
        json!({"pid": pid, "offset": "hello"}),
        json!({"pid": pid, "offset": ""}),
        json!({"pid": pid, "offset": 7}),
        json!({"pid": pid, "offset": ["x"]}),
        json!({"pid": {"pid": pid}, "offset": offset}),
    ];
    for auth in rows {
        let peer = open(&server);
        peer.send(&format!("0{auth}"));
        let reply = text(&peer).await;
        assert!(reply.starts_with('0') && !reply.contains(&pid), "{auth} {reply}");
    }
    client.come_back().await;
    assert!(client.recovered, "nobody's mistakes cost the client its session");
}

#[tokio::test]
async fn who_left_or_was_told_to_leave_or_broke_the_rules_does_not_come_back() {
    for how in ["leave", "kick", "nonsense"] {
        let server = server();
        let mut client = Client::join(&server).await;
        let socket = client.socket();
        match how {
            "leave" => client.peer.send("1"),
            "kick" => socket.disconnect(true),
            _ => client.peer.send("9"),
        }
        while socket.is_connected() {
            tokio::task::yield_now().await;
        }
        client.come_back().await;
        assert!(!client.recovered, "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_stays_away_too_long_starts_anew_and_nothing_is_left_of_the_old_session() {
    let server = server();
    let mut late = Client::join(&server).await;
    let mut in_time = Client::join(&server).await;
    for client in [&mut late, &mut in_time] {
        client.drop_connection().await;
    }
    main(&server).emit("e", &1).unwrap();
    tokio::time::sleep(Duration::from_millis(119_900)).await;
    in_time.come_back().await;
    assert!(in_time.recovered);
    assert_eq!(in_time.numbers(), [1]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(main(&server).recovery_status().unwrap().sessions, 1);
    late.come_back().await;
    assert!(!late.recovered);
    for client in [&mut late, &mut in_time] {
        client.drop_connection().await;
    }
    assert_eq!(main(&server).recovery_status().unwrap().away, 2);
    // Nothing triggers the purge here; it runs by itself.
    tokio::time::sleep(Duration::from_secs(122)).await;
    assert_eq!(main(&server).recovery_status().unwrap(), RecoveryStatus::default());
    assert_eq!(main(&server).rooms_len(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_left_after_a_packet_is_forgotten_in_time_though_the_packet_stays() {
    let server = server();
    let _stays = Client::join(&server).await;
    let mut leaves = Client::join(&server).await;
    main(&server).emit("e", &1).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    leaves.drop_connection().await;
    tokio::time::sleep(Duration::from_secs(122)).await;
    let status = main(&server).recovery_status().unwrap();
    assert_eq!((status.sessions, status.away, status.packets), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn packets_that_nobody_can_miss_any_more_are_forgotten_while_clients_stay() {
    let server = server();
    let _client = Client::join(&server).await;
    main(&server).emit("e", &1).unwrap();
    assert_eq!(main(&server).recovery_status().unwrap().packets, 1);
    tokio::time::sleep(Duration::from_secs(182)).await;
    let status = main(&server).recovery_status().unwrap();
    assert_eq!((status.sessions, status.packets, status.bytes), (1, 0, 0));
}

#[tokio::test]
async fn who_missed_more_than_is_kept_starts_anew_and_who_missed_nothing_does_not() {
    let bounds = [
        Recovery { packets_max: 8, ..Recovery::default() },
        Recovery { bytes_max: 2_000, ..Recovery::default() },
        Recovery { replay_packets_max: 8, ..Recovery::default() },
        Recovery { replay_bytes_max: 300, ..Recovery::default() },
    ];
    for bounds in bounds {
        let server = server_with(bounds, |_| {});
        let mut busy = Client::join(&server).await;
        let mut quiet = Client::join(&server).await;
        busy.socket().join("r");
        quiet.socket().join("q");
        main(&server).to("q").emit("e", &0).unwrap();
        main(&server).to("r").emit("e", &0).unwrap();
        for client in [&mut busy, &mut quiet] {
            client.read(0).await;
        }
        for n in 1..50 {
            main(&server).to("r").emit("e", &n).unwrap();
        }
        quiet.drop_connection().await;
        quiet.come_back().await;
        assert!(quiet.recovered, "its offset is older than the log, but it missed nothing");
        busy.drop_connection().await;
        busy.come_back().await;
        assert!(!busy.recovered);
        main(&server).to("q").emit("e", &1).unwrap();
        quiet.read(0).await;
        assert_eq!(quiet.numbers(), [0, 1]);
        let status = main(&server).recovery_status().unwrap();
        assert!(status.packets <= 52 && status.bytes <= 32 << 20);
    }
}

#[tokio::test]
async fn absent_clients_are_bounded_and_who_left_first_is_forgotten_first() {
    let server = server_with(Recovery { sessions_max: 2, ..Recovery::default() }, |_| {});
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::join(&server).await);
    }
    for client in &mut clients {
        client.drop_connection().await;
    }
    assert_eq!(main(&server).recovery_status().unwrap().away, 2);
    let mut recovered = Vec::new();
    for client in &mut clients {
        client.come_back().await;
        recovered.push(client.recovered);
    }
    assert_eq!(recovered, [false, true, true]);
}

#[tokio::test]
async fn what_is_done_to_sockets_is_done_to_absent_ones_too() {
    let server = server();
    let mut client = Client::join(&server).await;
    client.socket().join("user");
    client.socket().join("secret");
    client.drop_connection().await;
    main(&server).to("secret").emit("e", &1).unwrap();
    main(&server).to("user").sockets_leave("secret").unwrap();
    main(&server).to("secret").emit("e", &2).unwrap();
    main(&server).to(&client.sid).sockets_join("new").unwrap();
    main(&server).to("new").emit("e", &3).unwrap();
    main(&server).to("new").except("user").disconnect_sockets(true).unwrap();
    client.come_back().await;
    assert!(client.recovered);
    assert_eq!(client.numbers(), [1, 3]);
    client.drop_connection().await;
    main(&server).to("user").disconnect_sockets(true).unwrap();
    client.come_back().await;
    assert!(!client.recovered);
}

#[tokio::test]
async fn events_of_another_node_are_kept_too_and_offsets_of_another_node_are_not_believed() {
    let bus = SimBus::default();
    let node = || {
        let config = Config { recovery: Some(Recovery::default()), ..Config::default() };
        let server = Server::builder(config).adapter(bus.pipe()).namespace("/", |_| {}).build().unwrap();
        server.listen_to_bus();
        server
    };
    let (here, there) = (node(), node());
    let mut client = Client::join(&here).await;
    client.socket().join("r");
    main(&there).to("r").emit("e", &1).unwrap();
    while client.numbers().is_empty() {
        client.read(0).await;
    }
    client.drop_connection().await;
    main(&there).to("r").emit("e", &2).unwrap();
    main(&there).to("r").volatile().emit("e", &3).unwrap();
    while main(&here).recovery_status().unwrap().packets < 2 {
        tokio::task::yield_now().await;
    }
    client.come_back().await;
    assert!(client.recovered);
    assert_eq!(client.numbers(), [1, 2]);
    client.drop_connection().await;
    client.server = there;
    client.come_back().await;
    assert!(!client.recovered);
}
