//! Several nodes in one process: what they ask each other, and what is left when some of them are silent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::engine::MemoryPeer;
use crate::socket::adapter::Adapter;
use crate::socket::cluster::wire::{Body, Call, Envelope, Reply};
use crate::socket::socket_id::SocketId;
use crate::socket::tests::{Bus, join, rooms, settle, text};
use crate::socket::{Namespace, NamespaceBuilder, Server, parser};

/// A bus that loses or doubles messages: how many copies of the message on this channel arrive.
#[derive(Clone)]
struct Flaky(Bus, Arc<dyn Fn(&str) -> usize + Send + Sync>);

impl Adapter for Flaky {
    fn name(&self) -> &'static str {
        "flaky"
    }

    fn reaches_others(&self) -> bool {
        true
    }

    fn publish(&self, channel: &str, message: Bytes) {
        (0..self.1(channel)).for_each(|_| self.0.publish(channel, message.clone()));
    }

    fn subscribe(&self, channel: &str, inbox: mpsc::Sender<Bytes>) {
        self.0.subscribe(channel, inbox);
    }

    fn unsubscribe(&self, channel: &str) {
        self.0.unsubscribe(channel);
    }
}

fn node(bus: &impl AdapterClone, describe: impl FnOnce(&mut NamespaceBuilder)) -> Server {
    let server = bus.builder().namespace("/", describe).build().unwrap();
    server.listen_to_bus();
    server
}

/// Adapters that can be given to several servers.
trait AdapterClone {
    fn builder(&self) -> crate::socket::ServerBuilder;
}

impl<A: Adapter + Clone> AdapterClone for A {
    fn builder(&self) -> crate::socket::ServerBuilder {
        Server::builder(Default::default(), self.clone())
    }
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
    let bus = Bus::default();
    let nodes = (node(&bus, rooms), node(&bus, rooms));
    meet(&[&nodes.0, &nodes.1]).await;
    nodes
}

/// A node that is alive and never answers.
fn ghost(bus: &Bus) -> SocketId {
    let ghost = SocketId::random().unwrap();
    bus.publish("cluster", Envelope::encode(ghost, Body::Heartbeat).unwrap());
    ghost
}

fn main(server: &Server) -> Namespace {
    server.namespace("/").unwrap().clone()
}

/// Answers the question that was just asked, whatever its id.
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
    let bus = Bus::default();
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
    let bus = Bus::default();
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
    let bus = Flaky(Bus::default(), Arc::new(|channel| if channel == "/" { 1 } else { 2 }));
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
async fn lost_replies_leave_a_partial_result() {
    let lost = Arc::new(Mutex::new(false));
    let losing = lost.clone();
    let bus = Flaky(
        Bus::default(),
        Arc::new(move |channel| usize::from(!(*losing.lock() && channel.starts_with("node:")))),
    );
    let (first, second) = (node(&bus, rooms), node(&bus, rooms));
    meet(&[&first, &second]).await;
    *lost.lock() = true;
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
    let bus = Bus::default();
    let server = node(&bus, rooms);
    let (anna, anna_id) = join(&server).await;
    let stranger = SocketId::random().unwrap();
    let call = |call| Envelope::encode(stranger, Body::Call { request: 1, namespace: "/", call }).unwrap();
    let reply = |reply| Envelope::encode(stranger, Body::Reply { request: 0, reply }).unwrap();
    let fetch = call(Call::Fetch { rooms: vec!["r"; 1_000], except: vec![&anna_id] });
    let hostile = [
        Bytes::from_static(b""),
        Bytes::from_static(b"{\"uid\":\"KD2JDG\",\"type\":5}"),
        Bytes::from_static(&[0xdd, 0xff, 0xff, 0xff, 0xff]),
        Bytes::from_static(&[0x93, 2, 0xa1, b'x', 0xa5, b'H', b'e', b'l', b'l', b'o']),
        Bytes::from(vec![0x91; 100_000]),
        Bytes::from(vec![0; crate::socket::cluster::wire::MESSAGE_BYTES_MAX + 1]),
        fetch.slice(..fetch.len() - 1),
        fetch,
        reply(Reply::Sockets { part: 7, parts: 3, sockets: Vec::new() }),
        reply(Reply::ClientAnswer {
            socket: "no id",
            packet: rmp_serde::from_slice(b"\x92\xa13\x90").unwrap(),
        }),
        call(Call::ServerEvent { packet: rmp_serde::from_slice(b"\x92\xa12\x90").unwrap(), answer: true }),
    ];
    for channel in ["cluster".to_owned(), format!("node:{}", server.node()), "/".to_owned()] {
        hostile.iter().for_each(|message| bus.publish(&channel, message.clone()));
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
    // A peer in memory cannot inflate: it gets text only where nothing was compressed.
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
