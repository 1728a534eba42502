//! Tests of several nodes in one process: their requests, and the results if some of them are silent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::task::TaskTracker;

use crate::bus::Pipe;
use crate::bus::metrics as bus_metrics;
use crate::bus::sim::{SimBus, Weather};
use crate::engine::MemoryPeer;
use crate::node::NodeId;
use crate::socket::cluster::family::{Family, Imks, MESSAGE_BYTES_MAX};
use crate::socket::cluster::message::{Body, ClusterMessage, Request, Response};
use crate::socket::namespace::cluster_link::Target;
use crate::socket::socket_id::SocketId;
use crate::socket::tests::{join, rooms, settle, text};
use crate::socket::{Namespace, NamespaceBuilder, Server, parser};

fn node(bus: &SimBus, describe: impl FnOnce(&mut NamespaceBuilder)) -> Server {
    let server = Server::builder(Default::default()).adapter(bus.pipe());
    let server = server.namespace("/", describe).build().unwrap();
    server.listen_to_bus();
    server
}

/// Waits until all nodes know each other.
async fn meet(nodes: &[&Server]) {
    for node in nodes {
        while node.server_count() < nodes.len() {
            tokio::task::yield_now().await;
        }
    }
}

async fn two() -> (Server, Server) {
    let bus = SimBus::default();
    let nodes = (node(&bus, rooms), node(&bus, rooms));
    meet(&[&nodes.0, &nodes.1]).await;
    nodes
}

/// Publishes a message in the name of a node.
fn say(bus: &SimBus, node: NodeId, channel: &str, body: Body<'_>) {
    bus.pipe().publish(channel, Imks.encode(&ClusterMessage { node, body }).unwrap());
}

/// Adds a node that is alive and never responds.
fn ghost(bus: &SimBus) -> NodeId {
    let ghost = NodeId::random().unwrap();
    say(bus, ghost, "cluster", Body::Heartbeat);
    ghost
}

fn main(server: &Server) -> Namespace {
    server.namespace("/").unwrap().clone()
}

/// Answers the event that was just sent, whatever its id.
async fn answer(peer: &MemoryPeer, value: &str) {
    let question = text(peer).await;
    let id = question.trim_start_matches('2').split('[').next().unwrap().to_owned();
    peer.send(&format!("3{id}[{value}]"));
}

