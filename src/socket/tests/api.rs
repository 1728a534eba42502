//! Tests of the API for applications: middleware, listeners, dynamic namespaces, data and closing.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;

use crate::engine::MemoryPeer;
use crate::socket::tests::{join, open, rooms, server, settle, text};
use crate::socket::{
    Accept, Config, ConnectError, ConnectPayload, Event, EventError, Lane, NamespaceMatch, RoomChange,
    Server, Socket, WhenFull,
};

type Log = Arc<Mutex<Vec<String>>>;

async fn answer_holding(mut event: Event, gate: Arc<Notify>, held: Arc<()>) {
    gate.notified().await;
    let ack = event.take_ack().unwrap();
    ack.send_holding(&"x".repeat(1_000), |bytes| {
        assert!((1_000..1_100).contains(&bytes));
        held
    })
    .unwrap();
}

#[tokio::test]
async fn a_server_is_idle_when_its_handlers_have_answered_and_answers_hold_what_is_reserved_for_them() {
    let (gate, held) = (Arc::new(Notify::new()), Arc::new(()));
    let server = {
        let (gate, held) = (gate.clone(), held.clone());
        server(move |ns| {
            ns.on("slow", move |event| answer_holding(event, gate.clone(), held.clone()));
        })
    };
    let (peer, _) = join(&server).await;
    server.idle().await;
    peer.send(r#"21["slow"]"#);
    settle(&peer).await;
    let early = tokio::time::timeout(std::time::Duration::from_millis(1), server.idle()).await;
    assert!(early.is_err());
    gate.notify_one();
    server.idle().await;
    assert!(text(&peer).await.starts_with("31["));
    settle(&peer).await;
    drop(server);
    drop(peer);
    while Arc::strong_count(&held) > 1 {
        tokio::task::yield_now().await;
    }
}

/// Accepts a client with an event of about 1,000 bytes, which holds `held`.
async fn accept_holding(held: Arc<()>) -> Result<Accept, ConnectError> {
    let accept = Accept::default().with_event("ready", &"x".repeat(1_000)).unwrap();
    Ok(accept.holding(|bytes| {
        assert!((1_000..1_100).contains(&bytes));
        held
    }))
}

#[tokio::test]
async fn the_first_events_of_a_socket_hold_what_is_reserved_for_them_until_they_have_left() {
    let held = Arc::new(());
    let for_hook = held.clone();
    let server = server(move |ns| {
        let held = for_hook.clone();
        ns.on_connect(move |_, _| accept_holding(held.clone()));
    });
    // The test and the hook.
    let before = Arc::strong_count(&held);
    let peer = open(&server);
    peer.send("0");
    while Arc::strong_count(&held) == before {
        tokio::task::yield_now().await;
    }
    assert!(text(&peer).await.starts_with("0{"));
    assert!(text(&peer).await.starts_with("2[\"ready\""));
    while Arc::strong_count(&held) > before {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn middleware_runs_in_order_and_the_first_refusal_is_what_the_client_hears() {
    let log = Log::default();
    let server = server(|ns| {
        let (first, second, hook) = (log.clone(), log.clone(), log.clone());
        ns.middleware(move |_, _| {
            first.lock().push("first".into());
            async { Ok(()) }
        });
        ns.middleware(move |_, payload: ConnectPayload| {
            second.lock().push("second".into());
            async move {
                tokio::task::yield_now().await;
                match payload.json() {
                    "{}" => Err(ConnectError::with_data("who?", json!({"code": 1}))),
                    _ => Ok(()),
                }
            }
        });
        ns.on_connect(move |_, _| {
            hook.lock().push("hook".into());
            async { Ok(()) }
        });
    });
    let peer = open(&server);
    peer.send("0");
    assert_eq!(text(&peer).await, r#"4{"message":"who?","data":{"code":1}}"#);
    assert_eq!(*log.lock(), ["first", "second"]);
    peer.send(r#"0{"token":1}"#);
    assert!(text(&peer).await.starts_with("0{"));
    assert_eq!(log.lock()[2..], ["first", "second", "hook"]);
}

#[tokio::test]
async fn packet_middleware_passes_replaces_and_refuses() {
    let refused = Log::default();
    let server = server(|ns| {
        ns.on_sync("echo", |mut event| {
            let args = event.args().clone();
            event.take_ack().unwrap().send_args(&args).unwrap();
        });
        ns.packet_middleware(|event| async move {
            match event.name() {
                "old" => event
                    .replaced("echo", &crate::socket::codec::parser::One(&"replaced"))
                    .map_err(EventError::from),
                "bad" => Err(EventError::new("not today")),
                _ => Ok(event),
            }
        });
        let refused = refused.clone();
        ns.on_event_refused(move |_, error| refused.lock().push(error.message.clone()));
    });
    let (peer, _) = join(&server).await;
    peer.send(r#"20["echo",1]"#);
    assert_eq!(text(&peer).await, "30[1]");
    peer.send(r#"21["old",1]"#);
    assert_eq!(text(&peer).await, r#"31["replaced"]"#);
    peer.send(r#"22["bad",1]"#);
    settle(&peer).await;
    assert_eq!(*refused.lock(), ["not today"]);
}

#[tokio::test]
async fn catch_all_listeners_see_what_comes_and_what_goes_out_of_namespace_and_socket() {
    let log = Log::default();
    let server = server(|ns| {
        rooms(ns);
        let (incoming, outgoing) = (log.clone(), log.clone());
        ns.on_any(move |event| incoming.lock().push(format!("in {}", event.name())));
        ns.on_any_outgoing(move |_, args| outgoing.lock().push(format!("out {}", args.name())));
    });
    let (peer, id) = join(&server).await;
    let namespace = server.namespace("/").unwrap();
    let socket = namespace.socket(&id).unwrap();
    let own = log.clone();
    socket.on_any_outgoing(move |_, args| own.lock().push(format!("own {} {}", args.name(), args.json())));
    peer.send(r#"2["join","r"]"#);
    settle(&peer).await;
    namespace.to("r").emit("news", &1).unwrap();
    socket.emit("direct", &2).unwrap();
    assert_eq!(*log.lock(), ["in join", "out news", "own news 1", "out direct", "own direct 2"]);
    socket.off_any();
    socket.emit("quiet", &3).unwrap();
    assert_eq!(log.lock().last().unwrap(), "out quiet");
}

#[tokio::test]
async fn listeners_of_one_socket_are_not_those_of_another() {
    let log = Log::default();
    let server = server(rooms);
    let (anna, id) = join(&server).await;
    let (bert, _) = join(&server).await;
    let socket = server.namespace("/").unwrap().socket(&id).unwrap();
    let seen = log.clone();
    socket.on_any(move |event| seen.lock().push(event.socket().id().to_owned()));
    socket.packet_middleware(|event| async move {
        if event.args().json().contains("forbidden") { Err(EventError::new("no")) } else { Ok(event) }
    });
    for peer in [&anna, &bert] {
        peer.send(r#"2["join","forbidden"]"#);
        settle(peer).await;
    }
    assert_eq!(*log.lock(), [id]);
    assert_eq!(server.namespace("/").unwrap().sockets_in("forbidden").len(), 1);
}

fn dynamic(config: Config, paths: impl Into<NamespaceMatch>) -> Server {
    Server::builder(config).dynamic_namespace("rooms", paths, rooms).build().unwrap()
}

#[tokio::test]
async fn a_namespace_is_made_when_a_client_asks_for_a_path_like_the_pattern() {
    let created = Log::default();
    let seen = created.clone();
    let server = Server::builder(Config::default())
        .dynamic_namespace("rooms", "/room-*", rooms)
        .dynamic_namespace("even", NamespaceMatch::when(|path| path.len() % 2 == 0), rooms)
        .on_new_namespace(move |namespace| seen.lock().push(namespace.path().to_owned()))
        .build()
        .unwrap();
    let peer = open(&server);
    for (path, allowed) in [("/room-1", true), ("/room-1/x", false), ("/abc", true), ("/abcd", false)] {
        peer.send(&format!("0{path},"));
        let answer = text(&peer).await;
        assert_eq!(answer.starts_with(&format!("0{path},{{\"sid\"")), allowed, "{answer}");
    }
    assert_eq!(*created.lock(), ["/room-1", "/abc"]);
    let parent = server.dynamic_namespace("rooms").unwrap();
    parent.emit("to all", &1).unwrap();
    assert_eq!(text(&peer).await, r#"2/room-1,["to all",1]"#);
    parent.child("/room-1").unwrap().emit("to one", &2).unwrap();
    assert_eq!(text(&peer).await, r#"2/room-1,["to one",2]"#);
    assert!(parent.child("/abc").is_none() && server.dynamic_namespace("other").is_none());
}

#[tokio::test]
async fn a_function_decides_for_each_client_who_may_open_and_join_a_namespace() {
    let ask = NamespaceMatch::ask(|path, payload: ConnectPayload| async move {
        tokio::task::yield_now().await;
        path.starts_with("/private/") && payload.json().contains("secret")
    });
    let server = dynamic(Config::default(), ask);
    let (anna, bert) = (open(&server), open(&server));
    anna.send(r#"0/private/a,{"token":"secret"}"#);
    assert!(text(&anna).await.starts_with("0/private/a,"));
    bert.send("0/private/a,{}");
    assert_eq!(text(&bert).await, r#"4/private/a,{"message":"Invalid namespace"}"#);
}

#[tokio::test]
async fn empty_dynamic_namespaces_end_and_the_number_of_them_is_bounded() {
    let config =
        Config { dynamic_namespaces_max: 1, cleanup_empty_child_namespaces: true, ..Config::default() };
    let server = dynamic(config, "/*");
    let parent = server.dynamic_namespace("rooms").unwrap();
    let peer = open(&server);
    peer.send("0/a,");
    assert!(text(&peer).await.starts_with("0/a,"));
    peer.send("0/b,");
    assert_eq!(text(&peer).await, r#"4/b,{"message":"Too many namespaces"}"#);
    peer.send("1/a,");
    peer.send("0/b,");
    assert!(text(&peer).await.starts_with("0/b,"));
    assert_eq!(parent.children().len(), 1);
    peer.close();
    while server.connections() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(parent.children().is_empty());
}

#[tokio::test]
async fn a_dynamic_namespace_whose_only_client_was_refused_ends_as_well() {
    let config = Config { cleanup_empty_child_namespaces: true, ..Config::default() };
    let server = Server::builder(config)
        .dynamic_namespace("all", "/*", |ns| {
            ns.middleware(|_, _| async { Err(ConnectError::new("no")) });
        })
        .build()
        .unwrap();
    let peer = open(&server);
    peer.send("0/a,");
    assert_eq!(text(&peer).await, r#"4/a,{"message":"no"}"#);
    assert!(server.dynamic_namespace("all").unwrap().children().is_empty());
}

#[tokio::test]
async fn paths_that_break_the_rules_make_no_namespace() {
    let server = dynamic(Config::default(), NamespaceMatch::when(|_| true));
    let peer = open(&server);
    for path in [format!("/{}", "a".repeat(256)), "/a\u{7}".to_owned()] {
        peer.send(&format!("0{path},"));
        assert!(text(&peer).await.contains("Invalid namespace"));
    }
}

#[tokio::test]
async fn rooms_tell_who_comes_and_goes() {
    let log = Log::default();
    let server = server(|ns| {
        rooms(ns);
        let log = log.clone();
        ns.on_room_change(move |_: &Socket, change: RoomChange<'_>| log.lock().push(format!("{change:?}")));
    });
    let (peer, _) = join(&server).await;
    peer.send(r#"2["join","r"]"#);
    peer.send(r#"2["join","r"]"#);
    peer.send(r#"2["leave","r"]"#);
    settle(&peer).await;
    assert_eq!(*log.lock(), [r#"Created("r")"#, r#"Joined("r")"#, r#"Left("r")"#, r#"Deleted("r")"#]);
}

#[tokio::test]
async fn a_socket_keeps_one_value_per_type() {
    let server = server(|_| {});
    let (_peer, id) = join(&server).await;
    let socket = server.namespace("/").unwrap().socket(&id).unwrap();
    socket.set_data(1_u32);
    socket.set_data("text".to_owned());
    socket.share_data("age", 7_i64);
    socket.set_data(2_u32);
    assert_eq!((*socket.data::<u32>().unwrap(), socket.data::<String>().unwrap().as_str()), (2, "text"));
    assert_eq!((socket.shared_data(), *socket.data::<i64>().unwrap()), (json!({"age": 7}), 7));
    assert_eq!(*socket.remove_data::<u32>().unwrap(), 2);
    assert!(socket.data::<u32>().is_none() && socket.data::<u8>().is_none());
}

#[tokio::test]
async fn closing_the_server_ends_every_connection_without_telling_clients_to_stay_away() {
    let log = Log::default();
    let server = server(|ns| {
        let log = log.clone();
        ns.on_disconnect(move |_: &Socket, reason| log.lock().push(reason.as_str().into()));
    });
    let (joined, id) = join(&server).await;
    let idle = open(&server);
    server.namespace("/").unwrap().socket(&id).unwrap().emit("last", &1).unwrap();
    server.close().await;
    assert_eq!(text(&joined).await, r#"2["last",1]"#);
    assert_eq!((joined.recv().await, idle.recv().await), (None, None));
    assert_eq!(*log.lock(), ["server shutting down"]);
    assert_eq!(open(&server).recv().await, None);
}

#[tokio::test]
async fn a_client_that_does_not_keep_up_gets_the_latest_state_of_each_room_and_key() {
    let server = server(|_| {});
    let (peer, id) = join(&server).await;
    let namespace = server.namespace("/").unwrap();
    let socket = namespace.socket(&id).unwrap();
    for room in ["home", "away"] {
        socket.join(room);
    }
    let send = |number: i32| {
        namespace.to("home").latest("score").emit("home", &number).unwrap();
        namespace.to("away").latest("score").emit("away", &number).unwrap();
        namespace.to("home").volatile().latest("clock").emit("clock", &number).unwrap();
        socket.emit_latest("score", "own", &(number,)).unwrap();
        namespace.emit_latest_to(std::slice::from_ref(&socket), "score", "all", &(number,)).unwrap();
        namespace.to("home").volatile().emit("gone", &number).unwrap();
        namespace.to("home").emit("goal", &number).unwrap();
    };
    send(0);
    for event in ["home", "away", "clock", "own", "all", "gone", "goal"] {
        assert_eq!(text(&peer).await, format!(r#"2["{event}",0]"#), "a client that keeps up gets everything");
    }
    socket.outbox().block();
    (1..=3).for_each(send);
    let expected =
        [("goal", 1), ("goal", 2), ("home", 3), ("away", 3), ("all", 3), ("goal", 3), ("clock", 3)];
    for (event, number) in expected {
        assert_eq!(text(&peer).await, format!(r#"2["{event}",{number}]"#));
    }
}

#[tokio::test]
async fn messages_go_before_what_passes_and_what_is_large_to_a_client_that_does_not_keep_up() {
    let server = server(|_| {});
    let (peer, id) = join(&server).await;
    let namespace = server.namespace("/").unwrap();
    let socket = namespace.socket(&id).unwrap();
    socket.join("home");
    let send = || {
        for (lane, event) in [(Lane::Bulk, "export"), (Lane::Ephemeral, "cursor"), (Lane::Chat, "goal")] {
            namespace.to("home").lane(lane).emit(event, &1).unwrap();
        }
    };
    send();
    for event in ["export", "cursor", "goal"] {
        assert_eq!(text(&peer).await, format!(r#"2["{event}",1]"#), "a client that keeps up");
    }
    socket.outbox().block();
    send();
    for event in ["goal", "cursor", "export"] {
        assert_eq!(text(&peer).await, format!(r#"2["{event}",1]"#));
    }
}

#[tokio::test]
async fn a_client_that_is_gone_does_not_keep_an_event_from_the_others() {
    let plain = server(|_| {});
    let watched = server(|ns| {
        ns.on_any_outgoing(|_, _| {});
    });
    for server in [plain, watched] {
        let (_gone, gone_id) = join(&server).await;
        let (peer, id) = join(&server).await;
        let namespace = server.namespace("/").unwrap();
        let sockets = [gone_id, id].map(|id| namespace.socket(&id).unwrap());
        sockets[0].disconnect(false);
        namespace.emit_latest_to(&sockets, "score", "score", &(3,)).unwrap();
        assert_eq!(text(&peer).await, r#"2["score",3]"#);
    }
}

#[tokio::test]
async fn one_call_reaches_several_rooms_once_and_an_empty_list_reaches_nobody() {
    let server = server(|ns| {
        ns.on_typed("join", |socket: Socket, rooms: Vec<String>| async move {
            socket.join(&rooms);
            socket.leave(["left", "nowhere"]);
        });
        ns.on_typed("tell", |socket: Socket, rooms: Vec<String>| async move {
            socket.to(&rooms).emit("told", &rooms)
        });
    });
    let mut peers = Vec::new();
    for rooms in [r#"["a"]"#, r#"["a","b","left"]"#, r#"["c"]"#] {
        let (peer, id) = join(&server).await;
        peer.send(&format!(r#"2["join",{rooms}]"#));
        settle(&peer).await;
        peers.push((peer, id));
    }
    let [(anna, _), (bert, bert_id), (cleo, _)] = &peers[..] else { unreachable!() };
    let namespace = server.namespace("/").unwrap();
    let (owned, shared): (Vec<String>, Arc<str>) = (vec!["a".into(), "b".into()], Arc::from("c"));

    namespace.to(["a", "b"]).emit("array", &1).unwrap();
    namespace.to(&owned).to(&shared).except([bert_id]).emit("owned", &2).unwrap();
    namespace.except(vec!["a", "left"]).emit("except", &3).unwrap();
    namespace.to("left").emit("nobody", &4).unwrap();
    let none: [&str; 0] = [];
    namespace.to(none).emit("nobody", &5).unwrap();
    namespace.to(none).disconnect_sockets(true).unwrap();
    assert!(namespace.to(none).sockets().is_empty());
    assert!(namespace.to(none).fetch_sockets().await.unwrap().sockets.is_empty());
    let asked = namespace.to(none).emit_with_ack("nobody", &(), std::time::Duration::from_secs(60)).await;
    assert!(asked.unwrap().is_complete());
    anna.send(r#"2["tell",[]]"#);
    anna.send(r#"2["tell",["a","b"]]"#);
    hears(anna, &[r#"2["array",1]"#, r#"2["owned",2]"#]).await;
    hears(bert, &[r#"2["array",1]"#, r#"2["told",["a","b"]]"#]).await;
    hears(cleo, &[r#"2["owned",2]"#, r#"2["except",3]"#]).await;
}

/// Checks that a client has got these packets and no others.
async fn hears(peer: &MemoryPeer, packets: &[&str]) {
    for packet in packets {
        assert_eq!(text(peer).await, *packet);
    }
    settle(peer).await;
}

#[tokio::test]
async fn a_namespace_that_drops_keeps_its_slow_clients_and_restores_no_session() {
    let config = crate::socket::Config { recovery: Some(Default::default()), ..Default::default() };
    let server = Server::builder(config)
        .namespace("/", |ns| _ = ns.when_full(WhenFull::DropOldest))
        .namespace("/chat", |_| {})
        .build()
        .unwrap();
    let (peer, _) = join(&server).await;
    let namespace = server.namespace("/").unwrap();
    let socket = namespace.sockets().pop().unwrap();
    socket.outbox().block();
    for number in 0..1_000 {
        namespace.emit("price", &number).unwrap();
    }
    assert!(socket.is_connected() && socket.queued().packets <= 256, "{:?}", socket.queued());
    drop(peer);
    let peer = open(&server);
    peer.send("0/chat,");
    assert!(text(&peer).await.contains("pid"));
    peer.send("0");
    assert!(!text(&peer).await.contains("pid"));
}

#[tokio::test]
async fn a_slow_client_that_is_disconnected_is_told_so_whatever_its_namespace_drops() {
    for policy in [WhenFull::DropNewest, WhenFull::DropOldest] {
        let server = server(|ns| _ = ns.when_full(policy));
        let (_peer, _) = join(&server).await;
        let namespace = server.namespace("/").unwrap();
        let socket = namespace.sockets().pop().unwrap();
        socket.outbox().block();
        for number in 0..1_000 {
            namespace.emit("price", &number).unwrap();
        }
        let events = socket.queued().packets;
        socket.disconnect(false);
        assert_eq!(socket.queued().packets, events + 1, "{policy:?}");
    }
}

#[tokio::test]
async fn a_client_that_names_rooms_gets_so_many_and_may_change_them() {
    let server = server(|_| {});
    let (_peer, _) = join(&server).await;
    let socket = server.namespace("/").unwrap().sockets().pop().unwrap();
    assert!(["a", "b", "a"].into_iter().all(|room| socket.try_join(room, 2).is_ok()));
    assert!(socket.try_join("c", 2).is_err() && !socket.is_in("c"));
    socket.leave("a");
    assert!(socket.try_join("c", 2).is_ok() && socket.is_in("c"));
}