#[tokio::test(start_paused = true)]
async fn sockets_of_all_nodes_are_found_with_rooms_data_and_facts_and_can_be_reached() {
    let (first, second) = two().await;
    let (anna, _anna_id) = join(&first).await;
    let (bert, bert_id) = join(&second).await;
    for peer in [&anna, &bert] {
        peer.send(r#"2["join","r"]"#);
        settle(peer).await;
    }
    main(&second).socket(&bert_id).unwrap().share_data("user", json!({"name": "bert"}));
    let fetched = main(&first).to("r").fetch_sockets().await.unwrap();
    assert_eq!((fetched.sockets.len(), fetched.silent.len()), (2, 0));
    let remote = fetched.sockets.iter().find(|socket| socket.id() == bert_id).unwrap();
    assert_eq!(remote.data(), &json!({"user": {"name": "bert"}}));
    assert!(remote.rooms().contains(&"r".to_owned()) && remote.node() == second.node());
    assert_eq!(remote.handshake().transport, "websocket");
    remote.emit("hello", &1).unwrap();
    assert_eq!(text(&bert).await, r#"2["hello",1]"#);
    let asking = {
        let remote = remote.clone();
        TaskTracker::new().spawn(async move {
            remote.emit_with_ack("how are you", &(), Duration::from_secs(5)).await.unwrap().json().to_owned()
        })
    };
    answer(&bert, r#""fine""#).await;
    assert_eq!(asking.await.unwrap(), r#""fine""#);
    remote.join("s").unwrap();
    main(&first).to("s").emit("in s", &2).unwrap();
    assert_eq!(text(&bert).await, r#"2["in s",2]"#);
    remote.disconnect(false).unwrap();
    assert_eq!(text(&bert).await, "1");
    assert_eq!(main(&first).everybody().local().fetch_sockets().await.unwrap().sockets.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_question_to_many_is_answered_when_all_have_answered_on_every_node() {
    let (first, second) = two().await;
    let (anna, anna_id) = join(&first).await;
    let (bert, bert_id) = join(&second).await;
    let started = tokio::time::Instant::now();
    let asking = {
        let namespace = main(&first);
        TaskTracker::new()
            .spawn(async move { namespace.emit_with_ack("vote", &(), Duration::from_secs(9)).await.unwrap() })
    };
    answer(&anna, "1").await;
    answer(&bert, "2").await;
    let answers = asking.await.unwrap();
    assert!(answers.is_complete() && started.elapsed() < Duration::from_secs(1));
    let mut who: Vec<_> = answers.answers.iter().map(|it| (it.socket.to_string(), it.args.json())).collect();
    who.sort();
    let mut wanted = [(anna_id, "1"), (bert_id, "2")];
    wanted.sort();
    assert_eq!(who, wanted);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_in_time_is_named_and_who_left_is_not_waited_for() {
    let (first, second) = two().await;
    let (anna, _) = join(&first).await;
    let (bert, bert_id) = join(&second).await;
    let (cleo, cleo_id) = join(&second).await;
    let ask = |timeout| {
        let namespace = main(&first);
        TaskTracker::new().spawn(async move { namespace.emit_with_ack("vote", &(), timeout).await.unwrap() })
    };
    let asking = ask(Duration::from_secs(2));
    answer(&anna, "1").await;
    text(&bert).await;
    text(&cleo).await;
    let answers = asking.await.unwrap();
    assert_eq!((answers.first::<u8>().unwrap(), answers.silent.len()), (vec![1], 2));
    let asking = ask(Duration::from_secs(1_000));
    answer(&anna, "1").await;
    answer(&bert, "2").await;
    text(&cleo).await;
    cleo.close();
    let answers = asking.await.unwrap();
    assert_eq!(answers.silent.iter().map(SocketId::to_string).collect::<Vec<_>>(), [cleo_id]);
    assert!(answers.answers.iter().any(|answer| answer.socket.as_str() == bert_id));
}

#[tokio::test(start_paused = true)]
async fn nobody_to_ask_is_an_answer_at_once() {
    let (first, _second) = two().await;
    let answers = main(&first).emit_with_ack("vote", &(), Duration::from_secs(1_000)).await.unwrap();
    assert!(answers.is_complete() && answers.answers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_answers_costs_one_deadline_and_is_named() {
    let bus = SimBus::default();
    let (first, second) = (node(&bus, rooms), node(&bus, rooms));
    meet(&[&first, &second]).await;
    let ghost = ghost(&bus);
    while first.server_count() < 3 {
        tokio::task::yield_now().await;
    }
    let (_anna, _) = join(&first).await;
    let (_bert, _) = join(&second).await;
    let fetched = main(&first).fetch_sockets().await.unwrap();
    assert_eq!((fetched.sockets.len(), fetched.silent), (2, vec![ghost]));
    let answers = main(&first).emit_with_ack("vote", &(), Duration::from_secs(1)).await.unwrap();
    assert_eq!((answers.silent.len(), answers.silent_nodes), (2, vec![ghost]));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(first.server_count(), 2, "silence for ten seconds is death");
    assert!(main(&first).fetch_sockets().await.unwrap().silent.is_empty());
}

fn sums(ns: &mut NamespaceBuilder) {
    ns.on_server_event("sum", |mut event| async move {
        let (a, b): (u32, u32) = event.parse().unwrap();
        tokio::task::yield_now().await;
        event.answer(&(a + b)).unwrap();
    });
    ns.on_server_event("mute", |_| async {});
}

#[tokio::test(start_paused = true)]
async fn servers_answer_each_other_and_the_one_that_asked_is_not_asked() {
    let bus = SimBus::default();
    let (first, second, third) = (node(&bus, sums), node(&bus, sums), node(&bus, |_| {}));
    meet(&[&first, &second, &third]).await;
    let started = tokio::time::Instant::now();
    let args = crate::socket::codec::parser::RawArgs { json: "1,2", attachments: &[] };
    let timeout = Duration::from_secs(30);
    let answers = main(&first).server_side_emit_with_ack("sum", &args, timeout).await.unwrap();
    assert_eq!(answers.answers.len(), 1);
    assert_eq!((answers.answers[0].0, answers.answers[0].1.json()), (second.node(), "3"));
    assert_eq!(answers.silent, [third.node()], "it does not know the event");
    let answers = main(&first).server_side_emit_with_ack("mute", &(), timeout).await.unwrap();
    assert_eq!((answers.answers.len(), answers.silent.len()), (0, 2));
    assert!(started.elapsed() < timeout);
}

#[tokio::test(start_paused = true)]
async fn messages_that_arrive_twice_are_done_once() {
    let heard = Arc::new(Mutex::new(0));
    let bus = SimBus::new(1, Weather { doubled_percent: 100, ..Weather::default() });
    let counting = heard.clone();
    let first = node(&bus, |_| {});
    let second = node(&bus, move |ns| {
        ns.on_server_event("count", move |mut event| {
            *counting.lock() += 1;
            async move { event.answer(&1).unwrap() }
        });
    });
    meet(&[&first, &second]).await;
    let (bert, _) = join(&second).await;
    let answers = main(&first).server_side_emit_with_ack("count", &(), Duration::from_secs(1)).await.unwrap();
    assert_eq!((answers.answers.len(), *heard.lock()), (1, 1));
    assert_eq!(main(&first).fetch_sockets().await.unwrap().sockets.len(), 1);
    let asking = {
        let namespace = main(&first);
        TaskTracker::new()
            .spawn(async move { namespace.emit_with_ack("vote", &(), Duration::from_secs(9)).await.unwrap() })
    };
    answer(&bert, "1").await;
    settle(&bert).await;
    assert_eq!(asking.await.unwrap().first::<u8>().unwrap(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_client_gets_what_another_node_sends_once_and_in_its_order_whatever_the_bus_does() {
    let bus = SimBus::default();
    let (first, second) = (node(&bus, rooms), node(&bus, rooms));
    meet(&[&first, &second]).await;
    let (bert, _) = join(&second).await;
    bus.set_weather(Weather {
        delay_max: Duration::from_millis(100),
        doubled_percent: 50,
        ..Weather::default()
    });
    for number in 0..50 {
        main(&first).emit("e", &number).unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    bus.set_weather(Weather::default());
    main(&first).emit("e", &50).unwrap();
    let mut numbers = Vec::new();
    while numbers.last() != Some(&50) {
        let event = text(&bert).await;
        let (_, number): (String, u32) = serde_json::from_str(event.strip_prefix('2').unwrap()).unwrap();
        numbers.push(number);
    }
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_threads_send_at_once_arrives_on_other_nodes() {
    let bus = SimBus::default();
    let (first, second) = (node(&bus, rooms), node(&bus, rooms));
    meet(&[&first, &second]).await;
    let (bert, _) = join(&second).await;
    for _ in 0..50 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20).for_each(|number| main(&first).emit("e", &number).unwrap()));
            }
        });
        for arrived in 0..80 {
            let event = tokio::time::timeout(Duration::from_secs(10), text(&bert)).await;
            assert!(event.is_ok(), "{arrived} of 80");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_for_nobody_on_a_node_is_counted_and_not_missed_by_who_comes_later() {
    let bus = SimBus::default();
    let (first, second) = (node(&bus, rooms), node(&bus, rooms));
    meet(&[&first, &second]).await;
    let (bert, id) = join(&second).await;
    let before = bus_metrics::MESSAGES_FOR_NOBODY.get();
    main(&first).to("late").emit("e", &"nobody hears it").unwrap();
    main(&first).to("late").to("later").emit("e", &"nor this").unwrap();
    main(&first).to(id.as_str()).emit("e", &"for bert alone").unwrap();
    assert!(text(&bert).await.contains("for bert alone"));
    assert_eq!(bus_metrics::MESSAGES_FOR_NOBODY.get(), before + 2);
    main(&second).socket(&id).unwrap().join("late");
    main(&first).to("late").to("later").emit("e", &"for the room").unwrap();
    assert!(text(&bert).await.contains("for the room"));
    assert_eq!(bus_metrics::MESSAGES_FOR_NOBODY.get(), before + 2);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_takes_the_name_of_the_one_before_it_is_answered() {
    let bus = SimBus::default();
    let named = || {
        let server = Server::builder(Default::default()).adapter(bus.pipe()).node(NodeId::from_bytes([7; 5]));
        let server = server.namespace("/", rooms).build().unwrap();
        server.listen_to_bus();
        server
    };
    let (other, first) = (node(&bus, rooms), named());
    meet(&[&other, &first]).await;
    assert!(main(&first).fetch_sockets().await.unwrap().silent.is_empty());
    first.close().await;
    let second = named();
    meet(&[&other, &second]).await;
    let (_anna, _) = join(&other).await;
    let fetched = main(&second).fetch_sockets().await.unwrap();
    assert_eq!((fetched.sockets.len(), fetched.silent.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn lost_replies_leave_a_partial_result() {
    let bus = SimBus::default();
    let (first, second) = (node(&bus, rooms), node(&bus, rooms));
    meet(&[&first, &second]).await;
    bus.set_weather(Weather { direct_lost_percent: 100, ..Weather::default() });
    let (_anna, _) = join(&first).await;
    let (_bert, _) = join(&second).await;
    let fetched = main(&first).fetch_sockets().await.unwrap();
    assert_eq!((fetched.sockets.len(), fetched.silent), (1, vec![second.node()]));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_is_not_waited_for_and_local_reaches_this_node_only() {
    let (first, second) = two().await;
    let (anna, _) = join(&first).await;
    let (bert, _) = join(&second).await;
    main(&first).everybody().local().emit("here", &1).unwrap();
    assert_eq!(text(&anna).await, r#"2["here",1]"#);
    settle(&bert).await;
    second.close().await;
    while first.server_count() > 1 {
        tokio::task::yield_now().await;
    }
    assert!(main(&first).fetch_sockets().await.unwrap().silent.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_no_node_of_ours_would_say_is_dropped_and_harms_nothing() {
    let bus = SimBus::default();
    let server = node(&bus, rooms);
    let (anna, anna_id) = join(&server).await;
    let stranger = NodeId::random().unwrap();
    let message = |body| Imks.encode(&ClusterMessage { node: stranger, body }).unwrap();
    let target = Target { rooms: vec!["r"; 1_000], except: vec![&*anna_id] };
    let fetch = message(Body::Request { id: 1, namespace: "/", request: Request::FetchSockets { target } });
    let parts = Response::Sockets { part: 7, parts: 3, sockets: Vec::new() };
    let hostile = [
        Bytes::from_static(b""),
        Bytes::from_static(b"{\"uid\":\"KD2JDG\",\"type\":5}"),
        Bytes::from_static(&[0xdd, 0xff, 0xff, 0xff, 0xff]),
        // A message between servers of Node.js.
        Bytes::from_static(b"\x93\xa6KD2JDG\x83\xa4type\x02\xa4data\x92\xa2hi\x01\xa3nsp\xa1/\x83\xa5rooms\x90\xa6except\x90\xa5flags\x80"),
        Bytes::from(vec![0x91; 100_000]),
        Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1]),
        fetch.slice(..fetch.len() - 1),
        fetch,
        message(Body::Response { id: 0, response: parts }),
    ];
    for channel in ["cluster", "/"] {
        hostile.iter().for_each(|message| bus.pipe().publish(channel, message.clone()));
    }
    for message in hostile {
        bus.pipe().send_to(server.node(), message).await.unwrap();
    }
    let asking = {
        let namespace = main(&server);
        TaskTracker::new()
            .spawn(async move { namespace.emit_with_ack("vote", &(), Duration::from_secs(9)).await.unwrap() })
    };
    answer(&anna, "1").await;
    assert_eq!(asking.await.unwrap().answers.len(), 1);
    settle(&anna).await;
}

const ANSWER_TIME: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn what_is_not_to_be_compressed_is_not_on_other_nodes_either() {
    let (first, second) = two().await;
    let (bert, bert_id) = join(&second).await;
    let socket = main(&second).socket(&bert_id).unwrap();
    let _ = socket.outbox().clone().compressing(1);
    // A peer in memory cannot inflate, so it gets text only if nothing was compressed.
    let data = json!({"of": vec!["many"; 100]});
    main(&first).everybody().compress(false).emit("plain", &data).unwrap();
    assert_eq!(text(&bert).await, format!(r#"2["plain",{data}]"#));
    main(&first).everybody().emit("packed", &data).unwrap();
    assert!(!text(&bert).await.contains("packed"));
    socket.emit_uncompressed("plain", &parser::One(&data)).unwrap();
    assert_eq!(text(&bert).await, format!(r#"2["plain",{data}]"#));
    let asking = TaskTracker::new().spawn(async move {
        let (everybody, args) = (main(&first), parser::One(&data));
        let asked = everybody.to(&bert_id).compress(false).emit_with_ack("plain", &args, ANSWER_TIME);
        asked.await.unwrap().answers.len()
    });
    answer(&bert, "1").await;
    assert_eq!(asking.await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_were_cut_off_find_each_other_again_and_a_node_that_closes_says_so() {
    let bus = SimBus::default();
    let (first, second) = (node(&bus, rooms), node(&bus, rooms));
    meet(&[&first, &second]).await;
    bus.partition([0]);
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!((first.server_count(), second.server_count()), (1, 1));
    bus.heal();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!((first.server_count(), second.server_count()), (2, 2), "without waiting for a heartbeat");
    second.close().await;
    // The other node has read it already, or reads it next.
    tokio::task::yield_now().await;
    assert_eq!(first.server_count(), 1);
    assert_eq!(bus.pipe().subscribers("/").await, Some(1), "its subscriptions are gone");
}

#[test]
fn whatever_the_weather_every_request_ends_in_time_and_names_who_is_missing() {
    use proptest::prelude::*;
    let run = |seed, weather: Weather| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let bus = SimBus::new(seed, Weather::default());
            let nodes = [node(&bus, sums), node(&bus, sums), node(&bus, sums)];
            meet(&nodes.each_ref()).await;
            bus.set_weather(weather);
            let (timeout, started) = (Duration::from_secs(2), tokio::time::Instant::now());
            let args = parser::RawArgs { json: "1,2", attachments: &[] };
            let answers = main(&nodes[0]).server_side_emit_with_ack("sum", &args, timeout).await.unwrap();
            assert!(started.elapsed() <= timeout + Duration::from_millis(1));
            assert_eq!(answers.answers.len() + answers.silent.len(), 2);
            assert!(answers.answers.iter().all(|(_, args)| args.json() == "3"));
            let mut named: Vec<_> =
                answers.answers.iter().map(|(node, _)| *node).chain(answers.silent).collect();
            named.sort();
            let mut others = [nodes[1].node(), nodes[2].node()];
            others.sort();
            assert_eq!(named, others);
        });
    };
    proptest!(ProptestConfig::with_cases(32), |(
        seed in any::<u64>(), delay in 0_u64..3_000, lost in 0_u8..100, direct in 0_u8..100, doubled in 0_u8..100
    )| {
        run(seed, Weather {
            delay_max: Duration::from_millis(delay), lost_percent: lost, direct_lost_percent: direct,
            doubled_percent: doubled,
        });
    });
}
